"""Drawing a token: by hand, against NumPy, and by frequency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evr1.sampler.sampling import (
    BLOCK,
    RowIds,
    Sampling,
    draw,
    keep_likely,
    make_draws,
    noise,
    row_keys,
    sample,
)

RECORDED = [1.4130521, 0.19784541, 1.3795534]  # noise 7 of seed 7, request 10, rows 0-2, position 5
_sample = jax.jit(sample, static_argnames="mode")
_draw = jax.jit(draw)
_keep = jax.jit(keep_likely)


def draw_many(logits: np.ndarray, count: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """`count` draws from the same logits: every row of a request is one draw."""
    sampling = Sampling(**options)
    draws = make_draws(sampling, len(logits))
    keys = row_keys(draws.seed, RowIds.of_groups(np.arange(1), count))[0]
    tiled = jnp.tile(jnp.asarray(logits, jnp.float32)[None], (count, 1))
    positions = jnp.zeros(count, jnp.int32)
    return tuple(map(np.asarray, _sample(tiled, keys, positions, draws, mode=sampling.mode)))


# log p is -1.61, -inf, -0.69, -1.20: noise of 0.93 lifts token 0 to -0.68, 0.91 only to -0.70.
@pytest.mark.parametrize(
    ("noise", "token"),
    [({}, 2), ({0: 0.91}, 2), ({0: 0.93}, 0), ({1: 50.0}, 2), ({3: 0.52}, 3), ({3: 0.5}, 2)],
)
def test_draw_by_hand(noise, token):
    gumbel = np.zeros((1, 1 + BLOCK), np.float32)
    for place, value in noise.items():
        gumbel[0, 1 + place] = value
    logits = jnp.log(jnp.array([[0.2, 0.0, 0.5, 0.3]]))
    assert _draw(logits, gumbel).tolist() == [token]


def test_draw_takes_the_block_first():
    # 300 tokens, 3 blocks. Block 1 has half the probability of block 0: noise of 0.7 > log 2 wins.
    logits = np.zeros((2, 300), np.float32)
    logits[:, 128:256] = -np.log(2)
    gumbel = np.zeros((2, 3 + BLOCK), np.float32)
    gumbel[:, 1] = 0.68, 0.70
    gumbel[:, 3 + 77] = 0.1
    assert _draw(logits, gumbel).tolist() == [77, 128 + 77]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_draw_never_takes_what_has_no_probability(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(16, 300)).astype(np.float32) * 30
    logits[rng.random(logits.shape) < rng.uniform(0, 1, (16, 1))] = -np.inf
    logits[np.arange(16), rng.integers(0, 300, 16)] = 0  # at least one is possible
    gumbel = rng.gumbel(size=(16, 3 + BLOCK)).astype(np.float32) * 100
    tokens = np.asarray(_draw(logits, gumbel))
    assert (logits[np.arange(16), tokens] > -np.inf).all()


def test_rounding_rarely_changes_a_token():
    """What lets a row keep its tokens in another batch shape; a running sum would fail this."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 4096)).astype(np.float32)
    rounded = logits * (1 + 1e-6 * rng.normal(size=logits.shape)).astype(np.float32)
    gumbel = rng.gumbel(size=(4000, 32 + BLOCK)).astype(np.float32)
    assert (np.asarray(_draw(logits, gumbel)) != np.asarray(_draw(rounded, gumbel))).sum() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6, "banned_ids": (3, 140)},
        {"temperature": 1.3, "top_k": 20},
        {"top_p": 0.7},
        {"temperature": 0.8, "top_k": 30, "top_p": 0.8, "banned_ids": (0, 1)},
    ],
)
def test_frequencies(options):
    """Pearson's chi-square of 40,000 draws; 1 in a million chance of a wrong alarm."""
    count, size = 40_000, 200
    logits = np.random.default_rng(1).normal(size=size) * 1.5
    tokens, _ = draw_many(logits, count, **options)
    probs = oracle_probs(logits, **options)
    seen = np.bincount(tokens, minlength=size)
    assert seen[probs == 0].sum() == 0
    expected = probs * count
    rare = expected < 10  # taken together: chi-square needs some of each
    merged_seen = np.append(seen[~rare], seen[rare].sum())
    merged = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    statistic = ((merged_seen - merged) ** 2 / merged).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-6, len(merged) - 1)


def oracle_probs(logits, temperature=1.0, top_k=0, top_p=1.0, banned_ids=()) -> np.ndarray:
    """The distribution by definition: sort, cut, renormalise; float64."""
    scaled = np.array(logits, np.float64) / temperature
    scaled[list(banned_ids)] = -np.inf
    order = np.argsort(-scaled, kind="stable")
    if top_k:
        scaled[order[top_k:]] = -np.inf
    probs = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    before = np.cumsum(probs[order]) - probs[order]
    probs[order[before >= top_p]] = 0
    return probs / probs.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.floats(0.01, 1.0))
