import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evr1.config import algorithms
from evr1.rl.kl import CONTROLLERS, ESTIMATORS, kl
from evr1.rl.ratio import LIMIT, log_ratio

ON = jnp.ones((1, 1, 1), bool)


def at(estimator, d):
    return kl(estimator, jnp.full((1, 1, 1), d), jnp.zeros((1, 1, 1)), ON)[0, 0, 0]


@pytest.mark.parametrize(
    ("estimator", "d", "expected"),
    [
        ("k1", math.log(2), math.log(2)),
        ("k1", -0.5, -0.5),
        ("abs", -0.5, 0.5),
        ("k2", -0.5, 0.125),
        ("k3", 0.0, 0.0),
        ("k3", math.log(2), 0.5 + math.log(2) - 1),
        ("k3", -math.log(2), 2 - math.log(2) - 1),
    ],
)
def test_by_hand(estimator, d, expected):
    assert float(at(estimator, d)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_k3_keeps_its_digits_near_zero():
    # exp(-d) - 1 + d in float32 would give 0 here; the true value is d**2 / 2.
    assert float(at("k3", 1e-4)) == pytest.approx(5e-9, rel=1e-2)


FORMULAS = {
    "k1": lambda d: d,
    "abs": abs,
    "k2": lambda d: d**2 / 2,
    "k3": lambda d: np.exp(-d) + d - 1,
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_is_that_of_the_formula(estimator):
    h = 1e-6
    for d in (-1.5, -0.3, 0.2, 2.0):
        formula = FORMULAS[estimator]
        expected = (formula(d + h) - formula(d - h)) / (2 * h)  # float64
        assert float(jax.grad(lambda x: at(estimator, x))(d)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_tokens_have_no_value_and_no_gradient_even_when_wild(estimator):
    policy = jnp.array([[[-1.0, jnp.inf, -1e9]]])
    mask = jnp.array([[[True, False, False]]])

    def total(x):
        return kl(estimator, x, jnp.full((1, 1, 3), -1.5), mask).sum()

    assert np.isfinite(total(policy))
    gradient = jax.grad(total)(policy)
    np.testing.assert_array_equal(gradient[0, 0, 1:], 0)
    assert gradient[0, 0, 0] != 0


def test_log_ratio_is_bounded():
    d = log_ratio(jnp.array([[[300.0, -300.0]]]), jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 2), bool))
    np.testing.assert_array_equal(d, [[[LIMIT, -LIMIT]]])


@pytest.mark.parametrize(
    ("observed", "share", "expected"),
    [
        (0.2, 0.25, 0.105),  # twice the target: as far as the bound of .2, times the share
        (0.11, 0.25, 0.1025),  # 10 % above
        (0.1, 0.25, 0.1),
        (0.0, 0.25, 0.095),
        (100.0, 1.0, 0.12),
    ],
)
def test_the_adaptive_controller_by_hand(observed, share, expected):
    """.1 * (1 + clip(observed / .1 - 1, -.2, .2) * share)."""
    assert CONTROLLERS["adaptive"](0.1, observed, 0.1, share) == pytest.approx(expected)
    assert CONTROLLERS["fixed"](0.1, observed, 0.1, share) == 0.1


def test_names():
    assert tuple(ESTIMATORS) == algorithms.KL_ESTIMATORS
    assert tuple(CONTROLLERS) == algorithms.KL_CONTROLLERS


def test_refusal():
    with pytest.raises(ValueError, match="'k4' is unknown; use one of k1, k2, k3, abs"):
        at("k4", 0.0)
