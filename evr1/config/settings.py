"""What a resolved config is: frozen dataclasses, one a section, in the order of `base.py`.

`base.py` says what each field means, `resolve.py` makes them. `check` of a section looks at nothing
beside it and assigns nothing.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from evr1.config import checks
from evr1.config.checks import Section, require
from evr1.config.settings_algorithm import (
    AlgorithmSettings,
    CriticSettings,
    DynamicSettings,
    MixSettings,
    ReplaySettings,
)
from evr1.config.settings_data import DataSettings, ShapeSettings
from evr1.config.settings_rewards import RewardSettings

SCHEDULES = ("constant", "cosine", "linear")
REMAT = ("none", "dots", "attention", "full", "offload")  # as in evr1.models.nn.remat


@dataclasses.dataclass(frozen=True)
class RolloutSettings(Section):
    """`config.rollout`: what is drawn in a step, and how."""

    prompts: int
    n: int
    max_completion_tokens: int
    temperature: float
    top_p: float
    top_k: int
    slots: int
    tensor: int
    cache_dtype: str
    window_steps: int
    overdraw: float
    staleness: int

    @property
    def groups(self) -> int:
        """Groups that are drawn for at a time, without dynamic sampling."""
        return self.prompts + math.ceil(self.overdraw * self.prompts)

    def check(self) -> None:
        checks.from_0_to_1("rollout.overdraw", self.overdraw)
        ahead = self.staleness
        require(0 <= ahead <= 4, "rollout.staleness", f"is {ahead}", "need 0 (off) to 4")
        names = ("prompts", "n", "max_completion_tokens", "temperature")
        checks.positive("rollout", self, names)
        checks.at_least_0("rollout", self, ("slots", "tensor"))
        kind = self.cache_dtype
        require(kind in ("", "int8"), "rollout.cache_dtype", f"is {kind!r}", "need int8 or empty")
        window, top_p, top_k = self.window_steps, self.top_p, self.top_k
        require(8 <= window <= 32, "rollout.window_steps", f"is {window}", "need 8 to 32")
        require(0 < top_p <= 1, "rollout.top_p", f"is {top_p}", "need 0 < top_p <= 1")
        require(top_k >= 0, "rollout.top_k", f"is {top_k}", "need 0 (off) or more")
        require(
            top_p == 1 and top_k == 0,
            "rollout.top_p / rollout.top_k",
            f"are {top_p} / {top_k}",
            "train on the full distribution (1.0 and 0): the update's log-probabilities are of "
            "that",
        )


@dataclasses.dataclass(frozen=True)
class OptimSettings(Section):
    """`config.optim`: AdamW."""

    learning_rate: float
    schedule: str
    warmup_steps: int
    min_learning_rate: float
    b1: float
    b2: float
    eps: float
    weight_decay: float
    max_grad_norm: float
    moments_dtype: str
    offload: bool
    freeze: tuple[str, ...]

    def check(self) -> None:
        checks.items("optim.freeze", self.freeze, str, "need regular expressions")
        checks.choice("optim.schedule", self.schedule, SCHEDULES)
        checks.choice("optim.moments_dtype", self.moments_dtype, ("float32", "bfloat16"))
        checks.positive("optim", self, ("learning_rate", "max_grad_norm", "eps"))
        checks.at_least_0("optim", self, ("warmup_steps", "weight_decay"))
        for name, value in (("b1", self.b1), ("b2", self.b2)):
            require(0 <= value < 1, f"optim.{name}", f"is {value}", "need 0 <= value < 1")
        require(
            0 <= self.min_learning_rate <= self.learning_rate,
            "optim.min_learning_rate",
            f"is {self.min_learning_rate} with optim.learning_rate={self.learning_rate}",
            "need 0 up to that",
        )
        checks.patterns("optim.freeze", self.freeze)


@dataclasses.dataclass(frozen=True)
class LoraSettings(Section):
    """`config.lora`: low-rank adapters, where the rank is over 0."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float
    adapter: str
    merge_adapter: bool
    export_adapter: bool

    @property
    def is_continued(self) -> bool:
        """Whether the run trains an adapter further that is there already."""
        return bool(self.adapter) and not self.merge_adapter

    @property
    def is_on(self) -> bool:
        """Whether adapters are what is trained."""
        return self.rank > 0 or self.is_continued

    def check_paths(self) -> None:
        has_adapter = not self.adapter or (Path(self.adapter) / "adapter_config.json").is_file()
        require(
            has_adapter,
            "lora.adapter",
            f"is {self.adapter}: no adapter_config.json there",
            "give an adapter directory that peft or a run wrote",
        )

    def check(self) -> None:
        checks.items("lora.targets", self.targets, str, "need regular expressions")
        require(
            self.adapter or not self.merge_adapter,
            "lora.merge_adapter",
            "is True without lora.adapter",
            "give the adapter's directory",
        )
        checks.at_least_0("lora", self, ("rank",))
        checks.positive("lora", self, ("alpha",))
        require(0 <= self.dropout < 1, "lora.dropout", f"is {self.dropout}", "need 0 to below 1")
        if self.rank and not self.is_continued:
            require(self.targets, "lora.targets", "is empty", "give at least one pattern")
            checks.patterns("lora.targets", self.targets)


