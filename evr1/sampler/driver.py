"""The event loop: continuous batching over groups, in one thread.

Free slots are filled with the next prompts (prefilled a few at a time, in few shapes), all slots
decode for a window, and results are read in the order in which they were dispatched, by default one
window behind. Nothing that the loop decides changes a token: that depends on the prompt, the seed
and the request id alone.
"""

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from evr1.data.batch import collate
from evr1.data.records import Example, Geometry
from evr1.features import with_vision
from evr1.models import Model
from evr1.parallel.sharding import batch_sharding
from evr1.sampler.engine import Engine, Prefix, ResultTokens, batch_shards
from evr1.sampler.sampling import Sampling
from evr1.types import Params, Prompts, Rollouts, ShapeTable

OnFinish = Callable[[int, Rollouts], None]


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
        self._collate = functools.partial(
            collate,
            shapes=shapes,
            geometry=geometry,
            pos_grid=pos_grid,
            pad_id=pad_id,
            has_patches=False,
        )

    def generate(
        self,
        params: Params,
        examples: Sequence[Example],
        request_ids: Sequence[int],
        sampling: Sampling,
        on_finish: OnFinish | None = None,
    ) -> Rollouts:
        """Returns n completions for each example, in the order of `examples`. `self.stats` then
        tells how it went.

        Args:
            params: of the model.
            examples: the prompts.
            request_ids: one for each; with `sampling.seed` they decide the random numbers, so give
                every prompt of a run its own.
            sampling: how to draw and when to stop.
            on_finish: called with (index of the example, its rollouts without the G axis) as soon
                as all its completions are there, while others still decode.

        Raises:
            ValueError: lengths differ, or a prompt or `sampling.max_tokens` exceeds the shapes.
        """
        if len(examples) != len(request_ids):
            raise ValueError(
                f"{len(examples)} examples with {len(request_ids)} request ids; give one each"
            )
        longest = max((len(e.tokens) for e in examples), default=1)
        engine = Engine(
            model=self.model,
            sampling=sampling,
            n=self.n,
            slots=self.slots,
            prompt_tokens=self.shapes.prompt_bucket(longest),
            completion_tokens=self.shapes.completion_tokens,
            window=self.window,
            devices=self.mesh,
            stop_early=self.stop_early,
        )
        call = _Call(self, engine, params, examples, request_ids, on_finish)
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            rollouts = call.run()
        self.stats = call.stats()
        return rollouts

    def prompts(self, examples: Sequence[Example]) -> Prompts:
        """The prompts of one prefill, padded to `prefill_groups` and placed on the devices."""
        prompts = self._collate(examples, groups=self.prefill_groups)
        padding = [None] * (self.prefill_groups - len(examples))
        prompts = with_vision(prompts, [*examples, *padding], self._merge)
        if self.mesh is None:
            return jax.device_put(prompts)
        return jax.device_put(prompts, batch_sharding(self.mesh))


