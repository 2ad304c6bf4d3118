"""Every field of a config of benchmarks, with its default, unit and meaning; and the settings.

`evr1 evaluate --config=eval_video` reads it. Units stand in the names.
"""

import dataclasses
from pathlib import Path

import ml_collections
from ml_collections import config_dict

from evr1.config import checks, urls
from evr1.config.checks import Section, require
from evr1.config.read import read_section
from evr1.config.settings import MeshSettings, Settings


def get_config() -> ml_collections.ConfigDict:
    """Returns the complete default config."""
    c = ml_collections.ConfigDict()

    c.workdir = config_dict.placeholder(str)  # the folder of the run: answers, scores, report
    c.model = config_dict.placeholder(str)  # HF directory, or one of evr1 convert
    c.tasks = ()  # names of `python -m evr1.evals list`, or paths of .py files; "all": the list
    c.data_dir = "benchmarks"  # each benchmark lies in the folder of its name here, ...
    c.folders = ()  # ... unless it is named: (("lvbench", "/data/LVBench"),)
    c.prompt = ""  # prompt profile; empty: the first of each task
    c.preset = ""  # frame preset; empty: the one that each task recommends
    c.samples = 1  # responses to a question (avg@k); over 1 only with a temperature
    c.temperature = 0.0  # 0: greedy
    c.top_p = 1.0
    c.top_k = 0  # 0: off
    c.max_tokens = 0  # of a response; 0: the preset's
    c.max_prompt_tokens = 262144  # a longer prompt is a failed sample
    c.seed = 0
    c.limit = 0  # questions of a task, spread over its tags; 0: all
    c.allow_missing = False  # answer what is there; the scores are partial

    # True and False set the chat template's variable enable_thinking where it has one.
    c.thinking = config_dict.placeholder(bool)
    c.template_variables = ""  # further ones of the chat template, a JSON object
    c.dtype = "bfloat16"  # of the computation
    c.slots = 8  # packs (a video with its questions) that decode at the same time
    c.rows = 8  # questions on a video that are answered at the same time
    c.window_steps = 16  # decode steps per dispatch, 8 to 32
    c.shards = ""  # directory of pre-decoded media (evr1 preprocess)
    c.workers = 4  # decoding processes
    c.decode_timeout_s = 120.0  # a decoding child process is killed after this
    # Media decoded before their turn, with all that is asked about them; each is up to six bytes
    # for every pixel of the preset's total: 0.8 GB with a preset for long videos.
    c.ahead = 8
    c.compile_cache = ""  # see evr1/config/base.py

    c.mesh = ml_collections.ConfigDict()  # see evr1/config/base.py
    c.mesh.data = 1
    c.mesh.fsdp = -1
    c.mesh.tensor = 1
    c.mesh.context = 1
    return c


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings(Section):
    """The fields of `get_config`."""

    home = "evr1/config/evals.py"
    workdir: str | None
    model: str | None
    tasks: tuple[str, ...]
    data_dir: str
    folders: tuple[tuple[str, str], ...]
    prompt: str
    preset: str
    samples: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    max_prompt_tokens: int
    seed: int
    limit: int
    allow_missing: bool
    thinking: bool | None
    template_variables: str
    dtype: str
    slots: int
    rows: int
    window_steps: int
    shards: str
    workers: int
    decode_timeout_s: float
    ahead: int
    compile_cache: str
    mesh: MeshSettings

    def check(self) -> None:
        checks.items("tasks", self.tasks, str, "need names of tasks")
        names = ("samples", "slots", "rows", "workers", "ahead")
        checks.positive("", self, (*names, "max_prompt_tokens"))
        checks.at_least_0("", self, ("temperature", "top_k", "max_tokens", "limit"))
        checks.timeout("decode_timeout_s", self.decode_timeout_s)
        window = self.window_steps
        require(8 <= window <= 32, "window_steps", f"is {window}", "need 8 to 32")
        require(0 < self.top_p <= 1, "top_p", f"is {self.top_p}", "need 0 < top_p <= 1")
        checks.choice("dtype", self.dtype, ("float32", "bfloat16"))
        require(
            self.samples == 1 or self.temperature > 0,
            "samples",
            f"is {self.samples} at temperature 0",
            "greedy responses are all the same; set temperature, or samples=1",
        )
        self.mesh.check()
        checks.pairs_of_texts("folders", self.folders, '("task", "folder")')

    def folder(self, task: str) -> Path:
        """Returns where the files of a task lie."""
        return Path(dict(self.folders).get(task, Path(self.data_dir, task)))


def resolve(config: ml_collections.ConfigDict) -> BenchmarkSettings:
    """Checks every field and freezes the result.

    Raises:
        ValueError: one line that names the field, its value and the fix.
    """
    settings = read_section(BenchmarkSettings, config.to_dict(), get_config().to_dict())
    checks.numbers("", settings)
    checks.local_paths("", settings)
    for name, value in (("workdir", settings.workdir), ("model", settings.model)):
        require(bool(value), name, "is not given", f"add --config.{name}=DIR")
    shards = settings.shards
    is_there = not shards or urls.is_bucket(shards) or Path(shards).is_dir()
    require(is_there, "shards", f"is {shards}: no such directory", "check it, or leave it empty")
    require(bool(settings.tasks), "tasks", "is empty", "add --config.tasks='(\"lvbench\",)'")
    settings.check()
    return settings


def in_training(settings: Settings) -> BenchmarkSettings:
    """Returns how a training answers its benchmarks: a few questions of each, greedily."""
    of = settings
    fields = {
        "workdir": of.workdir,
        "model": of.model,
        "tasks": tuple(name for name, _ in of.eval.benchmarks),
        "folders": of.eval.benchmarks,
        "preset": of.eval.benchmark_preset,
        "max_tokens": of.eval.benchmark_max_tokens,
        "seed": of.seed,
        "limit": of.eval.benchmark_limit,
        "thinking": of.data.thinking,
        "template_variables": of.data.template_variables,
        "dtype": of.train.dtype,
        "slots": of.rollout.slots,
        "rows": of.rollout.n,
        "window_steps": of.rollout.window_steps,
        "workers": of.data.workers,
        "decode_timeout_s": of.data.decode_timeout_s,
        "mesh": dataclasses.asdict(of.mesh),
    }
    defaults = get_config().to_dict()
    return read_section(BenchmarkSettings, defaults | fields, defaults)
