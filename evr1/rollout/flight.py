"""Where a rollout ends that does not wait for its last groups: a clock that all hosts can read.

More groups are drawn for than a step needs. Once as many as it needs are done the others are cut:
they are carried into the next rollout, where they go on under newer weights. Which are done must
not hang on clocks, devices or the number of hosts, so it is read off a schedule that is worked out
from lengths alone: groups take the slots in their order, each for as many turns as its longest
completion takes, and the next group takes a slot as soon as it is free. What a host drew beyond the
end is dropped. A turn of a group is its prefill, or a window.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evr1.parallel import hosts
from evr1.sampler.groups import Progress
from evr1.types import Rollouts

HOSTS_MEET = 4  # windows after which hosts tell each other how far they are


class Cut(NamedTuple):
    """The end of a rollout.

    Attributes:
        time: turns since its start.
        turns: of each group, up to then; 0: it had no slot yet.
        is_done: whether each was done by then.
    """

    time: int
    turns: tuple[int, ...]
    is_done: tuple[bool, ...]

    def idle_share(self, slots: int) -> float:
        """Returns the share of the slots' turns that no group had.

        >>> Cut(4, (1, 4), (True, True)).idle_share(2)
        0.375
        """
        return 1 - sum(self.turns) / max(slots * self.time, 1)


def cut(progress: Sequence[Progress], slots: int, need: int) -> Cut | None:
    """Returns where `need` groups are done; None while that is not known yet.

    With two slots the first group ends after 2 turns, the third has its slot for 3, up to turn 5;
    the second is known to go on for 5 at least, so nothing is missing:

    >>> groups = [Progress(2, True), Progress(5, False), Progress(3, True), Progress(0, False)]
    >>> cut(groups, slots=2, need=2)
    Cut(time=5, turns=(2, 5, 3, 0), is_done=(True, False, True, False))
    >>> cut([Progress(2, True), Progress(4, False), Progress(3, True)], slots=2, need=2) is None
    True

    Args:
        progress: of all groups, in their order.
        slots: groups that decode at the same time, on all hosts together.
        need: groups that must be done.
    """
    if need <= 0:
        return Cut(0, (0,) * len(progress), (False,) * len(progress))
    free: list[float] = [0.0] * slots
    starts, ends = list[float](), list[float]()
    known = math.inf  # the time up to which it is known what every slot does
    for turns, is_done in progress:
        start = heapq.heappop(free)
        end = start + turns if is_done else math.inf
        known = known if is_done else min(known, start + turns)
        heapq.heappush(free, end)
        starts.append(start)
        ends.append(end)
    time = sorted(ends)[need - 1] if need <= len(ends) else math.inf
    if math.isinf(time) or time > known:
        return None
    return Cut(
        int(time),
        tuple(
            int(max(min(time - start, p.turns), 0))
            for start, p in zip(starts, progress, strict=True)
        ),
        tuple(end <= time for end in ends),
    )


def to_draw(prompts: int, overdraw: float, waiting: int) -> int:
    """Returns how many groups are new in a rollout.

    >>> to_draw(256, 0.1, 0), to_draw(256, 0.1, 26), to_draw(256, 0.1, 30)
    (282, 256, 252)

    Args:
        prompts: groups of a step.
        overdraw: share of them that is drawn for beside.
        waiting: groups that are carried or left over.
    """
    return max(prompts + math.ceil(overdraw * prompts) - waiting, 0)


class End(NamedTuple):
    """When a rollout is over.

    Attributes:
        slots: groups that decode at the same time, on all hosts together.
        need: groups that must be done.
    """

    slots: int
    need: int


class Clock:
    """Says when a rollout is over, on all hosts alike; they tell each other how far they are."""

    def __init__(self, end: End, places: Sequence[int], count: int) -> None:
        """Knows nothing yet.

        Args:
            end: of the rollout.
            places: of this host's groups among those of all.
            count: groups of all hosts.
        """
        self._end, self._places, self._count = end, places, count
        self._own: list[tuple[int, int, bool]] = []  # place, turns, is done
        self._asked = 0
        self._cut: Cut | None = None

    def __call__(self, progress: Mapping[int, Progress]) -> bool:
        """Returns whether the rollout is over; see `Stretch.is_over`."""
        self._own = [(self._places[g], p.turns, p.is_done) for g, p in progress.items()]
        self._asked += 1
        if hosts.count() == 1 or self._asked % HOSTS_MEET == 0:
            self._tell()
        return self._cut is not None

    def wait(self) -> Cut:
        """Returns the end, once the hosts that are not so far have reached it."""
        while self._cut is None:
            self._tell()
        return self._cut

    def _tell(self) -> None:
        known = [Progress(0, False)] * self._count
        for told in hosts.gather_json(self._own):
            for place, turns, is_done in told:
                known[place] = Progress(turns, is_done)
        self._cut = cut(known, *self._end)


def shortened(rollouts: Rollouts, tokens: int, pad_id: int) -> Rollouts:
    """Returns completions of at most so many tokens; those that are cut have not ended.

    Args:
        rollouts: without a G axis.
        tokens: at most.
        pad_id: stands behind them.
    """
    is_cut = rollouts.lengths > tokens
    behind = is_cut[:, None] & (np.arange(rollouts.completions.shape[1]) >= tokens)
    return Rollouts(
        np.where(behind, np.int32(pad_id), rollouts.completions),
        np.where(behind, np.float32(0), rollouts.logprobs),
        np.where(is_cut, np.int32(tokens), rollouts.lengths),
        rollouts.finished & ~is_cut,
    )
