"""The attention of a decode step against the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.models.nn import decode
from evr1.models.nn.attention import attention
from evr1.models.nn.cache import KV, Cache
from evr1.models.nn.decode import decode_attention, list_blocks
from evr1.models.nn.layout import group

G, N, P, R, HEADS, KV_HEADS, SIZE = 3, 3, 18, 5, 4, 2, 16
LENGTHS = jnp.array([18, 4, 0])
STEPS = jnp.array([[3, 0, 4], [1, 2, 2], [0, 4, 1]])  # every row has a place of its own


def _inputs(dtype=jnp.float32):
    """Queries, keys and values of all tokens of the groups."""
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (HEADS, KV_HEADS, KV_HEADS)
    shapes = [(G, P + N * R, h, SIZE) for h in heads]
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def _expected(q, k, v):
    """The rows of the full attention, [G, N, H, A]."""
    full = attention(q, k, v, group(LENGTHS, P, N, R), "reference")
    return full[:, P:].reshape(G, N, R, HEADS, SIZE)[_rows()]


def _rows():
    return np.arange(G)[:, None], np.arange(N)[None], STEPS


def _arguments(q, k, v):
    """Those of `decode_attention`, in the second of three layers; what nobody may see is NaN-free
    but large."""
    own = [x[:, P:].reshape(G, N, R, -1, SIZE) for x in (q, k, v)]
    stale = jnp.where((np.arange(R)[None, None] < STEPS[..., None])[..., None, None], 0, 1e3)
    padding = jnp.where((np.arange(P)[None] < LENGTHS[:, None])[..., None, None], 0, 1e3)
    prefix = [jnp.moveaxis(x[:, :P] + padding, 1, 2).astype(x.dtype) for x in (k, v)]
    suffix = [jnp.moveaxis(x + stale, 2, 3).astype(x.dtype) for x in own[1:]]

    def stack(parts):
        return KV(*(jnp.stack([-x, x, 2 * x]) for x in parts))

    cache = Cache(stack(prefix), LENGTHS, stack(suffix))
    new = KV(own[1][_rows()], own[2][_rows()])
    return own[0][_rows()], new, cache, jnp.int32(1), STEPS


def _gap(x, y):
    return float(jnp.abs(x - y).max() / jnp.abs(y).max())


@pytest.fixture(params=[4, 7, 64])
def block(request, monkeypatch):
    """Tokens of a block: a part of the room, none that divides it, more than it."""
    monkeypatch.setattr(decode, "BLOCK", request.param)
    return request.param


def test_a_step_is_a_row_of_the_full_attention():
    inputs = _inputs()
    out = jax.jit(decode_attention)(*_arguments(*inputs))
    assert _gap(out, _expected(*inputs)) < 2e-6


def test_live_blocks_are_all_that_is_seen(block):
    inputs = _inputs()
    out = jax.jit(functools.partial(decode_attention, live=list_blocks(LENGTHS, P, block)))(
        *_arguments(*inputs)
    )
    assert _gap(out, _expected(*inputs)) < 2e-6


def test_no_other_block_is_read(monkeypatch):
    """What stands in blocks behind a prompt may be anything, even nothing finite."""
    monkeypatch.setattr(decode, "BLOCK", 6)
    q, new, cache, layer, steps = _arguments(*_inputs())
    live = list_blocks(LENGTHS, P, 6)
    run = jax.jit(functools.partial(decode_attention, live=live))
    dead = jnp.arange(P)[None] >= 6 * -(-LENGTHS // 6)[:, None]
    spoilt = KV(*(jnp.where(dead[None, :, None, :, None], jnp.nan, x) for x in cache.prefix))
    out = run(q, new, cache._replace(prefix=spoilt), layer, steps)
    np.testing.assert_array_equal(out, run(q, new, cache, layer, steps))


def test_a_block_too_few_is_noticed(monkeypatch):
    monkeypatch.setattr(decode, "BLOCK", 4)
    inputs = _inputs()
    live = list_blocks(LENGTHS - 4, P, 4)
    assert _gap(decode_attention(*_arguments(*inputs), live), _expected(*inputs)) > 1e-3


def test_bfloat16_keeps_the_softmax_in_float32(block):
    inputs = _inputs(jnp.bfloat16)
    expected = _expected(*(x.astype(jnp.float32) for x in inputs))
    for live in (None, list_blocks(LENGTHS, P, block)):
        out = decode_attention(*_arguments(*inputs), live).astype(jnp.float32)
        assert float(jnp.abs(out - expected).max()) < 0.03  # a few bfloat16 ulps of values near 2


def test_without_any_prefix_or_suffix_it_is_the_value():
    q, new, cache, layer, steps = _arguments(*_inputs())
    empty = cache._replace(prefix_lengths=0 * LENGTHS)
    for live in (None, list_blocks(0 * LENGTHS, P, 256)):
        out = decode_attention(q, new, empty, layer, 0 * steps, live)
        assert _gap(out, jnp.repeat(new.v, HEADS // KV_HEADS, axis=2)) < 1e-6
