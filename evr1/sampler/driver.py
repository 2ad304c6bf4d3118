"""The event loop: continuous batching over groups, in one thread.

A group is a prompt with its rows: n draws for the prompt, or one for each question behind it.

Free slots are filled with the next prompts (prefilled a few at a time, in few shapes), all slots
decode for a window, and results are read in the order in which they were dispatched, by default one
window behind. Nothing that the loop decides changes a token: that depends on the prompt, the seed
and the request id alone.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.profiler import TraceAnnotation
from jax.sharding import Mesh
from jaxtyping import Int

from evr1.batch.collate import Collator
from evr1.batch.features import with_vision
from evr1.batch.shapes import ShapeTable
from evr1.data.records import Example, Geometry
from evr1.models import Model
from evr1.parallel import hosts
from evr1.parallel.sharding import batch_shards, put_batch
from evr1.sampler.engine import Engine, Prefix, ResultTokens
from evr1.sampler.groups import Feed, Group, ListFeed, OnFinish, Progress, Stats, Stretch
from evr1.sampler.sampling import RowIds, Sampling
from evr1.types import Params, Prompts, Questions, Rollouts

IsOver = Callable[[Mapping[Any, Progress]], bool]

LEAST_ROOM = 32  # tokens of a row that a prefill has room for, where it goes on with what was drawn


@dataclasses.dataclass(frozen=True)
class _Dispatched:
    """Work on its way: which groups it gives tokens to, and where in their completions these go."""

    result: ResultTokens
    owners: np.ndarray  # int[G], group of each slot (or of each prompt of a prefill); -1 = none
    starts: np.ndarray  # int[G], index of the first token
    is_window: bool


class Sampler:
    """Draws n completions for each of many prompts.

    Args:
        model: the model.
        shapes: buckets of prompts, and the room for completions.
        geometry: how pixels were cut into patches.
        pos_grid: side of the learned position table.
        n: completions of a prompt.
        slots: groups that decode at the same time.
        window: decode steps per dispatch.
        pad_id: fills completions after their end.
        mesh: devices to spread the slots over.
        prefill_groups: prompts per prefill; slots are refilled once so many are free. None: an
            eighth of the slots.
        dispatch_ahead: dispatch a window before the one before it is read: the device never waits
            for the host, and a finished group keeps its slot for a window longer. None: except on
            CPUs, where the host is the device.
    """

    def __init__(
        self,
        model: Model,
        *,
        shapes: ShapeTable,
        geometry: Geometry,
        pos_grid: int,
        n: int,
        slots: int,
        window: int,
        pad_id: int,
        mesh: Mesh | None = None,
        prefill_groups: int | None = None,
        dispatch_ahead: bool | None = None,
    ):
        shards = batch_shards(mesh)
        groups = max(1, slots // 8) if prefill_groups is None else prefill_groups
        groups = -(-groups // shards) * shards
        for name, value in (("n", n), ("slots", slots), ("window", window), ("prefill", groups)):
            if value < 1:
                raise ValueError(f"{name}={value}; give at least 1")
        if groups > slots:
            raise ValueError(
                f"prefill_groups={groups} exceeds slots={slots}; raise slots or lower"
                " prefill_groups"
            )
        platform = jax.default_backend()
        self.model = model
        self.shapes = shapes
        self.mesh = mesh
        self.n = n
        self.slots = slots
        self.window = window
        self.pad_id = pad_id
        self.prefill_groups = groups
        self.dispatch_ahead = platform != "cpu" if dispatch_ahead is None else dispatch_ahead
        self.stop_early = platform != "gpu"
        self.stats = Stats()
        self._merge = geometry.merge_size
        self._collate = Collator(shapes, geometry, pos_grid, pad_id)

    def generate(
        self,
        params: Params,
        examples: Sequence[Example],
        request_ids: Sequence[int] | Int[np.ndarray, " g"],
        sampling: Sampling,
        on_finish: OnFinish | None = None,
        stretch: Stretch | None = None,
    ) -> Rollouts:
        """Returns n completions for each example, in the order of `examples`. `self.stats` then
        tells how it went.

        Args:
            params: of the model, as `evr1.sampler.weights.lay_out` returns them.
            examples: the prompts.
            request_ids: one for each; with `sampling.seed` they decide the random numbers, so give
                every prompt of a run its own.
            sampling: how to draw and when to stop.
            on_finish: called with (index of the example, its rollouts without the G axis) as soon
                as all its completions are there, while others still decode.
            stretch: where completions begin and end; groups are then prefilled in their order, and
                those whose turn has not come have no tokens. None: completions as a whole.

        Raises:
            ValueError: lengths differ, or a prompt or `sampling.max_tokens` exceeds the shapes.
        """
        if len(examples) != len(request_ids):
            raise ValueError(
                f"{len(examples)} examples with {len(request_ids)} request ids; give one each"
            )
        # Prompts of like size are prefilled together, the large ones first: less padding, fewer
        # shapes.
        order = list(range(len(examples)))
        begun = [None] * len(examples) if stretch is None else stretch.begun
        if stretch is None:
            order.sort(key=lambda i: (-len(examples[i].patches), -len(examples[i].tokens)))
        ids = RowIds.of_groups(np.asarray(request_ids, np.int64), self.n)
        rows = [RowIds(*(x[i] for x in ids)) for i in order]
        feed = ListFeed(
            [Group(i, examples[i], row, begun=begun[i]) for i, row in zip(order, rows, strict=True)]
        )
        out = self._empty(len(examples), sampling.max_tokens)

        def collect(i: int, rollouts: Rollouts) -> None:
            for whole, part in zip(out, rollouts, strict=True):
                whole[i] = part
            if on_finish is not None:
                on_finish(i, rollouts)

        longest = max((len(e.tokens) for e in examples), default=1)
        is_over = None if stretch is None else stretch.is_over
        self.run(params, feed, sampling, collect, prompt_tokens=longest, is_over=is_over)
        return out

    def run(
        self,
        params: Params,
        feed: Feed,
        sampling: Sampling,
        on_finish: OnFinish,
        *,
        prompt_tokens: int,
        question_tokens: int = 0,
        is_over: IsOver | None = None,
    ) -> None:
        """Draws for groups that come one after the other; holds as many as there are slots.

        Args:
            params: see `generate`.
            feed: of the groups.
            sampling: see `generate`.
            on_finish: called with the key of each group and its rollouts without the G axis.
            prompt_tokens: of the longest prompt.
            question_tokens: room for the question of a row; 0: there are none.
            is_over: see Stretch; None: it is once all groups are done.

        Raises:
            ValueError: see `generate`.
        """
        engine = self.engine(sampling, self.shapes.cache_tokens(prompt_tokens), question_tokens)
        call = _Call(self, engine, params, feed, on_finish, is_over)
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            call.run()
        self.stats = call.stats()

    def engine(self, sampling: Sampling, prompt_tokens: int, question_tokens: int = 0) -> Engine:
        """Returns the device's programs for prompts of a bucket."""
        return Engine(
            model=self.model,
            sampling=sampling,
            n=self.n,
            slots=self.slots,
            prompt_tokens=prompt_tokens,
            completion_tokens=self.shapes.completion_tokens,
            window=self.window,
            question_tokens=question_tokens,
            devices=self.mesh,
            stop_early=self.stop_early,
        )

    def prompts(self, examples: Sequence[Example]) -> Prompts:
        """The prompts of one prefill, padded to `prefill_groups` and placed on the devices."""
        prompts = self._collate(examples, self.prefill_groups, has_patches=False)
        padding = [None] * (self.prefill_groups - len(examples))
        return put_batch(self.mesh, with_vision(prompts, [*examples, *padding], self._merge))

    def questions(self, groups: Sequence[Group], tokens: int) -> Questions | None:
        """The questions of one prefill, or what its rows have drawn before, padded likewise; None
        where there are none."""
        if groups[0].begun is not None:
            tokens = self.room(max(len(given) for group in groups for given in group.given))
        if not tokens:
            return None
        shape = self.prefill_groups, self.n
        out = Questions(np.full((*shape, tokens), self.pad_id, np.int32), np.zeros(shape, np.int32))
        for g, group in enumerate(groups):
            for row, given in enumerate(group.given):
                out.tokens[g, row, : len(given)] = given
                out.lengths[g, row] = len(given)
        return put_batch(self.mesh, out)

    def is_open(self, groups: Sequence[Group]) -> jax.Array | None:
        """bool[G, N], the rows of one prefill that have not ended; None where none has begun."""
        if groups[0].begun is None:
            return None
        out = np.zeros((self.prefill_groups, self.n), bool)
        out[: len(groups)] = [group.is_open for group in groups]
        return put_batch(self.mesh, out)

    def room(self, tokens: int) -> int:
        """Returns the room for completions, or its half, quarter, ...: the least that holds so many
        tokens, since each is a program."""
        room = self.shapes.completion_tokens
        while room % 2 == 0 and tokens <= room // 2 and room > 2 * LEAST_ROOM:
            room //= 2
        return room

    def _empty(self, groups: int, limit: int) -> Rollouts:
        return Rollouts(
            completions=np.full((groups, self.n, limit), self.pad_id, np.int32),
            logprobs=np.zeros((groups, self.n, limit), np.float32),
            lengths=np.zeros((groups, self.n), np.int32),
            finished=np.zeros((groups, self.n), bool),
        )