def test_keep_likely_equals_a_sort(seed, top_k, top_p):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(4, 50)).astype(np.float32) * 2
    logits[:, rng.integers(0, 50, 5)] = -np.inf
    keep = np.asarray(_keep(jnp.asarray(logits), jnp.int32(min(top_k, 50)), jnp.float32(top_p)))
    for row, kept in zip(logits, keep, strict=True):
        order = np.argsort(-row, kind="stable")
        probs = oracle_probs(row, top_k=top_k)
        before = np.cumsum(probs[order]) - probs[order]
        if np.abs(before - np.float32(top_p)).min() < 1e-6:
            continue  # the edge of the nucleus is within rounding
        want = probs > 0
        want[order[before >= top_p]] = False
        np.testing.assert_array_equal(kept, want)


# The likely wrong answer of top_k=2: [0, 1], which of two equals is kept by chance.
@pytest.mark.parametrize(
    ("top_k", "top_p", "want"),
    [
        (1, 1.0, [0]),
        (2, 1.0, [0, 1, 2]),
        (3, 1.0, [0, 1, 2]),
        (4, 1.0, [0, 1, 2, 3]),
        (4, 0.42, [0]),  # renormalised: 0.4 / 0.95 = 0.421
        (4, 0.43, [0, 1, 2]),
    ],
)
def test_keep_likely_keeps_ties(top_k, top_p, want):
    logits = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.15, 0.05]]))
    keep = _keep(logits, jnp.int32(top_k), jnp.float32(top_p))
    assert np.flatnonzero(np.asarray(keep)[0]).tolist() == want


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {}, {"top_k": 5, "top_p": 0.9}, {"temperature": 2.0}]
)
def test_logprobs_are_those_of_the_full_softmax(options):
    """Banned and filtered ids stay in the denominator, as they do in the trainer."""
    logits = np.random.default_rng(2).normal(size=300) * 4
    banned = tuple(np.argsort(-logits)[:3].tolist())
    tokens, logprobs = draw_many(logits, 64, banned_ids=banned, **options)
    scaled = logits / (options.get("temperature", 1.0) or 1.0)
    want = scaled - np.log(np.exp(scaled).sum())
    np.testing.assert_allclose(logprobs, want[tokens], atol=1e-5)
    assert not np.isin(tokens, banned).any()


def test_greedy_takes_the_first_of_equals():
    logits = np.array([0.0, 3.0, 1.0, 3.0])
    assert draw_many(logits, 2, temperature=0)[0].tolist() == [1, 1]
    assert draw_many(logits, 2, temperature=0, banned_ids=(1,))[0].tolist() == [3, 3]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.7, "top_k": 9, "top_p": 0.9}])
def test_a_greedy_row_beside_rows_that_draw(options):
    """Tokens 41 and 42 are equally likely and 7, the likeliest, is banned: the greedy row takes 41.

    Its log-probability is that of the full softmax at the temperature of the others.
    """
    logits = np.random.default_rng(3).normal(size=300).astype(np.float32)
    logits[[7, 41, 42]] = 6, 5, 5
    sampling = Sampling(banned_ids=(7,), greedy_rows=1, **options)
    draws = make_draws(sampling, 300)
    keys = row_keys(draws.seed, RowIds.of_groups(np.arange(1), 40))[0]
    rows = (jnp.tile(logits, (40, 1)), keys, jnp.zeros(40, jnp.int32), draws)
    is_greedy = jnp.arange(40) == 39
    tokens, logprobs = _sample(*rows, mode=sampling.mode, is_greedy=is_greedy)
    free, _ = _sample(*rows, mode=sampling.mode)
    np.testing.assert_array_equal(tokens[:39], free[:39])
    assert tokens[39] == 41
    assert len(set(free.tolist())) > 2  # the others do draw
    scaled = logits.astype(np.float64) / options.get("temperature", 1.0)
    want = scaled - np.log(np.exp(scaled).sum())
    np.testing.assert_allclose(logprobs, want[np.asarray(tokens)], atol=1e-5)


def test_random_numbers_belong_to_seed_request_row_and_position():
    def numbers(seed, requests, rows, position):
        keys = row_keys(jnp.uint32(seed), RowIds.of_groups(np.array(requests), rows))
        flat = keys.reshape(-1, 2)
        positions = jnp.full(len(flat), position, jnp.int32)
        return np.asarray(noise(flat, positions, 100)[:, 7]).reshape(len(requests), rows)

    base = numbers(7, [10, 11], 3, 5)
    assert len(np.unique(base)) == base.size
    # The same whatever stands beside it, and whatever n is.
    np.testing.assert_array_equal(numbers(7, [11], 2, 5)[0], base[1, :2])
    np.testing.assert_array_equal(numbers(7, [3, 11, 10], 4, 5)[2, :3], base[0])
    for other in (
        numbers(8, [10, 11], 3, 5),
        numbers(7, [10, 11], 3, 6),
        numbers(7, [12, 13], 3, 5),
    ):
        assert not np.isin(other, base).any()
    # Recorded: a run repeated with a later version draws the same tokens.
    np.testing.assert_allclose(base[0], RECORDED, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_k": -1}, "top_k=-1"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"greedy_rows": -1}, "greedy_rows=-1; give a number >= 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end_ids": (10,)}, "end_ids holds 10; the vocabulary has ids 0 to 9"),
        ({"banned_ids": (-1,)}, "banned_ids holds -1"),
        ({"banned_ids": tuple(range(10))}, "all 10 ids"),
    ],
)
def test_ids_outside_the_vocabulary(options, message):
    with pytest.raises(ValueError, match=message):
        make_draws(Sampling(**options), 10)
