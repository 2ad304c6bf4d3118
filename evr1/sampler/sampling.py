"""Drawing tokens from logits: banned ids, temperature, top-k, top-p, and the random numbers.

The noise behind a draw depends on (seed, request id, row, position) alone, so a row's
tokens do not depend on the slot, window, batch or host it is decoded in. B is the number of rows
that draw at once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from evr1.parallel.sharding import spec
from evr1.types import Array

BLOCK = 128  # width of the runs that a draw looks at as a whole before it looks inside one

Mode = Literal["greedy", "plain", "filtered"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The way to draw tokens, and when to stop.

    Attributes:
        temperature: 0 takes the most likely token; its log-probabilities are then those at
            temperature 1.
        top_p: draw from the fewest most likely tokens that hold this much probability; 1 = off.
        top_k: draw from the k most likely tokens; 0 = off. Applied before top_p.
        max_tokens: completions are cut here, the end token counted.
        end_ids: each of them ends a completion and belongs to it.
        banned_ids: never drawn. They still count in log-probabilities, as they do in the trainer.
        allowed_ids: nothing else is drawn; empty: everything that is not banned.
        seed: of every draw.
        greedy_rows: number of rows at the end of every group that take the most likely token,
            whatever temperature, top_k and top_p say. The other rows draw what they draw without
            them. Log-probabilities of all rows are at the sampling temperature.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 1024
    end_ids: tuple[int, ...] = ()
    banned_ids: tuple[int, ...] = ()
    allowed_ids: tuple[int, ...] = ()
    seed: int = 0
    greedy_rows: int = 0

    def __post_init__(self):
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature={self.temperature}; give a number >= 0, where 0 is greedy"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}; give a number in (0, 1], where 1 is off")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}; give a number >= 0, where 0 is off")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}; give at least 1")
        if self.greedy_rows < 0:
            raise ValueError(f"greedy_rows={self.greedy_rows}; give a number >= 0, where 0 is off")

    @property
    def mode(self) -> Mode:
        """The one of the three compiled programs that draws.

        Everything else is data and compiles nothing, but for the first `greedy_rows` over 0.
        """
        if self.temperature == 0:
            return "greedy"
        return "plain" if self.top_p == 1 and self.top_k == 0 else "filtered"


class Draws(NamedTuple):
    """A `Sampling` as arrays: an argument of the compiled programs.

    Where rows draw each in its own way (`of_rows`), temperature, top_p, top_k, limit and seed are
    [G, N].
    """

    temperature: Array  # float32[], 1 where greedy
    top_p: Array  # float32[]
    top_k: Array  # int32[], the vocabulary size where off
    limit: Array  # int32[], max_tokens
    end_ids: Array  # int32[E]
    banned: Array  # bool[V]
    seed: Array  # uint32[]
    greedy_rows: Array | None = None  # int32[]; None: all rows draw alike
    is_greedy: Array | None = None  # bool[G, N]; None: no row says so for itself

    def columns(self) -> "Draws":
        """Returns what `sample` takes: [B, 1] where rows draw each in its own way."""

        def column(x: Array) -> Array:
            return x.reshape(-1, 1) if np.ndim(x) else x

        return self._replace(
            temperature=column(self.temperature),
            top_p=column(self.top_p),
            top_k=column(self.top_k),
        )


def make_draws(sampling: Sampling, vocab_size: int) -> Draws:
    """Returns the arrays of `sampling` (on the host).

    Raises:
        ValueError: an id is outside the vocabulary, or every id is banned.
    """
    for name in ("end_ids", "banned_ids", "allowed_ids"):
        ids = getattr(sampling, name)
        outside = [i for i in ids if not 0 <= i < vocab_size]
        if outside:
            raise ValueError(
                f"{name} holds {outside[0]}; the vocabulary has ids 0 to {vocab_size - 1}"
            )
    banned = np.full(vocab_size, bool(sampling.allowed_ids))
    banned[list(sampling.allowed_ids)] = False
    banned[list(sampling.banned_ids)] = True
    if banned.all():
        what = "allowed_ids" if sampling.allowed_ids else f"{vocab_size} ids"
        raise ValueError(f"banned_ids holds all {what}; leave at least one")
    ends = np.asarray(sampling.end_ids or (-1,), np.int32)
    is_mixed = sampling.greedy_rows and sampling.mode != "greedy"
    return Draws(
        temperature=np.float32(sampling.temperature or 1.0),
        top_p=np.float32(sampling.top_p),
        top_k=np.int32(min(sampling.top_k, vocab_size) or vocab_size),
        limit=np.int32(sampling.max_tokens),
        # -1 is no token. Padded, so that the number of end ids compiles nothing new.
        end_ids=np.pad(ends, (0, -len(ends) % 8), constant_values=-1),
        banned=banned,
        seed=np.uint32(sampling.seed % 2**32),
        greedy_rows=np.int32(sampling.greedy_rows) if is_mixed else None,
    )


class RowIds(NamedTuple):
    """What tells the N rows of G groups apart: with the seed they decide the random numbers."""

    requests: Array  # int32[G, N]
    draws: Array  # int32[G, N], number of the draw for this request

    @classmethod
    def of_groups(cls, requests: np.ndarray, n: int) -> "RowIds":
        """Returns those of groups whose rows are n draws for one request int[G]."""
        grid = np.broadcast_arrays(np.asarray(requests)[:, None], np.arange(n)[None])
        return cls(*(ids.astype(np.int32) for ids in grid))


def row_keys(seed: Array | np.uint32, ids: RowIds) -> jax.Array:
    """Returns the random state of each row, uint32[G, N, 2]; `seed` is one, or [G, N]."""

    def one(seed, request, draw):
        # The generator is named, so that a change of JAX's default does not change anyone's tokens.
        key = jax.random.key(seed, impl="threefry2x32")
        return jax.random.fold_in(jax.random.fold_in(key, request), draw)

    seeds = jnp.broadcast_to(jnp.asarray(seed), jnp.shape(ids.requests))
    return jax.random.key_data(jax.vmap(jax.vmap(one))(seeds, *ids))


def noise(keys: jax.Array, positions: jax.Array, vocab_size: int) -> jax.Array:
    """Returns float32[B, C] Gumbel noise for `draw`.

    Row b's belongs to completion token `positions[b]` of the row with state `keys[b]`.
    """
    count = -(-vocab_size // BLOCK) + BLOCK

    def row_noise(data, position):
        key = jax.random.fold_in(jax.random.wrap_key_data(data, impl="threefry2x32"), position)
        return jax.random.gumbel(key, (count,), jnp.float32)

    return jax.vmap(row_noise)(keys, positions)


class Part(NamedTuple):
    """The part of the vocabulary whose logits a device has, and what passes between the devices.

    Attributes:
        start: its first id.
        total: size of the whole vocabulary, V.
        add: sums an array over the devices that have a part each.
        largest: likewise, the maximum.
    """

    start: Array | int
    total: int
    add: Callable[[jax.Array], jax.Array]
    largest: Callable[[jax.Array], jax.Array]

    @classmethod
    def whole(cls, vocab_size: int) -> "Part":
        """Returns that of a device which has all of it."""
        return cls(0, vocab_size, lambda x: x, lambda x: x)

    @property
    def is_whole(self) -> bool:
        """Nothing passes between devices."""
        return isinstance(self.start, int)


def sample(
    logits: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
    draws: Draws,
    mode: Mode,
    is_greedy: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws a token for each row.

    On a mesh that cuts the vocabulary every device looks at its own logits; what passes between
    them is a sum for each of V / BLOCK blocks, the block that was drawn, and a few numbers a row.

    Args:
        logits: float32[B, V].
        keys: uint32[B, 2] of `row_keys`.
        positions: int32[B], index of the token in its completion.
        draws: what to draw.
        mode: `Sampling.mode`, static.
        is_greedy: bool[B], rows that take the most likely token in every mode; None: no such rows.

    Returns:
        int32[B], and its log-probability float32[B] in softmax(logits / temperature) over the whole
        vocabulary: what the trainer computes, whatever was banned or filtered.
    """
    vocab_size = logits.shape[-1]
    mesh = jax.sharding.get_abstract_mesh()
    where = PartitionSpec(None, None)
    if not mesh.empty and mesh.shape["tensor"] > 1:
        where = spec(mesh, ("batch", "vocab"), logits.shape)
    if where[1] is None:
        whole = Part.whole(vocab_size)
        return _sample(logits, keys, positions, draws, is_greedy, mode=mode, part=whole)

    def of_part(logits, *rest):
        start = jax.lax.axis_index(where[1]) * logits.shape[-1]
        part = Part(
            start,
            vocab_size,
            add=functools.partial(jax.lax.psum, axis_name=where[1]),
            largest=functools.partial(jax.lax.pmax, axis_name=where[1]),
        )
        return _sample(logits, *rest, mode=mode, part=part)

    rows, same = PartitionSpec(where[0]), PartitionSpec()
    draws = draws._replace(limit=None, seed=None, greedy_rows=None, is_greedy=None)  # not read here

    def place(x):
        return None if x is None else PartitionSpec(where[0], None) if x.ndim == 2 else same

    places = Draws(*map(place, draws))._replace(banned=PartitionSpec(where[1]))
    return jax.shard_map(
        of_part,
        in_specs=(where, rows, rows, places, None if is_greedy is None else rows),
        out_specs=(rows, rows),
        check_vma=False,  # a loop that begins with a constant has no type in it
    )(logits, keys, positions, draws, is_greedy)


