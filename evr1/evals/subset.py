"""A fixed part of a benchmark that looks like the whole: for quick looks, not for scores."""

import hashlib
import itertools
from collections.abc import Sequence

from evr1.evals.tasks.base import Sample


def stratified(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Returns so many samples, spread evenly over the labels of their first tag.

    The same ones for ever: which, hashes of the ids decide. Groups of samples that are scored
    together stay whole, so there may be a few more than the limit.

    Args:
        samples: of a task, in any order.
        limit: how many; all where there are no more.
    """
    units: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda each: each.id):
        units.setdefault(sample.group or f"\0{sample.id}", []).append(sample)
    strata: dict[str, list[list[Sample]]] = {}
    for unit in sorted(units.values(), key=lambda each: _hash(each[0].id)):
        label = next(iter(unit[0].tags.values()), "")
        strata.setdefault(str(label), []).append(unit)
    chosen: list[Sample] = []
    for unit in itertools.chain.from_iterable(
        itertools.zip_longest(*(strata[label] for label in sorted(strata)))
    ):
        if unit is None:
            continue
        if len(chosen) >= limit:
            break
        chosen += unit
    return sorted(chosen, key=lambda each: each.id)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
