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
from jaxtyping import Array, Float, Int

from evr1.models.nn.layers import precision
from evr1.models.nn.layout import Layout, Rule, query_ids

_NEG = -1e30  # the score of what is unseen
_LEAST = -1e20  # where a running maximum begins: exp(_NEG - _LEAST) is 0, whatever has been seen


class Blocks(NamedTuple):
    """How the work is cut.

    Attributes:
        queries: tokens of a block of queries.
        span: a block of keys holds this many times as many.
        heads: for a single CPU, whose fast memory is its cache: key heads of prompts that are
            worked on at a time, a divisor of their number. Pairs of blocks in which ids have
            nothing in common are then left out. 0: all at a time, and no branches.
    """

    queries: int
    span: int = 1
    heads: int = 0

    @property
    def keys(self) -> int:
        """Tokens of a block of keys."""
        return self.queries * self.span


def attention(
    q: Float[Array, "b q h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    blocks: Blocks,
) -> Float[Array, "b q h a"]:
    """Returns attention under a layout; T is padded to a multiple of `blocks.keys` inside, and
    fewer queries are filled up in front to whole blocks."""
    b, t, kv, a = k.shape
    queries, h, pad = q.shape[1], q.shape[2], -t % blocks.keys
    before = (t - queries) % blocks.queries
    q = jnp.pad(q, ((0, 0), (before, pad), (0, 0), (0, 0)))
    k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (k, v))
    ids = jnp.stack([_of_places(layout, queries), layout.ids], axis=1)  # of queries, of keys
    ids = jnp.pad(ids, ((0, 0), (0, 0), (0, pad)), constant_values=-1)
    q = jnp.moveaxis(q.reshape(b, before + queries + pad, kv, -1, a), 1, 3)
    args = (q, jnp.moveaxis(k, 1, 2), jnp.moveaxis(v, 1, 2), ids)
    if 0 < blocks.heads < b * kv:
        q, k, v, ids = (*args[:3], jnp.repeat(ids, kv, axis=0))
        few = [x.reshape(-1, blocks.heads, 1, *x.shape[2:]) for x in (q, k, v)]
        ids = ids.reshape(-1, blocks.heads, *ids.shape[1:])
        out: Any = jax.lax.map(lambda x: _attention(*x, layout.rule, blocks), (*few, ids))
        out = out.reshape(q.shape)
    else:
        out = _attention(*args, layout.rule, blocks)
    return jnp.moveaxis(out, 3, 1).reshape(b, -1, h, a)[:, before : before + queries]


def _of_places(layout: Layout, queries: int) -> Int[Array, "b t"]:
    """Returns the ids of the queries by their places; where there is none, a token sees itself."""
    before = layout.ids[:, : layout.ids.shape[1] - queries]
    return jnp.concatenate([before, query_ids(layout, queries)], axis=1)


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


@functools.cache
def _free_pairs(rule: Rule, tokens: int, blocks: Blocks) -> np.ndarray:
    """Returns bool[n], in which of the live pairs the rule lets every query see every key."""
    i, j = live_pairs(rule, tokens, blocks).T
    queries, keys = (i * blocks.queries, j * blocks.keys)
    free = (queries >= keys + blocks.keys - 1) | (not rule.causal)
    part = rule.part(np.arange(tokens))
    first = np.stack([part[queries], part[keys]])
    last = np.stack([part[queries + blocks.queries - 1], part[keys + blocks.keys - 1]])
    return free & ((last[1] == 0) | ((first == last).all(0) & (first[0] == first[1])))


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

    def update(own, scores, _, j):
        top, total, out = own
        new_top = jnp.maximum(top, scores.max(-1))
        weights = jnp.exp(scores - new_top[..., None])
        keep = jnp.exp(top - new_top)
        value = _block(v, j, blocks.keys, 2)
        out = out * keep[..., None] + _dot("bkhqs,bksa->bkhqa", weights.astype(v.dtype), value)
        return new_top, total * keep + weights.sum(-1), out

    top, total, out = _over_pairs(update, start, (False,) * 3, (q, k, ids, rule, blocks))
    out = (out / total[..., None]).astype(q.dtype)
    return out, (q, k, v, ids, out, top + jnp.log(total))


