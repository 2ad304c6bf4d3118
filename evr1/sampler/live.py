"""Decoding for whoever comes: rows that ask, stop and leave at any time, each in its own way.

The programs are the engine's. A slot holds rows with the same head, the part of a prompt up to its
last visual token; what they ask behind it is theirs alone. A head is prefilled once and kept by its
content (`prefixes`), where the model's cache is keys and values alone; of other models, those share
a head that come together.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evr1.batch.shapes import round_up, shapes_alike
from evr1.data.records import Example
from evr1.sampler.actor import Actor
from evr1.sampler.driver import Sampler
from evr1.sampler.engine import (
    Prefix,
    ResultTokens,
    decode_window,
    draw_first,
    likeliest,
    read_prompts,
    room_to_read,
)
from evr1.sampler.prefixes import Kept, Prefixes
from evr1.sampler.sampling import Draws, Mode, RowIds, Sampling, make_draws
from evr1.types import Params, Questions

TOP = 20  # of the likeliest tokens that are told where they are asked for
LEAST = {"prompt": 256, "question": 64, "completion": 64}  # tokens of the smallest room


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """What rows share of their prompts.

    Attributes:
        key: of its content, media included.
        tokens: how many.
        load: gives it ready for the model; may take long.
    """

    key: bytes
    tokens: int
    load: Callable[[], Example]


@dataclasses.dataclass(frozen=True, eq=False)
class Ask:
    """A completion that somebody waits for.

    Attributes:
        head: the beginning of its prompt.
        tail: the other tokens, at least one.
        how: it is drawn; end and banned ids are the model's, whatever this says.
        draw: its number among those of the same prompt and seed.
        has_tops: the likeliest tokens are told too.
    """

    head: Head
    tail: tuple[int, ...]
    how: Sampling
    draw: int = 0
    has_tops: bool = False


class Drawn(NamedTuple):
    """What a turn gives to a row: W tokens or fewer."""

    tokens: np.ndarray  # int32[W]
    logprobs: np.ndarray  # float32[W]; not finite where the logits were not: no token, the end
    tops: tuple[np.ndarray, np.ndarray] | None  # int32[W, TOP] and float32[W, TOP]
    is_done: bool


class Room(NamedTuple):
    """Tokens that a row has room for; few sizes, since each is a program."""

    prompt: int
    question: int
    completion: int

    @classmethod
    def of(cls, ask: Ask) -> "Room":
        """Returns the smallest room that holds a row."""
        needs = {
            "prompt": ask.head.tokens,
            "question": len(ask.tail),
            "completion": ask.how.max_tokens,
        }
        return cls(**{name: _power(need, LEAST[name]) for name, need in needs.items()})

    def holds(self, other: "Room") -> bool:
        """Returns whether a row that needs the other room fits."""
        return all(own >= need for own, need in zip(self, other, strict=True))

    def with_(self, other: "Room") -> "Room":
        """Returns the smallest room that is as large as both."""
        return Room(*map(max, self, other))


class Live:
    """Slots that decode, from the first row until it is closed; for one thread.

    Attributes:
        room: of every row.
        prefills: heads that were prefilled.
    """

    def __init__(self, actor: Actor, params: Params, room: Room, prefixes: Prefixes, *, rows: int):
        """Makes empty slots.

        Args:
            actor: the model, and how many slots.
            params: as `actor.load` returns them.
            room: of every row.
            prefixes: where prompts are kept.
            rows: of a slot.
        """
        self.room, self.prefills = room, 0
        self._actor, self._params, self._prefixes = actor, params, prefixes
        shapes = shapes_alike(room.prompt, actor.processor.geometry.merge_size**2, room.completion)
        self._sampler = actor.sampler(rows, shapes, prefill_groups=1)
        self._engine = self._sampler.engine(
            actor.sampling(max_tokens=room.completion), room.prompt, room.question
        )
        self._draws = make_draws(self._engine.sampling, actor.model.config.vocab_size)
        slots = self._sampler.slots
        self._asks: list[list[Ask | None]] = [[None] * rows for _ in range(slots)]
        self._drawn = np.zeros((slots, rows), np.int64)
        self._ended: set[tuple[int, int]] = set()  # rows that are to end on the device, too
        self._spoilt: set[int] = set()
        self._ways: Draws | None = None
        with self._mesh():
            self._state = self._engine.init_decode_state()

    @property
    def free(self) -> list[int]:
        """Slots without rows."""
        return [slot for slot, asks in enumerate(self._asks) if not any(asks)]

    @property
    def active(self) -> list[Ask]:
        """Rows that are decoding."""
        return [ask for asks in self._asks for ask in asks if ask is not None]

    def admit(self, asks: Sequence[Ask]) -> list[tuple[Ask, Drawn]]:
        """Puts rows with the same head into a free slot; returns their first tokens."""
        slot = self.free[0]
        padded = [*asks, *[None] * (self._sampler.n - len(asks))]
        ways = _ways(self._draws, [padded])
        with self._mesh():
            ways = jax.device_put(ways, self._everywhere)
            logits, prompt, cache = self._read(asks[0].head, self._questions(padded))
            mode, is_row = _mode(asks), np.array([[ask is not None for ask in padded]])
            draws = np.array([[ask.draw if ask else 0 for ask in padded]], np.int32)
            ids = RowIds(np.zeros_like(draws), draws)
            drawn, keys, tokens, done, data = draw_first(logits, ids, is_row, ways, mode=mode)
            steps = np.array([[len(ask.tail) if ask else 0 for ask in padded]], np.int32)
            prefix = Prefix(
                cache, prompt.lengths, prompt.next_positions, jnp.asarray(steps), drawn, keys,
                tokens, done, data,
            )  # fmt: skip
            at = np.array([slot], np.int32)
            if slot in self._spoilt:
                self._state = self._engine.clear(self._state, at)
                self._spoilt.discard(slot)
            self._state = self._engine.insert(prefix, self._state, at)
            tops = None
            if any(ask.has_tops for ask in asks):
                found = _tops(logits, ways, TOP)
                tops = tuple(np.asarray(x)[:, :, None] for x in found)  # a window of 1
            result = ResultTokens(np.asarray(data), self._sampler.n).by_slot()
        self._asks[slot] = padded
        self._drawn[slot] = 0
        self._ended -= {(slot, row) for row in range(self._sampler.n)}
        self._ways = None
        return self._hand_out([slot], result, tops)

    def turn(self) -> list[tuple[Ask, Drawn]]:
        """Decodes a window; returns what rows have drawn."""
        engine = self._engine
        asks = self.active
        with self._mesh():
            if self._ended:
                self._state = _end_rows(self._state, self._mask(self._ended))
                self._ended.clear()
            if self._ways is None:
                self._ways = jax.device_put(_ways(self._draws, self._asks), self._everywhere)
            most = self.room.question + int(self._drawn.max()) + engine.window
            top = TOP if any(ask.has_tops for ask in asks) else 0
            self._state, out = decode_window(
                self._actor.model,
                self._params,
                self._state,
                self._ways,
                window=engine.window,
                mode=_mode(asks),
                mesh=engine.devices,
                stop_early=engine.stop_early,
                room=room_to_read(self.room.question + self.room.completion, most),
                top=top,
            )
            data, *tops = jax.device_get(out) if top else (jax.device_get(out),)
        result = ResultTokens(data, self._sampler.n).by_slot()
        return self._hand_out(range(self._sampler.slots), result, tuple(tops) or None)

    def end(self, asks: Sequence[Ask]) -> None:
        """Frees rows that nobody waits for any more."""
        gone = set(map(id, asks))
        for slot, row in self._used():
            if id(self._asks[slot][row]) in gone:
                self._free(slot, row)

    def _hand_out(self, slots, result, tops) -> list[tuple[Ask, Drawn]]:
        out = []
        for place, slot in enumerate(slots):
            for row, ask in enumerate(self._asks[slot]):
                valid = result.valid[place, row] > 0
                if ask is None or not valid.any():
                    continue
                logprobs, is_done = result.logprobs[place, row][valid], result.done[place, row]
                told = None
                if tops is not None and ask.has_tops:
                    told = tops[0][place, row][valid], tops[1][place, row][valid]
                tokens = result.tokens[place, row][valid]
                out.append((ask, Drawn(tokens, logprobs, told, bool(is_done))))
                self._drawn[slot, row] += len(tokens)
                if not np.isfinite(logprobs).all():
                    self._spoilt.add(slot)
                if is_done:
                    self._asks[slot][row] = None
                    self._drawn[slot, row] = 0
        return out

    def _free(self, slot: int, row: int) -> None:
        self._asks[slot][row] = None
        self._drawn[slot, row] = 0
        self._ended.add((slot, row))

    def _used(self) -> list[tuple[int, int]]:
        return [
            (slot, row)
            for slot, asks in enumerate(self._asks)
            for row, ask in enumerate(asks)
            if ask is not None
        ]

    def _mask(self, rows: set[tuple[int, int]]) -> np.ndarray:
        mask = np.zeros(self._drawn.shape, bool)
        for slot, row in rows:
            mask[slot, row] = True
        return mask

    def _read(self, head: Head, questions: Questions):
        """Returns the logits behind the questions, the prompt, and what goes into the slot."""
        model, params = self._actor.model, self._params
        kept = self._prefixes.get(head.key) if model.can_extend else None
        if kept is None:
            self.prefills += 1
            prompts = self._prompts(head.load())
            if not model.can_extend:
                logits, cache = read_prompts(model, params, prompts, questions)
                return logits, Kept((), prompts.lengths, prompts.next_positions), cache
            _, kv = read_prompts(model, params, prompts)
            kept = Kept(kv, prompts.lengths, prompts.next_positions)
            self._prefixes.put(head.key, kept)
        logits, cache = read_questions(model, params, *kept, questions)
        return logits, kept, cache

    def _prompts(self, example: Example):
        merged = self._actor.processor.geometry.merge_size**2
        most = max((h * w for _, h, w in example.grid_thw.tolist()), default=1)
        tokens = min(round_up(len(example.tokens), 128, steps=4), self.room.prompt)
        return self._collating(tokens, round_up(most, merged, steps=8)).prompts([example])

    @functools.cache  # noqa: B019  few, and they go with the slots
    def _collating(self, tokens: int, row_patches: int) -> Sampler:
        shapes = shapes_alike(tokens, row_patches, self.room.completion)
        return self._actor.sampler(1, shapes, 1, prefill_groups=1)

    def _questions(self, asks: Sequence[Ask | None]) -> Questions:
        shape = 1, self._sampler.n
        tokens = np.full((*shape, self.room.question), self._sampler.pad_id, np.int32)
        lengths = np.zeros(shape, np.int32)
        for row, ask in enumerate(asks):
            if ask is not None:
                tokens[0, row, : len(ask.tail)] = ask.tail
                lengths[0, row] = len(ask.tail)
        return jax.device_put(Questions(tokens, lengths), self._everywhere)

    @property
    def _everywhere(self):
        mesh = self._sampler.mesh
        return None if mesh is None else jax.sharding.NamedSharding(mesh, jax.P())

    def _mesh(self):
        mesh = self._sampler.mesh
        return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


@functools.partial(jax.jit, static_argnums=0)
def read_questions(model, params, kv, lengths, next_positions, questions):
    """Returns the logits after each question behind prompts that are there, and the cache."""
    hidden, cache = model.extend(params, kv, lengths, next_positions, questions)
    return model.logits(params, hidden), cache


@functools.partial(jax.jit, static_argnames="top")
def _tops(logits, draws, top):
    return likeliest(logits.reshape(-1, logits.shape[-1]), draws, top, logits.shape[:2])


@functools.partial(jax.jit, donate_argnums=0)
def _end_rows(state, mask):
    return state._replace(done=state.done | mask)


def _mode(asks: Sequence[Ask]) -> Mode:
    """Returns the least of the programs that draws all of these rows."""
    modes = {ask.how.mode for ask in asks}
    if modes == {"greedy"}:
        return "greedy"
    return "filtered" if "filtered" in modes else "plain"


def _ways(draws: Draws, asks: Sequence[Sequence[Ask | None]]) -> Draws:
    """Returns how the rows [G, N] draw."""
    spare = Sampling(temperature=0.0)
    hows = [[ask.how if ask else spare for ask in each] for each in asks]

    def table(of: Callable[[Sampling], float], dtype) -> np.ndarray:
        return np.array([[of(how) for how in row] for row in hows], dtype)

    vocab_size = len(draws.banned)
    return draws._replace(
        temperature=table(lambda how: how.temperature or 1.0, np.float32),
        top_p=table(lambda how: how.top_p, np.float32),
        top_k=table(lambda how: min(how.top_k, vocab_size) or vocab_size, np.int32),
        limit=table(lambda how: how.max_tokens, np.int32),
        seed=table(lambda how: how.seed % 2**32, np.uint32),
        is_greedy=table(lambda how: how.temperature == 0, bool),
    )


def _power(tokens: int, least: int) -> int:
    """Returns the least times 1, 2, 4, ... that holds so many tokens.

    >>> [_power(n, 64) for n in (1, 64, 65, 300)]
    [64, 64, 128, 512]
    """
    return least << max(0, (max(tokens, 1) - 1) // least).bit_length()