def _sample(logits, keys, positions, draws, is_greedy, *, mode: Mode, part: Part):
    scaled = logits / draws.temperature
    allowed = jnp.where(draws.banned[None, :], -jnp.inf, scaled)
    if mode == "greedy":
        tokens = _first_largest(allowed, part)
    else:
        if mode == "filtered":
            keep = keep_likely(allowed, draws.top_k, draws.top_p, part)
            allowed = jnp.where(keep, allowed, -jnp.inf)
        tokens = draw(allowed, noise(keys, positions, part.total), part)
        if is_greedy is not None:
            tokens = jnp.where(is_greedy, _first_largest(allowed, part), tokens)
    chosen = part.add(_pick(scaled, tokens - part.start, 0.0))
    return tokens, chosen - _logsumexp(scaled, part)


def _pick(x: jax.Array, index: jax.Array, otherwise: float) -> jax.Array:
    """Returns x[b, index[b]] for each row b, and something else where the index is outside."""
    inside = jnp.clip(index, 0, x.shape[1] - 1)
    at = inside.reshape(-1, *[1] * (x.ndim - 1))
    picked = jnp.take_along_axis(x, at, axis=1)[:, 0]
    is_here = (inside == index).reshape(-1, *[1] * (x.ndim - 2))
    return jnp.where(is_here, picked, otherwise)


