import math

import jax.numpy as jnp
import numpy as np
import pytest

from evr1.rl import diagnostics

MASK = jnp.array([[[True, True, False]]])


def test_policy_sums_by_hand():
    old = jnp.array([[[-1.0, -1.0, -1.0]]])
    new = old + jnp.array([[[math.log(2), -math.log(2), 30.0]]])
    got = diagnostics.means(diagnostics.policy_sums(new, old, jnp.array([[[1.0, 3.0, 9.0]]]), MASK))
    assert got == pytest.approx(
        {
            "policy/ratio": (2 + 0.5) / 2,
            "policy/abs_log_ratio": math.log(2),
            "policy/kl_old": (0.5 + math.log(2) - 1 + 2 - math.log(2) - 1) / 2,
            "policy/entropy": 2.0,
            "policy/logprob": -1.0,
        },
        rel=1e-6,
    )


def test_same_policy_is_exactly_one_and_zero():
    logprobs = -jnp.arange(3, dtype=jnp.float32)[None, None]
    got = diagnostics.means(diagnostics.policy_sums(logprobs, logprobs, logprobs, MASK))
    assert (got["policy/ratio"], got["policy/kl_old"], got["policy/abs_log_ratio"]) == (1, 0, 0)


def test_sums_of_parts_are_the_sums_of_the_whole():
    # The mean of the parts' means would be 3.5 instead of 3.
    values, mask = jnp.array([1.0, 2, 3, 6]), jnp.array([True, True, True, True])
    whole = {"x": diagnostics.masked(values, mask)}
    parts = diagnostics.add(
        {"x": diagnostics.masked(values[:3], mask[:3])},
        {"x": diagnostics.masked(values[3:], mask[3:])},
    )
    assert diagnostics.means(parts) == diagnostics.means(whole) == {"x": 3.0}


def test_sampler_sums_by_hand():
    trainer = jnp.log(jnp.array([[[0.5, 0.25, 0.1]]]))
    sampler = jnp.log(jnp.array([[[0.25, 0.5, 0.9]]]))
    got = diagnostics.means(diagnostics.sampler_sums(trainer, sampler, MASK))
    assert got["sampler/gap"] == pytest.approx(math.log(2))
    assert got["sampler/gap_prob"] == pytest.approx(0.25)
    assert got["sampler/gap_prob_max"] == pytest.approx(0.25)
    assert got["sampler/kl"] == pytest.approx(0.0, abs=1e-6)
    # rho = (2, .5): (4 + .25) / 2 - 1, and their product 1 over the one completion
    assert got["sampler/chi2"] == pytest.approx(1.125)
    assert got["sampler/chi2_sequence"] == pytest.approx(0.0, abs=1e-6)


def test_the_larger_of_two_maxima_is_kept():
    mask = jnp.array([True, True])
    a, b = (
        {"x_max": diagnostics.largest(jnp.array(x), mask), "y": diagnostics.masked(mask, mask)}
        for x in ([1.0, 5.0], [2.0, 3.0])
    )
    none = {
        "x_max": diagnostics.largest(jnp.array([9.0, 9.0]), ~mask),
        "y": diagnostics.masked(mask, ~mask),
    }
    for first, second in ((a, b), (b, a), (diagnostics.add(a, none), b)):
        assert diagnostics.means(diagnostics.add(first, second)) == {"x_max": 5.0, "y": 1.0}
    assert diagnostics.means(none) == {}


def test_effective_share_of_the_samples():
    """Weights (1, 1, 2, 0): (4 / 4)**2 / (6 / 4) = 2/3. All equal: 1. All 0: 0."""
    for weights, expected in (([1, 1, 2, 0], 2 / 3), ([0.5] * 4, 1), ([0] * 4, 0)):
        w = jnp.array(weights, jnp.float32)
        on = jnp.ones(4, bool)
        sums = {
            "correction/weight": diagnostics.masked(w, on),
            "correction/weight_square": diagnostics.masked(w**2, on),
        }
        got = diagnostics.means(sums)
        assert got["correction/ess"] == pytest.approx(expected)
        assert "correction/weight_square" not in got


def test_nothing_counted_is_left_out():
    sums = {"x": diagnostics.masked(jnp.array([jnp.nan]), jnp.array([False]))}
    assert diagnostics.means(sums) == {}
    np.testing.assert_array_equal(sums["x"], (0, 0))
