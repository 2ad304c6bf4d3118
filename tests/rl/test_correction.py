import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rl_oracle as oracle

from evr1.config import algorithms
from evr1.rl.correction import CORRECTIONS, correction_weights
from evr1.rl.diagnostics import means


def weights(name, rho, low=0.5, high=2.0, mask=None):
    """The weights and metrics of one group; `rho` is [N, R]."""
    log_rho = jnp.log(jnp.asarray(rho, jnp.float32))[None]
    on = jnp.ones(log_rho.shape, bool) if mask is None else jnp.asarray(mask)[None]
    got, sums = correction_weights(name, log_rho - 1, jnp.full_like(log_rho, -1), on, low, high)
    return np.asarray(got[0]), means(sums)


@pytest.mark.parametrize(
    ("name", "expected"),
    # Three completions of two tokens, rho = (4, .25), (1.5, 1.25) and (.4, .5), bounds .5 and 2;
    # their products are 1, 1.875 and .2, their geometric means 1, 1.369 and .447.
    [
        ("token_tis", [[2, 0.25], [1.5, 1.25], [0.4, 0.5]]),
        ("sequence_tis", [[1, 1], [1.875, 1.875], [0.2, 0.2]]),
        ("token_mis", [[0, 0], [1.5, 1.25], [0, 0.5]]),
        ("sequence_mis", [[1, 1], [1.875, 1.875], [0, 0]]),
        ("geometric", [[1, 1], [1, 1], [0, 0]]),
        ("veto", [[0, 0], [1, 1], [0, 0]]),
    ],
)
def test_by_hand(name, expected):
    rho = [[4, 0.25], [1.5, 1.25], [0.4, 0.5]]
    low = 0.49999 if name == "token_mis" else 0.5  # .5 itself is rounded by log and exp
    np.testing.assert_allclose(weights(name, rho, low)[0], expected, rtol=1e-6, atol=1e-7)


def test_metrics_by_hand():
    """token_mis of rho = (4, 1, .25, 1): weights (0, 1, 0, 1): ess (2/4)**2 / (2/4) = .5."""
    got = weights("token_mis", [[4, 1, 0.25, 1]])[1]
    assert got == pytest.approx(
        {
            "correction/weight": 0.5,
            "correction/clipped_share": 0,
            "correction/masked_share": 0.5,
            "correction/ess": 0.5,
        }
    )
    assert weights("token_tis", [[4, 1, 0.25, 1]])[1]["correction/clipped_share"] == 0.25
    assert weights("sequence_tis", [[4, 1], [1, 1]])[1]["correction/clipped_share"] == 0.5


@pytest.mark.parametrize("name", CORRECTIONS)
def test_against_the_definitions(name):
    rng = np.random.default_rng(0)
    log_rho = rng.normal(size=(40, 6)) * 0.4
    low, high = (0.9, 1.1) if name == "geometric" else (0.5, 2.0)
    expected = [oracle.correction(name, row, low, high) for row in log_rho]
    assert len(np.unique(np.array(expected) == 0)) == (1 if name.endswith("tis") else 2)
    np.testing.assert_allclose(weights(name, np.exp(log_rho), low, high)[0], expected, rtol=2e-6)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_sampler_that_is_the_trainer_has_weight_one(name):
    got, metrics = weights(name, np.ones((2, 3)))
    np.testing.assert_array_equal(got, 1)
    assert metrics["correction/ess"] == 1


@pytest.mark.parametrize("name", CORRECTIONS)
def test_tokens_off_the_mask_do_not_count(name):
    rho = np.array([[1.25, 1.5, 1.0], [0.75, 1.0, 1.0]])
    mask = np.array([[True, True, False], [True, False, False]])
    wild = np.where(mask, rho, math.inf)
    got, metrics = weights(name, wild, mask=mask)
    expected, same = weights(name, rho, mask=mask)
    np.testing.assert_array_equal(got, expected)
    assert metrics == same
    np.testing.assert_array_equal(got[~mask], 0)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_no_gradient_flows_through_the_weights(name):
    def total(old):
        behavior, on = jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 2), bool)
        return correction_weights(name, old, behavior, on, 0.1, 9.0)[0].sum()

    np.testing.assert_array_equal(jax.grad(total)(jnp.full((1, 1, 2), 0.1)), 0)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_huge_ratio_is_finite(name):
    for shift in (-1e4, 1e4):
        old, on = jnp.full((1, 1, 2), shift), jnp.ones((1, 1, 2), bool)
        got, _ = correction_weights(name, old, jnp.zeros((1, 1, 2)), on, 0.5, 2.0)
        assert np.isfinite(got).all()


def test_names_and_refusal():
    assert set(CORRECTIONS) == set(algorithms.CORRECTIONS)
    with pytest.raises(ValueError, match="'tis' is unknown; use one of token_tis"):
        weights("tis", [[1.0]])
