"""Which source each draw of a mixture comes from, by exact shares."""

import array
import math
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction

import grain


class Mixture(grain.transforms.DatasetSelectionMap):
    """The order in which sources take turns: place -> (source, how many of it came before).

    Of the first N places each source has its share of N to within one, for every N; of two sources
    that holds for any N places in a row. Sources of equal shares take turns in order.

    A source's row c (from 0) may come once the share of the places up to and with its own is over
    c, and has to come before that share would be c + 1. Of those that may come the one that has to
    come first does, which meets every deadline where the shares add up to 1 (EDF on one processor,
    Liu and Layland 1973, with the windows of Baruah et al., "Proportionate progress", 1996).

    >>> [Mixture([0.5, 0.3, 0.2])[i] for i in range(5)]
    [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2)]
    """

    def __init__(self, weights: Sequence[float]):
        """Draws up nothing yet.

        Args:
            weights: of the sources, over 0.
        """
        parts = [_simple(weight) for weight in weights]
        shares = [part / sum(parts) for part in parts]
        self._period = math.lcm(*(share.denominator for share in shares))
        self._parts = [int(share * self._period) for share in shares]  # rows of each in a period
        self._lock = threading.Lock()
        self._sources, self._rows = array.array("H"), array.array("q")  # of the first places
        self._next = [0] * len(shares)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[int, int]:
        turn, place = divmod(index, self._period)
        source, row = self._of_two(place) if len(self._parts) == 2 else self._of_many(place)
        return source, turn * self._parts[source] + row

    def _of_two(self, place: int) -> tuple[int, int]:
        before, after = (-(-n * self._parts[0] // self._period) for n in (place, place + 1))
        return (0, before) if after > before else (1, place - before)

    def _of_many(self, place: int) -> tuple[int, int]:
        with self._lock:
            for now in range(len(self._sources), place + 1):
                source = self._due(now)
                self._sources.append(source)
                self._rows.append(self._next[source])
                self._next[source] += 1
            return self._sources[place], self._rows[place]

    def _due(self, now: int) -> int:
        """Returns the source that takes this place, the first of those with the same deadline."""
        first, source = math.inf, -1
        for i, (part, row) in enumerate(zip(self._parts, self._next, strict=True)):
            if row * self._period < part * (now + 1):
                deadline = -(-(row + 1) * self._period // part)
                if deadline < first:
                    first, source = deadline, i
        return source


def _simple(weight: float) -> Fraction:
    """Returns the simplest fraction of this float: of 0.2 and of 1 - 0.8 it is 1/5."""
    return Fraction(weight).limit_denominator(10**9) or Fraction(weight)
