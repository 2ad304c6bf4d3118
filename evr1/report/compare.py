"""A page that compares two runs: settings, curves together, held-out accuracy row by row.

Rows are paired by problem_id, so that the interval of the difference is that of the rows that both
answered, at the last evaluation of each.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evr1.formats import user_code
from evr1.formats.words import counted
from evr1.report import html, numbers
from evr1.report.files import Metrics, read_lines, read_metrics

FILE = "compare.html"
_FLIPPED = 60  # rows in the page
_TEXT = 600  # characters of a completion
_SILENT = ("workdir", "run")  # differ between any two runs
# Of rewards.*: how scores are computed, not which; and what decides accuracy, not the reward alone.
_COST = ("workers", "timeout_s", "max_failed_share", "judge.api_key_env", "judge.cache")
_COST += ("judge.timeout_s", "judge.deadline_s", "judge.concurrency", "judge.retries")
_COST += ("judge.slots",)
_ACCURACY = ("extra", "box_scale", "unknown_type", "judge")


class Run(NamedTuple):
    """A run as its files have it; `answers` are of its last evaluation, by problem_id."""

    name: str
    config: dict[str, Any]
    metrics: Metrics
    answers: dict[str, dict[str, Any]]


class Difference(NamedTuple):
    """Held-out accuracy of the rows that both runs answered; `half_width` is of 95 %."""

    label: str
    rows: int
    a: float
    b: float
    half_width: float

    @property
    def text(self) -> str:
        """The difference in points with its interval."""
        return f"{100 * (self.b - self.a):+.1f} ± {100 * self.half_width:.1f}"

    @property
    def direction(self) -> str:
        """Up or down where the interval does not hold 0."""
        change = self.b - self.a
        return "" if abs(change) <= self.half_width else "up" if change > 0 else "down"


def read_run(workdir: Path) -> Run:
    """Reads a run, whether it has ended or not.

    Raises:
        ValueError: no metrics.jsonl, or an unreadable line.
    """
    path, answers = workdir / "rollouts.jsonl", dict[str, dict[str, Any]]()
    last = -1
    for _, _, record in read_lines(path) if path.exists() else ():
        if record.get("split") == "eval":
            if record["step"] != last:
                answers, last = {}, record["step"]
            answers[record["problem_id"]] = record
    file = workdir / "config.json"
    config = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return Run(workdir.resolve().name, config, read_metrics(workdir / "metrics.jsonl"), answers)


def differences(a: Run, b: Run) -> list[Difference]:
    """Returns the paired differences: over all rows, then of each problem type."""
    both = [(a.answers[i], b.answers[i]) for i in a.answers if i in b.answers]
    kinds = sorted({one["problem_type"] for one, _ in both})
    out = []
    for kind in ["", *(kinds if len(kinds) > 1 else ())]:
        pairs = [(_accuracy(x), _accuracy(y)) for x, y in both if kind in ("", x["problem_type"])]
        if pairs:
            out.append(_paired(kind or "all", pairs))
    return out


def _paired(label: str, pairs: list[tuple[float, float]]) -> Difference:
    n = len(pairs)
    mean_a, mean_b = (sum(pair[i] for pair in pairs) / n for i in (0, 1))
    spread = sum((y - x - (mean_b - mean_a)) ** 2 for x, y in pairs)
    error = math.sqrt(spread / (n * (n - 1))) if n > 1 else math.inf
    return Difference(label, n, mean_a, mean_b, 1.96 * error)


def _accuracy(record: Mapping[str, Any]) -> float:
    """A row whose answer could not be scored counts as wrong, as at evaluations."""
    return float(record["score"].get("accuracy") or 0.0)


def changed(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    """Returns (field, value of a, value of b) of the fields of two configs that differ.

    >>> changed({"seed": 0, "optim": {"eps": 1}}, {"seed": 0, "optim": {"eps": 2}})
    [('optim.eps', '1', '2')]
    """
    out: list[tuple[str, ...]] = []
    for name in dict.fromkeys((*a, *b)):
        x, y = a.get(name), b.get(name)
        if x == y or (not prefix and name in _SILENT):
            continue
        if isinstance(x, Mapping) and isinstance(y, Mapping):
            out += changed(x, y, f"{prefix}{name}.")
        else:
            out.append((f"{prefix}{name}", _spell(x), _spell(y)))
    return out


def _spell(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def unlike_rewards(a: Run, b: Run) -> str:
    """Returns a line about scorers and terms that differ between the runs; "": they are the same.

    A file of the user's own is the same where it holds the same.
    """
    fields = [name for name, _, _ in changed(a.config, b.config)]
    unlike = [f.removeprefix("rewards.") for f in fields if f.startswith("rewards.")]
    unlike = [name for name in unlike if name not in _COST]
    one, other = (_recorded(run.config, "run", user_code.RECORD) for run in (a, b))
    names = [_recorded(run.config, "rewards", "extra") for run in (a, b)]
    suffixes = {name.partition(":")[2] for name in names}
    why = {name: f"rewards.{name}" for name in unlike}
    if one and one == other and len(suffixes) == 1:
        why.pop("extra", None)
    elif one and other and one != other and names[0] == names[1]:
        why["extra"] = f"what {names[0]} holds (rewards.extra)"
    if "algorithm.temporal_bonus" in fields:
        why["temporal_bonus"] = "algorithm.temporal_bonus"
    if not why:
        return ""
    scored = [text for name, text in why.items() if name.partition(".")[0] in _ACCURACY]
    also = f"; nor does accuracy where {' or '.join(scored)} decides it" if scored else ""
    return (
        f"The runs were not scored alike (they differ in {', '.join(why.values())}): the reward "
        f"(overall) of one does not compare with the other's{also}."
    )


def _recorded(config: Mapping[str, Any], group: str, name: str) -> str:
    """Returns a field of a config.json; "" of a run that is older than it, or has no file."""
    return config[group][name] if group in config and name in config[group] else ""


def summary(a: Run, b: Run) -> str:
    """Returns the comparison as lines for a terminal."""
    lines = [f"{a.name} and {b.name}: held-out accuracy of the rows that both answered"]
    found = differences(a, b)
    for d in found:
        lines.append(
            f"  {d.label:<28} {d.a:7.1%} → {d.b:6.1%}  {d.text} points, {counted(d.rows, 'row')}"
        )
    if not found:
        lines = [f"{a.name} and {b.name}: no held-out row was answered by both"]
    fields = changed(a.config, b.config)
    lines += [f"  {name}: {x} | {y}" for name, x, y in fields]
    return "\n".join([*lines, *filter(None, [unlike_rewards(a, b)])])


def render(a: Run, b: Run) -> str:
    """Returns the page."""
    names = (f"A: {a.name}", f"B: {b.name}")
    runs = dict(zip(names, (a, b), strict=True))
    steps = sorted({step for run in runs.values() for step in run.metrics.steps})
    metrics: dict[str, list[float | None]] = {}
    for name, run in runs.items():
        for metric in run.metrics.values:
            known = dict(run.metrics.measured(metric))
            metrics[f"{name}/{metric}"] = [known.get(step) for step in steps]
    charts = [
        {
            "title": f"{title}: {label}" if len(series) > 1 else title,
            "series": [(f"{name}/{metric}", name) for name in names],
            "percent": percent,
            "zero": True,
        }
        for title, series, percent in (*numbers.CHARTS, ("Seconds a step", _SECONDS, False))
        for metric, label in series
    ]
    flipped = [
        (a.answers[i], b.answers[i])
        for i in a.answers
        if i in b.answers and _accuracy(a.answers[i]) != _accuracy(b.answers[i])
    ]
    flipped.sort(key=lambda pair: _accuracy(pair[1]) - _accuracy(pair[0]))  # what got worse first
    data = {"steps": steps, "metrics": metrics, "charts": charts, "prompts": [], "groups": []}
    return html.render(
        "report/compare.html.jinja",
        ["report/report.css"],
        ["report/page.js", "report/places.js", "report/report.js"],
        names=names,
        facts=[numbers.facts(run.config, run.metrics) for run in runs.values()],
        differences=differences(a, b),
        changed=changed(a.config, b.config),
        unlike=unlike_rewards(a, b),
        flipped=[(_shown(x), _shown(y)) for x, y in flipped[:_FLIPPED]],
        flips=f"{counted(len(flipped), 'row')} of another accuracy"
        + (f", {_FLIPPED} of them here" if len(flipped) > _FLIPPED else ""),
        data=html.embed_json(data | {"frames": {}, "live": ""}),
    )


_SECONDS = (("time/step_s", "seconds"),)


def _shown(record: Mapping[str, Any]) -> dict[str, Any]:
    text = record["completion"]
    return {
        **record,
        "accuracy": f"{_accuracy(record):.3g}",
        "text": text if len(text) <= _TEXT else f"{text[:_TEXT]} ...",
    }


def build(first: Path, second: Path) -> tuple[Path, str]:
    """Writes compare.html into the first run's workdir; returns its path, and `summary`.

    Raises:
        ValueError: one of them is no workdir of a run.
    """
    a, b = read_run(first), read_run(second)
    from evr1.telemetry.workdir import replace_file  # jax, as in `page.build`

    out = first / FILE
    replace_file(out, [render(a, b).encode("utf-8", errors="replace")])
    return out, summary(a, b)
