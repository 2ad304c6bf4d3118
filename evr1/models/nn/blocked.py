"""Attention in memory linear in T, in plain XLA: a scan over the live (query, key) block pairs.

The rule tells on the host which pairs can hold anything, so the causal half and the other
completions of a group cost nothing. Forward keeps a running maximum and sum per query; backward
recomputes the scores from the log-sum-exp. Source: FlashAttention-2, arXiv 2307.08691, algorithms
1 and 2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evr1.models.nn.layers import precision
from evr1.models.nn.layout import Layout, Rule

_NEG = -1e30


def attention(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    block: int,
) -> Float[Array, "b t h a"]:
    """Returns attention under a layout; T is padded to a multiple of `block` inside."""
    b, t, h, a = q.shape
    pad = -t % block
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (q, k, v))
    ids = jnp.pad(layout.ids, ((0, 0), (0, pad)), constant_values=-1)
    q = jnp.moveaxis(q.reshape(b, t + pad, k.shape[2], -1, a), 1, 3)
    out: Any = _attention(q, jnp.moveaxis(k, 1, 2), jnp.moveaxis(v, 1, 2), ids, layout.rule, block)
    return jnp.moveaxis(out, 3, 1).reshape(b, t + pad, h, a)[:, :t]


@functools.cache
def live_pairs(rule: Rule, tokens: int, block: int) -> np.ndarray:
    """Returns the int32[n, 2] (query block, key block) pairs in which any query sees any key.

    Sorted by query block. A superset is right too: inside a pair the rule is applied exactly.

    >>> from evr1.models.nn.layout import Rule
    >>> live_pairs(Rule(True), 3, 1).tolist()
    [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2]]
    """
    first = np.arange(0, tokens, block)
    last = first + block - 1
    q0, q1, k0, k1 = first[:, None], last[:, None], first[None], last[None]
    live = (q1 >= k0) if rule.causal else np.ones((len(first),) * 2, bool)
    if rule.completion:
        p, r = rule.prompt, rule.completion
        overlap = ((q0 - p) // r <= (k1 - p) // r) & ((k0 - p) // r <= (q1 - p) // r)
        live &= (k0 < p) | overlap
    return np.argwhere(live).astype(np.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, ids, rule, block):
    return _forward(q, k, v, ids, rule, block)[0]


def _forward(q, k, v, ids, rule, block):
    """Returns the output, and (inputs, output, log-sum-exp) for the backward pass.

    q is [B, K, H/K, T, A], k and v are [B, K, T, A], the output is like q.
    """
    f32 = jnp.float32
    start = (
        jnp.full(q.shape[:-1], _NEG, f32),
        jnp.zeros(q.shape[:-1], f32),
        jnp.zeros(q.shape, f32),
    )

    def pair(carry, ij):
        i, j = ij
        top, total, out = (_block(x, i, block, 3) for x in carry)
        scores, seen = _scores(q, k, ids, rule, block, i, j)
        new_top = jnp.maximum(top, scores.max(-1))
        weights = jnp.where(seen, jnp.exp(scores - new_top[..., None]), 0)
        keep = jnp.exp(top - new_top)
        value = _block(v, j, block, 2)
        out = out * keep[..., None] + _dot("bkhqs,bksa->bkhqa", weights.astype(v.dtype), value)
        new = (new_top, total * keep + weights.sum(-1), out)
        return tuple(_set(x, y, i, block, 3) for x, y in zip(carry, new, strict=True)), None

    pairs = jnp.asarray(live_pairs(rule, q.shape[3], block))
    (top, total, out), _ = jax.lax.scan(pair, start, (pairs[:, 0], pairs[:, 1]))
    out = (out / total[..., None]).astype(q.dtype)
    return out, (q, k, v, ids, out, top + jnp.log(total))


def _backward(rule, block, saved, d_out):
    q, k, v, ids, out, lse = saved
    f32 = jnp.float32
    delta = jnp.sum(d_out.astype(f32) * out.astype(f32), axis=-1)
    start = tuple(jnp.zeros(x.shape, f32) for x in (q, k, v))

    def pair(carry, ij):
        i, j = ij
        dq, dk, dv = carry
        scores, seen = _scores(q, k, ids, rule, block, i, j)
        weights = jnp.where(seen, jnp.exp(scores - _block(lse, i, block, 3)[..., None]), 0)
        d_block = _block(d_out, i, block, 3)
        d_weights = _dot("bkhqa,bksa->bkhqs", d_block, _block(v, j, block, 2))
        d_scores = weights * (d_weights - _block(delta, i, block, 3)[..., None])
        d_scores = (d_scores * q.shape[-1] ** -0.5).astype(q.dtype)
        weights = weights.astype(q.dtype)
        dq = _add(dq, _dot("bkhqs,bksa->bkhqa", d_scores, _block(k, j, block, 2)), i, block, 3)
        dk = _add(dk, _dot("bkhqs,bkhqa->bksa", d_scores, _block(q, i, block, 3)), j, block, 2)
        dv = _add(dv, _dot("bkhqs,bkhqa->bksa", weights, d_block), j, block, 2)
        return (dq, dk, dv), None

    pairs = jnp.asarray(live_pairs(rule, q.shape[3], block))
    (dq, dk, dv), _ = jax.lax.scan(pair, start, (pairs[:, 0], pairs[:, 1]))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_attention.defvjp(_forward, _backward)


def _scores(q, k, ids, rule, block, i, j):
    """Returns scaled scores of a pair of blocks, -1e30 where unseen, and the mask."""
    scores = _dot("bkhqa,bksa->bkhqs", _block(q, i, block, 3), _block(k, j, block, 2))
    place = jnp.arange(block)
    static = rule.sees((i * block + place)[:, None], (j * block + place)[None])
    same = _block(ids, i, block, 1)[:, :, None] == _block(ids, j, block, 1)[:, None]
    seen = (static[None] & same)[:, None, None]
    return jnp.where(seen, scores * q.shape[-1] ** -0.5, _NEG), seen


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, precision=precision(x.dtype), preferred_element_type=jnp.float32)


def _block(x: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis)


def _set(x: jax.Array, value: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, value, i * block, axis)


def _add(x: jax.Array, value: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return _set(x, _block(x, i, block, axis) + value, i, block, axis)
