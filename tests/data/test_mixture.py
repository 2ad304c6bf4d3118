"""Shares of a mixture: exact in every prefix, whatever the weights."""

import grain
import numpy as np
import pytest

from evr1.data.mixture import Mixture

MIXES = [
    (0.5024, 0.4976),
    (0.7, 0.3),
    (1e-4, 0.9999),
    (1 / 3, 2 / 3),
    (1e-12, 1 - 1e-12),
    (0.5, 0.3, 0.2),
    (0.9, 0.05, 0.05),
    (0.05, 0.05, 0.9),
    (0.401, 0.2995, 0.2995),
    (0.61, 0.21, 0.11, 0.05, 0.02),
    (1 / 7, 2 / 7, 4 / 7),
    tuple(np.random.default_rng(0).dirichlet(np.ones(9)).tolist()),
]


def draw(weights, count):
    """int[count] sources and int[count] rows."""
    mixture = Mixture(weights)
    return tuple(np.array([mixture[i] for i in range(count)]).T)


@pytest.mark.parametrize("weights", MIXES)
def test_every_prefix_has_its_shares_to_within_one_row(weights):
    """Rounded to hundredths of the smallest, (.5024, .4976) was drawn 50:50: 120 of 50,000 off."""
    count = 50_000
    sources, rows = draw(weights, count)
    places = np.arange(1, count + 1)
    for i, weight in enumerate(weights):
        drawn = np.cumsum(sources == i)
        assert np.abs(drawn - weight * places).max() < 1 + 1e-6
        # Each source is drawn from its first row on, none left out.
        np.testing.assert_array_equal(rows[sources == i], np.arange(drawn[-1]))


@pytest.mark.parametrize("weights", [w for w in MIXES if len(w) == 2])
def test_two_sources_have_their_shares_in_any_window(weights):
    sources, _ = draw(weights, 20_000)
    drawn = np.concatenate([[0], np.cumsum(sources == 0)])
    for window in (1, 2, 3, 7, 10, 64, 1000):
        inside = drawn[window:] - drawn[:-window]
        assert np.abs(inside - weights[0] * window).max() < 1 + 1e-6


@pytest.mark.parametrize("count", range(2, 9))
def test_equal_shares_are_drawn_as_grain_mixes_them(count):
    parts = [grain.MapDataset.range(100 * i, 100 * i + 7).repeat(None) for i in range(count)]
    weights = [1 / count] * count
    theirs = grain.MapDataset.mix(parts, weights=weights)
    ours = grain.MapDataset.select_from_datasets(parts, Mixture(weights))
    assert [ours[i] for i in range(500)] == [theirs[i] for i in range(500)]


def test_a_place_is_the_same_wherever_reading_begins():
    for weights in MIXES:
        sources, rows = draw(weights, 3000)
        for start in (2999, 1234, 0):
            assert Mixture(weights)[start] == (sources[start], rows[start])


def test_rounding_of_a_weight_is_none_of_a_share():
    assert draw((0.8, 1 - 0.8), 10)[0].tolist() == [0, 0, 0, 0, 1] * 2


def test_far_places_cost_nothing_where_shares_are_round():
    """In 10 places 5, 3, 2: place 10^15 is the first of a period."""
    mixture = Mixture([0.5, 0.3, 0.2])
    assert mixture[10**15] == (0, 5 * 10**14)
    assert mixture[10**15 + 1] == (1, 3 * 10**14)
