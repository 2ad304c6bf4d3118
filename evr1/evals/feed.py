"""From bundles to groups: media are decoded in the background, a few bundles ahead of the model."""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource
from evr1.data.records import Example, Media, MediaSize
from evr1.evals.packs import Asker, Bundle, Key, Pack, sizes_of
from evr1.evals.samples import Frames
from evr1.evals.subtitles import SubtitlesError
from evr1.evals.tasks.base import Sample
from evr1.sampler.groups import Feed, Group
from evr1.sampler.sampling import RowIds

Encode = Callable[[Sequence[Example]], list[Example]]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A bundle, what the headers of its media say of its shapes, and who still waits for an answer.

    Attributes:
        bundle: the samples and their media.
        key: shapes.
        packs: how many.
        waiting: ids of the samples that are to be answered.
    """

    bundle: Bundle
    key: Key
    packs: int
    waiting: frozenset[str]


class Place(NamedTuple):
    """What is known of a group when its completions are there.

    Attributes:
        samples: of the rows, each `draws` times; None: a row that nobody waits for.
        frames: that were shown of each medium.
        begun: when the bundle was taken up, on the clock of `time.perf_counter`.
    """

    samples: tuple[Sample | None, ...]
    frames: tuple[Frames, ...]
    begun: float


class Failure(NamedTuple):
    """Why samples get no answer."""

    samples: tuple[Sample, ...]
    reason: str  # one of samples.REASONS
    detail: str


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A bundle that is ready for the model."""

    packs: list[Pack]
    examples: list[Example]
    frames: tuple[Frames, ...]
    key: Key


@dataclasses.dataclass(frozen=True)
class Opener:
    """Makes bundles ready for the model; safe to use from many threads.

    Attributes:
        asker: how questions are put.
        source: of the media.
        draws: responses to a question.
        max_prompt_tokens: a longer prompt is a failure.
    """

    asker: Asker
    source: MediaSource
    draws: int
    max_prompt_tokens: int

    def plan(self, bundle: Bundle, done: frozenset[str]) -> list[Planned | Failure]:
        """Returns the shapes of a bundle, and which of its samples cannot be asked.

        Args:
            bundle: the samples and their media.
            done: ids that need no answer; nothing is returned where nobody waits for one.
        """
        waiting = frozenset(sample.id for sample in bundle.samples) - done
        if not waiting:
            return []
        try:
            sizes = [self.source.size(request) for request in bundle.media]
        except ValueError as error:
            return [_failure(bundle, waiting, error)]
        with contextlib.suppress(ValueError):  # of one prompt, which is no fault of the others
            return [self._planned(bundle, sizes, waiting)]
        sound, out = [], []
        for sample in bundle.samples:
            alone = dataclasses.replace(bundle, samples=(sample,))
            try:
                self._packs(alone, sizes)
                sound.append(sample)
            except ValueError as error:
                out.append(_failure(alone, waiting, error))
        rest = dataclasses.replace(bundle, samples=tuple(sound))
        if left := waiting.intersection(sample.id for sample in sound):
            out.append(self._planned(rest, sizes, left))
        return [each for each in out if isinstance(each, Planned) or each.samples]

    def _planned(
        self, bundle: Bundle, sizes: Sequence[MediaSize], waiting: frozenset[str]
    ) -> Planned:
        packs, key = self._packs(bundle, sizes)
        return Planned(bundle, key, len(packs), waiting)

    def open(self, planned: Planned) -> Decoded | Failure:
        """Returns a bundle with its pixels."""
        bundle = planned.bundle
        try:
            media = [self.source.load(request) for request in bundle.media]
            packs, key = self._packs(bundle, sizes_of(media, self.asker.processor))
            examples = self.asker.examples(packs, media)
        except ValueError as error:
            return _failure(bundle, planned.waiting, error)
        return Decoded(packs, examples, tuple(map(self._shown, media)), key)

    def _packs(self, bundle: Bundle, sizes: Sequence[MediaSize]) -> tuple[list[Pack], Key]:
        packs = self.asker.packs(bundle.samples, sizes)
        longest = max(pack.head_tokens + max(map(len, pack.tails)) for pack in packs)
        if longest > self.max_prompt_tokens:
            raise TooLong(
                f"a prompt of {longest} tokens is over max_prompt_tokens={self.max_prompt_tokens}; "
                "raise it, or take a preset with fewer frames"
            )
        return packs, self.asker.key(packs, sizes, self.draws)

    def _shown(self, medium: Media) -> Frames:
        t, h, w, _ = medium.frames.shape
        [size] = sizes_of([medium], self.asker.processor)
        tokens = int(np.prod(size.grid_thw)) // self.asker.processor.geometry.merge_size**2
        return Frames(t, tuple(medium.timestamps.tolist()), (h, w), tokens)


class TooLong(ValueError):
    """A prompt is over the limit."""


