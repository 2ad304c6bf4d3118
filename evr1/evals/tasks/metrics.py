"""Means of scores, over all samples and by tag. None depends on the order of the records."""

import math
from collections.abc import Callable, Iterable, Sequence

from evr1.evals.tasks.base import Record

Means = dict[str, float]


def score(record: Record) -> float:
    """Returns a record's score; what was left out or not read counts as 0."""
    return record.verdict.score or 0.0


def mean(values: Iterable[float]) -> float:
    """Returns the mean; NaN of nothing. The sum is exact, so the order does not matter.

    >>> mean([0.1] * 10), mean([])
    (0.1, nan)
    """
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan


def overall(records: Sequence[Record]) -> Means:
    """Returns the mean score over all records."""
    return {"accuracy": mean(map(score, records))}


def by_tag(records: Sequence[Record], tag: str) -> Means:
    """Returns the mean score of each label, as "tag/label"; a sample counts for each label."""
    labels: dict[str, list[float]] = {}
    for record in records:
        value = record.sample.tags.get(tag, ())
        for label in (value,) if isinstance(value, str) else value:
            labels.setdefault(label, []).append(score(record))
    return {f"{tag}/{label}": mean(labels[label]) for label in sorted(labels)}


def macro(means: Means) -> float:
    """Returns the unweighted mean of means."""
    return mean(means.values())


def with_tags(*tags: str) -> Callable[[Sequence[Record]], Means]:
    """Returns an aggregate: the mean over all records, then over each label of these tags."""

    def aggregate(records: Sequence[Record]) -> Means:
        """Returns the mean over all records, then over each label."""
        means = overall(records)
        for tag in tags:
            means |= by_tag(records, tag)
        return means

    return aggregate


def of_answered(*tags: str) -> Callable[[Sequence[Record]], Means]:
    """Returns the same aggregate over those records only that a rule gave a score."""
    mean_by_tag = with_tags(*tags)

    def aggregate(records: Sequence[Record]) -> Means:
        """Returns the mean over the records that were read, then over each label."""
        return mean_by_tag([r for r in records if r.verdict.score is not None])

    return aggregate
