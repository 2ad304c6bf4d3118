"""Generalised advantage estimation and the value loss, by hand and against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.rl.gae import explained_variance, gae
from evr1.rl.outcomes import Outcomes
from evr1.rl.value_loss import value_loss


def outcomes(rewards, lengths, valid=None, penalties=None):
    rewards, lengths = np.float32(rewards), np.array(lengths)
    valid = np.ones(rewards.shape, bool) if valid is None else np.array(valid)
    return Outcomes(rewards, valid, lengths, penalties=penalties)


@pytest.mark.parametrize(
    ("discount", "decay", "expected"),
    [
        (1.0, 1.0, [0.5, 0.75, 0.25]),  # reward to go 1 less value
        (1.0, 0.0, [-0.25, 0.5, 0.25]),  # one step: .25 - .5, .75 - .25, 1 - .75
        (0.5, 1.0, [-0.25, 0.25, 0.25]),  # reward to go .25, .5, 1 less value
        # delta = (-.375, .125, .25); A = .25, .125 + .25 * .25, -.375 + .25 * .1875
        (0.5, 0.5, [-0.328125, 0.1875, 0.25]),
    ],
)
def test_one_completion_by_hand(discount, decay, expected):
    """Reward 1 on the third of three tokens; values (.5, .25, .75); the fourth is padding."""
    values = np.float32([[[0.5, 0.25, 0.75, 9]]])
    advantages, returns = gae(
        outcomes([[1]], [[3]]), values, discount=discount, decay=decay, is_whitened=False
    )
    np.testing.assert_allclose(advantages[0, 0], [*expected, 0])
    np.testing.assert_allclose(returns[0, 0, :3], np.float32(expected) + values[0, 0, :3])
    assert returns[0, 0, 3] == 0


def test_penalties_come_off_their_tokens():
    """Reward 1, penalties (.1, .2), values 0: rewards to go 1 - .3 and 1 - .2."""
    penalties = np.float32([[[0.1, 0.2, 0.0]]])
    o = outcomes([[1]], [[2]], penalties=penalties)
    advantages, _ = gae(o, np.zeros((1, 1, 3), np.float32), is_whitened=False)
    np.testing.assert_allclose(advantages[0, 0], [0.7, 0.8, 0], rtol=1e-6)


def by_loops(o, values, discount, decay):
    """The definition, token by token, as a sum of discounted errors."""
    g, n, r = values.shape
    out = np.zeros((g, n, r))
    for i in range(g):
        for j in range(n):
            size = int(o.lengths[i, j])
            if not o.valid[i, j]:
                continue
            v = [float(x) for x in values[i, j, :size]] + [0.0]
            reward = [-float(o.penalties[i, j, t]) for t in range(size)]
            if size:
                reward[-1] += float(o.rewards[i, j])
            error = [reward[t] + discount * v[t + 1] - v[t] for t in range(size)]
            for t in range(size):
                out[i, j, t] = sum((discount * decay) ** (k - t) * error[k] for k in range(t, size))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_against_the_definition(seed):
    """Ragged lengths, an empty completion, one whose scorer failed."""
    rng = np.random.default_rng(seed)
    lengths, valid = rng.integers(0, 7, (3, 4)), rng.random((3, 4)) > 0.2
    lengths[0, 0], valid[0, 1] = 0, False
    values, penalties = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    o = outcomes(rng.normal(size=(3, 4)), lengths, valid, penalties)
    discount, decay = rng.random(2)
    expected = by_loops(o, values, discount, decay)
    advantages, returns = gae(o, values, discount=discount, decay=decay, is_whitened=False)
    mask = (np.arange(6) < lengths[..., None]) & valid[..., None]
    np.testing.assert_allclose(advantages, expected, atol=1e-6)
    np.testing.assert_allclose(returns, np.where(mask, expected + values, 0), atol=1e-6)
    white, same = gae(o, values, discount=discount, decay=decay)
    np.testing.assert_array_equal(same, returns)
    assert white[mask].mean() == pytest.approx(0, abs=1e-6)
    assert white[mask].std(ddof=1) == pytest.approx(1, rel=1e-5)
    assert (white[~mask] == 0).all()


def test_a_perfect_critic_leaves_nothing_to_learn():
    o = outcomes([[1, 0]], [[3, 2]])
    values = np.float32([[[1, 1, 1], [0, 0, 5]]])
    advantages, returns = gae(o, values)
    assert (advantages == 0).all()
    np.testing.assert_array_equal(returns, [[[1, 1, 1], [0, 0, 0]]])


def test_what_is_not_finite_is_refused_where_it_counts():
    values = np.float32([[[1, np.nan, np.nan], [0, 0, np.nan]]])
    with pytest.raises(ValueError, match="group 0, completion 0, token 1 is nan"):
        gae(outcomes([[1, 0]], [[2, 2]]), values)
    gae(outcomes([[1, 0]], [[1, 2]]), values)
    with pytest.raises(ValueError, match="reward of group 0, completion 1 is nan"):
        gae(outcomes([[1, np.nan]], [[1, 1]]), values)
    o = outcomes([[1, np.nan]], [[1, 1]], valid=[[True, False]])
    advantages, returns = gae(o, values, is_whitened=False)
    np.testing.assert_array_equal(advantages, 0)
    np.testing.assert_array_equal(returns, [[[1, 0, 0], [0, 0, 0]]])


def test_explained_variance_by_hand():
    """Returns (0, 2), variance 1; errors (0, 1), variance .25."""
    mask = np.array([[[True, True, False]]])
    returns = np.float32([[[0, 2, 9]]])
    assert explained_variance(returns, np.float32([[[0, 1, 0]]]), mask) == 0.75
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns, np.full((1, 1, 3), 7, np.float32), mask) == 0
    assert explained_variance(np.ones((1, 1, 3)), returns, mask) == 0
    assert explained_variance(returns, returns, np.zeros((1, 1, 3), bool)) == 0


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "loss", "slope"),
    [
        (1.0, 0.0, 2.0, 0.0, 0.5, -1.0),
        (1.0, 0.0, 2.0, 0.2, 1.62, 0.0),  # the clipped .2 is further from 2: (1.8 ** 2) / 2
        (1.0, 0.0, 0.0, 0.2, 0.5, 1.0),  # too high, and moved too far: the way back is open
        (0.1, 0.0, 2.0, 0.2, 1.805, -1.9),  # within the clip
    ],
)
def test_the_value_loss_by_hand(value, old, target, clip, loss, slope):
    def total(v):
        mask = jnp.array([True, False])
        per_token, _ = value_loss(v, jnp.full(2, old), jnp.full(2, target), mask, clip)
        return per_token.sum()

    got, grad = jax.value_and_grad(total)(jnp.array([value, 50.0]))
    assert got == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(grad, [slope, 0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clip", [0.0, 0.375])
def test_the_value_loss_against_finite_differences_in_float64(clip):
    """All inputs are exact in float32, and off the grid on which the two branches meet."""
    rng = np.random.default_rng(0)
    values, old, returns = rng.integers(-24, 25, (3, 2, 3, 4)) / 16
    values += 1 / 64
    mask, step = rng.random((2, 3, 4)) > 0.3, 2.0**-20

    def plain(v):
        near = np.clip(v, old - clip, old + clip) if clip else v
        return np.where(mask, np.maximum((v - returns) ** 2, (near - returns) ** 2) / 2, 0)

    expected = (plain(values + step) - plain(values - step)) / (2 * step)
    arrays = [jnp.asarray(x, jnp.float32) for x in (values, old, returns)]
    loss, sums = value_loss(*arrays, jnp.asarray(mask), clip)
    np.testing.assert_allclose(loss, plain(values), rtol=1e-6)
    grad = jax.grad(lambda v: value_loss(v, *arrays[1:], jnp.asarray(mask), clip)[0].sum())
    np.testing.assert_allclose(grad(arrays[0]), expected, rtol=1e-6, atol=1e-9)
    if clip:
        is_clipped = np.abs(values - old) > clip
        assert (is_clipped & (expected == 0) & mask).any()
        assert (is_clipped & (expected != 0) & mask).any()
    total, count = sums["critic/loss"]
    assert float(count) == mask.sum()
    assert float(total) == pytest.approx(plain(values).sum(), rel=1e-5)