def _logsumexp(x: jax.Array, part: Part) -> jax.Array:
    if part.is_whole:
        return jax.nn.logsumexp(x, axis=-1)
    top = part.largest(jnp.max(x, axis=-1))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return jnp.log(part.add(jnp.sum(jnp.exp(x - top[:, None]), axis=-1))) + top


def _first_largest(x: jax.Array, part: Part) -> jax.Array:
    """Returns argmax over the last axis, int32[B].

    As two reductions it is 3 times faster than XLA's argmax on a CPU.
    """
    ids = part.start + jnp.arange(x.shape[-1], dtype=jnp.int32)[None, :]
    top = part.largest(jnp.max(x, axis=-1, keepdims=True))
    return -part.largest(-jnp.min(jnp.where(x == top, ids, part.total - 1), axis=-1))


def draw(logits: jax.Array, gumbel: jax.Array, part: Part | None = None) -> jax.Array:
    """Draws a token of softmax(logits) for each row, int32[B].

    First a block of the vocabulary, then a token of the block, each where log-probability plus
    noise is largest. One number for each of V / BLOCK blocks and BLOCK places is 5 (V = 642) to 115
    (V = 151,936) times cheaper than one for each token. Logits that differ by rounding give
    the same token but for 1 draw in a million; inverting the running sum of probabilities would
    change 1 in 100 at V = 151,936, since every boundary moves.

    Args:
        logits: float32[B, V], -inf where a token is impossible.
        gumbel: float32[B, ceil(V / BLOCK) + BLOCK], of `noise`.
        part: of the vocabulary that the logits are; None: all of it.
    """
    part = part or Part.whole(logits.shape[-1])
    count = -(-part.total // BLOCK)
    blocks, first = _in_blocks(logits, part)
    top = part.largest(jnp.max(logits, axis=-1))[:, None, None]
    sums = jnp.sum(jnp.exp(blocks - top), axis=-1)
    if not part.is_whole:
        room = jnp.zeros((len(sums), count + sums.shape[1]), sums.dtype)
        sums = part.add(jax.lax.dynamic_update_slice(room, sums, (0, first)))[:, :count]
    of_block, of_place = gumbel[:, :count], gumbel[:, count:]
    whole = Part.whole(count)
    block = _first_largest(jnp.log(sums) + of_block, whole)
    inside = part.largest(_pick(blocks, block - first, -jnp.inf))
    return block * BLOCK + _first_largest(inside + of_place, Part.whole(BLOCK))


def _in_blocks(logits: jax.Array, part: Part) -> tuple[jax.Array, jax.Array | int]:
    """Returns [B, blocks, BLOCK] with -inf round the part, and the number of its first block."""
    rows, size = logits.shape
    if part.is_whole:
        padded = jnp.pad(logits, ((0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf)
        return padded.reshape(rows, -1, BLOCK), 0
    room = jnp.full((rows, (size + 2 * BLOCK - 2) // BLOCK * BLOCK), -jnp.inf)
    placed = jax.lax.dynamic_update_slice(room, logits, (0, part.start % BLOCK))
    return placed.reshape(rows, -1, BLOCK), part.start // BLOCK


def keep_likely(
    logits: jax.Array, top_k: jax.Array, top_p: jax.Array, part: Part | None = None
) -> jax.Array:
    """Returns bool[B, V]: the `top_k` likeliest tokens, and of them the fewest that hold `top_p`.

    `top_p` is a share of the probability of those `top_k`.

    Tokens tied with the last one that is kept are kept too.
    """
    part = part or Part.whole(logits.shape[-1])
    ranks = _sortable(logits)
    keep = _at_least(ranks, jnp.ones_like(logits), top_k.astype(jnp.float32), part)
    kept = jnp.where(keep, logits, -jnp.inf)
    top = part.largest(jnp.max(kept, axis=-1, keepdims=True))
    probs = jnp.exp(kept - top)
    probs /= part.add(jnp.sum(probs, axis=-1, keepdims=True))
    return keep & _at_least(ranks, probs, top_p, part) & (logits > -jnp.inf)


def _sortable(x: jax.Array) -> jax.Array:
    """Returns int32 of the same order as the float32 `x`."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def _at_least(ranks: jax.Array, weights: jax.Array, need: jax.Array, part: Part) -> jax.Array:
    """Returns bool[B, V]: the highest-ranked tokens down to where their `weights` sum to `need`.

    Finds that rank bit by bit, 32 sums over the vocabulary: exact, and without a sort (50 times
    slower on a CPU). Devices that have a part each go by 4 bits, 15 sums at a time: they wait for
    each other 8 times instead of 32, and each has a part of the sums.
    """
    bits = 1 if part.is_whole else 4

    def set_bits(i, threshold):
        # From -2**31 upwards; the first additions wrap round to 0, the others set bits.
        step = jnp.left_shift(jnp.int32(1), jnp.int32(32 - bits) - bits * i)
        raised = threshold[:, None] + step * jnp.arange(1, 2**bits, dtype=jnp.int32)[None]
        is_over = ranks[:, None] >= raised[..., None]
        sums = part.add(jnp.sum(jnp.where(is_over, weights[:, None], 0.0), axis=-1))
        return threshold + step * jnp.sum(sums >= need, axis=-1, dtype=jnp.int32)

    lowest = jnp.full(ranks.shape[:1], jnp.iinfo(jnp.int32).min, jnp.int32)
    threshold = jax.lax.fori_loop(0, 32 // bits, set_bits, lowest)
    return ranks >= threshold[:, None]
