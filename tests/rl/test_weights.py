import numpy as np
import pytest

from evr1.config import algorithms
from evr1.rl.weights import MODES, loss_weights

# Two groups of two completions with 1, 3, 0 and 2 trained tokens.
MASK = np.arange(4) < np.array([[1, 3], [0, 2]])[..., None]


@pytest.mark.parametrize(
    ("mode", "per_completion"),
    [
        ("token_mean", [[1 / 6, 1 / 6], [0, 1 / 6]]),
        # The empty completion is not counted: 3 completions, not 4.
        ("sequence_mean", [[1 / 3, 1 / 9], [0, 1 / 6]]),
        ("fixed_length", [[1 / 15, 1 / 15], [0, 1 / 15]]),
        ("sequence_sum", [[1 / 15, 1 / 15], [0, 1 / 15]]),  # with 1 for the divisor: 1/3
        ("token_sum", [[1 / 5, 1 / 5], [0, 1 / 5]]),
    ],
)
def test_by_hand(mode, per_completion):
    weights = loss_weights(MASK, mode, max_tokens=5)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(
        weights, np.where(MASK, np.array(per_completion)[..., None], 0), rtol=1e-6
    )


def test_sums():
    assert loss_weights(MASK, "token_mean", 5).sum() == pytest.approx(1)
    assert loss_weights(MASK, "sequence_mean", 5).sum() == pytest.approx(1)
    assert loss_weights(MASK, "fixed_length", 5).sum() == pytest.approx((6 / 3) / 5)
    assert loss_weights(MASK, "sequence_sum", 1).sum() == pytest.approx(6 / 3)
    assert loss_weights(MASK, "token_sum", 1).sum() == 6


@pytest.mark.parametrize("mode", MODES)
def test_padding_changes_nothing(mode):
    padded = np.zeros((3, 4, 9), bool)
    padded[:2, :2, :4] = MASK
    weights = loss_weights(padded, mode, 5)
    np.testing.assert_array_equal(weights[:2, :2, :4], loss_weights(MASK, mode, 5))
    assert np.count_nonzero(weights) == MASK.sum()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_train_on_is_all_zero(mode):
    np.testing.assert_array_equal(loss_weights(np.zeros((1, 2, 3), bool), mode, 3), 0)


def test_names():
    assert tuple(MODES) == algorithms.AGGREGATIONS


def test_refusals():
    with pytest.raises(ValueError, match="'mean' is unknown; use one of token_mean"):
        loss_weights(MASK, "mean", 4)
    with pytest.raises(ValueError, match="max_tokens=0"):
        loss_weights(MASK, "fixed_length", 0)
