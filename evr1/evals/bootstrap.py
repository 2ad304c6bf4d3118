"""Standard errors and intervals of any aggregate, by drawing videos with replacement.

Questions on one video are not independent, so whole videos are drawn. A draw says how often each
video is in it. Metrics that are means over samples (or groups of them), or weighted sums of the
means of a tag, are computed for all draws at once; for others the aggregate is called once a draw.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evr1.evals.tasks.base import Aggregate, Record

DRAWS = 1000
_CHECKS = 3  # random subsets on which a form that was guessed must hold
_SHARE = 0.6  # of the units in such a subset
_EXACT = 1e-9  # rounding
_FEW = 64  # units that are too few to guess a form
_MOST_LABELS = 64  # of a tag whose means may be summed


class Metric(NamedTuple):
    """A value with its standard error and the ends of its 95 % interval.

    NaN where they cannot be told: fewer than two videos, or all of them alike.
    """

    value: float
    stderr: float = math.nan
    low: float = math.nan
    high: float = math.nan


class Plan(NamedTuple):
    """Draws of videos.

    Attributes:
        videos: in order.
        counts: how often a draw holds each video, float64[draws, videos].
    """

    videos: list[str]
    counts: np.ndarray


def plan(records: Sequence[Record], draws: int = DRAWS, seed: int = 0) -> Plan:
    """Returns draws of the videos of some records; their order does not matter."""
    videos = sorted(set(_videos(records)))
    n = len(videos)
    picks = np.random.default_rng(seed).integers(n, size=(draws, n)) if n else np.zeros((draws, 0))
    shifted = (picks + np.arange(draws)[:, None] * n).ravel().astype(np.int64)
    counts = np.bincount(shifted, minlength=draws * n).reshape(draws, n)
    return Plan(videos, counts.astype(np.float64))  # products of floats are fast


def _videos(records: Sequence[Record]) -> list[str]:
    """Returns the video that each record is drawn with; a group over several stays whole."""
    of_group: dict[str, str] = {}
    for record in records:
        group, video = record.sample.group, record.sample.cluster
        if group:
            of_group[group] = min(video, of_group.get(group, video))
    return [of_group.get(record.sample.group, record.sample.cluster) for record in records]


def metric(value: float, draws: np.ndarray, n_videos: int) -> Metric:
    """Returns a value with what its draws tell; draws that lack it (NaN) are left out.

    Args:
        value: of all records.
        draws: of the same metric.
        n_videos: that were drawn from.
    """
    known = draws[np.isfinite(draws)]
    if n_videos < 2 or len(known) < 2:
        return Metric(value)
    low, high = np.percentile(known, (2.5, 97.5))
    return Metric(value, float(np.std(known, ddof=1)), float(low), float(high))


def draw(records: Sequence[Record], aggregate: Aggregate, plan: Plan) -> dict[str, np.ndarray]:
    """Returns the values of each metric of an aggregate over all draws, float64[draws].

    Args:
        records: in any order.
        aggregate: a function of the multiset of records.
        plan: draws of the videos of these records, or of more.
    """
    records = sorted(records, key=lambda record: record.sample.id)
    place = {video: i for i, video in enumerate(plan.videos)}
    units = _units(records, [place[video] for video in _videos(records)])
    names = list(aggregate(records))
    is_small = len(units) < _FEW  # then all subsets are alike, and calls are cheap
    means = {} if is_small else _draw_means(units, names, aggregate, plan.counts)
    others = [name for name in names if name not in means]
    drawn = _draw_sums(units, others, aggregate, means)
    for name in others:
        drawn.setdefault(name, np.full(len(plan.counts), math.nan))
    is_open = np.zeros(len(plan.counts), bool)
    for name in others:
        is_open |= np.isnan(drawn[name])
    for number, values in _draw_each(units, aggregate, plan.counts, np.flatnonzero(is_open)):
        for name in others:
            drawn[name][number] = values.get(name, math.nan)
    return means | drawn


class _Unit(NamedTuple):
    """The records of a group, or one without a group."""

    records: list[Record]
    video: int  # its place in the plan


def _units(records: Sequence[Record], at: Sequence[int]) -> list[_Unit]:
    units: dict[tuple[str, str], _Unit] = {}
    for record, video in zip(records, at, strict=True):
        group, id = record.sample.group, record.sample.id
        units.setdefault(("group", group) if group else ("id", id), _Unit([], video))[0].append(
            record
        )
    return list(units.values())


def _subsets(n: int, number: int) -> list[np.ndarray]:
    """Returns all of n units, then random subsets of them."""
    rng = np.random.default_rng(0)
    return [np.ones(n, bool), *(rng.random(n) < _SHARE for _ in range(number))]


def _values(units: Sequence[_Unit], aggregate: Aggregate, subset: np.ndarray) -> dict[str, float]:
    return aggregate([r for unit, used in zip(units, subset, strict=True) if used for r in unit[0]])


def _draw_means(
    units: Sequence[_Unit], names: Sequence[str], aggregate: Aggregate, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the draws of those metrics that are means of what each unit alone gives.

    Whether a metric is such a mean is not declared: it must be one on random subsets.
    """
    alone = [aggregate(unit.records) for unit in units]
    subsets = _subsets(len(units), _CHECKS)
    truths = [_values(units, aggregate, subset) for subset in subsets]
    videos = np.array([unit.video for unit in units], dtype=np.int64)
    drawn = {}
    for name in names:
        values = np.array([each.get(name, math.nan) for each in alone], dtype=np.float64)
        has = np.isfinite(values)
        pairs = zip(truths, subsets, strict=True)
        if all(_is_same(truth.get(name, math.nan), values[used & has]) for truth, used in pairs):
            sums = np.bincount(videos[has], values[has], minlength=counts.shape[1])
            sizes = np.bincount(videos[has], minlength=counts.shape[1])
            with np.errstate(invalid="ignore"):  # a draw without any of them
                drawn[name] = (counts @ sums) / (counts @ sizes)
    return drawn


