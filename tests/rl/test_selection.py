"""Tokens that a minibatch as a whole leaves out of the policy loss, or holds to the old policy."""

import numpy as np
import pytest

from evr1.rl.selection import clip_cov, covariance, kl_cov, top_entropy


def row(*values):
    return np.array([[values]], np.float32)


def chosen(mask):
    return np.flatnonzero(mask).tolist()


ON = np.ones((1, 1, 5), bool)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, [4]),  # quantile .8 of (.1, ..., .5): .42
        (0.4, [3, 4]),  # .34
        (0.5, [2, 3, 4]),  # .3 itself is kept
        (1.0, [0, 1, 2, 3, 4]),
        (1e-6, [4]),
    ],
)
def test_the_highest_entropies_by_hand(share, expected):
    assert chosen(top_entropy(row(0.1, 0.2, 0.3, 0.4, 0.5), ON, share)) == expected


def test_equal_entropies_stay_together():
    assert chosen(top_entropy(row(0, 2, 2, 2, 1), ON, 0.2)) == [1, 2, 3]


def test_what_is_off_the_mask_has_no_rank():
    mask = ON & (np.arange(5) != 4)
    assert chosen(top_entropy(row(0.1, 0.2, 0.3, 0.4, np.nan), mask, 0.25)) == [3]
    assert not top_entropy(row(1, 1, 1, 1, 1), ~ON, 0.2).any()


def test_covariances_by_hand():
    """logprobs (-1, -2, -3, -2, -2), mean -2; A = (2, 1, -2, -1, 0), mean 0."""
    got = covariance(row(-1, -2, -3, -2, -2), row(2, 1, -2, -1, 0), ON)
    np.testing.assert_allclose(got, [[[2, 0, 2, 0, 0]]])
    # Without the last: logprobs' mean is -2 still, that of A (2, 1, -2, 3) is 1.
    mask = ON & (np.arange(5) != 4)
    got = covariance(row(-1, -2, -3, -2, np.nan), row(2, 1, -2, 3, np.nan), mask)
    np.testing.assert_allclose(got, [[[1, 0, 3, 0, 0]]])
    np.testing.assert_array_equal(covariance(row(1), row(1), ~ON[..., :1]), 0)


@pytest.mark.parametrize(
    ("share", "bounds", "sizes"),
    [
        (0.4, (1, 5), 2),  # .4 * 5 of the three between 1 and 5
        (0.8, (1, 5), 3),  # there are no more than three
        (2e-4, (1, 5), 1),  # at least 1
        (1.0, (6, 7), 0),
    ],
)
def test_clip_cov_draws_from_those_between_the_bounds(share, bounds, sizes):
    values = row(0.5, 2, 3, 4, 9)
    got = chosen(clip_cov(values, ON, share, bounds, np.random.default_rng(0)))
    assert len(got) == sizes
    assert set(got) <= {1, 2, 3}
    again = chosen(clip_cov(values, ON, share, bounds, np.random.default_rng(0)))
    assert got == again
    mask = ON & (np.arange(5) == 0)
    assert not clip_cov(values, mask, share, bounds, np.random.default_rng(0)).any()


@pytest.mark.parametrize(("share", "expected"), [(0.4, [3, 4]), (0.39, [4]), (2e-4, [4])])
def test_kl_cov_takes_the_highest(share, expected):
    assert chosen(kl_cov(row(0.5, 2, 3, 4, 9), ON, share)) == expected


def test_kl_cov_of_nothing_and_of_equal_ones():
    assert not kl_cov(row(1, 1, 1, 1, 1), ~ON, 0.5).any()
    assert chosen(kl_cov(row(1, 1, 1, 1, 1), ON & (np.arange(5) > 0), 0.5)) == [1, 2]
