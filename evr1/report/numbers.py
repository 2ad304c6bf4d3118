"""The numbers of a run in words: facts and tiles at the top, accuracy before and after, settings.

What is returned is text; the template lays it out.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evr1.formats.words import counted
from evr1.report.files import Metrics
from evr1.telemetry.display import failed_rows

# (title, series as (metric, label), percent); the rest is under "Every metric"
CHARTS = (
    (
        "Reward",
        (
            ("reward/overall", "overall"),
            ("reward/accuracy", "accuracy"),
            ("reward/format", "format"),
        ),
        False,
    ),
    ("Held-out accuracy", (("eval/accuracy", "held-out"),), True),
    ("Completion length, tokens", (("completion/length", "mean"),), False),
)
# (label, config fields)
SETTINGS = (
    ("model", "model"),
    ("training rows", "data.train"),
    ("training sources, weights", "data.sources"),
    ("held-out rows", "data.eval"),
    ("frame sizes by", "data.video_budget"),
    ("prompts a step", "rollout.prompts"),
    ("completions a prompt", "rollout.n"),
    ("temperature", "rollout.temperature"),
    ("advantage", "algorithm.advantage"),
    ("clip low, high", "algorithm.clip_low algorithm.clip_high"),
    ("KL coefficient", "algorithm.kl_coef"),
    ("learning rate", "optim.learning_rate"),
    ("seed", "seed"),
    ("commit", "run.git_commit"),
)
# Phases before the first step of each start, in words.
_STARTS = (("setup", "setting up"), ("compile", "compiling"), ("checks", "in checks"))
_MODALITY = "eval/accuracy/modality/"
_ALL = "eval/accuracy"  # over all held-out rows; eval/accuracy/<kind> over those of a kind


def facts(config: Mapping[str, Any], metrics: Metrics) -> list[str]:
    """Model, steps, time and commit."""
    out = []
    if config.get("model"):
        out.append(os.path.basename(str(config["model"]).rstrip("/")))
    num_steps = config.get("num_steps")
    done = metrics.steps[-1] if metrics.steps else 0
    out.append(f"{done} of {num_steps} steps" if num_steps else f"{done} steps")
    seconds = sum(v for _, v in metrics.measured("time/step_s"))
    if seconds:
        out.append(f"{_duration(seconds)} in steps")
    for phase, words in _STARTS:
        if seconds := sum(v for _, v in metrics.measured(f"start/{phase}_s")):
            out.append(f"{_duration(seconds)} {words}")
    commit = config.get("run", {}).get("git_commit", "")
    if commit:
        out.append(f"commit {commit[:10]}{'+changes' if commit.endswith('+changes') else ''}")
    return out


def tiles(metrics: Metrics) -> list[dict[str, Any]]:
    """The few numbers at the top, as far as they were measured."""
    candidates = [
        _held_out_tile(metrics),
        _first_and_last_tile(metrics, "reward/overall", "Reward"),
        _first_and_last_tile(metrics, "reward/accuracy", "Training accuracy"),
        _speed_tile(metrics),
    ]
    return [tile for tile in candidates if tile is not None]


def _held_out_tile(metrics: Metrics) -> dict[str, Any] | None:
    accuracy = metrics.measured(_ALL)
    if not accuracy:
        return None
    (_, before), (_, after) = accuracy[0], accuracy[-1]
    note = f"{100 * (after - before):+.1f} points"
    counts = metrics.measured("eval/rows")
    if counts:
        rows = int(counts[-1][1])
        note += f"; {counted(rows, 'row')}"
        if 0 < after < 1:  # where all are alike nothing tells how far they are from others
            # of a score in [0, 1] the variance is at most mean * (1 - mean)
            error = 100 * math.sqrt(after * (1 - after) / max(rows, 1))
            note += f", standard error up to {error:.1f} points"
    failed = failed_rows(_last_evaluation(metrics))
    note += f"; {failed}" if failed else ""
    value = f"{100 * before:.1f} → {100 * after:.1f} %"
    return {"label": "Held-out accuracy", "value": value, "note": note, "main": True}


def _first_and_last_tile(metrics: Metrics, name: str, label: str) -> dict[str, Any] | None:
    """The means of the first and of the last tenth of the steps."""
    values = [v for _, v in metrics.measured(name)]
    if not values:
        return None
    tenth = max(1, len(values) // 10)
    first, last = np.mean(values[:tenth]), np.mean(values[-tenth:])
    note = f"mean of the first and last {tenth} steps" if tenth > 1 else "first, last step"
    return {"label": label, "value": f"{first:.2f} → {last:.2f}", "note": note, "main": False}


def _speed_tile(metrics: Metrics) -> dict[str, Any] | None:
    values = [v for _, v in metrics.measured("speed/tokens_per_s")]
    if not values:
        return None
    value = f"{np.median(values):,.0f}"
    return {"label": "Tokens a second", "value": value, "note": "median", "main": False}


def by_type(metrics: Metrics) -> dict[str, Any]:
    """The table of held-out accuracy before and after, a row a kind and one over all.

    It has no rows unless there is a metric of some kind.
    """
    kinds = sorted(n for n in metrics.values if n.startswith(f"{_ALL}/") and metrics.measured(n))
    types = [n for n in kinds if not n.startswith(_MODALITY)]
    modalities = [n for n in kinds if n.startswith(_MODALITY)]
    evals = metrics.measured(_ALL)
    names = [*types, _ALL] if kinds and evals else types
    return {
        "types": [_type_row(metrics, name) for name in names],
        "modalities": [_type_row(metrics, name) for name in modalities],
        "first_eval": evals[0][0] if evals else 0,
        "last_eval": evals[-1][0] if evals else 0,
    }


def _type_row(metrics: Metrics, name: str) -> dict[str, Any]:
    """A row of the table, from eval/accuracy/<kind> and eval/rows/<kind>."""
    values = metrics.measured(name)
    counts = metrics.measured(name.replace("accuracy", "rows"))
    before, after = values[0][1], values[-1][1]
    change = 100 * (after - before)
    return {
        "name": "all" if name == _ALL else name.rpartition("/")[2].replace("_", " "),
        "total": name == _ALL,
        "rows": f"{counts[-1][1]:,.0f}" if counts else "–",
        "before": f"{100 * before:.1f} %",
        "after": f"{100 * after:.1f} %",
        "change": f"{change:+.1f}",
        "direction": "up" if change >= 0.05 else "down" if change <= -0.05 else "",
        "x0": f"{200 * before:.1f}",
        "x1": f"{200 * after:.1f}",
    }


def accuracy_table(metrics: Metrics) -> str:
    """The text table of held-out accuracy at the first and at the last evaluation.

    A line over all rows, then one a problem type and one a modality; then one a benchmark.
    """
    kinds = sorted(n for n in metrics.values if n.startswith(f"{_ALL}/"))
    rows = _changes(metrics, [_ALL, *kinds])
    asked = _changes(metrics, _benchmarks(metrics))
    failed = failed_rows(_last_evaluation(metrics))
    rows += [f"  {failed}"] if failed else []
    lines = ["held-out accuracy", *rows] if rows else ["no held-out rows"]
    return "\n".join([*lines, *(["benchmarks", *asked] if asked else [])])


def _last_evaluation(metrics: Metrics) -> dict[str, float]:
    """The latest value of each metric eval/* over all rows."""
    names = ("eval/rows", "eval/failed_rows", "eval/accuracy_answered")
    return {name: values[-1][1] for name in names if (values := metrics.measured(name))}


def _changes(metrics: Metrics, names: Sequence[str]) -> list[str]:
    """A line for each metric that was measured: its first value and its last one."""
    lines = []
    for name in names:
        measured = metrics.measured(name)
        if measured:
            (first, before), (last, after) = measured[0], measured[-1]
            label = name.removeprefix(_ALL).removeprefix("eval/").strip("/")
            label = label or f"all, step {first} to {last}"
            lines.append(
                f"  {label:<28} {before:7.1%} → {after:6.1%}  {(after - before) * 100:+6.1f} points"
            )
    return lines


def _benchmarks(metrics: Metrics) -> list[str]:
    """The headlines of benchmarks that the run answered, such as eval/lvbench@64."""
    end = "/failed_share"
    names = sorted(n for n in metrics.values if n.startswith("eval/") and n.endswith(end))
    return [n.removesuffix(end) for n in names if n.removesuffix(end) in metrics.values]


def charts(metrics: Metrics) -> list[dict[str, Any]]:
    """The curves that stand first, as the page's script reads them."""
    benchmarks = [(name, name.removeprefix("eval/")) for name in _benchmarks(metrics)]
    shown = [*CHARTS, ("Benchmarks, a few questions of each", benchmarks, True)]
    chosen = [
        {"title": title, "series": series, "percent": percent, "zero": True}
        for title, series, percent in shown
        if series
    ]
    phases = [n for n in metrics.values if n.startswith("time/") and n != "time/step_s"]
    phases.sort(key=lambda n: -sum(v for _, v in metrics.measured(n)))
    series = [(n, n.removeprefix("time/").removesuffix("_s")) for n in phases]
    return [*chosen, {"title": "Seconds a step, by phase", "series": series, "stacked": True}]


def settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of the fields of `SETTINGS` that the config has."""
    out = []
    for label, fields in SETTINGS:
        values = [_field(config, field) for field in fields.split()]
        if all(value not in (None, "", []) for value in values):
            out.append((label, ", ".join(map(_spelled, values))))
    return out


def _spelled(value: Any) -> str:
    """A list of pairs as `a.jsonl 0.6, b.jsonl 0.4`."""
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, pair)) for pair in value)
    return str(value)


def _field(config: Mapping[str, Any], path: str) -> Any:
    """A field by its dotted path; None: there is none."""
    value: Any = config
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