def _is_same(truth: float, values: np.ndarray) -> bool:
    if not len(values) or math.isnan(truth):
        return not len(values) and math.isnan(truth)
    return math.isclose(truth, float(values.mean()), rel_tol=_EXACT, abs_tol=_EXACT)


def _draw_sums(
    units: Sequence[_Unit],
    names: Sequence[str],
    aggregate: Aggregate,
    means: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns the draws of those metrics that are weighted sums of the means of one tag.

    Such is an unweighted mean over labels. The weights are found on random subsets, and must hold
    on others. A draw that lacks a label is NaN.
    """
    families: dict[str, list[str]] = {}
    for name in means:
        tag, slash, _ = name.partition("/")
        families.setdefault(tag if slash else "", []).append(name)
    families.pop("", None)
    listed = [family for family in families.values() if len(family) <= _MOST_LABELS]
    if not names or not listed:
        return {}
    size = max(map(len, listed)) + _CHECKS
    truths = [_values(units, aggregate, each) for each in _subsets(len(units), size + _CHECKS)]
    drawn = {}
    for family in listed:
        given = np.array([[truth.get(label, math.nan) for label in family] for truth in truths])
        if np.isnan(given).any():
            continue
        for name in names:
            wanted = np.array([truth.get(name, math.nan) for truth in truths])
            if np.isnan(wanted).any():
                continue
            weights = np.linalg.lstsq(given[:-_CHECKS], wanted[:-_CHECKS])[0]
            if np.allclose(given @ weights, wanted, rtol=_EXACT, atol=_EXACT):
                drawn[name] = np.stack([means[label] for label in family], axis=1) @ weights
    return drawn


def _draw_each(
    units: Sequence[_Unit], aggregate: Aggregate, counts: np.ndarray, numbers: np.ndarray
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields some draws with their metrics, one call of the aggregate each."""
    of_video: list[list[Record]] = [[] for _ in range(counts.shape[1])]
    for unit in units:
        of_video[unit.video] += unit.records
    copies = {(video, 0): members for video, members in enumerate(of_video)}
    for number in numbers.tolist():
        picked: list[Record] = []
        for video in np.flatnonzero(counts[number]).tolist():
            for again in range(int(counts[number, video])):
                if (video, again) not in copies:
                    copies[video, again] = [_copy(r, again) for r in of_video[video]]
                picked += copies[video, again]
        yield number, aggregate(picked)


def _copy(record: Record, number: int) -> Record:
    """Returns a record with an id and a group of its own, so that groups do not mix."""
    sample = record.sample
    group = f"{sample.group}#{number}" if sample.group else ""
    return record._replace(
        sample=dataclasses.replace(sample, id=f"{sample.id}#{number}", group=group)
    )
