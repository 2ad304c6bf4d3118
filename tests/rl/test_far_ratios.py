"""Tokens whose log ratio is beyond what goes into exp: only the exponential is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.rl.correction import correction_weights
from evr1.rl.diagnostics import means, policy_sums, sampler_sums
from evr1.rl.kl import kl
from evr1.rl.losses import LossConfig, TokenInputs, token_loss

FREE = {"clip_low": 0.0, "clip_high": 0.0, "clip_dual": 0.0}
S = 0.7165313  # exp(-1/3)


def inputs(d, advantage=1.0):
    """One completion whose tokens have these log ratios to the old policy."""
    new = jnp.asarray(d, jnp.float32)[None, None] - 1
    old = jnp.full(new.shape, -1.0)
    return TokenInputs(
        logprobs=new,
        entropy=0 * new,
        old_logprobs=old,
        behavior_logprobs=old,
        ref_logprobs=old,
        advantages=jnp.full(new.shape, advantage),
        mask=jnp.ones(new.shape, bool),
        is_offline=jnp.zeros((1, 1, 1), bool),
        kl_coef=jnp.zeros((1, 1, 1)),
    )


def value_and_gradient(x, c, weight):
    def total(logprobs):
        return weight * token_loss(x._replace(logprobs=logprobs), c)[0].sum()

    value, gradient = jax.value_and_grad(total)(x.logprobs)
    return float(value), np.asarray(gradient)[0, 0]


@pytest.mark.parametrize(
    ("d", "advantage", "ratio"),
    [
        ((-25.0, 12.0, 12.0), 1.0, S),  # cut a token at a time: exp(4 / 3) = 3.79, gradient 0
        ((25.0, -12.0, -14.0), -1.0, S),
        ((-40.0, 19.5, 19.5), 1.0, S),
        ((30.0, -30.0), 1.0, 1.0),
        ((-22.0, 20.0), -1.0, 0.3678794),
    ],
)
@pytest.mark.parametrize("policy", ["gspo", "gspo_token", "gmpo"])
def test_the_mean_of_a_completion_is_of_whole_differences(policy, d, advantage, ratio):
    c = LossConfig(policy=policy, **FREE)
    value, gradient = value_and_gradient(inputs(d, advantage), c, 1 / len(d))
    assert value == pytest.approx(-advantage * ratio, rel=1e-5)
    np.testing.assert_allclose(gradient, -advantage * ratio / len(d), rtol=1e-5)


def test_gmpo_clips_before_the_mean_and_nothing_else_does():
    """A = 1, bound 2: (-25, 2, 2), mean -7: exp(-7); only the first token learns."""
    c = LossConfig(policy="gmpo", clip_low=2.0, clip_high=2.0)
    value, gradient = value_and_gradient(inputs((-25.0, 12.0, 12.0)), c, 1 / 3)
    assert value == pytest.approx(-np.exp(-7), rel=1e-5)
    np.testing.assert_allclose(gradient, [-np.exp(-7) / 3, 0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "log_rho", "bounds", "expected"),
    [
        ("sequence_tis", (-25, 12, 12), (0, 2), 0.3678794),
        ("sequence_tis", (30, -28), (0, 10), 7.389056),  # a token at a time: 1
        ("sequence_mis", (-25, 12, 12), (0.3, 2), 0.3678794),
        ("sequence_mis", (30, -28), (0.5, 2), 0),
        ("sequence_mis", (-25,), (1e-10, 2), 0),  # exp(-20) would be inside
        ("geometric", (-25, 12, 12), (0.7, 1), 1),
        ("geometric", (-25, 12, 12), (0.9, 1.1), 0),
        ("veto", (-25, 12, 12), (1e-10, 0), 0),
        ("veto", (-25, 12, 12), (1e-11, 0), 1),
    ],
)
def test_corrections_of_whole_completions(name, log_rho, bounds, expected):
    log_rho = jnp.asarray(log_rho, jnp.float32)[None, None]
    on = jnp.ones(log_rho.shape, bool)
    got, _ = correction_weights(name, log_rho, 0 * log_rho, on, *bounds)
    np.testing.assert_allclose(got, np.full(on.shape, expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "d", "value", "slope"),
    [
        ("k1", 30, 30, 1),
        ("k1", -30, -30, 1),
        ("abs", 30, 30, 1),
        ("abs", -30, 30, -1),
        ("k2", 30, 450, 30),
        ("k2", -30, 450, -30),
        ("k2", 100, 5000, 100),
        ("k3", 30, 29, 1),
        ("k3", -30, np.exp(20) - 21, 0),  # not 1, which would push the policy further off
    ],
)
def test_kl_estimators(estimator, d, value, slope):
    def at(x):
        return kl(estimator, x, jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1), bool))[0, 0, 0]

    got, gradient = jax.value_and_grad(at)(jnp.full((1, 1, 1), float(d)))
    assert float(got) == pytest.approx(value, rel=1e-6)
    assert float(gradient[0, 0, 0]) == slope


def test_diagnostics():
    """Differences 30 and -26: mean |d| 28; their sum is 4, so chi2 of the completion e**8 - 1."""
    d, on = jnp.array([[[30.0, -26.0]]]), jnp.ones((1, 1, 2), bool)
    got = means(policy_sums(d, 0 * d, d, on) | sampler_sums(d - 40, 0 * d - 40, on))
    assert got["policy/abs_log_ratio"] == got["sampler/gap"] == 28
    assert got["sampler/kl"] == -2
    assert got["sampler/chi2_sequence"] == pytest.approx(np.expm1(8), rel=1e-6)
    assert np.isfinite([*got.values()]).all()
