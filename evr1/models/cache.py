"""What the sampler keeps on the device: a prefix for every group, a suffix for every completion."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class KV(NamedTuple):
    """Keys (already rotated) and values of all layers."""

    k: jax.Array
    v: jax.Array


class Prefilled(NamedTuple):
    """What a family with recurrent layers keeps of G prompts: their state once a prompt."""

    kv: KV  # [L, G, P, K, A], of the layers that have keys
    states: Any  # [L, G, ...] each, of the other layers


class Kept(NamedTuple):
    """What a pass over prompts and completions hands out besides its hidden states."""

    cache: KV | Prefilled | None = None  # what `insert` takes, where it was asked for
    router: jax.Array | None = None  # [sparse L, G, T, E], logits, where they were asked for


class Cache(NamedTuple):
    """Keys and values of G groups of N completions. A slot of the sampler is a group."""

    prefix: KV  # [L, G, P, K, A]
    prefix_lengths: jax.Array  # int32[G]
    suffix: KV  # [L, G, N, R, K, A]
    states: Any = ()  # [L, G, N, ...] each, of recurrent layers


def insert(
    cache: Cache, prefix: KV | Prefilled, prefix_lengths: Int[Array, " g"], slots: Int[Array, " g"]
) -> Cache:
    """Writes the prefixes of g groups into their slots; a slot out of range writes nothing.

    The state of a prompt is forked to its N completions here.

    Raises:
        ValueError: the prefix is longer than the cache's.
    """
    states = cache.states
    if isinstance(prefix, Prefilled):

        def fork(old: jax.Array, new: jax.Array) -> jax.Array:
            new = jnp.broadcast_to(new[:, :, None], (*new.shape[:2], *old.shape[2:]))
            return old.at[:, slots].set(new.astype(old.dtype), mode="drop")

        states = jax.tree.map(fork, states, prefix.states)
        prefix = prefix.kv
    got, limit = prefix.k.shape[2], cache.prefix.k.shape[2]
    if got > limit:
        raise ValueError(
            f"a prefix of {got} tokens exceeds the cache's {limit}; raise the cache's prompt_tokens"
        )

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[:, slots, :got].set(new.astype(old.dtype), mode="drop")

    lengths = cache.prefix_lengths.at[slots].set(prefix_lengths, mode="drop")
    return Cache(KV(*map(write, cache.prefix, prefix)), lengths, cache.suffix, states)


def append(cache: Cache, new: KV, steps: Int[Array, " g"]) -> Cache:
    """Writes the token `steps[g]` of every completion of group g; `new` is [L, G, N, K, A].

    One scatter for all layers: with the cache donated it happens in place.
    """
    groups = jnp.arange(steps.shape[0])

    def write(old: jax.Array, token: jax.Array) -> jax.Array:
        # Two index arrays with a slice between them: their axis comes first in the indexed shape.
        value = jnp.moveaxis(token, 1, 0).astype(old.dtype)
        return old.at[:, groups, :, steps].set(value, mode="drop", unique_indices=True)

    return cache._replace(suffix=KV(*map(write, cache.suffix, new)))
