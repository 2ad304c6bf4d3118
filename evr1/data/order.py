"""The order in which rows are drawn: shuffled, by pass rate, or mixed from several sources."""

from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool

from evr1.data.mixture import Mixture
from evr1.data.records import Row


class Source(NamedTuple):
    """Consecutive rows that are drawn with a weight of their own."""

    rows: int  # how many
    weight: float  # share of what is drawn


def draw_order(
    rows: Sequence[Row],
    *,
    sources: Sequence[Source] = (),
    seed: int = 0,
    shuffle: bool = True,
    curriculum: str = "",
    epochs: int | None = None,
    is_used: Bool[np.ndarray, " rows"] | None = None,
) -> grain.MapDataset:
    """Returns the row numbers in the order in which they are drawn.

    Several sources are mixed by exact shares, see `Mixture`; each starts over by itself, so a small
    one comes more often round.

    Args:
        rows: of all sources, one source after the other.
        sources: none: all rows are one.
        seed: of the order, which is another one in every epoch of a source.
        shuffle: False: file order.
        curriculum: easy_first or hard_first: by the rows' `pass_rate`, the same in every epoch;
            rows of the same rate stand in the seed's order. It goes before `shuffle`.
        epochs: of a single source; None: without end.
        is_used: others are left out; every source has one. None: all are used.

    Raises:
        ValueError: a row without `pass_rate` in a curriculum, or several sources with an end.
    """
    sources = sources or [Source(len(rows), 1.0)]
    if len(sources) > 1 and epochs is not None:
        raise ValueError("several sources have no common end; give epochs=None")
    parts, start = [], 0
    for i, source in enumerate(sources):
        end = start + source.rows
        numbers = np.arange(start, end)
        numbers = numbers if is_used is None else numbers[is_used[start:end]]
        if curriculum:
            numbers = _by_pass_rate(rows, numbers, curriculum, seed + i)
        part = grain.MapDataset.source(numbers.tolist())
        if shuffle and not curriculum:
            part = part.shuffle(seed=(seed + i) % 2**32)
        parts.append(part)
        start = end
    if len(parts) == 1:
        return parts[0].repeat(epochs)
    repeated = [part.repeat(None) for part in parts]
    mixture = Mixture([source.weight for source in sources])
    return grain.MapDataset.select_from_datasets(repeated, mixture)


def _by_pass_rate(
    rows: Sequence[Row], numbers: np.ndarray, curriculum: str, seed: int
) -> np.ndarray:
    order = np.random.default_rng(seed).permutation(numbers)
    rates = np.array([pass_rate(rows[i]) for i in order.tolist()])
    ranks = np.argsort(-rates if curriculum == "easy_first" else rates, kind="stable")
    return order[ranks]


def pass_rate(row: Row) -> float:
    """Returns the share of completions that passed, as evr1 filter writes it.

    Raises:
        ValueError: there is none, or it is no number from 0 to 1; names the row.
    """
    value = row.extra.get("pass_rate")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"{row.source}: pass_rate: got {value!r}; data.curriculum orders rows by this number "
            "from 0 to 1: use rows that evr1 filter wrote"
        )
    return float(value)
