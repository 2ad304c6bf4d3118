import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.rl.losses import LossConfig, TokenInputs, token_loss

PLAIN = LossConfig(clip_low=0.2, clip_high=0.28, clip_dual=3.0)


def inputs(ratio, advantage):
    """One completion a token long for each (ratio, advantage)."""
    old = jnp.full((1, len(ratio), 1), -1.0)
    new = old + jnp.log(jnp.array(ratio, jnp.float32))[None, :, None]
    return TokenInputs(new, old, jnp.array(advantage, jnp.float32)[None, :, None], new < jnp.inf)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    # slope = d loss / d logprob
    [
        (1.0, 1.0, -1.0, -1.0),
        (1.0, -2.0, 2.0, 2.0),
        (1.25, 1.0, -1.25, -1.25),  # inside the higher upper bound; the symmetric .2 would clip it
        (1.5, 1.0, -1.28, 0.0),
        (1.5, -1.0, 1.5, 1.5),  # a bad token that became likelier is not clipped above
        (0.5, -1.0, 0.8, 0.0),
        (0.5, 1.0, -0.5, -0.5),
        (10.0, -1.0, 3.0, 0.0),  # dual clip
        (10.0, 1.0, -1.28, 0.0),
    ],
)
def test_ppo_by_hand(ratio, advantage, loss, slope):
    batch = inputs([ratio], [advantage])

    def total(x):
        return token_loss(batch._replace(logprobs=x), x, PLAIN)[0].sum()

    value, gradient = jax.value_and_grad(total)(batch.logprobs)
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(gradient[0, 0, 0]) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_without_dual_clip_the_loss_is_not_bounded():
    loss, sums = token_loss(inputs([10.0], [-1.0]), jnp.zeros((1, 1, 1)), LossConfig(clip_dual=0.0))
    assert float(loss[0, 0, 0]) == pytest.approx(10, rel=1e-6)
    assert float(sums["policy/clip_dual_share"][0]) == 0


def test_clip_shares():
    batch = inputs([0.5, 0.5, 1.5, 1.5, 10, 1], [1, -1, 1, -1, -1, 1])
    _, sums = token_loss(batch, batch.logprobs, PLAIN)
    got = {name: (float(s), float(c)) for name, (s, c) in sums.items()}
    assert got == {
        "policy/clip_low_share": (1, 6),
        "policy/clip_high_share": (1, 6),
        "policy/clip_dual_share": (1, 6),
    }


def reference(logprobs, old, advantages, ref, weights, config):
    """The weighted loss in float64, token by token, from the definitions."""
    total = 0.0
    for new, was, a, r, w in np.nditer([logprobs, old, advantages, ref, weights]):
        ratio = np.exp(new - was)
        loss = -min(ratio * a, min(max(ratio, 1 - config.clip_low), 1 + config.clip_high) * a)
        if a < 0:
            loss = min(loss, -config.clip_dual * a)
        d = new - r
        penalty = {"k1": d, "k2": d**2 / 2, "k3": np.exp(-d) + d - 1}[config.kl_estimator]
        total += w * (loss + config.kl_coef * penalty)
    return total


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_value_and_gradient_against_finite_differences(estimator):
    config = LossConfig(kl_coef=0.3, kl_estimator=estimator)
    rng = np.random.default_rng(0)
    shape = (2, 3, 4)

    # Log-probabilities on a 2**-10 grid are exact in float32, so both sides see the same numbers.
    def grid(low, high):
        return rng.integers(low * 1024, high * 1024, shape) / 1024

    old, advantages, ref = grid(-4, 0), grid(-2, 2), grid(-4, 0)
    new = old + grid(-1, 2)
    weights = rng.integers(0, 2, shape) / 8
    mask = jnp.asarray(weights > 0)

    def f32(x):
        return jnp.asarray(x, jnp.float32)

    def total(x):
        batch = TokenInputs(x, f32(old), f32(advantages), mask)
        return jnp.sum(f32(weights) * token_loss(batch, f32(ref), config)[0])

    value, gradient = jax.value_and_grad(total)(f32(new))
    h = 1e-6
    expected = np.zeros(shape)
    for i in np.ndindex(shape):
        step = np.zeros(shape)
        step[i] = h
        up = reference(new + step, old, advantages, ref, weights, config)
        down = reference(new - step, old, advantages, ref, weights, config)
        expected[i] = (up - down) / (2 * h)
    assert float(value) == pytest.approx(
        reference(new, old, advantages, ref, weights, config), rel=1e-6
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
    np.testing.assert_array_equal(gradient[~mask], 0)


def test_first_update_has_the_gradient_of_reinforce():
    batch = inputs([1, 1, 1], [0.5, -1, 2])

    def total(x):
        return token_loss(batch._replace(logprobs=x), x, PLAIN)[0].sum()

    np.testing.assert_array_equal(jax.grad(total)(batch.logprobs), -batch.advantages)


def test_on_policy_is_the_first_update_whatever_old_says():
    batch = inputs([7.0, 0.1], [1, -1])
    config = LossConfig(on_policy=True)

    def total(x):
        return token_loss(batch._replace(logprobs=x), x, config)[0].sum()

    value, gradient = jax.value_and_grad(total)(batch.logprobs)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, -batch.advantages)


def test_zero_advantage_has_zero_gradient():
    batch = inputs([0.3, 1.0, 4.0], [0, 0, 0])

    def total(x):
        return token_loss(batch._replace(logprobs=x), x, PLAIN)[0].sum()

    np.testing.assert_array_equal(jax.grad(total)(batch.logprobs), jnp.zeros((1, 3, 1)))


def test_wild_values_off_the_mask_stay_out():
    batch = inputs([2.0, 1.0], [1, 1])
    batch = batch._replace(
        logprobs=batch.logprobs.at[0, 1].set(jnp.inf), mask=jnp.array([[[True], [False]]])
    )
    config = LossConfig(kl_coef=1.0)
    weights = jnp.array([[[1.0], [0.0]]])

    def total(x):
        return jnp.sum(
            weights * token_loss(batch._replace(logprobs=x), jnp.zeros((1, 2, 1)), config)[0]
        )

    value, gradient = jax.value_and_grad(total)(batch.logprobs)
    assert np.isfinite(value)
    assert float(gradient[0, 1, 0]) == 0


def test_refusal():
    with pytest.raises(ValueError, match="'gspo' is unknown; use one of ppo"):
        token_loss(inputs([1], [1]), jnp.zeros((1, 1, 1)), LossConfig(policy="gspo"))
