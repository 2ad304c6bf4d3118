"""From the flags to checked, frozen settings: the only validator.

Every message names the field, what it holds, and what to do. Sections check themselves
(`settings.py`); what concerns several of them stands here, as does all that follows from others.
"""

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections

from evr1.config import algorithms, base, checks
from evr1.config.checks import require
from evr1.config.read import read, read_section
from evr1.config.settings import HostsSettings, LoraSettings, RolloutSettings, Settings
from evr1.config.settings_algorithm import (
    AlgorithmSettings,
    CriticSettings,
    DynamicSettings,
    MixSettings,
)
from evr1.config.settings_data import DataSettings
from evr1.config.settings_rewards import RewardSettings


def resolve(config: ml_collections.ConfigDict, *, has_paths: bool = True) -> Settings:
    """Checks every field, fills in what follows from others, and freezes the result.

    Args:
        config: from `configs/`, with the overrides of the command line.
        has_paths: False: workdir, model and data may be left out, and no file is looked for.

    Raises:
        ValueError: one line that names the field, its value and the fix.
    """
    settings = read(config.to_dict(), base.get_config().to_dict())
    checks.numbers("", settings)
    checks.local_paths("", settings)
    if has_paths:
        check_needed_paths(settings)
    settings.check()
    check_sections_together(settings)
    settings = derive(settings)
    if has_paths:
        settings.check_paths()
    return settings


def check_hosts(config: ml_collections.ConfigDict) -> HostsSettings:
    """Returns the section that says which process this is, checked before all others.

    Raises:
        ValueError: see `resolve`.
    """
    defaults: Any = base.get_config().hosts
    given: Any = config.hosts
    settings = read_section(HostsSettings, given.to_dict(), defaults.to_dict())
    settings.check()
    return settings


def changes(settings: Settings, defaults: ml_collections.ConfigDict) -> list[str]:
    """Returns a line for each field that was set otherwise than in `defaults`: 'rollout.n = 4'.

    They are sorted. What only follows from other fields is not among them.
    """
    now, before = _fields("", settings.to_dict()), _fields("", defaults.to_dict())
    return sorted(
        f"{name} = {value!r}"
        for name, value in now.items()
        if value != before[name] and not _follows(settings, name, value, before[name])
    )


def _follows(settings: Settings, name: str, value: Any, default: Any) -> bool:
    """Returns whether a field would have its value if it had been left alone."""
    left_alone = derive(_replaced(settings, name, default))
    return _fields("", left_alone.to_dict())[name] == value


def _replaced(section: Any, name: str, value: Any) -> Any:
    head, _, rest = name.partition(".")
    value = _replaced(vars(section)[head], rest, value) if rest else value
    return dataclasses.replace(section, **{head: value})


def _fields(prefix: str, tree: dict[str, Any]) -> dict[str, Any]:
    """The values of nested dicts by their full names, such as rollout.n."""
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        is_section = isinstance(value, dict)
        fields |= _fields(f"{prefix}{name}.", value) if is_section else {prefix + name: value}
    return fields


# What follows from other fields