def _failure(bundle: Bundle, waiting: frozenset[str], error: ValueError) -> Failure:
    """Returns what is written of samples without an answer."""
    reason = "prompt"
    if isinstance(error, MediaError):
        reason = error.kind
    elif isinstance(error, TooLong):
        reason = "too_long"
    elif isinstance(error, SubtitlesError):
        reason = "subtitles"
    listed = tuple(sample for sample in bundle.samples if sample.id in waiting)
    return Failure(listed, reason, " ".join(str(error).split()))


@contextlib.contextmanager
def waiting_threads(pool: DecodePool, count: int) -> Iterator[futures.Executor]:
    """Yields threads that wait for media; where the work inside ends early, nobody waits.

    Args:
        pool: that decodes them; it is closed at an early end.
        count: of threads.
    """
    with futures.ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            pool.close()  # a thread that waits for a decoder ends, too
            raise


class BundleFeed(Feed):
    """The groups of bundles of one key, in order; some bundles are decoded ahead."""

    def __init__(
        self,
        bundles: Sequence[Planned],
        opener: Opener,
        encode: Encode,
        request_id: Callable[[Sample], int],
        on_failure: Callable[[Failure], None],
        *,
        threads: futures.Executor,
        ahead: int,
    ):
        """Begins to decode.

        Args:
            bundles: to answer.
            opener: of them.
            encode: gives examples their visual features.
            request_id: of a sample, for its random numbers.
            on_failure: takes what has failed.
            threads: that open bundles.
            ahead: bundles that are open, or being opened, at the same time.
        """
        self._todo = collections.deque(bundles)
        self._opener, self._encode, self._request_id = opener, encode, request_id
        self._on_failure, self._threads = on_failure, threads
        self._opening: collections.deque[tuple[Planned, float, futures.Future]] = (
            collections.deque()
        )
        self._ready: collections.deque[Group] = collections.deque()
        self._visuals: dict[int, Example] = {}
        self.misfits: list[Planned] = []  # larger than their headers said
        self._submit(ahead)

    @property
    def left(self) -> int:
        """See Feed."""
        planned = [*self._todo, *(planned for planned, _, _ in self._opening)]
        return len(self._ready) + sum(each.packs for each in planned)

    def take(self, count: int, wait: bool) -> list[Group]:
        """See Feed."""
        groups: list[Group] = []
        while len(groups) < count:
            if self._ready:
                groups.append(self._ready.popleft())
                continue
            if not self._opening:
                break
            planned, begun, future = self._opening[0]
            if not future.done() and (groups or not wait):
                break
            self._enter(planned, begun, future.result())
            self._opening.popleft()
            self._submit(1)
        return self._with_features(groups)

    def _submit(self, count: int) -> None:
        for _ in range(min(count, len(self._todo))):
            planned = self._todo.popleft()
            future = self._threads.submit(self._opener.open, planned)
            self._opening.append((planned, time.perf_counter(), future))

    def _enter(self, planned: Planned, begun: float, opened: Decoded | Failure) -> None:
        if isinstance(opened, Failure):
            self._on_failure(opened)
            return
        if any(own > room for own, room in zip(opened.key, planned.key, strict=True)):
            larger = dataclasses.replace(planned, key=opened.key, packs=len(opened.packs))
            self.misfits.append(larger)
            return
        for pack, example in zip(opened.packs, opened.examples, strict=True):
            if planned.waiting.isdisjoint(sample.id for sample in pack.samples):
                continue
            self._ready.append(self._group(planned, pack, example, opened.frames, begun))

    def _group(
        self,
        planned: Planned,
        pack: Pack,
        example: Example,
        frames: tuple[Frames, ...],
        begun: float,
    ) -> Group:
        draws, rows = self._opener.draws, planned.key.rows
        samples: list[Sample | None] = []
        questions = []
        requests, numbers = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for place, (sample, tail) in enumerate(zip(pack.samples, pack.tails, strict=True)):
            is_waiting = sample.id in planned.waiting
            at = slice(place * draws, (place + 1) * draws)
            requests[at], numbers[at] = self._request_id(sample), np.arange(draws)
            samples += [sample if is_waiting else None] * draws
            questions += [np.array(tail if is_waiting else (), np.int32)] * draws
        ids = RowIds(requests, numbers)
        return Group(Place(tuple(samples), frames, begun), example, ids, tuple(questions))

    def _with_features(self, groups: list[Group]) -> list[Group]:
        """Returns the groups with visual features, which packs of the same pixels share."""
        fresh = {id(g.example.patches): g.example for g in groups}
        fresh = {key: example for key, example in fresh.items() if key not in self._visuals}
        encoded = self._encode(list(fresh.values())) if fresh else []
        self._visuals |= dict(zip(fresh, encoded, strict=True))
        out = []
        for group in groups:
            visual = self._visuals[id(group.example.patches)].visual
            example = dataclasses.replace(group.example, visual=visual)
            out.append(dataclasses.replace(group, example=example))
        later = {id(group.example.patches) for group in self._ready}
        self._visuals = {key: each for key, each in self._visuals.items() if key in later}
        return out
