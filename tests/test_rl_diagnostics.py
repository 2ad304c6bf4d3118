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
    assert got["sampler/kl"] == pytest.approx(0.0, abs=1e-6)


def test_nothing_counted_is_left_out():
    sums = {"x": diagnostics.masked(jnp.array([jnp.nan]), jnp.array([False]))}
    assert diagnostics.means(sums) == {}
    np.testing.assert_array_equal(sums["x"], (0, 0))