class _Call:
    """The state of one `Sampler.generate`."""

    def __init__(self, sampler: Sampler, engine: Engine, params, examples, request_ids, on_finish):
        groups, n, limit = len(examples), sampler.n, engine.sampling.max_tokens
        self.sampler = sampler
        self.engine = engine
        self.params = compute_params(params, sampler.model.dtype)
        self.examples = examples
        self.request_ids = np.asarray(request_ids, np.int64).astype(np.int32)
        self.on_finish = on_finish
        # Prompts of like size are prefilled together, the large ones first: less padding, fewer
        # shapes.
        order = sorted(
            range(groups), key=lambda i: (-len(examples[i].patches), -len(examples[i].tokens))
        )
        self.queue = collections.deque(order)
        self.owners = np.full(sampler.slots, -1)
        self.starts = np.zeros(sampler.slots, np.int64)
        self.flying: collections.deque[_Dispatched] = collections.deque()
        self.out = Rollouts(
            completions=np.full((groups, n, limit), sampler.pad_id, np.int32),
            logprobs=np.zeros((groups, n, limit), np.float32),
            lengths=np.zeros((groups, n), np.int32),
            finished=np.zeros((groups, n), bool),
        )
        self.left = groups
        self.end_ids = np.asarray(engine.sampling.end_ids, np.int32)
        self.counts = collections.Counter(prefills=0, windows=0, steps=0)
        self.seconds = {"prefill_s": 0.0, "decode_s": 0.0}
        self.begun = self.mark = time.perf_counter()

    def run(self) -> Rollouts:
        """The loop."""
        if not self.left:
            return self.out
        state = self.engine.init_decode_state()
        while self.left:
            state = self._refill(state)
            if (self.owners >= 0).any():
                state, result = self.engine.generate(self.params, state)
                result.copy_to_host_async()
                self.flying.append(
                    _Dispatched(result, self.owners.copy(), self.starts.copy(), is_window=True)
                )
                self.starts += self.sampler.window
            while len(self.flying) > self.sampler.dispatch_ahead:
                self._collect(self.flying.popleft())
        return self.out

    def _refill(self, state):
        """Prefills into the free slots, as soon as a whole batch of them is free."""
        free = np.flatnonzero(self.owners < 0)
        batch = self.sampler.prefill_groups
        while self.queue and len(free) >= min(batch, len(self.queue)):
            chosen = [self.queue.popleft() for _ in range(min(batch, len(self.queue)))]
            slots, free = free[: len(chosen)], free[len(chosen) :]
            prefix = self._prefill(chosen)
            # Padding goes to a slot that is not there.
            everywhere = np.full(batch, self.sampler.slots, np.int32)
            everywhere[: len(chosen)] = slots
            state = self.engine.insert(prefix, state, everywhere)
            if not self.sampler.dispatch_ahead:
                jax.block_until_ready(state)  # simulated CPU devices hang in overlapping prefills
            self.owners[slots], self.starts[slots] = chosen, 1
            first = ResultTokens(prefix.data, self.sampler.n)
            first.copy_to_host_async()
            owners = np.full(batch, -1)
            owners[: len(chosen)] = chosen
            self.flying.append(
                _Dispatched(first, owners, np.zeros(batch, np.int64), is_window=False)
            )
        return state

    def _prefill(self, chosen: list[int]) -> Prefix:
        ids = np.zeros(self.sampler.prefill_groups, np.int32)
        ids[: len(chosen)] = self.request_ids[chosen]
        prompts = self.sampler.prompts([self.examples[i] for i in chosen])
        return self.engine.prefill(params=self.params, prompts=prompts, request_ids=ids)

    def _collect(self, item: _Dispatched) -> None:
        """Writes the tokens of one dispatch into the rollouts and frees the slots that are done."""
        slots = item.result.convert_to_numpy().by_slot()
        self._count(item, slots.valid)
        at, row, column = np.nonzero(slots.valid & (item.owners >= 0)[:, None, None])
        group, position = item.owners[at], item.starts[at] + column
        out = self.out
        out.completions[group, row, position] = slots.tokens[at, row, column]
        out.logprobs[group, row, position] = slots.logprobs[at, row, column]
        got = item.owners >= 0
        out.lengths[item.owners[got]] = slots.lengths[got]
        over = got & slots.done.all(axis=1)
        if item.is_window:
            over &= self.owners == item.owners  # of an older window: its group is gone already
        ended = item.owners[over]
        self.owners[np.isin(self.owners, ended)] = -1
        for g in ended.tolist():
            self._finish(g)

    def _finish(self, g: int) -> None:
        last = np.take_along_axis(self.out.completions[g], self.out.lengths[g][:, None] - 1, axis=1)
        self.out.finished[g] = np.isin(last[:, 0], self.end_ids)
        self.left -= 1
        if self.on_finish is not None:
            self.on_finish(g, Rollouts(*(part[g] for part in self.out)))

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
        tokens, n = int(self.out.lengths.sum()), self.sampler.n
        drawn = tokens - self.out.lengths.size  # the first tokens come with the prefill
        rows = self.counts["steps"] * self.sampler.slots * n
        return Stats(
            prompts=len(self.examples),
            tokens=tokens,
            idle_row_share=1 - drawn / rows if rows else 0.0,
            total_s=time.perf_counter() - self.begun,
            prefills=self.counts["prefills"],
            windows=self.counts["windows"],
            steps=self.counts["steps"],
            **self.seconds,
        )


def compute_params(params: Params, dtype: str) -> Params:
    """`params` with the matrices in the dtype of the computation.

    The model casts them at every use, which gives the same numbers but reads twice the bytes at
    every decode step.
    """
    return params if dtype == "float32" else _cast(params, dtype)


@functools.partial(jax.jit, static_argnames="dtype")
def _cast(params: Params, dtype: str) -> Params:
    def cast(path, leaf):
        is_matrix = path[-1].key in ("kernel", "embed", "head")
        return leaf.astype(jnp.dtype(dtype)) if is_matrix else leaf

    return jax.tree_util.tree_map_with_path(cast, params)
