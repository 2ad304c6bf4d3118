"""From the flags to a checked, frozen config: the only validator.

Every message names the field, what it holds, and what to do.
"""

import math
import re
from pathlib import Path
from typing import Any, cast

import ml_collections

from evr1 import algorithms

Config = Any  # a ConfigDict, frozen once resolved: its fields have no static types
SOURCES = ("prefer_preprocessed", "preprocessed_only", "realtime_only")
SCHEDULES = ("constant", "cosine", "linear")
BOX_SCALES = ("pixels", "unit", "thousand")
CURRICULA = ("easy_first", "hard_first")
_SOURCES_FIX = (
    'give (("a.jsonl", 0.7), ("b.jsonl", 0.3)): files, and weights over 0 that add up to 1'
)
LONGEST_TIMEOUT_S = 86400.0  # poll and setitimer take no more than some weeks


def resolve(config: Config) -> Config:
    """Checks every field, fills in what follows from others, and freezes the result.

    Raises:
        ValueError: one line that names the field, its value and the fix.
    """
    c = cast(Config, ml_collections.ConfigDict(config.to_dict()))
    _check_numbers("", c)
    if c.data.generate:
        _fill_generated_paths(c)
    _check_paths(c)
    _check_data(c.data)
    _check_shapes(c.shapes)
    _check_rollout(c.rollout)
    _check_algorithm(c.algorithm, c.rollout)
    _check_loss(c.algorithm)
    _check_schedule(c)
    _check_critic(c.critic)
    _require(
        c.algorithm.advantage != "gae" or c.critic.warmup_steps < max(c.num_steps, 1),
        "critic.warmup_steps",
        f"is {c.critic.warmup_steps} with num_steps={c.num_steps}",
        "lower it, or the policy never learns",
    )
    _check_offline(c.mix, c.replay, c.algorithm, c.rollout.n)
    fill_algorithm(c.algorithm)
    _check_optim(c.optim)
    _check_lora(c)
    _check_train(c)
    _check_rewards(c.rewards)
    _check_terms(c.rewards, c.rollout.max_completion_tokens)
    c.eval.max_completion_tokens = c.eval.max_completion_tokens or c.rollout.max_completion_tokens
    return ml_collections.FrozenConfigDict(c)


def changes(config: Config, defaults: Config) -> list[str]:
    """A line for each field that is not as in `defaults`, sorted: 'rollout.n = 4'."""
    now, before = _fields("", config), _fields("", defaults)
    return sorted(f"{k} = {v!r}" for k, v in now.items() if k not in before or v != before[k])


def _fields(prefix: str, tree: Config) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in tree.items():
        is_group = isinstance(value, ml_collections.ConfigDict)
        fields |= _fields(f"{prefix}{name}.", value) if is_group else {prefix + name: value}
    return fields


def fill_algorithm(a: Config) -> None:
    """Gives the fields of `algorithm` that are None what its policy and correction have by default;
    0 to those that are not looked at.
    """
    policy = algorithms.POLICIES[a.policy]
    for name, default in policy._asdict().items():
        if a[name] is None:
            a[name] = 0.0 if default is None else default
    bounds = algorithms.CORRECTIONS[a.correction] if a.correction else (None, None)
    for name, default in zip(("correction_low", "correction_high"), bounds, strict=True):
        if a[name] is None:
            a[name] = 0.0 if default is None else default


_TEXTS = {
    "targets": "regular expressions",
    "freeze": "regular expressions",
    "types": "problem types",
}  # of tuples


def _check_numbers(group: str, values: Config) -> None:
    """Floats are finite, whole numbers fit the device's, tuples hold what they are tuples of."""
    for name, value in values.items():
        if isinstance(value, ml_collections.ConfigDict):
            _check_numbers(f"{group}{name}.", value)
        elif isinstance(value, float):
            _require(math.isfinite(value), group + name, f"is {value}", "need a finite number")
        elif isinstance(value, int) and name != "seed":
            _require(abs(value) < 2**31, group + name, f"is {value}", "need less than 2**31")
        elif isinstance(value, tuple | list):
            if name in ("terms", "sources"):
                continue  # see _check_terms, _check_sources
            is_text = name in _TEXTS
            need = f"need {_TEXTS[name]}" if is_text else "need whole numbers over 0"
            for item in value:
                ok = isinstance(item, str) if is_text else isinstance(item, int) and item > 0
                _require(ok, group + name, f"holds {item!r}", need)


