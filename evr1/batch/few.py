"""A few shapes that hold many, with little padding."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

Shape = tuple[int, ...]


def choose(
    needs: Int[np.ndarray, "n axes"],
    cost: Callable[[Int[np.ndarray, "m axes"]], np.ndarray],
    *,
    most: int,
    gain: float,
) -> tuple[Shape, ...]:
    """Returns shapes of which one holds everything, the cheapest first.

    The one that holds everything comes first, then, one at a time, what saves most of the padding.

    Args:
        needs: sizes that are to fit; each pays for the cheapest shape that holds it.
        cost: of shapes, float[m].
        most: shapes that are chosen.
        gain: share of all costs that a further shape must save.

    >>> lengths = np.array([[2, 0], [2, 0], [9, 0], [9, 5]])
    >>> choose(lengths, lambda x: x.sum(axis=1), most=2, gain=0.1)
    ((2, 0), (9, 5))
    >>> choose(lengths, lambda x: x.sum(axis=1), most=9, gain=0.0)
    ((2, 0), (9, 0), (9, 5))
    """
    kinds, counts = np.unique(needs, axis=0, return_counts=True)
    axes = [np.unique(column) for column in kinds.T]
    shapes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    costs = np.asarray(cost(shapes), np.float64)
    holds = np.asarray((kinds[:, None] <= shapes[None]).all(axis=2))
    chosen, paid = [len(shapes) - 1], np.full(len(kinds), costs[-1])
    while len(chosen) < most:
        after = np.where(holds, np.minimum(paid[:, None], costs[None]), paid[:, None])
        total = counts @ after
        best = int(total.argmin())
        before = float(counts @ paid)
        if total[best] >= before or before - total[best] < gain * before:
            break
        chosen.append(best)
        paid = after[:, best]
    for i in chosen[1:]:  # what was chosen later may hold all that an earlier one was chosen for
        rest = [j for j in chosen if j != i]
        if _total(rest, holds, costs, counts) <= _total(chosen, holds, costs, counts):
            chosen = rest
    chosen.sort(key=lambda i: (costs[i], *shapes[i]))
    return tuple(tuple(shapes[i].tolist()) for i in chosen)


def _total(chosen: list[int], holds: np.ndarray, costs: np.ndarray, counts: np.ndarray) -> float:
    """Returns what all kinds pay together, each for the cheapest chosen shape that holds it."""
    paid = np.where(holds[:, chosen], costs[chosen], np.inf).min(axis=1)
    return float(counts @ paid)


def first_that_holds(shapes: tuple[Shape, ...], need: Shape) -> Shape:
    """Returns the first shape that holds `need`; the last one must."""
    return next(s for s in shapes if all(n <= x for n, x in zip(need, s, strict=True)))