def derive(settings: Settings) -> Settings:
    """Returns the settings with every field filled in that follows from others."""
    rewards, limit = settings.rewards, settings.rollout.max_completion_tokens
    eval_limit = settings.eval.max_completion_tokens or limit
    return dataclasses.replace(
        settings,
        workdir=settings.workdir or "",
        model=settings.model or "",
        data=derive_data(settings.data, settings.workdir),
        algorithm=derive_algorithm(settings.algorithm, settings.rollout.n, settings.lora.dropout),
        rewards=dataclasses.replace(
            rewards, overlong_cache_tokens=rewards.overlong_cache_tokens or max(1, limit // 5)
        ),
        eval=dataclasses.replace(
            settings.eval,
            max_completion_tokens=eval_limit,
            benchmark_max_tokens=settings.eval.benchmark_max_tokens or eval_limit,
        ),
    )


def derive_data(data: DataSettings, workdir: str | None) -> DataSettings:
    """Returns the section with generated files under the workdir, and '' for None."""
    if data.generate and workdir:
        root = Path(workdir) / "data"
        sources = tuple((str(root / path), weight) for path, weight in data.sources)
        data = dataclasses.replace(
            data,
            sources=sources,
            train="" if sources else data.train or str(root / "train.jsonl"),
            eval=str(root / "heldout.jsonl") if data.eval is None else data.eval,
            media_dir=data.media_dir or str(root),
            shards=data.shards or str(root / "shards"),
        )
    return dataclasses.replace(data, train=data.train or "", eval=data.eval or "")


def derive_algorithm(a: AlgorithmSettings, n: int, dropout: float) -> AlgorithmSettings:
    """Returns the section with the defaults of its policy and correction; 0: not looked at.

    Args:
        a: as given.
        n: completions of a group.
        dropout: of the adapters.
    """
    fields = {
        **algorithms.POLICIES[a.policy]._asdict(),
        "correction_low": algorithms.bounds(a.correction).low,
        "correction_high": algorithms.bounds(a.correction).high,
        "rejection_low": algorithms.rejection_bounds(a.rejection).low,
        "rejection_high": algorithms.rejection_bounds(a.rejection).high,
    }
    unset = {k: default or 0.0 for k, default in fields.items() if getattr(a, k) is None}
    rollouts = a.temporal_rollouts or max(1, n // 2)
    return dataclasses.replace(
        a,
        temporal_rollouts=rollouts,
        old_logprobs=derive_old_logprobs(a, dropout),
        **unset,
    )


def derive_old_logprobs(a: AlgorithmSettings, dropout: float) -> str:
    """Returns on_policy for auto where it is the same as recompute: one update, whose own
    log-probabilities come soon enough and without noise; else recompute."""
    if a.old_logprobs != "auto":
        return a.old_logprobs
    is_needed_before = a.has_batch_statistics or (a.kl_coef > 0 and a.kl_placement == "reward")
    is_same = a.total_updates_per_rollout == 1 and not is_needed_before and not dropout
    return "on_policy" if is_same else "recompute"


# What concerns several sections


def check_needed_paths(settings: Settings) -> None:
    """Raises ValueError where a path that a run cannot do without is not given."""
    data, fix = settings.data, "add --config.{}=PATH"
    is_generated = data.generate
    require(
        settings.workdir,
        "workdir",
        "is not given",
        "add --config.workdir=DIR" if is_generated else fix.format("workdir"),
    )
    require(settings.model, "model", "is not given", fix.format("model"))
    has_rows = data.train or data.sources or is_generated
    require(has_rows, "data.train", "is not given", fix.format("data.train"))


def check_sections_together(s: Settings) -> None:
    """Raises ValueError where sections do not go together."""
    check_groups(s.rollout, s.algorithm)
    check_passk(s.rollout, s.algorithm)
    check_companions(s.algorithm)
    check_dynamic(s.dynamic, s.rollout, s.algorithm)
    check_older_weights(s.rollout, s.algorithm)
    check_warm_up(s.critic, s.algorithm, s.num_steps)
    if s.mix.enabled or s.replay.enabled:
        check_offline(s.mix, s.algorithm, s.rollout.n)
    if s.lora.is_on:
        check_lora(s.lora, s.algorithm)
    if s.lora.adapter and s.lora.export_adapter and s.workdir:
        own = Path(s.workdir) / "adapter"
        require(
            Path(s.lora.adapter).resolve() != own.resolve(),
            "lora.adapter",
            f"is {s.lora.adapter}, which lora.export_adapter writes at the end",
            "choose another workdir",
        )
    check_overlong(s.rewards, s.rollout)


def check_groups(rollout: RolloutSettings, a: AlgorithmSettings) -> None:
    """A group has what its advantage needs, and minibatches have equally many groups."""
    require(
        rollout.n >= 2 or a.advantage in algorithms.WITHOUT_GROUPS,
        "rollout.n",
        f"is {rollout.n} with algorithm.advantage={a.advantage}",
        "a group needs at least 2 completions",
    )
    require(
        a.updates_per_rollout >= 1 and rollout.prompts % a.updates_per_rollout == 0,
        "algorithm.updates_per_rollout",
        f"is {a.updates_per_rollout}, which does not divide rollout.prompts={rollout.prompts}",
        "choose a divisor",
    )


def check_passk(rollout: RolloutSettings, a: AlgorithmSettings) -> None:
    """The best is taken of at least 2 completions, and of no more than a group has."""
    require(
        a.passk == 0 or 2 <= a.passk <= rollout.n,
        "algorithm.passk",
        f"is {a.passk} with rollout.n={rollout.n}",
        "need 0 (rollout.n), or 2 up to rollout.n",
    )


def check_companions(a: AlgorithmSettings) -> None:
    """A field that was set is looked at."""
    defaults = base.get_config().algorithm
    for names, is_used, fix in (
        (("covariance_share",), a.covariance, "covariance"),
        (("covariance_low", "covariance_high"), a.covariance == "clip", "covariance=clip"),
        (("covariance_coef",), a.covariance == "kl", "covariance=kl"),
        (
            ("entropy_target", "entropy_step"),
            a.entropy_controller == "adaptive",
            "entropy_controller=adaptive",
        ),
    ):
        for name in names:
            value = getattr(a, name)
            require(
                is_used or value == getattr(defaults, name),
                f"algorithm.{name}",
                f"is {value}, but nothing looks at it",
                f"choose algorithm.{fix}, or leave it out",
            )


def check_dynamic(dynamic: DynamicSettings, rollout: RolloutSettings, a: AlgorithmSettings) -> None:
    """Groups can have a spread where batches are to be full of such."""
    require(
        not dynamic.enabled or rollout.n >= 2 or a.advantage == "remax",
        "dynamic.enabled",
        f"is True with rollout.n={rollout.n} and algorithm.advantage={a.advantage}",
        "draw at least 2: a group of 1 has no spread, so that no batch would ever be full",
    )
    require(
        not (dynamic.enabled and rollout.overdraw),
        "rollout.overdraw",
        f"is {rollout.overdraw} with dynamic.enabled=True",
        "use one of them: dynamic sampling draws on until enough groups count",
    )


def check_older_weights(rollout: RolloutSettings, a: AlgorithmSettings) -> None:
    """What older weights drew is corrected for."""
    for name in ("overdraw", "staleness"):
        value = getattr(rollout, name)
        require(
            not value or a.correction or a.old_logprobs == "sampler",
            f"rollout.{name}",
            f"is {value} with algorithm.correction='' and algorithm.old_logprobs={a.old_logprobs}",
            "older weights draw then: choose a correction (token_tis), or old_logprobs=sampler",
        )
    require(
        not (rollout.overdraw and a.temporal_bonus),
        "rollout.overdraw",
        f"is {rollout.overdraw} with algorithm.temporal_bonus={a.temporal_bonus}",
        "use one of them: a group is compared with one that the same weights drew",
    )


def check_warm_up(critic: CriticSettings, a: AlgorithmSettings, num_steps: int) -> None:
    """A critic leaves the policy some steps to learn."""
    require(
        a.advantage != "gae" or critic.warmup_steps < max(num_steps, 1),
        "critic.warmup_steps",
        f"is {critic.warmup_steps} with num_steps={num_steps}",
        "lower it, or the policy never learns",
    )


def check_offline(mix: MixSettings, a: AlgorithmSettings, n: int) -> None:
    """Offline completions leave the policy enough, and have the log-probabilities they need."""
    require(
        mix.per_group < n,
        "mix.per_group",
        f"is {mix.per_group} with rollout.n={n}",
        "leave at least one completion of a group to the policy",
    )
    require(
        mix.treatment != "sft"
        or n - mix.per_group >= 2
        or a.advantage in algorithms.WITHOUT_GROUPS,
        "mix.per_group",
        f"is {mix.per_group} with rollout.n={n}, mix.treatment=sft and "
        f"algorithm.advantage={a.advantage}",
        "leave 2 completions of a group to the policy: imitated ones are no part of its statistics",
    )
    require(
        mix.treatment != "on_policy" or a.old_logprobs != "sampler",
        "algorithm.old_logprobs",
        "is sampler with mix.treatment=on_policy",
        "use recompute: no sampler has log-probabilities of offline trajectories",
    )
    require(
        not (a.kl_coef and a.kl_placement == "reward") or a.old_logprobs in ("recompute", "auto"),
        "algorithm.old_logprobs",
        f"is {a.old_logprobs} with algorithm.kl_placement=reward and offline completions",
        "use recompute: their penalty needs the policy's own log-probabilities of them",
    )


def check_lora(lora: LoraSettings, a: AlgorithmSettings) -> None:
    """Adapters go with what is trained and compared with."""
    field, value = ("lora.adapter", lora.adapter) if lora.is_continued else ("lora.rank", lora.rank)
    require(
        a.advantage != "gae",
        field,
        f"is {value} with algorithm.advantage=gae",
        "a critic has no adapters: leave it out, or choose another advantage",
    )
    require(
        a.reference_decay == 1,
        field,
        f"is {value} with algorithm.reference_decay={a.reference_decay}",
        "the mean of two adapters is not that of their products: use reference_refresh_steps",
    )


def check_overlong(rewards: RewardSettings, rollout: RolloutSettings) -> None:
    """The stretch before the limit in which length costs something lies within it."""
    limit = rollout.max_completion_tokens
    require(
        0 <= rewards.overlong_cache_tokens <= limit,
        "rewards.overlong_cache_tokens",
        f"is {rewards.overlong_cache_tokens} with rollout.max_completion_tokens={limit}",
        "need more than 0 and at most the limit",
    )