class _Call:
    """The state of one `Sampler.run`.

    A group has a place in `out` from its prefill to its end. A window of the slot's last owner may
    be read after the next one has come, so places are used again as late as possible.
    """

    def __init__(
        self,
        sampler: Sampler,
        engine: Engine,
        params: Params,
        feed: Feed,
        on_finish: OnFinish,
        is_over: IsOver | None,
    ):
        self.is_over = is_over
        self.progress: dict[Any, Progress] = {}
        self.sampler = sampler
        self.engine = engine
        self.params = params
        self.feed = feed
        self.on_finish = on_finish
        self.owners = np.full(sampler.slots, -1)
        self.starts = np.zeros(sampler.slots, np.int64)
        self.spoilt = np.zeros(sampler.slots, bool)  # by a group whose logits were not finite
        self.flying: collections.deque[_Dispatched] = collections.deque()
        places = 3 * sampler.slots
        self.places = collections.deque(range(places))
        self.keys: dict[int, Any] = {}
        self.out = sampler._empty(places, engine.sampling.max_tokens)
        self.end_ids = np.asarray(engine.sampling.end_ids, np.int32)
        self.counts = collections.Counter(prefills=0, windows=0, steps=0, groups=0, tokens=0)
        self.seconds = {"prefill_s": 0.0, "decode_s": 0.0}
        self.begun = self.mark = time.perf_counter()

    def run(self) -> None:
        """The loop."""
        if not self.feed.left:
            return
        state = self.engine.init_decode_state(self.params)
        while self.feed.left or self.keys:
            state = self._refill(state)
            if hosts.is_leaving():
                raise hosts.Leave
            if (self.owners >= 0).any():
                drawn = int(self.starts[self.owners >= 0].max())
                with TraceAnnotation("decode"):
                    state, result = self.engine.generate(self.params, state, drawn)
                result.copy_to_host_async()
                self.flying.append(
                    _Dispatched(result, self.owners.copy(), self.starts.copy(), is_window=True)
                )
                self.starts += self.sampler.window
            while len(self.flying) > self.sampler.dispatch_ahead:
                self._collect(self.flying.popleft())
            if self.is_over is not None and self.is_over(self.progress):
                for place in list(self.keys):
                    self._finish(place)
                return

    def _refill(self, state):
        """Prefills into the free slots, as soon as a whole batch of them is free."""
        batch = self.sampler.prefill_groups
        while self.feed.left:
            free = np.flatnonzero(self.owners < 0)
            count = min(batch, self.feed.left)
            if len(free) < count:
                break
            # A CPU takes as long for a free slot as for one in use, and decodes media meanwhile.
            wait = len(free) == len(self.owners) or not self.sampler.dispatch_ahead
            groups = self.feed.take(count, wait)
            if not groups:
                break
            slots = free[: len(groups)]
            with TraceAnnotation("prefill"):
                prefix = self._prefill(groups)
            # An out-of-range slot: insert drops the padding prompts.
            targets = np.full(batch, self.sampler.slots, np.int32)
            targets[: len(groups)] = slots
            if self.spoilt[slots].any():
                state = self.engine.clear(state, targets)
                self.spoilt[slots] = False
            state = self.engine.insert(prefix, state, targets)
            if not self.sampler.dispatch_ahead:
                jax.block_until_ready(state)  # simulated CPU devices hang in overlapping prefills
            owners = np.full(batch, -1)
            owners[: len(groups)] = [self._enter(group) for group in groups]
            starts = np.zeros(batch, np.int64)
            starts[: len(groups)] = [group.drawn for group in groups]
            self.owners[slots] = owners[: len(groups)]
            self.starts[slots] = starts[: len(groups)] + 1
            first = ResultTokens(prefix.data, self.sampler.n)
            first.copy_to_host_async()
            self.flying.append(_Dispatched(first, owners, starts, is_window=False))
        return state

    def _enter(self, group: Group) -> int:
        """Returns the place of a group."""
        place = self.places.popleft()
        self.keys[place] = group.key
        self.out.completions[place] = self.sampler.pad_id
        self.out.logprobs[place] = 0
        self.out.lengths[place] = 0
        if group.begun is not None:
            for mine, before in zip(self.out, group.begun, strict=True):
                mine[place] = before
            self.counts["tokens"] -= int(group.begun.lengths.sum())
        return place

    def _prefill(self, groups: list[Group]) -> Prefix:
        padding = np.zeros((self.sampler.prefill_groups - len(groups), self.sampler.n), np.int32)
        parts = zip(*(group.ids for group in groups), strict=True)
        ids = RowIds(*(np.concatenate([np.stack(rows), padding]) for rows in parts))
        return self.engine.prefill(
            params=self.params,
            prompts=self.sampler.prompts([group.example for group in groups]),
            ids=ids,
            questions=self.sampler.questions(groups, self.engine.question_tokens),
            is_open=self.sampler.is_open(groups),
        )

    def _collect(self, item: _Dispatched) -> None:
        """Writes the tokens of one dispatch into the rollouts and frees the slots that are done."""
        with TraceAnnotation("read_tokens"):
            slots = item.result.convert_to_numpy().by_slot()
        self._count(item, slots.valid)
        at, row, column = np.nonzero(slots.valid & (item.owners >= 0)[:, None, None])
        group, position = item.owners[at], item.starts[at] + column
        out = self.out
        out.completions[group, row, position] = slots.tokens[at, row, column]
        out.logprobs[group, row, position] = slots.logprobs[at, row, column]
        got = item.owners >= 0
        out.lengths[item.owners[got]] = slots.lengths[got]
        if item.is_window:
            got &= self.owners == item.owners  # of an older window: its group is gone already
        over = got & slots.done.all(axis=1)
        ended = item.owners[over]
        for place, is_done in zip(item.owners[got].tolist(), over[got].tolist(), strict=True):
            self._note(self.keys[place], is_done)
        broken = ended[~np.isfinite(out.logprobs[ended]).all(axis=(1, 2))]
        self.spoilt |= np.isin(self.owners, broken)
        self.owners[np.isin(self.owners, ended)] = -1
        for place in ended.tolist():
            self._finish(place)

    def _note(self, key: Any, is_done: bool) -> None:
        """Counts a turn of a group for `is_over`; keys that it never sees need no hash."""
        if self.is_over is not None:
            before = self.progress.get(key, Progress(0, False))
            self.progress[key] = Progress(before.turns + 1, is_done)

    def _finish(self, place: int) -> None:
        out = Rollouts(*(part[place].copy() for part in self.out))
        is_token = np.isfinite(out.logprobs)  # else nothing could be drawn there
        out.completions[~is_token], out.logprobs[~is_token] = self.sampler.pad_id, np.nan
        last = np.take_along_axis(out.completions, out.lengths[:, None] - 1, axis=1)
        is_end = np.isin(last[:, 0], self.end_ids)
        is_end &= out.lengths > 0  # else of a prefill that was not read
        out = out._replace(finished=is_end & is_token.all(axis=1))
        self.places.append(place)
        self.counts["groups"] += 1
        self.counts["tokens"] += int(out.lengths.sum())
        self.on_finish(self.keys.pop(place), out)

    def _count(self, item: _Dispatched, valid: np.ndarray) -> None:
        now = time.perf_counter()
        kind = "decode_s" if item.is_window else "prefill_s"
        self.seconds[kind] += now - self.mark
        self.mark = now
        self.counts["windows" if item.is_window else "prefills"] += 1
        if item.is_window:
            ran = np.flatnonzero(valid.any(axis=(0, 1)))
            last = int(ran[-1]) + 1 if len(ran) else 0
            self.counts["steps"] += last if self.engine.stop_early else valid.shape[2]

    def stats(self) -> Stats:
        """What happened, for `Sampler.stats`."""
        tokens, groups, n = self.counts["tokens"], self.counts["groups"], self.sampler.n
        drawn = tokens - groups * n  # the first tokens come with the prefill
        rows = self.counts["steps"] * self.sampler.slots * n
        return Stats(
            prompts=groups,
            tokens=tokens,
            idle_row_share=1 - drawn / rows if rows else 0.0,
            total_s=time.perf_counter() - self.begun,
            prefills=self.counts["prefills"],
            windows=self.counts["windows"],
            steps=self.counts["steps"],
            **self.seconds,
        )
