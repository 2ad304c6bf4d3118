"""The gated delta net: by hand, against transformers, in chunks, in segments, in groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hf import load_torch
from models_oracle import gap

from evr1.models.nn import delta

# Compiled whole: operation by operation they take seconds.
run = jax.jit(delta.run, static_argnames=("chunk", "slab"))
SIZES = ("prompt", "completion", "chunk", "slab")
run_group = jax.jit(delta.run_group, static_argnames=SIZES)
recurrent, convolve = jax.jit(delta.recurrent), jax.jit(delta.convolve)
chunked = jax.jit(delta.chunked, static_argnames="chunk")

HEADS, KEY_HEADS, KEY, VALUE, WIDTH = 4, 2, 3, 5, 4
CHANNELS = 2 * KEY_HEADS * KEY + HEADS * VALUE

# Float32 sums in another order; the triangular system adds a few bits.
TIGHT = 1e-5


def _net(seed: int, batch: int, length: int) -> tuple[delta.Inputs, np.ndarray, delta.State]:
    """Random inputs, a kernel, and a state that is not empty."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    x = delta.Inputs(
        normal(batch, length, CHANNELS),
        -np.exp(normal(batch, length, HEADS)),
        1 / (1 + np.exp(-normal(batch, length, HEADS))),
    )
    state = delta.State(normal(batch, WIDTH - 1, CHANNELS), normal(batch, HEADS, KEY, VALUE))
    return x, normal(WIDTH, CHANNELS), state


def _with_gradients(rule, x, memory, ids):
    """Outputs, and the gradients of a random sum of them by every input."""
    weights = np.random.default_rng(9).normal(size=2)

    def loss(x, memory):
        out, after = rule(x, memory, ids)
        turn = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        real = (ids != 0)[..., None, None]
        return (out * turn * real).sum() * weights[0] + (after**2).sum() * weights[1], (out, after)

    (_, outputs), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, memory)
    return outputs, grads


def test_recurrence_by_hand():
    """One head, key and value of one number, memory 2, k = 1, q = 1.

    Token 1 (decay 1/2, beta 1/2, v = 4): S = 1, wrong by 3, S = 1 + 3/2 = 2.5.
    Token 2 (decay 1, beta 1, v = 7): S = 7, whatever it was.
    Token 3 starts a segment (decay 1, beta 1/4, v = 8): S = 2; with the old memory it were 7.25.
    Token 4 is padding, that of token 3 stays.
    """
    x = delta.Inputs(
        jnp.array([[1, 1, 4], [1, 1, 7], [1, 1, 8], [1, 1, 9.0]])[None],
        jnp.log(jnp.array([0.5, 1, 1, 0.1])).reshape(1, 4, 1),
        jnp.array([0.5, 1, 0.25, 1]).reshape(1, 4, 1),
    )
    ids = jnp.array([[1, 1, 2, 0]])
    for rule in (recurrent, chunked, functools.partial(chunked, chunk=3)):
        out, memory = rule(x, jnp.full((1, 1, 1, 1), 2.0), ids)
        np.testing.assert_allclose(out[0, :3, 0, 0], [2.5, 7, 2], rtol=3e-6)
        assert memory.item() == pytest.approx(2, rel=3e-6)


def test_chunks_round_no_decay_away():
    """Every fourth token forgets all: sums of decays from a chunk's start reach 3,200, of which
    float32 rounds 1e-4 off; between two tokens that remember there is 0.01 to be kept."""
    x, _, (_, memory) = _net(6, 1, 64)
    decay = np.full((1, 64, HEADS), -0.01, np.float32)
    decay[:, ::4] = -200
    x = x._replace(log_decay=decay)
    ids = np.ones((1, 64), np.int32)
    for ours, expected in zip(chunked(x, memory, ids), recurrent(x, memory, ids), strict=True):
        assert gap(ours, expected) < 3e-6


def test_convolution_by_hand():
    """Width 3, kernel (1, 10, 100), tail (1, 2), then 3 | 4 5 in a second segment, then padding.

    3 sees 1 and 2: 1 + 20 + 300. 4 sees nothing before it: 400. 5 sees 4: 40 + 500.
    The tail for what follows is (4, 5); for a row that ends after 4 it is (0, 4).
    """
    x = jnp.array([3.0, 4, 5, 6])[None, :, None]
    kernel, tail = jnp.array([1.0, 10, 100])[:, None], jnp.array([1.0, 2])[None, :, None]
    out, after = convolve(x, kernel, tail, jnp.array([[1, 2, 2, 0]]))
    np.testing.assert_allclose(out[0, :3, 0], [321, 400, 540], rtol=1e-6)  # silu(y) = y here
    assert after[0, :, 0].tolist() == [4, 5]
    _, after = convolve(x, kernel, tail, jnp.array([[1, 2, 0, 0]]))
    assert after[0, :, 0].tolist() == [0, 4]
    _, after = convolve(x, kernel, tail, jnp.array([[1, 0, 0, 0]]))
    assert after[0, :, 0].tolist() == [2, 3]