def _fill_generated_paths(c: Config) -> None:
    _require(c.workdir, "workdir", "is not given", "add --config.workdir=DIR")
    data = Path(c.workdir) / "data"
    if c.data.sources:
        _check_pairs(c.data.sources)
        c.data.sources = tuple((str(data / path), weight) for path, weight in c.data.sources)
    else:
        c.data.train = c.data.train or str(data / "train.jsonl")
    c.data.eval = str(data / "heldout.jsonl") if c.data.eval is None else c.data.eval
    c.data.media_dir = c.data.media_dir or str(data)
    c.data.shards = c.data.shards or str(data / "shards")


def _check_paths(c: Config) -> None:
    needed = [("workdir", c.workdir), ("model", c.model)]
    needed += [] if c.data.sources else [("data.train", c.data.train)]
    for field, value in needed:
        _require(value, field, "is not given", f"add --config.{field}=PATH")
    c.data.train = c.data.train or ""
    _check_sources(c.data)
    c.data.eval = c.data.eval or ""
    for field, path in (("workdir", c.workdir), ("data.shards", c.data.shards)):
        _require(
            not path or Path(path).is_dir() or not Path(path).exists(),
            field,
            f"is {path}, which is not a directory",
            "choose another name",
        )
    _require(
        Path(c.model).is_dir(),
        "model",
        f"is {c.model}, which is not a directory",
        "give a HF directory (config.json, *.safetensors, tokenizer) or an Orbax one",
    )
    _require(
        not c.data.template or Path(c.data.template).is_file(),
        "data.template",
        f"is {c.data.template}: no such file",
        "give a Jinja2 file, or nothing for the built-in template",
    )
    if c.data.generate:
        return  # the rows are written first
    for field in ("train", "eval"):
        path = c.data[field]
        if path:
            _require(Path(path).is_file(), f"data.{field}", f"is {path}: no such file", "check it")


def _check_pairs(sources: Any) -> None:
    for source in sources:
        is_pair = isinstance(source, tuple | list) and len(source) == 2
        ok = is_pair and isinstance(source[0], str) and isinstance(source[1], int | float)
        _require(ok and math.isfinite(source[1]), "data.sources", f"holds {source!r}", _SOURCES_FIX)


def _check_sources(d: Config) -> None:
    fix = _SOURCES_FIX
    _require(
        not (d.sources and d.train),
        "data.sources",
        f"is given beside data.train={d.train}",
        "give one of them",
    )
    _check_pairs(d.sources)
    total = 0.0
    for source in d.sources:
        _require(source[1] > 0, "data.sources", f"gives {source[0]} the weight {source[1]}", fix)
        is_there = d.generate or Path(source[0]).is_file()  # generated files are written first
        _require(is_there, "data.sources", f"{source[0]}: no such file", fix)
        total += source[1]
    _require(
        not d.sources or abs(total - 1) < 1e-6, "data.sources", f"has weights of {total:g}", fix
    )
    paths = [Path(source[0]).resolve() for source in d.sources]
    _require(len(set(paths)) == len(paths), "data.sources", "holds a file twice", fix)


def _check_data(d: Config) -> None:
    _choice("data.source", d.source, SOURCES)
    if d.curriculum:
        _choice("data.curriculum", d.curriculum, CURRICULA)
    for kind in ("image", "video"):
        low, high = d[f"{kind}_min_pixels"], d[f"{kind}_max_pixels"]
        _require(
            0 < low <= high,
            f"data.{kind}_min_pixels",
            f"is {low} with data.{kind}_max_pixels={high}",
            "need 0 < min <= max",
        )
    _positive("data", d, ("video_fps", "max_prompt_tokens", "workers"))
    _timeout("data.decode_timeout_s", d.decode_timeout_s)
    _at_least_0("data", d, ("video_total_pixels", "prefetch_batches"))
    _require(
        d.video_max_frames >= 2,
        "data.video_max_frames",
        f"is {d.video_max_frames}",
        "need 2 or more",
    )
    _share("data.max_failed_share", d.max_failed_share)
    _require(
        d.source == "realtime_only" or not d.preprocess or bool(d.shards),
        "data.shards",
        "is empty while data.preprocess is on",
        "give a directory for the shards",
    )
    _require(
        d.source != "preprocessed_only" or bool(d.shards),
        "data.shards",
        "is empty while data.source is preprocessed_only",
        "give the directory that tools/preprocess_videos.py wrote",
    )


