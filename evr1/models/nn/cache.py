"""What the sampler keeps on the device: a prefix for every group, a suffix for every completion."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class KV(NamedTuple):
    """Keys (already rotated) and values of all layers."""

    k: jax.Array
    v: jax.Array


class Prefilled(NamedTuple):
    """What is kept of G prompts, and of what their N rows ask behind them where they ask at all."""

    kv: KV  # [L, G, P, K, A], of the layers that have keys
    states: Any = ()  # [L, G, ...] each, of recurrent layers; with questions [L, G, N, ...]
    questions: KV | None = None  # [L, G, N, Q, K, A]


class Kept(NamedTuple):
    """What a pass over prompts and completions hands out besides its hidden states."""

    cache: KV | Prefilled | None = None  # what `insert` takes, where it was asked for
    router: jax.Array | None = None  # [sparse L, G, T, E], logits, where they were asked for


class Cache(NamedTuple):
    """Keys and values of G groups of N rows. A slot of the sampler is a group.

    A row's suffix is its question, if it has one, and its completion.
    """

    prefix: KV  # [L, G, P, K, A]
    prefix_lengths: jax.Array  # int32[G]
    suffix: KV  # [L, G, N, R, K, A]
    states: Any = ()  # [L, G, N, ...] each, of recurrent layers


def insert(
    cache: Cache, prefix: KV | Prefilled, prefix_lengths: Int[Array, " g"], slots: Int[Array, " g"]
) -> Cache:
    """Writes the prefixes of g groups into their slots; a slot out of range writes nothing.

    The state of a prompt is forked to its N rows here, unless they have asked already.

    Raises:
        ValueError: the prefix is longer than the cache's, or the questions leave no room behind.
    """
    states, suffix = cache.states, cache.suffix
    if isinstance(prefix, Prefilled):
        has_asked = prefix.questions is not None

        def fork(old: jax.Array, new: jax.Array) -> jax.Array:
            if not has_asked:
                new = jnp.broadcast_to(new[:, :, None], (*new.shape[:2], *old.shape[2:]))
            return old.at[:, slots].set(new.astype(old.dtype), mode="drop")

        states = jax.tree.map(fork, states, prefix.states)
        if prefix.questions is not None:
            suffix = KV(*map(_write(slots, axis=3), suffix, prefix.questions))
        prefix = prefix.kv
    lengths = cache.prefix_lengths.at[slots].set(prefix_lengths, mode="drop")
    return Cache(KV(*map(_write(slots, axis=2), cache.prefix, prefix)), lengths, suffix, states)


def _write(slots: jax.Array, axis: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns what writes the first tokens of slots, which stand along an axis."""
    what, room = ("prefix", "prompt_tokens") if axis == 2 else ("question", "completion_tokens")

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        got, limit = new.shape[axis], old.shape[axis]
        if got > limit:
            raise ValueError(
                f"a {what} of {got} tokens exceeds the cache's {limit}; raise the cache's {room}"
            )
        at = (slice(None), slots, *[slice(None)] * (axis - 2), slice(got))
        return old.at[at].set(new.astype(old.dtype), mode="drop")

    return write


def append(cache: Cache, new: KV, steps: Int[Array, "g n"]) -> Cache:
    """Writes the token `steps[g, n]` of every row's suffix; `new` is [L, G, N, K, A].

    A step out of range writes nothing. One scatter for all layers: with the cache donated it
    happens in place.
    """
    g, n = steps.shape
    groups, rows = jnp.arange(g)[:, None], jnp.arange(n)[None]

    def write(old: jax.Array, token: jax.Array) -> jax.Array:
        value = token.astype(old.dtype)
        return old.at[:, groups, rows, steps].set(value, mode="drop", unique_indices=True)

    return cache._replace(suffix=KV(*map(write, cache.suffix, new)))