@pytest.mark.parametrize("length", [1, 37])
@pytest.mark.parametrize("packed", [False, True])
def test_chunks_equal_the_recurrence(length, packed):
    """Forward and gradients; packed: segments of 3, 11, then the rest without two of padding."""
    x, _, (_, memory) = _net(length, 2, length)
    ids = np.ones((2, length), np.int32)
    if packed:
        ids[0, 3:], ids[0, 14:], ids[1, -2:] = 2, 3, 0
    ids = jnp.asarray(ids)
    expected, expected_grads = _with_gradients(delta.recurrent, x, memory, ids)
    rule = functools.partial(delta.chunked, chunk=8)
    got, grads = _with_gradients(rule, x, memory, ids)
    real = np.asarray(ids != 0)[..., None, None]
    assert gap(got[0] * real, expected[0] * real) < TIGHT
    assert gap(got[1], expected[1]) < TIGHT
    for mine, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.isfinite(mine).all()
        assert np.abs(np.asarray(mine) - theirs).max() < TIGHT * max(1, np.abs(theirs).max())


@pytest.mark.parity
@pytest.mark.parametrize("length", [5, 70])
def test_equal_to_transformers(length):
    """Both forms against both of transformers, with its head repetition and norms."""
    torch = load_torch()
    from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs

    x, kernel, state = _net(1, 2, length)
    kernel = 0.3 * kernel
    # transformers keeps one more input than the convolution needs, none here: its tail is zeros.
    state = delta.State(np.zeros_like(state.tail), state.memory)
    qkv = torch.nn.functional.conv1d(
        torch.from_numpy(x.qkv).mT,
        torch.from_numpy(kernel.T.copy())[:, None],
        padding=WIDTH - 1,
        groups=CHANNELS,
    )
    qkv = torch.nn.functional.silu(qkv[..., :length]).mT
    keys = KEY_HEADS * KEY
    q, k, v = (
        part.reshape(2, length, -1, size)
        for part, size in zip(
            qkv.split([keys, keys, HEADS * VALUE], -1), (KEY, KEY, VALUE), strict=True
        )
    )
    options = {
        "g": torch.from_numpy(x.log_decay),
        "beta": torch.from_numpy(x.beta),
        "initial_state": torch.from_numpy(state.memory),
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
    }
    ids = jnp.ones((2, length), jnp.int32)
    mine, _ = convolve(x.qkv, kernel, state.tail, ids)
    assert gap(mine, qkv.numpy()) < TIGHT
    one_by_one = recurrent(x._replace(qkv=mine), state.memory, ids)
    in_chunks = run(x, kernel, state)
    for rule in (theirs.torch_recurrent_gated_delta_rule, theirs.torch_chunk_gated_delta_rule):
        out, memory = rule(q, k, v, **options)
        for ours in (one_by_one, (in_chunks[0], in_chunks[1].memory)):
            assert gap(ours[0], out.numpy()) < TIGHT
            assert gap(ours[1], memory.numpy()) < TIGHT


@pytest.mark.parametrize("slab", [64, 4])
@pytest.mark.parametrize("bounds", [[(0, 2), (2, 11), (11, 17)], [(0, 8), (8, 12), (13, 16)]])
def test_segments_equal_separate_sequences(bounds, slab):
    """Three segments in a row of 20: none sees the others, in memory or convolution."""
    x, kernel, _ = _net(2, 1, 20)
    start = delta.empty(
        (1,),
        heads=HEADS,
        key_dim=KEY,
        value_dim=VALUE,
        channels=CHANNELS,
        width=WIDTH,
        dtype=jnp.dtype("float32"),
    )
    ids = np.zeros((1, 20), np.int32)
    for i, (a, b) in enumerate(bounds, 1):
        ids[0, a:b] = i
    got, state = run(x, kernel, start, jnp.asarray(ids), chunk=4, slab=slab)
    for a, b in bounds:
        alone, after = run(delta.Inputs(*(y[:, a:b] for y in x)), kernel, start, chunk=4)
        assert gap(got[:, a:b], alone) < TIGHT
    assert gap(state.memory, after.memory) < TIGHT
    assert gap(state.tail, after.tail) == 0
    leaked, _ = run(x, kernel, start, jnp.ones((1, 20), jnp.int32), chunk=4, slab=slab)
    assert gap(got[:, a:b], leaked[:, a:b]) > 1e-2  # the negative twin


