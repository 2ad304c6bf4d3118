"""The attention entry: every implementation against the float32 definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.models.nn import blocked, splash
from evr1.models.nn.attention import _cpu_blocks, attention, mask
from evr1.models.nn.layout import Layout, Rule, group, read, segments

B, T = 2, 42
# Far smaller than those it would choose.
BLOCKS = {"blocked": blocked.Blocks(8), "blocked for CPUs": blocked.Blocks(8, span=2, heads=1)}
LAYOUTS = {
    "causal": lambda: segments(jnp.ones((B, T), jnp.int32), causal=True),
    "packed": lambda: segments(_packed(), causal=True),
    "bidirectional": lambda: segments(_packed(), causal=False),
    "group": lambda: group(jnp.array([27, 13]), 27, 3, 5),
    "prompt only": lambda: group(jnp.array([T, 7]), T, 0, 0),
}
HEADS = {"multi-head": (2, 2), "grouped": (4, 2), "one kv head": (3, 1)}


def _packed():
    """Two segments and padding in one row, one and padding in the other."""
    ids = np.zeros((B, T), np.int32)
    ids[0, :17], ids[0, 17:35], ids[1, :41] = 1, 2, 1
    return jnp.asarray(ids)


def _inputs(tokens, heads, head_dim, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(B, tokens, h, head_dim) for h in (heads[0], heads[1], heads[1], heads[0])]
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def _attend(implementation, q, k, v, layout):
    if implementation in BLOCKS:
        return blocked.attention(q, k, v, layout, BLOCKS[implementation])
    return attention(q, k, v, layout, implementation)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(implementation, rule, ids, q, k, v, weight):
    def f(q, k, v):
        out = _attend(implementation, q, k, v, Layout(rule, ids))
        return (out * weight).sum(), out

    (_, out), grads = jax.value_and_grad(f, (0, 1, 2), has_aux=True)(q, k, v)
    return [out, *grads]


def _value_and_grads(implementation, layout, q, k, v, weight):
    return _run(implementation, layout.rule, layout.ids, q, k, v, weight)


def _gap(a, b):
    return max(float(jnp.abs(x - y).max() / jnp.abs(y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("layout", "heads"),
    [(x, "grouped") for x in LAYOUTS] + [("group", "multi-head"), ("packed", "one kv head")],
)
def test_dense_and_blocked_follow_the_definition(layout, heads):
    layout = LAYOUTS[layout]()
    args = _inputs(T, HEADS[heads], 16)
    expected = _value_and_grads("reference", layout, *args)
    for implementation in ("dense", *BLOCKS):
        assert _gap(_value_and_grads(implementation, layout, *args), expected) < 2e-6


@pytest.mark.parametrize("head_dim", [72, 128, 256])
def test_head_dims(head_dim):
    layout, args = LAYOUTS["group"](), _inputs(T, (4, 2), head_dim)
    expected = _value_and_grads("reference", layout, *args)
    for implementation in ("dense", *BLOCKS):
        assert _gap(_value_and_grads(implementation, layout, *args), expected) < 2e-6


@pytest.mark.parametrize("layout", ["group", "bidirectional"])
def test_splash_follows_the_definition(layout):
    layout, args = LAYOUTS[layout](), _inputs(T, (2, 1), 72)
    expected = _value_and_grads("reference", layout, *args)
    assert _gap(_value_and_grads("splash_interpret", layout, *args), expected) < 5e-6


@pytest.mark.parametrize("layout", ["group", "prompt only"])
@pytest.mark.parametrize("implementation", ["dense", *BLOCKS, "splash_interpret"])
def test_of_the_tokens_that_are_read_alone(layout, implementation):
    """The same as of all tokens, where only these are looked at."""
    made = LAYOUTS[layout]()
    lengths, prompt = jnp.array([27, 13] if layout == "group" else [T, 7]), made.rule.prompt
    pick = functools.partial(read, lengths=lengths, prompt=prompt)
    q, k, v, weight = _inputs(T, (2, 1), 128)

    def short(q, k, v):
        out = _attend(implementation, pick(q), k, v, made)
        return (out * pick(weight)).sum(), out

    def whole(q, k, v):
        out = pick(attention(q, k, v, made, "reference"))
        return (out * pick(weight)).sum(), out

    got, expected = (jax.grad(f, (0, 1, 2), has_aux=True)(q, k, v) for f in (short, whole))
    assert _gap(jax.tree.leaves(got), jax.tree.leaves(expected)) < 5e-6


@pytest.mark.parametrize("rule", [Rule(True), Rule(False), Rule(True, 24, 6), Rule(True, 24, 6, 2)])
def test_blocks_of_a_splash_mask_are_those_of_the_rule(rule):
    """Those that see nothing or all are known by their ends."""
    whole = splash.RuleMask(rule, 48, (32, 40) if rule.devices > 1 else (48, 48))
    expected = rule.sees(whole.places[:, None], np.arange(whole.shape[1])[None])
    for q in range(0, whole.shape[0], 4):
        for k in range(0, whole.shape[1], 4):
            block = (slice(q, q + 4), slice(k, k + 4))
            np.testing.assert_array_equal(whole[block], np.asarray(expected)[block])


def test_a_wrong_layout_is_noticed():
    args = _inputs(T, (4, 2), 16)
    right, wrong = LAYOUTS["group"](), group(jnp.array([27, 14]), 27, 3, 5)
    expected = _value_and_grads("reference", right, *args)
    assert _gap(_value_and_grads("blocked", wrong, *args), expected) > 1e-3


def test_bfloat16_keeps_the_softmax_in_float32():
    layout, args = LAYOUTS["group"](), _inputs(T, (4, 2), 64, jnp.bfloat16)
    exact = _value_and_grads("reference", layout, *(x.astype(jnp.float32) for x in args))[0]
    for implementation in ("dense", *BLOCKS):
        out = _value_and_grads(implementation, layout, *args)[0].astype(jnp.float32)
        assert float(jnp.abs(out - exact).max()) < 0.02  # a few bfloat16 ulps of values near 1


def test_group_mask_by_hand():
    # Prompt of 3 places, 2 of them real; two completions of 2 tokens: [p p . | a a | b b].
    seen = np.asarray(mask(group(jnp.array([2]), 3, 2, 2)))[0].astype(int)
    assert seen[[0, 1, 3, 4, 5, 6]].tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1, 1],
    ]
    assert seen.diagonal().all()


def test_live_pairs_skip_the_upper_half_and_the_other_completions():
    # Blocks of 2 over [p p p p | a a | b b | c c]: a completion's block lives with 2 prompt blocks
    # and itself.
    pairs = blocked.live_pairs(Rule(True, 4, 2), 10, blocked.Blocks(2)).tolist()
    assert pairs == [[0, 0], [1, 0], [1, 1]] + [[i, j] for i in (2, 3, 4) for j in (0, 1, i)]


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize("rule", [Rule(True), Rule(False), Rule(True, 5, 3), Rule(True, 7, 2)])
def test_live_pairs_leave_nobody_out(rule, span):
    tokens, block = 16, 4
    place = np.arange(tokens)
    seen = rule.sees(place[:, None], place[None])
    seen = seen.reshape(4, block, 4 // span, block * span)
    blocks = blocked.Blocks(block, span)
    pairs = tuple(blocked.live_pairs(rule, tokens, blocks).T)
    live = np.zeros((4, 4 // span), bool)
    live[pairs] = True
    assert (live | ~seen.any((1, 3))).all()
    free = blocked._free_pairs(rule, tokens, blocks)
    np.testing.assert_array_equal(free, seen.all((1, 3))[pairs])


@pytest.mark.parametrize("rule", [Rule(False), Rule(True), Rule(True, 24, 6)])
def test_pairs_of_blocks_are_of_three_kinds(rule):
    """One sequence with padding; a packed one, of four segments."""
    ids = np.ones((2, 48), np.int32)
    ids[0, 30:], ids[1] = 0, np.repeat([1, 2, 3, 0], [9, 7, 16, 16])
    place = np.arange(48)
    seen = rule.sees(place[:, None], place[None])[None] & (ids[:, :, None] == ids[:, None])
    seen = seen.reshape(2, 6, 8, 3, 16)
    blocks = blocked.Blocks(8, span=2, heads=1)
    pairs = blocked.live_pairs(rule, 48, blocks)
    free = blocked._free_pairs(rule, 48, blocks)
    kinds = set()
    for row in range(2):
        both = jnp.asarray(np.stack([ids[row], ids[row]])[None])
        kind_of = blocked._kinds(both, blocks)
        for (i, j), is_free in zip(pairs, free, strict=True):
            kind, pair = int(kind_of(i, j, is_free)), seen[row, i, :, j]
            assert {0: not pair.any(), 1: True, 2: pair.all()}[kind]
            kinds.add(kind)
    assert kinds == {0, 1, 2}


@pytest.mark.parametrize("rule", [Rule(True), Rule(True, 5, 3), Rule(True, 7, 2)])
def test_who_sees_whom_by_parts(rule):
    for q in range(16):
        for k in range(16):
            own = [(x - rule.prompt) // (rule.completion or 1) for x in (q, k)]
            is_far = rule.completion and k >= rule.prompt and (q < rule.prompt or own[0] != own[1])
            assert rule.sees(q, k) == (q >= k and not is_far)


def test_blocks_for_cpus():
    frames, prompt = Rule(False), Rule(True)
    # 40 heads of 4 frames of 960 patches: all keys at once, no padding, a head at a time.
    assert _cpu_blocks(40, 1, 960, frames) == blocked.Blocks(120, span=8, heads=1)
    assert _cpu_blocks(16, 1, 3136, frames).keys == 13 * 128  # of 3,136, padded to 2 x 1,664
    assert _cpu_blocks(12, 1, 300, frames) == blocked.Blocks(104, span=3, heads=2)
    assert _cpu_blocks(6, 2, 2560, prompt) == blocked.Blocks(128, heads=2)
    assert _cpu_blocks(7, 2, 2560, prompt).heads == 1  # 2 does not divide 7


def test_padding_has_finite_output_and_no_gradient():
    layout = segments(_packed(), causal=False)
    q, k, v, weight = _inputs(T, (2, 1), 16)
    weight = weight * (layout.ids > 0)[..., None, None]
    for implementation in ("dense", *BLOCKS):
        out, *grads = _value_and_grads(implementation, layout, q, k, v, weight)
        assert bool(jnp.isfinite(out).all())
        for grad in grads:
            assert float(jnp.abs(jnp.where((layout.ids == 0)[..., None, None], grad, 0)).max()) == 0


def test_auto_works_in_blocks_when_the_scores_are_large(monkeypatch):
    q, k, v, _ = _inputs(T, (2, 1), 8)
    layout = LAYOUTS["group"]()
    used = []
    monkeypatch.setattr(blocked, "attention", lambda *args: used.append(args[-1]) or args[0])
    attention(q, k, v, layout)
    assert not used
    monkeypatch.setattr("evr1.models.nn.attention.DENSE_BYTES", 1000)
    attention(q, k, v, layout)
    assert used == [blocked.Blocks(128, heads=2)]


def test_unknown_implementation():
    q, k, v, _ = _inputs(4, (2, 1), 8)
    layout = Layout(Rule(True), jnp.ones((B, 4), jnp.int32))
    with pytest.raises(ValueError, match="'flash' is unknown; use auto, reference"):
        attention(q, k, v, layout, "flash")