def _backward(rule, blocks, saved, d_out):
    q, k, v, ids, out, lse = saved
    f32 = jnp.float32
    delta = jnp.sum(d_out.astype(f32) * out.astype(f32), axis=-1)
    start = tuple(jnp.zeros(x.shape, f32) for x in (q, k, v))

    def update(own, scores, i, j):
        dq, dk, dv = own
        query, d_block, lse_block, delta_block = (
            _block(x, i, blocks.queries, 3) for x in (q, d_out, lse, delta)
        )
        key, value = (_block(x, j, blocks.keys, 2) for x in (k, v))
        weights = jnp.exp(scores - lse_block[..., None])
        d_weights = _dot("bkhqa,bksa->bkhqs", d_block, value)
        d_scores = weights * (d_weights - delta_block[..., None])
        d_scores = (d_scores * q.shape[-1] ** -0.5).astype(q.dtype)
        return (
            dq + _dot("bkhqs,bksa->bkhqa", d_scores, key),
            dk + _dot("bkhqs,bkhqa->bksa", d_scores, query),
            dv + _dot("bkhqs,bkhqa->bksa", weights.astype(q.dtype), d_block),
        )

    sums = _over_pairs(update, start, (False, True, True), (q, k, ids, rule, blocks))
    dq, dk, dv = (x.astype(like.dtype) for x, like in zip(sums, (q, k, v), strict=True))
    return dq, dk, dv, None


_attention.defvjp(_forward, _backward)


def _over_pairs(update, carry, of_keys, args):
    """Returns the carry after all live pairs of blocks.

    Args:
        update: (blocks of the carry, scores, i, j) -> the blocks after the pair (i, j).
        carry: arrays of all queries or all keys.
        of_keys: which of them are of the keys.
        args: (q, k, ids, rule, blocks).
    """
    q, k, ids, rule, blocks = args
    tokens = k.shape[2]
    first = (tokens - q.shape[3]) // blocks.queries  # block of queries that there is
    mask_of = _masks(ids, tokens, rule, blocks)
    kind_of = _kinds(ids, blocks)

    def pair(carry, at):
        i, j, is_free = at
        row = i - first
        places = [(j, blocks.keys, 2) if x else (row, blocks.queries, 3) for x in of_keys]

        def plain():
            query, key = _block(q, row, blocks.queries, 3), _block(k, j, blocks.keys, 2)
            return _dot("bkhqa,bksa->bkhqs", query, key) * q.shape[-1] ** -0.5

        def masked():
            return jnp.where(mask_of(i, j)[:, None, None], plain(), _NEG)

        own = tuple(_block(x, *place) for x, place in zip(carry, places, strict=True))
        if blocks.heads:
            branches = [
                lambda own: own,
                lambda own: update(own, masked(), row, j),
                lambda own: update(own, plain(), row, j),
            ]
            own = jax.lax.switch(kind_of(i, j, is_free), branches, own)
        else:
            own = update(own, masked(), row, j)
        return tuple(_set(x, y, *p) for x, y, p in zip(carry, own, places, strict=True)), None

    pairs = live_pairs(rule, tokens, blocks)
    there = pairs[:, 0] >= first
    at = (*pairs[there].T, _free_pairs(rule, tokens, blocks)[there])
    return jax.lax.scan(pair, carry, tuple(map(jnp.asarray, at)))[0]


def _masks(ids, tokens, rule, blocks):
    """Returns what gives bool[B, queries, keys] of a pair of blocks: who sees whom."""
    place = jnp.arange(tokens)
    # A table: to divide anew for every score takes longer than all else that is done with it.
    part = jnp.asarray(rule.part(np.arange(tokens)), jnp.int32)

    def mask_of(i, j):
        def beside(x, axis):
            queries, keys = _block(x, i, blocks.queries, axis), _block(x, j, blocks.keys, axis)
            return queries[..., :, None], keys[..., None, :]

        own, other = beside(ids, 2)
        seen = own[:, 0] == other[:, 1]
        if rule.causal:
            own, other = beside(place, 0)
            seen &= (own >= other)[None]
        if rule.completion:
            own, other = beside(part, 0)
            seen &= ((other == 0) | (own == other))[None]
        return seen

    return mask_of


def _kinds(ids, blocks):
    """Returns what gives the kind of a pair: 0 nobody sees anybody, 1 some do, 2 all do.

    Where `is_free` is false the rule hides something. 0 and 2 are given where the smallest and
    largest ids of both blocks say so, which they do where ids ascend.
    """
    of_queries, of_keys = (
        ids[:, axis].reshape(len(ids), -1, size)
        for axis, size in enumerate((blocks.queries, blocks.keys))
    )
    least, most = (of_queries.min(-1), of_keys.min(-1)), (of_queries.max(-1), of_keys.max(-1))

    def kind_of(i, j, is_free):
        low, high = (least[0][:, i], least[1][:, j]), (most[0][:, i], most[1][:, j])
        some = ((low[0] <= high[1]) & (low[1] <= high[0])).any()
        alike = ((low[0] == high[0]) & (low[1] == high[1]) & (low[0] == low[1])).all()
        return jnp.where(some, jnp.where(alike & is_free, 2, 1), 0)

    return kind_of


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, precision=precision(x.dtype), preferred_element_type=jnp.float32)


def _block(x: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * block, block, axis)


def _set(x: jax.Array, value: jax.Array, i: jax.Array, block: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, value, i * block, axis)
