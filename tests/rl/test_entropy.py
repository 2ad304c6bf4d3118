"""The controller of the entropy bonus."""

import pytest

from evr1.rl.entropy import active, adapted


@pytest.mark.parametrize(
    ("coef", "observed", "expected"),
    [(0.01, 0.1, 0.015), (0.01, 0.3, 0.005), (0.0, 0.3, 0.0), (0.002, 0.3, 0.0), (0.01, 0.2, 0.01)],
)
def test_a_step_towards_the_target_by_hand(coef, observed, expected):
    """Target .2, step .005."""
    assert adapted(coef, observed, 0.2, 0.005) == pytest.approx(expected)


@pytest.mark.parametrize(("observed", "expected"), [(0.1, 0.01), (0.2, 0.01), (0.21, 0.0)])
def test_no_bonus_above_the_target(observed, expected):
    assert active(0.01, observed, 0.2) == expected