@dataclasses.dataclass(frozen=True)
class TrainSettings(Section):
    """`config.train`: how the update computes."""

    dtype: str
    microbatch_tokens: int
    remat: str
    max_skipped_updates: int

    def check(self) -> None:
        checks.choice("train.dtype", self.dtype, ("float32", "bfloat16"))
        checks.positive("train", self, ("microbatch_tokens",))
        checks.choice("train.remat", self.remat, REMAT)
        checks.at_least_0("train", self, ("max_skipped_updates",))


@dataclasses.dataclass(frozen=True)
class MeshSettings(Section):
    """`config.mesh`: devices per axis; -1, once: whatever is left."""

    data: int
    fsdp: int
    tensor: int
    context: int

    def check(self) -> None:
        axes = (self.data, self.fsdp, self.tensor, self.context)
        require(
            axes.count(-1) <= 1 and all(a == -1 or a >= 1 for a in axes),
            "mesh",
            f"is data={axes[0]} fsdp={axes[1]} tensor={axes[2]} context={axes[3]}",
            "need sizes of 1 or more, and -1 (the rest) at most once",
        )


@dataclasses.dataclass(frozen=True)
class EvalSettings(Section):
    """`config.eval`: greedy answers to the held-out rows, and to benchmarks."""

    every_steps: int
    prompts: int
    max_completion_tokens: int
    benchmarks: tuple[tuple[str, str], ...]
    benchmark_limit: int
    benchmark_preset: str
    benchmark_max_tokens: int

    def check(self) -> None:
        names = ("every_steps", "prompts", "max_completion_tokens", "benchmark_max_tokens")
        checks.at_least_0("eval", self, names)
        checks.positive("eval", self, ("benchmark_limit",))
        checks.pairs_of_texts("eval.benchmarks", self.benchmarks, '("task or .py file", "folder")')


@dataclasses.dataclass(frozen=True)
class CheckpointSettings(Section):
    """`config.checkpoint`: what is saved, and written at the end."""

    every_steps: int
    keep: int
    keep_best: bool
    export: bool
    export_dtype: str

    def check(self) -> None:
        checks.at_least_0("checkpoint", self, ("every_steps",))
        checks.choice("checkpoint.export_dtype", self.export_dtype, ("float32", "bfloat16"))
        require(self.keep >= 1, "checkpoint.keep", f"is {self.keep}", "need 1 or more")


@dataclasses.dataclass(frozen=True)
class HostsSettings(Section):
    """`config.hosts`: several processes as one run, where no launcher tells of them."""

    coordinator: str
    count: int
    index: int

    def check(self) -> None:
        checks.positive("hosts", self, ("count",))
        require(
            0 <= self.index < self.count,
            "hosts.index",
            f"is {self.index}",
            f"need 0 to {self.count - 1}: hosts.count is {self.count}",
        )
        address, _, port = self.coordinator.rpartition(":")
        require(
            not self.coordinator or (bool(address) and port.isdigit()),
            "hosts.coordinator",
            f"is {self.coordinator!r}",
            "need ADDRESS:PORT of process 0",
        )
        require(
            self.count == 1 or bool(self.coordinator),
            "hosts.count",
            f"is {self.count}",
            "need hosts.coordinator, too: ADDRESS:PORT of process 0",
        )


@dataclasses.dataclass(frozen=True)
class LogSettings(Section):
    """`config.log`: what is written while a run goes."""

    tensorboard: bool
    wandb: str
    trackio: str
    rollouts_per_step: int
    profile_steps: int
    report: bool

    def check(self) -> None:
        checks.at_least_0("log", self, ("rollouts_per_step", "profile_steps"))


@dataclasses.dataclass(frozen=True)
class Settings(Section):
    """The whole of a resolved config."""

    workdir: str
    seed: int
    num_steps: int
    model: str
    canaries: bool
    compile_cache: str
    data: DataSettings
    shapes: ShapeSettings
    rollout: RolloutSettings
    algorithm: AlgorithmSettings
    critic: CriticSettings
    dynamic: DynamicSettings
    mix: MixSettings
    replay: ReplaySettings
    optim: OptimSettings
    lora: LoraSettings
    train: TrainSettings
    mesh: MeshSettings
    rewards: RewardSettings
    eval: EvalSettings
    checkpoint: CheckpointSettings
    hosts: HostsSettings
    log: LogSettings

    def check(self) -> None:
        """Checks the fields outside sections, then each section by itself."""
        require(0 <= self.seed < 2**32, "seed", f"is {self.seed}", "need 0 to 2**32 - 1")
        require(self.num_steps >= 0, "num_steps", f"is {self.num_steps}", "need 0 or more")
        for section in self._sections():
            section.check()

    def check_paths(self) -> None:
        """Checks workdir and model, then what each section names."""
        checks.is_directory_or_free("workdir", self.workdir)
        require(
            Path(self.model).is_dir(),
            "model",
            f"is {self.model}, which is not a directory",
            "give a HF directory (config.json, *.safetensors, tokenizer) or an Orbax one",
        )
        for section in self._sections():
            section.check_paths()

    def to_dict(self) -> dict[str, Any]:
        """All fields as nested dicts, sorted by name: what config.json holds."""
        return _sorted(dataclasses.asdict(self))

    def _sections(self) -> list[Section]:
        return [value for value in vars(self).values() if isinstance(value, Section)]


def _sorted(tree: dict[str, Any]) -> dict[str, Any]:
    """The dict with its keys, and those of the dicts in it, in alphabetical order."""
    return {k: _sorted(v) if isinstance(v, dict) else v for k, v in sorted(tree.items())}
