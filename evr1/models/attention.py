"""The attention of every model, behind one entry.

Two layouts cover the models: `Segments` (packed rows: a token sees its own segment, all of it or
what stands before it) and `Group` (a prompt and its completions side by side: a completion sees the
prompt and itself). Softmax is float32 everywhere. Keys and values are never repeated for grouped
queries.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evr1.models.cache import KV
from evr1.models.layers import precision

NEG = -1e30  # finite, so that a fully masked row gives numbers and not NaN


class Segments(NamedTuple):
    """Tokens see their own segment. Padding (id 0) sees padding, so its rows stay finite."""

    ids: jax.Array  # int32[B, T]
    causal: bool


class Group(NamedTuple):
    """Tokens laid out as [prompt | completion 0 | ... | completion n-1].

    Query q sees key k where q >= k and k is a prompt token or both are of the same completion.
    Prompt padding (at or after `lengths`) is seen by nobody but prompt padding.
    """

    lengths: jax.Array  # int32[B]
    prompt: int  # tokens
    completions: int
    completion: int  # tokens of one


Layout = Segments | Group


def mask(layout: Layout, tokens: int) -> Bool[Array, "b q k"]:
    """Which key each query sees: the definition of the layouts, for small T."""
    q, k = jnp.arange(tokens)[:, None], jnp.arange(tokens)[None]
    if isinstance(layout, Segments):
        same = layout.ids[:, :, None] == layout.ids[:, None, :]
        return same & (q >= k)[None] if layout.causal else same
    p, r = layout.prompt, max(layout.completion, 1)
    same = (k < p) | ((q >= p) & ((q - p) // r == (k - p) // r))
    real = (k >= p) | (k < layout.lengths[:, None])
    return ((q >= k) & same)[None] & (real[:, None] | (q < p)[None])


def reference(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
) -> Float[Array, "b t h a"]:
    """Attention by definition, float32: what the other implementations are tested against."""
    parts = [x.astype(jnp.float32) for x in (q, k, v)]
    return _dense(*parts, mask(layout, q.shape[1])).astype(q.dtype)


def attention(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    implementation: str = "auto",
) -> Float[Array, "b t h a"]:
    """Scaled dot-product attention under a layout; H is a multiple of K.

    Args:
        q: queries, rotated.
        k: keys, rotated.
        v: values.
        layout: who sees whom.
        implementation: auto, reference, dense.
    """
    if implementation == "reference":
        return reference(q, k, v, layout)
    if isinstance(layout, Group) and layout.completions:
        return _dense_group(q, k, v, layout)
    return _dense(q, k, v, mask(layout, q.shape[1]))


def _scores(spec: str, q: jax.Array, k: jax.Array) -> jax.Array:
    """Scaled float32 scores."""
    s = jnp.einsum(spec, q, k, precision=precision(q.dtype), preferred_element_type=jnp.float32)
    return s * q.shape[-1] ** -0.5


def _dense(q: jax.Array, k: jax.Array, v: jax.Array, allowed: jax.Array) -> jax.Array:
    b, t, h, a = q.shape
    q = q.reshape(b, t, k.shape[2], -1, a)
    scores = jnp.where(allowed[:, None, None], _scores("btkha,bska->bkhts", q, k), NEG)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("bkhts,bska->btkha", weights, v, precision=precision(q.dtype))
    return out.reshape(b, t, h, a)


def _dense_group(q: jax.Array, k: jax.Array, v: jax.Array, layout: Group) -> jax.Array:
    """The prompt on itself; every completion on the prompt and itself, not on the others."""
    lengths, p, n, r = layout
    b, _, h, a = q.shape
    kv = k.shape[2]
    on_prompt = Group(lengths, p, 0, 0)
    prompt = _dense(q[:, :p], k[:, :p], v[:, :p], mask(on_prompt, p))
    q = q[:, p:].reshape(b, n, r, kv, h // kv, a)
    own_k, own_v = (x[:, p:].reshape(b, n, r, kv, a) for x in (k, v))
    real = (jnp.arange(p)[None] < lengths[:, None])[:, None, None, None, None]
    causal = (jnp.arange(r)[:, None] >= jnp.arange(r)[None])[None, None, None, None]
    far = jnp.where(real, _scores("bnrkha,bpka->bkhnrp", q, k[:, :p]), NEG)
    near = jnp.where(causal, _scores("bnrkha,bnska->bkhnrs", q, own_k), NEG)
    weights = jax.nn.softmax(jnp.concatenate([far, near], axis=-1), axis=-1).astype(v.dtype)
    prec = precision(q.dtype)
    out = jnp.einsum("bkhnrp,bpka->bnrkha", weights[..., :p], v[:, :p], precision=prec)
    out += jnp.einsum("bkhnrs,bnska->bnrkha", weights[..., p:], own_v, precision=prec)
    return jnp.concatenate([prompt, out.reshape(b, n * r, h, a)], axis=1)


def decode_attention(
    q: Float[Array, "g n h a"],
    new: KV,
    prefix: KV,
    prefix_seen: Bool[Array, "g p"],
    suffix: KV,
    suffix_seen: Bool[Array, "g r"],
) -> Float[Array, "g n h a"]:
    """One token of N completions a group over [prefix | suffix | itself].

    The prefix part is one matrix product for all N rows: its keys are read once a group, not once a
    row. The three parts meet in one softmax.

    Args:
        q: queries.
        new: the token's own key and value, [G, N, K, A].
        prefix: [G, P, K, A].
        prefix_seen: false on padding.
        suffix: [G, N, R, K, A], what was decoded before.
        suffix_seen: false from the current step on.
    """
    g, n, h, a = q.shape
    q = q.reshape(g, n, new.k.shape[2], -1, a)
    far = _scores("gnkha,gpka->gkhnp", q, prefix.k)
    near = _scores("gnkha,gnrka->gkhnr", q, suffix.k)
    own = _scores("gnkha,gnka->gkhn", q, new.k)[..., None]
    far = jnp.where(prefix_seen[:, None, None, None], far, NEG)
    near = jnp.where(suffix_seen[:, None, None, None], near, NEG)
    top = jnp.maximum(jnp.maximum(far.max(-1, keepdims=True), near.max(-1, keepdims=True)), own)
    far, near, own = (jnp.exp(s - top) for s in (far, near, own))
    total = far.sum(-1) + near.sum(-1) + own[..., 0]
    prec = precision(q.dtype)
    out = jnp.einsum("gkhnp,gpka->gnkha", far.astype(q.dtype), prefix.v, precision=prec)
    out += jnp.einsum("gkhnr,gnrka->gnkha", near.astype(q.dtype), suffix.v, precision=prec)
    out += jnp.moveaxis(own, 3, 1).astype(q.dtype) * new.v[:, :, :, None]
    out = out.astype(jnp.float32) / jnp.moveaxis(total, 3, 1)[..., None]
    return out.reshape(g, n, h, a).astype(q.dtype)
