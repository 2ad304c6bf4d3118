"""What the sampler keeps on the device: a prefix for every group, a suffix for every completion.

Heads stand in front of tokens: the products of a decode step read the keys of a head one after the
other, and a chip that holds few heads pads none of them to its tiles.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from evr1.parallel import sharding


class KV(NamedTuple):
    """Keys (already rotated) and values of all layers."""

    k: Any  # jax.Array; of a prefix, jax.Array | Int8
    v: Any


class Int8(NamedTuple):
    """Keys or values in a byte each: `values * scales[..., None]`."""

    values: jax.Array  # int8[..., T, A]
    scales: jax.Array  # float32[..., T], one for each token of a head

    @classmethod
    def of(cls, x: Float[Array, "*n t a"]) -> "Int8":
        """Returns the nearest of 255 steps, as wide as the largest channel of each token asks."""
        largest = jnp.max(jnp.abs(x.astype(jnp.float32)), axis=-1)
        scales = jnp.where(largest > 0, largest / 127, 1.0)
        steps = jnp.round(x.astype(jnp.float32) / scales[..., None])
        return cls(jnp.clip(steps, -127, 127).astype(jnp.int8), scales)


def in_steps(x: jax.Array | Int8, dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """Returns what is multiplied, in this dtype, and the scales of its tokens; None: 1.

    All steps of int8 are numbers of bfloat16.
    """
    return (x.values.astype(dtype), x.scales) if isinstance(x, Int8) else (x, None)


def values_of(x: Any) -> Any:
    """Returns the array, or what stands for one, that has the shape of keys or values."""
    return x.values if isinstance(x, Int8) else x


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

    prefix: KV  # [L, G, K, P, A], each an array or Int8
    prefix_lengths: jax.Array  # int32[G]
    suffix: KV  # [L, G, N, K, R, A]
    states: Any = ()  # [L, G, N, ...] each, of recurrent layers

    def seen(self, steps: Int[Array, "g n"]) -> tuple[jax.Array, jax.Array]:
        """Returns which tokens a row sees before token `steps` of its suffix.

        bool[G, P] of the prefix, bool[G, N, R] of the suffix.
        """
        tokens = values_of(self.prefix.k).shape[3]
        prefix = jnp.arange(tokens)[None] < self.prefix_lengths[:, None]
        return prefix, jnp.arange(self.suffix.k.shape[4])[None, None] < steps[..., None]


def empty(
    shape: tuple[int, int, int],
    dtype: str,
    groups: int,
    n: int,
    *tokens: int,
    prefix_dtype: str = "",
) -> Cache:
    """Returns a cache without tokens or states.

    Args:
        shape: layers that have keys, heads of keys, size of a head.
        dtype: of keys and values.
        groups: slots, G.
        n: rows of a slot, N.
        *tokens: room of a prefix and of a suffix.
        prefix_dtype: of the keys and values of prompts, "int8" or "": as all others.
    """
    layers, heads, size = shape
    p, r = tokens

    def zeros(*middle: int) -> KV:
        full = (layers, groups, *middle, size)
        return KV(jnp.zeros(full, dtype), jnp.zeros(full, dtype))

    prefix = zeros(heads, p)
    if prefix_dtype == "int8":
        prefix = KV(*map(Int8.of, prefix))
    return Cache(prefix, jnp.zeros(groups, jnp.int32), zeros(n, heads, r))


def spread(cache: Cache, mesh: Mesh) -> Cache:
    """Pins a cache to the devices of a mesh.

    Slots lie on its `data` and `fsdp` axes. Heads are cut over `tensor`; where these are too few,
    the tokens of the prefix are.
    """

    def pin(x: jax.Array, *axes: str | None) -> jax.Array:
        place = NamedSharding(mesh, sharding.spec(mesh, (None, "batch", *axes), x.shape))
        return jax.lax.with_sharding_constraint(x, place)

    prefix = prefix_axes(mesh, values_of(cache.prefix.k).shape[2])
    lengths = NamedSharding(mesh, sharding.spec(mesh, ("batch",), cache.prefix_lengths.shape))
    return Cache(
        jax.tree.map(lambda x: pin(x, *prefix), cache.prefix),
        jax.lax.with_sharding_constraint(cache.prefix_lengths, lengths),
        KV(*(pin(x, None, "heads") for x in cache.suffix)),
        jax.tree.map(pin, cache.states),
    )


def prefix_axes(mesh: Mesh | AbstractMesh, heads: int) -> tuple[str | None, str | None]:
    """Returns how heads and tokens of a prefix are cut: one of them over `tensor`."""
    is_cut = sharding.spec(mesh, ("heads",), (heads,)) != PartitionSpec(None)
    return ("heads", None) if is_cut else (None, "cached")


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
            suffix = KV(*map(_write(slots, "question"), suffix, prefix.questions))
        prefix = prefix.kv
    lengths = cache.prefix_lengths.at[slots].set(prefix_lengths, mode="drop")
    write = _write(slots, "prefix")

    def put(old: jax.Array | Int8, new: jax.Array) -> jax.Array | Int8:
        if not isinstance(old, Int8):
            return write(old, new)
        steps = Int8.of(new)
        scales = write(old.scales[..., None], steps.scales[..., None])[..., 0]
        return Int8(write(old.values, steps.values), scales)

    return Cache(KV(*map(put, cache.prefix, prefix)), lengths, suffix, states)


def clear(cache: Cache, slots: Int[Array, " g"]) -> Cache:
    """Returns the cache with zeros in these slots; a slot out of range is left out.

    What a group leaves behind is hidden by a probability of 0, and 0 times NaN is NaN: a slot in
    which something was not finite is cleared before it is used again.
    """

    def wipe(kv: KV) -> KV:
        return jax.tree.map(lambda x: x.at[:, slots].set(jnp.zeros((), x.dtype), mode="drop"), kv)

    return cache._replace(prefix=wipe(cache.prefix), suffix=wipe(cache.suffix))


def _write(slots: jax.Array, what: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns what writes the first tokens of slots: [L, g, ..., T, K, A] as a pass makes them."""
    room = {"prefix": "prompt_tokens", "question": "completion_tokens"}[what]

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        got, limit = new.shape[-3], old.shape[-2]
        if got > limit:
            raise ValueError(
                f"a {what} of {got} tokens exceeds the cache's {limit}; raise the cache's {room}"
            )
        at = (slice(None), slots, *[slice(None)] * (old.ndim - 4), slice(got))
        return old.at[at].set(jnp.moveaxis(new, -3, -2).astype(old.dtype), mode="drop")

    return write


