"""The attention of a decode step: one token of every row over [prefix | suffix | itself].

The prefix part is one matrix product for all N rows of a group: its keys are read once a group, not
once a row. CPUs and TPUs read the blocks that hold a prompt and no others, however large its
bucket.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from evr1.models.nn.cache import KV, Cache, in_steps, prefix_axes, values_of
from evr1.models.nn.layers import precision
from evr1.parallel.sharding import constrain

BLOCK = (
    256  # tokens of a prompt that a CPU reads at a time: what is made of them stays in its cache
)

_NEG = -1e30  # the score of what is unseen; finite, so that nothing seen gives numbers and not NaN


class Live(NamedTuple):
    """The blocks of prompts that hold a token, one group after the other."""

    groups: jax.Array  # int32[G * blocks]
    starts: jax.Array  # int32[G * blocks], first token of the block
    total: jax.Array  # int32, how many of these there are; the rest mean nothing


class Softmax(NamedTuple):
    """What a softmax over some of the keys leaves, M = N * H / K queries to a key head."""

    top: jax.Array  # float32[G, K, M], the largest score
    total: jax.Array  # float32[G, K, M], the sum of exp(score - top)
    out: jax.Array  # float32[G, K, M, A], the sum of exp(score - top) * value


# (queries [G, K, M, A], their softmax so far, layer) -> float32[G, K, M, A], the prompt read too
Read = Callable[[jax.Array, Softmax, jax.Array], jax.Array]


def reader(cache: Cache, implementation: str = "auto") -> Read | None:
    """Returns what reads the live blocks of the prompts; None: whole buckets are read.

    A loop whose turns are data would make a GPU ask its host at each. Where a prefix is cut by its
    tokens, the blocks of a device are not those of another.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_alone = mesh.empty or mesh.size == 1
    is_tpu = implementation == "auto" and jax.default_backend() == "tpu"
    if is_tpu or implementation.startswith("splash"):
        is_cut = not is_alone and mesh.shape["tensor"] > 1
        if is_cut and prefix_axes(mesh, values_of(cache.prefix.k).shape[2])[1]:
            return None
        return _kernel(cache, interpret=implementation == "splash_interpret")
    return read_blocks(cache) if jax.default_backend() == "cpu" and is_alone else None


def _kernel(cache: Cache, *, interpret: bool) -> Read:
    # Imported where it is used, as all of Pallas is.
    from evr1.models.nn import decode_tpu

    prefix, lengths = cache.prefix, cache.prefix_lengths
    return lambda q, own, layer: decode_tpu.over_prefix(
        q, *own, prefix, lengths, layer, interpret=interpret
    )


def read_blocks(cache: Cache) -> Read:
    """Returns what reads the live blocks of the prompts one after the other."""
    live = list_blocks(cache.prefix_lengths, values_of(cache.prefix.k).shape[3], BLOCK)
    return lambda q, own, layer: _over_prefix(q, own, cache, layer, live)