def _check_shapes(s: Config) -> None:
    for name in ("prompt_tokens", "vision_rows"):
        buckets = tuple(s[name])
        _require(
            list(buckets) == sorted(set(buckets)),
            f"shapes.{name}",
            f"is {buckets}",
            "need ascending sizes, or () to derive them",
        )
    _at_least_0("shapes", s, ("row_patches",))


def _check_rollout(r: Config) -> None:
    _positive("rollout", r, ("prompts", "n", "max_completion_tokens", "slots", "temperature"))
    _require(
        8 <= r.window_steps <= 32, "rollout.window_steps", f"is {r.window_steps}", "need 8 to 32"
    )
    _require(0 < r.top_p <= 1, "rollout.top_p", f"is {r.top_p}", "need 0 < top_p <= 1")
    _require(r.top_k >= 0, "rollout.top_k", f"is {r.top_k}", "need 0 (off) or more")
    _require(
        r.top_p == 1 and r.top_k == 0,
        "rollout.top_p / rollout.top_k",
        f"are {r.top_p} / {r.top_k}",
        "train on the full distribution (1.0 and 0): the update's log-probabilities are of that",
    )


def _check_algorithm(a: Config, r: Config) -> None:
    _choice("algorithm.advantage", a.advantage, algorithms.ADVANTAGES)
    _choice("algorithm.kl_estimator", a.kl_estimator, algorithms.KL_ESTIMATORS)
    _choice("algorithm.kl_placement", a.kl_placement, algorithms.KL_PLACEMENTS)
    _choice("algorithm.kl_controller", a.kl_controller, algorithms.KL_CONTROLLERS)
    _choice("algorithm.old_logprobs", a.old_logprobs, ("recompute", "sampler", "on_policy"))
    _require(
        r.n >= 2 or a.advantage in algorithms.WITHOUT_GROUPS,
        "rollout.n",
        f"is {r.n} with algorithm.advantage={a.advantage}",
        "a group needs at least 2 completions",
    )
    _at_least_0("algorithm", a, ("kl_coef",))
    _require(
        a.kl_coef > 0 or a.kl_controller == "fixed",
        "algorithm.kl_coef",
        f"is {a.kl_coef} with algorithm.kl_controller={a.kl_controller}",
        "give what it starts from",
    )
    _require(
        not (
            a.kl_coef and a.kl_placement == "reward" and a.advantage in algorithms.WITHOUT_PENALTY
        ),
        "algorithm.kl_placement",
        f"is reward with algorithm.advantage={a.advantage}, which no penalty can be taken off from",
        "use loss",
    )
    _positive("algorithm", a, ("kl_target", "kl_horizon"))
    _share("algorithm.ema_decay", a.ema_decay)
    _at_least_0("algorithm", a, ("temporal_bonus", "temporal_rollouts"))
    _positive("algorithm", a, ("temporal_margin",))
    a.temporal_rollouts = a.temporal_rollouts or max(1, r.n // 2)


def _check_schedule(c: Config) -> None:
    """Updates of a rollout batch, the reference model, dynamic sampling."""
    a, r = c.algorithm, c.rollout
    _positive("algorithm", a, ("epochs_per_rollout",))
    updates = a.updates_per_rollout * a.epochs_per_rollout
    _require(
        a.old_logprobs != "on_policy" or updates == 1,
        "algorithm.old_logprobs",
        f"is on_policy with {updates} updates of a rollout batch (algorithm.updates_per_rollout * "
        "algorithm.epochs_per_rollout)",
        "use recompute: after the first update the policy is no longer the one that sampled",
    )
    _require(
        a.updates_per_rollout >= 1 and r.prompts % a.updates_per_rollout == 0,
        "algorithm.updates_per_rollout",
        f"is {a.updates_per_rollout}, which does not divide rollout.prompts={r.prompts}",
        "choose a divisor",
    )
    _require(
        0 <= a.reference_decay <= 1,
        "algorithm.reference_decay",
        f"is {a.reference_decay}",
        "need 0 to 1 (the reference stays as it is)",
    )
    _at_least_0("algorithm", a, ("reference_refresh_steps",))
    moves = a.reference_decay < 1 or a.reference_refresh_steps > 0
    _require(
        a.kl_coef > 0 or not moves,
        "algorithm.kl_coef",
        f"is {a.kl_coef} with a reference that moves (algorithm.reference_decay, "
        "algorithm.reference_refresh_steps)",
        "give a KL term, or leave the reference alone",
    )
    _require(
        a.reference_decay == 1 or a.reference_refresh_steps == 0,
        "algorithm.reference_refresh_steps",
        f"is {a.reference_refresh_steps} with algorithm.reference_decay={a.reference_decay}",
        "use one of them",
    )
    _at_least_0("dynamic", c.dynamic, ("min_spread", "draw_prompts"))
    _positive("dynamic", c.dynamic, ("max_rounds",))
    _require(
        not c.dynamic.enabled or r.n >= 2 or a.advantage == "remax",
        "dynamic.enabled",
        f"is True with rollout.n={r.n} and algorithm.advantage={a.advantage}",
        "draw at least 2: a group of 1 has no spread, so that no batch would ever be full",
    )
    _require(
        c.dynamic.enabled or not (c.dynamic.draw_prompts or c.dynamic.min_spread),
        "dynamic.enabled",
        "is False while dynamic.draw_prompts or dynamic.min_spread is set",
        "set it to True, or leave them out",
    )


def _check_critic(critic: Config) -> None:
    _choice("critic.trunk", critic.trunk, ("own", "shared"))
    _require(
        not critic.model or (critic.trunk == "own" and Path(critic.model).is_dir()),
        "critic.model",
        f"is {critic.model} with critic.trunk={critic.trunk}",
        "give a HF or Orbax directory for an own trunk, or leave it out",
    )
    _positive("critic", critic, ("learning_rate",))
    _at_least_0("critic", critic, ("warmup_steps", "clip"))
    for name in ("discount", "decay"):
        _require(0 <= critic[name] <= 1, f"critic.{name}", f"is {critic[name]}", "need 0 to 1")


def _check_loss(a: Config) -> None:
    _choice("algorithm.policy", a.policy, tuple(algorithms.POLICIES))
    policy = algorithms.POLICIES[a.policy]
    for name in ("clip_low", "clip_high", "clip_dual"):
        _require(
            a[name] is None or getattr(policy, name) is not None,
            f"algorithm.{name}",
            f"is {a[name]}, but algorithm.policy={a.policy} does not look at it",
            "leave it out",
        )
    low, high, dual = a.clip_low or 0, a.clip_high or 0, a.clip_dual or 0
    _require(0 <= low < 1, "algorithm.clip_low", f"is {low}", "need 0 (off) or more, below 1")
    _require(high >= 0, "algorithm.clip_high", f"is {high}", "need 0 (off) or more")
    _require(dual == 0 or dual > 1, "algorithm.clip_dual", f"is {dual}", "need 0 (off) or over 1")
    if a.aggregation is not None:
        _choice("algorithm.aggregation", a.aggregation, algorithms.AGGREGATIONS)
    _positive("algorithm", a, ("sapo_temperature_positive", "sapo_temperature_negative"))
    _at_least_0("algorithm", a, ("entropy_coef", "balance_coef"))
    if a.correction:
        _choice("algorithm.correction", a.correction, tuple(algorithms.CORRECTIONS))
    _require(
        not a.correction or a.old_logprobs != "sampler",
        "algorithm.correction",
        f"is {a.correction} with algorithm.old_logprobs=sampler",
        "use one of them: the ratio to the sampler holds the correction already",
    )
    bounds = algorithms.CORRECTIONS[a.correction] if a.correction else (None, None)
    given = (a.correction_low, a.correction_high)
    for name, value, default in zip(("low", "high"), given, bounds, strict=True):
        _require(
            value is None or default is not None,
            f"algorithm.correction_{name}",
            f"is {value}, but algorithm.correction={a.correction!r} does not look at it",
            "leave it out",
        )
    low, high = (d if v is None else v for v, d in zip(given, bounds, strict=True))
    _require(low is None or low > 0, "algorithm.correction_low", f"is {low}", "need more than 0")
    _require(
        high is None or high > (low or 0),
        "algorithm.correction_high",
        f"is {high}",
        "need more than algorithm.correction_low" if low else "need more than 0",
    )


def _check_offline(mix: Config, replay: Config, a: Config, n: int) -> None:
    _choice("mix.treatment", mix.treatment, algorithms.OFFLINE_LOSSES)
    _choice("mix.overlong", mix.overlong, ("refuse", "truncate"))
    _positive("mix", mix, ("per_group", "luffy_gamma", "importance_clip", "sft_coef"))
    _positive("replay", replay, ("size", "per_prompt"))
    for field, value in (
        ("mix.accuracy_threshold", mix.accuracy_threshold),
        ("replay.min_accuracy", replay.min_accuracy),
    ):
        _require(value is None or 0 <= value <= 1, field, f"is {value}", "need 0 to 1")
    if not (mix.enabled or replay.enabled):
        return
    _require(
        mix.per_group < n,
        "mix.per_group",
        f"is {mix.per_group} with rollout.n={n}",
        "leave at least one completion of a group to the policy",
    )
    _require(
        mix.treatment != "sft"
        or n - mix.per_group >= 2
        or a.advantage in algorithms.WITHOUT_GROUPS,
        "mix.per_group",
        f"is {mix.per_group} with rollout.n={n}, mix.treatment=sft and "
        f"algorithm.advantage={a.advantage}",
        "leave 2 completions of a group to the policy: imitated ones are no part of its statistics",
    )
    _require(
        mix.treatment != "on_policy" or a.old_logprobs != "sampler",
        "algorithm.old_logprobs",
        "is sampler with mix.treatment=on_policy",
        "use recompute: no sampler has log-probabilities of offline trajectories",
    )
    _require(
        not (a.kl_coef and a.kl_placement == "reward") or a.old_logprobs == "recompute",
        "algorithm.old_logprobs",
        f"is {a.old_logprobs} with algorithm.kl_placement=reward and offline completions",
        "use recompute: their penalty needs the policy's own log-probabilities of them",
    )


def _check_optim(o: Config) -> None:
    _choice("optim.schedule", o.schedule, SCHEDULES)
    _positive("optim", o, ("learning_rate", "max_grad_norm", "eps"))
    _at_least_0("optim", o, ("warmup_steps", "weight_decay"))
    for name in ("b1", "b2"):
        _require(0 <= o[name] < 1, f"optim.{name}", f"is {o[name]}", "need 0 <= value < 1")
    _require(
        0 <= o.min_learning_rate <= o.learning_rate,
        "optim.min_learning_rate",
        f"is {o.min_learning_rate} with optim.learning_rate={o.learning_rate}",
        "need 0 up to that",
    )
    for pattern in o.freeze:
        try:
            re.compile(pattern)
        except re.error as e:
            raise ValueError(f"optim.freeze holds {pattern!r}: {e}; fix the pattern") from None


def _check_lora(c: Config) -> None:
    _at_least_0("lora", c.lora, ("rank",))
    _positive("lora", c.lora, ("alpha",))
    _require(0 <= c.lora.dropout < 1, "lora.dropout", f"is {c.lora.dropout}", "need 0 to below 1")
    if not c.lora.rank:
        return
    _require(c.lora.targets, "lora.targets", "is empty", "give at least one pattern")
    for pattern in c.lora.targets:
        try:
            re.compile(pattern)
        except re.error as e:
            raise ValueError(f"lora.targets holds {pattern!r}: {e}; fix the pattern") from None
    _require(
        c.algorithm.advantage != "gae",
        "lora.rank",
        f"is {c.lora.rank} with algorithm.advantage=gae",
        "a critic has no adapters: set it to 0 or choose another advantage",
    )
    _require(
        c.algorithm.reference_decay == 1,
        "lora.rank",
        f"is {c.lora.rank} with algorithm.reference_decay={c.algorithm.reference_decay}",
        "the mean of two adapters is not that of their products: use reference_refresh_steps",
    )


def _check_train(c: Config) -> None:
    _choice("train.dtype", c.train.dtype, ("float32", "bfloat16"))
    _require(0 <= c.seed < 2**32, "seed", f"is {c.seed}", "need 0 to 2**32 - 1")
    _require(c.num_steps >= 0, "num_steps", f"is {c.num_steps}", "need 0 or more")
    _positive("train", c.train, ("microbatch_tokens",))
    axes = (c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
    _require(
        axes.count(-1) <= 1 and all(a == -1 or a >= 1 for a in axes),
        "mesh",
        f"is data={axes[0]} fsdp={axes[1]} tensor={axes[2]}",
        "need sizes of 1 or more, and -1 (the rest) at most once",
    )
    _at_least_0("eval", c.eval, ("every_steps", "prompts", "max_completion_tokens"))
    _at_least_0("checkpoint", c.checkpoint, ("every_steps",))
    _at_least_0("log", c.log, ("rollouts_per_step",))
    _choice("checkpoint.export_dtype", c.checkpoint.export_dtype, ("float32", "bfloat16"))
    _require(c.checkpoint.keep >= 1, "checkpoint.keep", f"is {c.checkpoint.keep}", "need 1 or more")


def _check_rewards(r: Config) -> None:
    _choice("rewards.box_scale", r.box_scale, BOX_SCALES)
    total = r.accuracy_weight + r.format_weight
    _require(
        min(r.accuracy_weight, r.format_weight) >= 0 and abs(total - 1) < 1e-6,
        "rewards.accuracy_weight + rewards.format_weight",
        f"is {total:g}",
        "two weights of 0 or more that add up to 1",
    )
    _positive("rewards", r, ("workers", "repetition_words"))
    _timeout("rewards.timeout_s", r.timeout_s)
    _share("rewards.max_failed_share", r.max_failed_share)
    if r.judge.backend:
        _check_judge(r.judge)


def _check_judge(j: Config) -> None:
    _choice("rewards.judge.backend", j.backend, ("http", "sampler"))
    is_http = j.backend == "http"
    _require(
        j.model if is_http else Path(j.model or "\0").is_dir(),
        "rewards.judge.model",
        f"is {j.model!r} with rewards.judge.backend={j.backend}",
        "give the model's name at the endpoint" if is_http else "give a HF or Orbax directory",
    )
    _require(
        not is_http or j.url.startswith(("http://", "https://")),
        "rewards.judge.url",
        f"is {j.url!r}",
        "give a base URL such as http://localhost:8000/v1",
    )
    _require(j.types, "rewards.judge.types", "is empty", "name the problem types to judge")
    names = ("max_tokens", "timeout_s", "deadline_s", "concurrency", "max_prompt_tokens", "slots")
    _positive("rewards.judge", j, names)
    _require(j.retries >= 0, "rewards.judge.retries", f"is {j.retries}", "need 0 or more")


def _check_terms(r: Config, limit: int) -> None:
    for term in r.terms:
        _require(
            isinstance(term, tuple | list)
            and len(term) == 2
            and isinstance(term[0], str)
            and isinstance(term[1], int | float)
            and math.isfinite(term[1]),
            "rewards.terms",
            f"holds {term!r}",
            'give pairs of name and weight, e.g. (("overlong_penalty", 0.5),)',
        )
    names = [name for name, _ in r.terms]
    _require(len(set(names)) == len(names), "rewards.terms", f"is {r.terms}", "give each term once")
    r.overlong_cache_tokens = r.overlong_cache_tokens or max(1, limit // 5)
    _require(
        0 < r.overlong_cache_tokens <= limit,
        "rewards.overlong_cache_tokens",
        f"is {r.overlong_cache_tokens} with rollout.max_completion_tokens={limit}",
        "need more than 0 and at most the limit",
    )


def _require(ok: Any, field: str, got: str, fix: str) -> None:
    if not ok:
        raise ValueError(f"config.{field} {got}; {fix}")


def _choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, field, f"is {value!r}", f"choose one of {', '.join(allowed)}")


def _positive(group: str, values: Config, names: tuple[str, ...]) -> None:
    for name in names:
        _require(values[name] > 0, f"{group}.{name}", f"is {values[name]}", "need more than 0")


def _at_least_0(group: str, values: Config, names: tuple[str, ...]) -> None:
    for name in names:
        _require(values[name] >= 0, f"{group}.{name}", f"is {values[name]}", "need 0 or more")


def _timeout(field: str, seconds: float) -> None:
    _require(
        0 < seconds <= LONGEST_TIMEOUT_S,
        field,
        f"is {seconds}",
        f"need more than 0 and at most {LONGEST_TIMEOUT_S:g} seconds",
    )


def _share(field: str, value: float) -> None:
    _require(0 <= value < 1, field, f"is {value}", "a share from 0 up to (not including) 1")