def append(cache: Cache, new: KV, steps: Int[Array, "g n"], hidden: Float[Array, "g n d"]) -> Cache:
    """Writes the token `steps[g, n]` of every row's suffix; `new` is [L, G, N, K, A].

    A step out of range writes nothing, and neither does a row whose hidden state after all layers
    is not a number: it ends here. One scatter for all layers: with the cache donated it happens in
    place, as all of them have read it by then, and on a mesh every device writes what it holds.
    """
    # That the write waits for the hidden state is what keeps a CPU from copying the cache first.
    steps = jnp.where(jnp.isnan(hidden[..., 0]), cache.suffix.k.shape[4], steps)
    write, mesh = _append, jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        place = sharding.spec(mesh, (None, "batch", None, "heads"), cache.suffix.k.shape)
        rows = sharding.spec(mesh, ("batch",), steps.shape)
        write = jax.shard_map(_append, in_specs=(place, place, rows), out_specs=place)
    k, v = write(cache.suffix.k, new.k, steps), write(cache.suffix.v, new.v, steps)
    return cache._replace(suffix=KV(k, v))


def _append(old: jax.Array, token: jax.Array, steps: jax.Array) -> jax.Array:
    # All axes but the last are indexed: for any other window TPUs copy the cache into an order of
    # their own, and back at the end.
    at = jnp.ix_(*(jnp.arange(size) for size in token.shape[:-1]))
    value = token.astype(old.dtype)
    return old.at[*at, steps[None, :, :, None]].set(value, mode="drop", unique_indices=True)
