"""The bonus of T-GRPO."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evr1.rl.temporal import temporal_bonus


def bonus(accuracy, shuffled, valid=None, shuffled_valid=None, has_video=True, **options):
    """Of one group, as a list."""
    accuracy, shuffled = (np.array([x], np.float32) for x in (accuracy, shuffled))
    valid = np.ones(accuracy.shape, bool) if valid is None else np.array([valid])
    if shuffled_valid is None:
        shuffled_valid = np.ones(shuffled.shape, bool)
    else:
        shuffled_valid = np.array([shuffled_valid])
    got = temporal_bonus(
        accuracy, valid, shuffled, shuffled_valid, np.array([has_video]), **options
    )
    assert got.dtype == np.float32
    return got[0].tolist()


GIVEN = np.float32(0.3)


@pytest.mark.parametrize(
    ("accuracy", "shuffled", "options", "expected"),
    [
        ((1, 1, 0, 0), (1, 0), {}, (GIVEN, GIVEN, 0, 0)),  # p = p~ = .5
        ((1, 0, 0, 0), (1, 0), {}, (0, 0, 0, 0)),  # .25 < .5: the order did not matter
        ((1, 1, 0, 0), (1, 1, 1, 0, 0), {"margin": 0.8}, (GIVEN, GIVEN, 0, 0)),  # .5 >= .8 * .6
        ((1, 1, 0, 0), (1, 1, 1, 0, 0), {}, (0, 0, 0, 0)),
        ((1, 0, 0, 0), (0, 0), {}, (GIVEN, 0, 0, 0)),
        ((0, 0, 0, 0), (0, 0), {}, (0, 0, 0, 0)),  # p = p~ = 0: nothing is correct
        ((1, 1, 1, 1), (1, 1), {}, (GIVEN,) * 4),
        ((1, 0), (0, 0), {"has_video": False}, (0, 0)),
        ((0.5, 0.49), (0.4,), {"bonus": 1.0}, (1, 0)),  # correct from .5 on
        ((0.5, 0.9), (0.4,), {"pass_at": 0.8}, (0, GIVEN)),
    ],
)
def test_by_hand(accuracy, shuffled, options, expected):
    assert bonus(accuracy, shuffled, **options) == pytest.approx(expected)


def test_what_failed_is_in_neither_share():
    """Of (1, nan, 0) two count, p = 1/2; of (1, 0, nan) two, p~ = 1/2. In thirds p = 1/3 < 1/2."""
    got = bonus(
        (1, np.nan, 0),
        (1, 0, np.nan),
        valid=(True, False, True),
        shuffled_valid=(True, True, False),
    )
    assert got == pytest.approx([0.3, 0, 0])
    # A completion that is correct but does not count gets nothing.
    assert bonus((1, 1), (0, 0), valid=(True, False)) == pytest.approx([0.3, 0])


def test_without_valid_completions_there_is_no_bonus():
    assert bonus((1, 1), (0, 0), valid=(False, False)) == [0, 0]
    assert bonus((1, 1), (np.nan, 1), shuffled_valid=(False, False)) == [0, 0]


def test_groups_do_not_see_each_other():
    accuracy = np.float32([[1, 0], [1, 0], [1, 1]])
    shuffled = np.float32([[1], [0], [1]])
    ones = np.ones((3, 2), bool)
    got = temporal_bonus(accuracy, ones, shuffled, ones[:, :1], np.array([True, True, False]))
    np.testing.assert_allclose(got, [[0, 0], [0.3, 0], [0, 0]])


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_equal_shares_of_any_size_count_as_reached(n, m, data):
    """p >= p~ in whole numbers: k / n against j / m, without rounding."""
    k, j = data.draw(st.integers(1, n)), data.draw(st.integers(0, m))
    got = bonus([1] * k + [0] * (n - k), [1] * j + [0] * (m - j))
    assert (got[0] > 0) == (Fraction(k, n) >= Fraction(j, m))
