"""The files of a scored run: `results_<date>.json`, as lm-evaluation-harness has it, `summary.csv`.

A metric is named "<metric>,<filter>" there; the filter is our scoring profile. Metrics of a run
that is not complete have "partial_" before their names, so that nobody takes them for scores.
"""

import csv
import datetime
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals import bootstrap, scoring
from evr1.evals.bootstrap import Metric
from evr1.evals.samples import Answer
from evr1.evals.scoring import Result, Settings
from evr1.evals.tasks.base import Task
from evr1.rewards import files

_COUNTS = ("n_scored", "n_unparsed", "n_truncated", "n_error", "n_unjudged")


class TaskResults(NamedTuple):
    """The scores of a task.

    Attributes:
        task: the benchmark.
        answers: one a sample.
        settings: how they were made.
        results: of each profile, in the order of the task's rules.
    """

    task: Task
    answers: Sequence[Answer]
    settings: Settings
    results: Sequence[Result]

    @property
    def label(self) -> str:
        """The name of the task; that of a subset carries its size."""
        n = self.results[0].n_expected
        return self.task.name if n == self.task.source.n else f"{self.task.name}@{n}"


def to_json(
    scored: Sequence[TaskResults], manifest: Mapping[str, Any], date: datetime.datetime
) -> dict[str, Any]:
    """Returns a results file, with lm-evaluation-harness's keys and with `intervals` and `counts`.

    Args:
        scored: tasks.
        manifest: of the run.
        date: of the file.
    """
    model, version = str(manifest.get("model", "")), importlib.metadata.version("evr1")
    seconds = math.fsum(answer.seconds for each in scored for answer in each.answers)
    n_samples = {each.task.name: _n_samples(each.results) for each in scored}
    return {
        "results": {each.task.name: _metrics(each) for each in scored},
        "groups": {},
        "group_subtasks": {},
        "configs": {each.task.name: _config(each, version) for each in scored},
        "versions": {each.task.name: version for each in scored},
        "n-shot": {each.task.name: 0 for each in scored},
        "higher_is_better": {
            each.task.name: {name: True for result in each.results for name in names(result)}
            for each in scored
        },
        "n-samples": n_samples,
        "config": {
            "model": model,
            "model_args": None,
            "bootstrap_iters": bootstrap.DRAWS,
            "random_seed": manifest.get("seed"),
        },
        "intervals": {each.task.name: _intervals(each.results) for each in scored},
        "counts": {
            each.task.name: {r.scored.profile: counts(r) for r in each.results} for each in scored
        },
        "git_hash": manifest.get("git_hash"),
        "date": date.timestamp(),
        "evr1_version": version,
        "task_hashes": {each.task.name: scoring.fingerprint(each.answers) for each in scored},
        "model_source": "evr1",
        "model_name": model,
        "model_name_sanitized": "".join(c if c.isalnum() or c in "-_." else "__" for c in model),
        "total_evaluation_time_seconds": str(seconds),
    }


def _config(each: TaskResults, version: str) -> dict[str, Any]:
    return {
        "task": each.task.name,
        "dataset_path": each.task.source.hub[0],
        "prompt": each.settings.prompt,
        "preset": each.settings.preset,
        "repeats": each.settings.repeats,
        "metadata": {"version": version},
    }


def names(result: Result) -> dict[str, str]:
    """Returns each metric's name in the file, and the name that it has in the result."""
    mark = "partial_" if result.is_partial else ""
    return {mark + name.replace(",", ";"): name for name in result.metrics}


def _metrics(each: TaskResults) -> dict[str, Any]:
    """Returns the metrics of all profiles; what is undefined is left out."""
    first = each.results[0]
    out: dict[str, Any] = {"name": each.task.name, "alias": each.label}
    if first.is_partial:
        out["alias"] += f" (partial: {first.scored.n_scored} of {first.n_expected})"
    out["sample_len"] = len(each.answers)
    for result in each.results:
        for name, metric in ((n, result.metrics[own]) for n, own in names(result).items()):
            if not math.isfinite(metric.value):
                continue
            error = metric.stderr if math.isfinite(metric.stderr) else "N/A"
            out[f"{name},{result.scored.profile}"] = metric.value
            out[f"{name}_stderr,{result.scored.profile}"] = error
    return out


def _intervals(results: Sequence[Result]) -> dict[str, list[float]]:
    return {
        f"{name},{result.scored.profile}": [result.metrics[own].low, result.metrics[own].high]
        for result in results
        for name, own in names(result).items()
        if math.isfinite(result.metrics[own].low)
    }


def _n_samples(results: Sequence[Result]) -> dict[str, int]:
    return {"original": results[0].n_expected, "effective": results[0].scored.n_scored}


def counts(result: Result) -> dict[str, int]:
    """Returns how many samples a complete run scores, and how many were scored, cut off, ..."""
    listed = {name: getattr(result.scored, name) for name in _COUNTS}
    return {"n_expected": result.n_expected, **listed}


def write(
    folder: Path,
    scored: Sequence[TaskResults],
    manifest: Mapping[str, Any],
    date: datetime.datetime | None = None,
) -> Path:
    """Writes `results_<date>.json` and `summary.csv` into a folder; returns the first.

    Args:
        folder: of the run.
        scored: tasks.
        manifest: of the run.
        date: of the file; default: now.
    """
    date = date or datetime.datetime.now()
    path = folder / f"results_{date.isoformat().replace(':', '-')}.json"
    with files.writing(str(path)) as out:
        json.dump(to_json(scored, manifest, date), out, indent=2, ensure_ascii=False)
        out.write("\n")
    with files.writing(str(folder / "summary.csv")) as out:
        rows = [summary(each, result) for each in scored for result in each.results]
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def summary(each: TaskResults, result: Result) -> dict[str, Any]:
    """Returns a row of the summary; a task's value is empty where the run is partial."""
    name = result.scored.headline
    metric = Metric(math.nan) if result.is_partial else headline(result)
    numbers = {k: v if math.isfinite(v) else "" for k, v in metric._asdict().items()}
    return {
        "task": each.task.name,
        "profile": result.scored.profile,
        "metric": name,
        **numbers,
        "status": _status(each, result),
        **counts(result),
        **each.settings._asdict(),
    }


def _status(each: TaskResults, result: Result) -> str:
    if result.is_partial:
        return "partial"
    return "complete" if each.label == each.task.name else "subset"


def headline(result: Result) -> Metric:
    """Returns the first metric; NaN where there is none."""
    return result.metrics.get(result.scored.headline, Metric(math.nan))