def _separate(x, kernel, state, lengths, prompt, completion):
    """Every completion behind a copy of its prompt, one row each, without padding: [G, N, R]."""
    rows = []
    for g, length in enumerate(lengths):
        for at in range(prompt, x.beta.shape[1], completion):
            whole = delta.Inputs(
                *(
                    jnp.concatenate([y[g : g + 1, :length], y[g : g + 1, at : at + completion]], 1)
                    for y in x
                )
            )
            qkv, _ = delta.convolve(
                whole.qkv, kernel, state.tail[g : g + 1], jnp.ones(whole.beta.shape[:2], jnp.int32)
            )
            memory = state.memory[g : g + 1]
            out, _ = delta.recurrent(
                whole._replace(qkv=qkv),
                memory,
                jnp.ones(qkv.shape[:2], jnp.int32),
            )
            rows.append(out[:, length:])
    return jnp.concatenate(rows).reshape(len(lengths), -1, completion, HEADS, VALUE)


@pytest.mark.parametrize("slab", [64, 8])
def test_group_equals_separate_sequences(slab):
    """Two completions of 6 to prompts of 5 and 11 in 11 places: outputs, gradients of all."""
    lengths, prompt, completion = (5, 11), 11, 6
    x, kernel, state = _net(3, 2, prompt + 2 * completion)

    def grouped(x, kernel, state):
        out, _ = run_group(x, kernel, state, jnp.array(lengths), prompt, completion, 4, slab)
        return out[:, prompt:].reshape(2, 2, completion, HEADS, VALUE)

    def separate(x, kernel, state):
        return _separate(x, kernel, state, lengths, prompt, completion)

    weights = np.random.default_rng(4).normal(size=(2, 2, completion, HEADS, VALUE))

    def gradients(f):
        def loss(*args):
            out = f(*args)
            return (out * weights.astype(np.float32)).sum(), out

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(x, kernel, state)

    (_, expected), expected_grads = gradients(separate)
    (_, got), grads = gradients(grouped)
    assert gap(got, expected) < TIGHT
    for mine, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert gap(mine, theirs) < TIGHT
    assert not np.asarray(grads[0].qkv)[0, 5:11].any()  # padding


@pytest.mark.parametrize("slab", [64, 4])
def test_padding_of_the_prompt_leaves_the_state_alone(slab):
    """What stands behind a prompt of 5 changes neither the state nor the completion."""
    x, kernel, state = _net(5, 1, 9 + 4)
    other = _net(6, 1, 9 + 4)[0]

    def with_length(x, length):
        sizes = {"prompt": 9, "completion": 4, "chunk": 4, "slab": slab}
        return run_group(x, kernel, state, jnp.array([length]), **sizes)

    mixed = delta.Inputs(*(np.array(y) for y in x))
    for y, z in zip(mixed, other, strict=True):
        y[:, 5:9] = z[:, 5:9]
    (out, after), (other_out, other_after) = with_length(x, 5), with_length(mixed, 5)
    assert (out[:, 9:] == other_out[:, 9:]).all()
    assert all((a == b).all() for a, b in zip(after, other_after, strict=True))
    alone = run(delta.Inputs(*(y[:, :5] for y in x)), kernel, state)[1]
    assert gap(after.memory, alone.memory) < TIGHT
    assert gap(after.tail, alone.tail) == 0
    assert (
        gap(with_length(x, 6)[0][:, 9:], out[:, 9:]) > 1e-3
    )  # the negative twin: one more token counts


def test_one_token_at_a_time():
    """Nine steps equal one run, in output and state."""
    x, kernel, state = _net(7, 2, 9)
    expected, after = run(x, kernel, state, chunk=4)
    step = jax.jit(delta.decode)
    for t in range(9):
        out, state = step(delta.Inputs(*(y[:, t : t + 1] for y in x)), kernel, state)
        assert gap(out[:, 0], expected[:, t]) < TIGHT
    assert gap(state.memory, after.memory) < TIGHT
    assert gap(state.tail, after.tail) == 0


@pytest.mark.parametrize("size", [1, 5, 24, 64])
@pytest.mark.parametrize("kind", ["random", "repeated keys"])
def test_inverse(size, kind):
    """Against NumPy in float64. With a key that repeats, powers of the matrix reach 1e18 at 64."""
    rng = np.random.default_rng(0)
    full = rng.uniform(-1, 1, (3, size, size)) if kind == "random" else np.ones((3, size, size))
    a = np.tril(full, -1)
    expected = np.linalg.inv(np.eye(size) + a)
    point, direction = jnp.asarray(a, jnp.float32), jnp.asarray(0.1 * a, jnp.float32)
    got, change = jax.jvp(delta.inverse, [point], [direction])
    assert gap(got, expected) < 1e-6
    other = np.linalg.inv(np.eye(size) + 1.0001 * a) - np.linalg.inv(np.eye(size) + 0.9999 * a)
    if size > 1:
        assert gap(change, 0.1 * other / 2e-4) < 1e-3