def list_blocks(lengths: Int[Array, " g"], tokens: int, block: int) -> Live:
    """Returns the blocks of prompts of these lengths, in a room of so many tokens each.

    >>> live = list_blocks(jnp.array([5, 0, 2]), 8, block=4)
    >>> [x[: live.total].tolist() for x in live[:2]]
    [[0, 0, 2], [0, 4, 0]]
    """
    held = -(-lengths // block)
    ends = jnp.cumsum(held)
    place = jnp.arange(len(lengths) * -(-tokens // block))
    groups = jnp.searchsorted(ends, place, side="right", method="compare_all")
    groups = jnp.minimum(groups, len(lengths) - 1)
    return Live(groups, block * (place - (ends - held)[groups]), ends[-1])


@jax.named_scope("attention")
def decode_attention(
    q: Float[Array, "g n h a"],
    new: KV,
    cache: Cache,
    layer: Int[Array, ""],
    steps: Int[Array, "g n"],
    read: Read | None = None,
    room: int | None = None,
) -> Float[Array, "g n h a"]:
    """Returns the attention of one token of N completions a group; all meets in one softmax.

    Args:
        q: queries.
        new: the token's own key and value, [G, N, K, A].
        cache: of all layers.
        layer: the one to read.
        steps: tokens of each row's suffix that stand before this one.
        read: see `reader`.
        room: of the suffixes, so many tokens are looked at; None: all.
    """
    g, n, h, a = q.shape
    q = q.reshape(g, n, new.k.shape[2], -1, a)
    prefix_seen, suffix_seen = cache.seen(steps)
    suffix = _layer(cache.suffix, layer, room)
    suffix_seen = suffix_seen[..., : suffix.k.shape[3]]
    if read is None:
        prefix = jax.tree.map(
            lambda x: jax.lax.dynamic_index_in_dim(x, layer, 0, keepdims=False), cache.prefix
        )
        out = _dense(q, new, prefix, prefix_seen, suffix, suffix_seen)
    else:
        out = read(_by_heads(q), _over_suffix(q, new, suffix, suffix_seen), layer)
        out = jnp.moveaxis(out.reshape(g, -1, n, q.shape[3], a), 1, 2)
    return out.reshape(g, n, h, a).astype(q.dtype)


def _layer(kv: KV, layer: jax.Array, tokens: int | None) -> KV:
    """Returns the first tokens of a layer, cut out at once, for no more to be read; None: all."""
    sizes = kv.k.shape[1:-2], tokens or kv.k.shape[-2], kv.k.shape[-1]
    size = (1, *sizes[0], *sizes[1:])
    return KV(*(jax.lax.dynamic_slice(x, (layer, *[0] * (x.ndim - 1)), size)[0] for x in kv))


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, precision=precision(x.dtype), preferred_element_type=jnp.float32)


def _dense(q, new, prefix, prefix_seen, suffix, suffix_seen):
    """Returns float32[G, N, K, H/K, A] by whole arrays of scores."""
    scale = q.shape[-1] ** -0.5
    (keys, steps), (values, weights) = (in_steps(x, q.dtype) for x in prefix)
    far = _scaled(_dot("gnkha,gkpa->gkhnp", q, keys), steps) * scale
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:  # where a prefix is cut by its tokens, scores come to the keys
        heads, tokens = prefix_axes(mesh, new.k.shape[2])
        far = constrain(far, "batch", heads, None, None, tokens)
    near = _dot("gnkha,gnkra->gkhnr", q, suffix.k) * scale
    own = (_dot("gnkha,gnka->gkhn", q, new.k) * scale)[..., None]
    far = jnp.where(prefix_seen[:, None, None, None], far, _NEG)
    near = jnp.where(suffix_seen[:, None, None], near, _NEG)
    top = jnp.maximum(far.max(-1, keepdims=True, initial=_NEG), own)
    top = jnp.maximum(near.max(-1, keepdims=True, initial=_NEG), top)
    far, near, own = (jnp.exp(s - top) for s in (far, near, own))
    total = far.sum(-1) + near.sum(-1) + own[..., 0]
    prec = precision(q.dtype)
    far = _scaled(far, weights)
    out = jnp.einsum("gkhnp,gkpa->gnkha", far.astype(q.dtype), values, precision=prec)
    out += jnp.einsum("gkhnr,gnkra->gnkha", near.astype(q.dtype), suffix.v, precision=prec)
    out += jnp.moveaxis(own, 3, 1).astype(q.dtype) * new.v[:, :, :, None]
    return out.astype(jnp.float32) / jnp.moveaxis(total, 3, 1)[..., None]


def _scaled(scores: jax.Array, scales: jax.Array | None) -> jax.Array:
    """Returns [G, K, ..., P], each times what its token's keys or values [G, K, P] are in steps of.

    Scores are fewer than channels.
    """
    if scales is None:
        return scores
    return scores * jnp.expand_dims(scales, tuple(range(2, scores.ndim - 1)))


def _over_suffix(q, new, suffix, seen) -> Softmax:
    """Returns the softmax over what a row has of its own."""
    scale = q.shape[-1] ** -0.5
    near = _dot("gnkha,gnkra->gnkhr", q, suffix.k) * scale
    near = jnp.where(seen[:, :, None, None], near, _NEG)
    own = _dot("gnkha,gnka->gnkh", q, new.k) * scale
    top = jnp.maximum(near.max(-1, initial=_NEG), own)
    near, own = jnp.exp(near - top[..., None]), jnp.exp(own - top)
    out = _dot("gnkhr,gnkra->gnkha", near.astype(q.dtype), suffix.v)
    out += own[..., None] * new.v[:, :, :, None].astype(jnp.float32)
    return Softmax(*map(_by_heads, (top, near.sum(-1) + own, out)))


def _by_heads(x: jax.Array) -> jax.Array:
    """[G, N, K, H/K, ...] to [G, K, M, ...]: the queries to a key head beside each other."""
    x = jnp.moveaxis(x, 2, 1)
    return x.reshape(*x.shape[:2], -1, *x.shape[4:])


def _over_prefix(q, so_far: Softmax, cache: Cache, layer: jax.Array, live: Live) -> jax.Array:
    """Returns the attention gone on over the live blocks of the prompts; q is [G, K, M, A].

    A block is cut out of the cache of all layers: taken out first, a layer would be copied.
    """
    _, _, heads, tokens, a = values_of(cache.prefix.k).shape
    block, scale = min(BLOCK, tokens), a**-0.5

    def step(i, so_far):
        group, first = live.groups[i], live.starts[i]
        start = jnp.minimum(first, tokens - block)  # the last block of a room that is no multiple
        at, size = (layer, group, 0, start, 0), (1, 1, heads, block, a)
        held = jax.tree.map(
            lambda x: jax.lax.dynamic_slice(x, at[: x.ndim], size[: x.ndim])[0], cache.prefix
        )
        (keys, steps), (values, times) = (in_steps(x, q.dtype) for x in held)
        place = start + jnp.arange(block)
        is_seen = (place >= first) & (place < cache.prefix_lengths[group])
        own, query = jax.tree.map(lambda x: x[group], (so_far, q))
        scores = _scaled(_dot("kma,kpa->kmp", query, keys[0])[None], steps)[0] * scale
        scores = jnp.where(is_seen[None, None], scores, _NEG)
        top = jnp.maximum(own.top, scores.max(-1))
        weights, keep = jnp.exp(scores - top[..., None]), jnp.exp(own.top - top)
        seen = _scaled(weights[None], times)[0].astype(q.dtype)
        out = own.out * keep[..., None] + _dot("kmp,kpa->kma", seen, values[0])
        own = Softmax(top, own.total * keep + weights.sum(-1), out)
        return jax.tree.map(lambda x, y: x.at[group].set(y), so_far, own)

    _, total, out = jax.lax.fori_loop(0, live.total, step, so_far)
    return out / total[..., None]
