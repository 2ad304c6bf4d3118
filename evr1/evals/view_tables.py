"""The tables of a run's page: headlines, sub-scores, and the difference to another run."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evr1.evals import rescore, results
from evr1.evals.bootstrap import Metric
from evr1.evals.compare import Comparison
from evr1.evals.results import TaskResults
from evr1.evals.scoring import Result
from evr1.formats.words import counted

_PARTIAL = "partial_"  # before metrics of a run that is not complete, as in results.py
_RAIL = 200  # units of a drawn interval, from 0 to 100 %


def task(each: TaskResults) -> dict[str, Any]:
    """Returns the rows of a task in the table of headlines; all but the first are `more`."""
    made = f"{each.settings.prompt}, {each.settings.preset}"
    if each.settings.repeats > 1:
        made += f", avg@{each.settings.repeats}"
    if each.label != each.task.name:
        made += f", a subset: {each.label}"
    spread = rescore.spread(each.results) if len(each.results) > 1 else None
    return {
        "name": each.task.name,
        "made": made,
        "rows": [
            _headline(result, more) for result, more in zip(each.results, _more(each), strict=True)
        ],
        "spread": spread,
    }


def _more(each: TaskResults) -> list[bool]:
    """Returns which profiles are shown on request only."""
    return [not rescore.is_first(each.task, result.scored.profile) for result in each.results]


def _headline(result: Result, more: bool) -> dict[str, Any]:
    scored, metric = result.scored, results.headline(result)
    is_told = not result.is_partial
    return {
        "profile": scored.profile,
        "metric": scored.headline,
        "score": rescore.percent(metric.value) if is_told else "partial",
        "interval": rescore.interval(metric) if is_told else "",
        "drawn": _drawn(metric) if is_told else None,
        "n": f"{scored.n_scored:,}/{result.n_expected:,}",
        "unread": scored.n_unparsed,
        "cut": scored.n_truncated,
        "failed": scored.n_error,
        "waiting": scored.n_unjudged,
        "more": more,
    }


def _drawn(metric: Metric) -> dict[str, str] | None:
    """Returns where a value and its interval lie on the rail; None: nowhere."""
    if not math.isfinite(metric.value):
        return None
    ends = (metric.low, metric.high) if math.isfinite(metric.low) else (metric.value,) * 2
    places = (_RAIL * min(max(value, 0.0), 1.0) for value in (metric.value, *ends))
    return dict(zip(("value", "low", "high"), (f"{place:.1f}" for place in places), strict=True))


def breakdown(each: TaskResults) -> dict[str, Any]:
    """Returns all metrics of a task by all profiles, with how many samples carry a label."""
    tables = [_named(result) for result in each.results]
    names, more = dict.fromkeys(name for table in tables for name in table), _more(each)
    counts = Counter(
        f"{tag}/{label}"
        for answer in each.answers
        for tag, value in answer.sample.tags.items()
        for label in ((value,) if isinstance(value, str) else value)
    )
    return {
        "name": each.task.name,
        "profiles": list(zip((r.scored.profile for r in each.results), more, strict=True)),
        "rows": [
            {
                "name": name,
                "n": counts.get(name.removeprefix(_PARTIAL)) or "",
                "cells": [
                    (*_cell(table.get(name)), is_more)
                    for table, is_more in zip(tables, more, strict=True)
                ],
            }
            for name in names
        ],
    }


def _named(result: Result) -> dict[str, Metric]:
    mark = _PARTIAL if result.is_partial else ""
    return {mark + name: metric for name, metric in result.metrics.items()}


def _cell(metric: Metric | None) -> tuple[str, str]:
    if metric is None:
        return "", ""
    return rescore.percent(metric.value), rescore.interval(metric)


def comparison(each: Comparison) -> dict[str, Any]:
    """Returns a row of the table of differences, in percent."""
    low, high = each.difference.low, each.difference.high
    return {
        "task": each.task,
        "profile": each.profile,
        "metric": each.metric,
        "before": rescore.percent(each.a),
        "after": rescore.percent(each.b),
        "difference": f"{100 * each.difference.value:+.1f}",
        "interval": f"{100 * low:+.1f}..{100 * high:+.1f}" if math.isfinite(low) else "-",
        "direction": "up" if low > 0 else "down" if high < 0 else "",
        "gained": len(each.gained),
        "lost": len(each.lost),
        "pairs": f"{each.n_pairs:,}/{each.n_expected:,}",
        "is_partial": each.n_pairs != each.n_expected,
    }


def facts(manifest: Any, scored: Sequence[TaskResults]) -> list[str]:
    """Returns what was run, a few words each."""
    n = sum(len(each.answers) for each in scored)
    listed = [str(manifest.get("model") or ""), counted(len(scored), "task"), counted(n, "sample")]
    if manifest.get("seed") is not None:
        listed.append(f"seed {manifest['seed']}")
    if manifest.get("git_hash"):
        listed.append(f"commit {str(manifest['git_hash'])[:10]}")
    return [fact for fact in listed if fact]
