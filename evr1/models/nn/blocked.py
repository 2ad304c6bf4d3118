"""Attention in memory linear in T, in plain XLA: a scan over the live (query, key) block pairs.

The rule tells on the host which pairs can hold anything, so the causal half and the other
completions of a group cost nothing. Forward keeps a running maximum and sum per query; backward
recomputes the scores from the log-sum-exp. Source: FlashAttention-2, arXiv 2307.08691, algorithms
1 and 2.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from evr1.models.nn.layers import precision
from evr1.models.nn.layout import Layout, Rule

_NEG = -1e30  # the score of what is unseen
_LEAST = -1e20  # where a running maximum begins: exp(_NEG - _LEAST) is 0, whatever has been seen


class Blocks(NamedTuple):
    """How the work is cut.

    Attributes:
        queries: tokens of a block of queries.
        span: a block of keys holds this many times as many.
        heads: key heads of prompts that are worked on at a time, a divisor of their number; 0: all.
            Where a cache is all the fast memory there is, few are faster.
    """

    queries: int
    span: int = 1
    heads: int = 0

    @property
    def keys(self) -> int:
        """Tokens of a block of keys."""
        return self.queries * self.span


def attention(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    blocks: Blocks,
) -> Float[Array, "b t h a"]:
    """Returns attention under a layout; T is padded to a multiple of `blocks.keys` inside."""
    b, t, h, a = q.shape
    kv, pad = k.shape[2], -t % blocks.keys
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (q, k, v))
    ids = jnp.pad(layout.ids, ((0, 0), (0, pad)), constant_values=-1)
    q = jnp.moveaxis(q.reshape(b, t + pad, kv, -1, a), 1, 3)
    args = (q, jnp.moveaxis(k, 1, 2), jnp.moveaxis(v, 1, 2), ids)
    if 0 < blocks.heads < b * kv:
        q, k, v, ids = (*args[:3], jnp.repeat(ids, kv, axis=0))
        few = [x.reshape(-1, blocks.heads, 1, *x.shape[2:]) for x in (q, k, v)]
        ids = ids.reshape(-1, blocks.heads, ids.shape[1])
        out: Any = jax.lax.map(lambda x: _attention(*x, layout.rule, blocks), (*few, ids))
        out = out.reshape(q.shape)
    else:
        out = _attention(*args, layout.rule, blocks)
    return jnp.moveaxis(out, 3, 1).reshape(b, t + pad, h, a)[:, :t]


@functools.cache
def live_pairs(rule: Rule, tokens: int, blocks: Blocks) -> np.ndarray:
    """Returns the int32[n, 2] (query block, key block) pairs in which any query sees any key.

    Sorted by query block. A superset is right too: inside a pair the rule is applied exactly.

    >>> from evr1.models.nn.layout import Rule
    >>> live_pairs(Rule(True), 3, Blocks(1)).tolist()
    [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2]]
    >>> live_pairs(Rule(True), 4, Blocks(1, span=2)).tolist()
    [[0, 0], [1, 0], [2, 0], [2, 1], [3, 0], [3, 1]]
    """
    q0, k0 = np.arange(0, tokens, blocks.queries)[:, None], np.arange(0, tokens, blocks.keys)[None]
    q1, k1 = q0 + blocks.queries - 1, k0 + blocks.keys - 1
    live = (q1 >= k0) if rule.causal else np.ones((q0.size, k0.size), bool)
    if rule.completion:
        p, r = rule.prompt, rule.completion
        overlap = ((q0 - p) // r <= (k1 - p) // r) & ((k0 - p) // r <= (q1 - p) // r)
        live &= (k0 < p) | overlap
    return np.argwhere(live).astype(np.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, ids, rule, blocks):
    return _forward(q, k, v, ids, rule, blocks)[0]


def _forward(q, k, v, ids, rule, blocks):
    """Returns the output, and (inputs, output, log-sum-exp) for the backward pass.

    q is [B, K, H/K, T, A], k and v are [B, K, T, A], the output is like q.
    """
    f32 = jnp.float32
    start = (
        jnp.full(q.shape[:-1], _LEAST, f32),
        jnp.zeros(q.shape[:-1], f32),
        jnp.zeros(q.shape, f32),
    )
    scores_of = _scorer(q, k, ids, rule, blocks)

    def pair(carry, ij):
        i, j = ij
        top, total, out = (_block(x, i, blocks.queries, 3) for x in carry)
        scores = scores_of(i, j)
        new_top = jnp.maximum(top, scores.max(-1))
        weights = jnp.exp(scores - new_top[..., None])
        keep = jnp.exp(top - new_top)
        value = _block(v, j, blocks.keys, 2)
        out = out * keep[..., None] + _dot("bkhqs,bksa->bkhqa", weights.astype(v.dtype), value)
        new = (new_top, total * keep + weights.sum(-1), out)
        return tuple(
            _set(x, y, i, blocks.queries, 3) for x, y in zip(carry, new, strict=True)
        ), None

    pairs = jnp.asarray(live_pairs(rule, q.shape[3], blocks))
    (top, total, out), _ = jax.lax.scan(pair, start, (pairs[:, 0], pairs[:, 1]))
    out = (out / total[..., None]).astype(q.dtype)
    return out, (q, k, v, ids, out, top + jnp.log(total))


def _backward(rule, blocks, saved, d_out):
    q, k, v, ids, out, lse = saved
    queries, keys = blocks.queries, blocks.keys
    f32 = jnp.float32
    delta = jnp.sum(d_out.astype(f32) * out.astype(f32), axis=-1)
    start = tuple(jnp.zeros(x.shape, f32) for x in (q, k, v))
    scores_of = _scorer(q, k, ids, rule, blocks)

    def pair(carry, ij):
        i, j = ij
        dq, dk, dv = carry
        weights = jnp.exp(scores_of(i, j) - _block(lse, i, queries, 3)[..., None])
        d_block = _block(d_out, i, queries, 3)
        d_weights = _dot("bkhqa,bksa->bkhqs", d_block, _block(v, j, keys, 2))
        d_scores = weights * (d_weights - _block(delta, i, queries, 3)[..., None])
        d_scores = (d_scores * q.shape[-1] ** -0.5).astype(q.dtype)
        weights = weights.astype(q.dtype)
        dq = _add(dq, _dot("bkhqs,bksa->bkhqa", d_scores, _block(k, j, keys, 2)), i, queries, 3)
        dk = _add(dk, _dot("bkhqs,bkhqa->bksa", d_scores, _block(q, i, queries, 3)), j, keys, 2)
        dv = _add(dv, _dot("bkhqs,bkhqa->bksa", weights, d_block), j, keys, 2)
        return (dq, dk, dv), None

    pairs = jnp.asarray(live_pairs(rule, q.shape[3], blocks))
    (dq, dk, dv), _ = jax.lax.scan(pair, start, (pairs[:, 0], pairs[:, 1]))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_attention.defvjp(_forward, _backward)


def _scorer(q, k, ids, rule, blocks):
    """Returns what gives the scaled scores of a pair of blocks, `_NEG` where unseen."""
    place = jnp.arange(q.shape[3])
    # A table: to divide anew for every score takes longer than all else that is done with it.
    part = jnp.asarray(rule.part(np.arange(q.shape[3])), jnp.int32)

    def scores_of(i, j):
        def beside(x, axis):
            queries, keys = (_block(x, i, blocks.queries, axis), _block(x, j, blocks.keys, axis))
            return queries[..., :, None], keys[..., None, :]

        block = _block(q, i, blocks.queries, 3), _block(k, j, blocks.keys, 2)
        own, other = beside(ids, 1)
        seen = own == other
        if rule.causal:
            own, other = beside(place, 0)
            seen &= (own >= other)[None]
        if rule.completion:
            own, other = beside(part, 0)
            seen &= ((other == 0) | (own == other))[None]
        scores = _dot("bkhqa,bksa->bkhqs", *block)
        return jnp.where(seen[:, None, None], scores * q.shape[-1] ** -0.5, _NEG)

    return scores_of


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, precision=precision(x.dtype), preferred_element_type=jnp.float32)


def _block(x: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis)


def _set(x: jax.Array, value: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, value, i * block, axis)


def _add(x: jax.Array, value: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return _set(x, _block(x, i, block, axis) + value, i, block, axis)
