"""What the event loop decodes: groups, where they come from, and how far they are to go."""

import abc
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from evr1.data.records import Example
from evr1.sampler.sampling import RowIds
from evr1.types import Rollouts

OnFinish = Callable[[Any, Rollouts], None]


@dataclasses.dataclass(frozen=True)
class Group:
    """A prompt, and what is drawn for it.

    Attributes:
        key: handed to `on_finish`.
        example: the prompt, or what the questions share of theirs.
        ids: int32[N] each, of the rows.
        questions: what stands behind the shared part in the prompt of each row; fewer than N where
            the last rows are not used. Empty: there are no questions.
        begun: what was drawn of the completions before; None: nothing. Rows that have not ended are
            equally long, and go on where they were.
    """

    key: Any
    example: Example
    ids: RowIds
    questions: tuple[Int[np.ndarray, " _"], ...] = ()
    begun: Rollouts | None = None

    @property
    def given(self) -> tuple[Int[np.ndarray, " _"], ...]:
        """What stands behind the prompt in each row before it draws."""
        if self.begun is None:
            return self.questions
        rows = zip(self.begun.completions, self.begun.lengths, strict=True)
        return tuple(tokens[:length] for tokens, length in rows)

    @property
    def is_open(self) -> Bool[np.ndarray, " n"]:
        """Which rows have not ended yet."""
        if self.begun is None:
            return np.ones(self.ids.requests.shape, bool)
        return self.begun.is_open

    @property
    def drawn(self) -> int:
        """Tokens that each row which has not ended has drawn before."""
        return 0 if self.begun is None else int(self.begun.lengths[self.is_open][0])


class Progress(NamedTuple):
    """How far a group has come.

    Attributes:
        turns: its prefill and the decode windows that it had, as far as they were read.
        is_done: all its completions are there.
    """

    turns: int
    is_done: bool


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of decoding that begins where another ended, and may end before its groups do.

    Attributes:
        begun: what was drawn before of each example; None: nothing.
        is_over: called with how far each group is, by its key, whenever a window has been read;
            groups that have no slot yet are not there. Once it says so, what groups have is
            handed to `on_finish`, whether they are done or not.
    """

    begun: Sequence[Rollouts | None]
    is_over: Callable[[Mapping[Any, Progress]], bool]


class Feed(abc.ABC):
    """Where the event loop takes groups from, in the order in which they are to be prefilled."""

    @property
    @abc.abstractmethod
    def left(self) -> int:
        """Groups that may still come."""

    @abc.abstractmethod
    def take(self, count: int, wait: bool) -> list[Group]:
        """Returns up to so many groups that are ready.

        Args:
            count: how many fit.
            wait: until there is one, or none is left.
        """


class ListFeed(Feed):
    """Groups that are there already."""

    def __init__(self, groups: Sequence[Group]):
        self._groups = collections.deque(groups)

    @property
    def left(self) -> int:
        """See Feed."""
        return len(self._groups)

    def take(self, count: int, wait: bool) -> list[Group]:
        """See Feed. A prefill is of groups that have begun, or of others."""
        del wait
        taken: list[Group] = []
        while self._groups and len(taken) < count:
            if taken and (taken[0].begun is None) != (self._groups[0].begun is None):
                break
            taken.append(self._groups.popleft())
        return taken


@dataclasses.dataclass(frozen=True)
class Stats:
    """What one `generate` did.

    Attributes:
        prompts: groups.
        tokens: completion tokens.
        prefills: prefill batches.
        windows: decode dispatches.
        steps: decode steps.
        idle_row_share: of the rows that were decoded, how many belonged to a finished row or an
            empty slot.
        prefill_s: seconds until prefilled prompts were ready, everything before them in the queue
            excluded.
        decode_s: the same for windows.
        total_s: seconds from call to return.
    """

    prompts: int = 0
    tokens: int = 0
    prefills: int = 0
    windows: int = 0
    steps: int = 0
    idle_row_share: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Completion tokens per second of the whole call."""
        return self.tokens / max(self.total_s, 1e-9)
