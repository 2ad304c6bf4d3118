"""Completions that are drawn in several stretches: what they would have been in one."""

import dataclasses

import families
import jax
import numpy as np
import pytest
import sampler_rig as rig

from evr1.batch.shapes import ShapeTable
from evr1.sampler import Sampling
from evr1.sampler.groups import Stretch
from evr1.types import Rollouts

VIDEO, IMAGE = ("video", (2, 4, 4)), ("image", (1, 4, 6))
KINDS = [(5,), (4, VIDEO, 3), (9,), (2, IMAGE, 4), (7,), (3, IMAGE, 2, VIDEO, 5)]
EXAMPLES = [rig.example(parts, seed) for seed, parts in enumerate(KINDS)]
IDS = np.array([100, 7, 21, 3, 55, 1000])
SAMPLING = Sampling(max_tokens=20, end_ids=(3, 40, 41, 60, 80), banned_ids=(90, 91), seed=5)


def assert_same(got: Rollouts, want: Rollouts, atol: float = 2e-5) -> None:
    """Tokens to the bit; log-probabilities up to another order of summation in float32."""
    np.testing.assert_array_equal(got.completions, want.completions)
    np.testing.assert_array_equal(got.lengths, want.lengths)
    np.testing.assert_array_equal(got.finished, want.finished)
    np.testing.assert_allclose(got.logprobs, want.logprobs, atol=atol)


def drawn_in_stretches(sampler, windows, sampling=SAMPLING):
    """The examples' rollouts, cut whenever the first group that decodes has had so many windows;
    and how many of the groups each stretch ended."""
    parts: list[Rollouts | None] = [None] * len(EXAMPLES)
    ended = []
    while any(part is None or part.is_open.any() for part in parts):
        places = [i for i, part in enumerate(parts) if part is None or part.is_open.any()]

        def is_over(progress):
            return max((p.turns for p in progress.values()), default=0) > windows

        done = []
        got = sampler.generate(
            rig.params(),
            [EXAMPLES[i] for i in places],
            IDS[places],
            sampling,
            lambda g, part, done=done: done.append(not part.is_open.any()),
            Stretch([parts[i] for i in places], is_over),
        )
        for g, i in enumerate(places):
            part = Rollouts(*(x[g] for x in got))
            parts[i] = part if part.lengths.any() else None
        ended.append(sum(done))
        assert len(ended) < 40
    return Rollouts(*(np.stack(x) for x in zip(*parts, strict=True))), ended


@pytest.fixture(scope="module")
def whole():
    return rig.sampler(n=3, slots=4, window=4).generate(rig.params(), EXAMPLES, IDS, SAMPLING)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"slots": 2, "prefill_groups": 1},
        {"dispatch_ahead": True},
        {"slots": 8, "prefill_groups": 4, "window": 6},
    ],
    ids=str,
)
def test_stretches_join_to_what_is_drawn_at_once(whole, options):
    """Other slots, windows, prefills and companions; finished rows stand beside rows that go on."""
    sampler = rig.sampler(**({"n": 3, "slots": 4, "window": 4} | options))
    got, ended = drawn_in_stretches(sampler, 2 if options.get("window") != 6 else 1)
    assert_same(got, whole)
    assert len(ended) > 2
    assert sampler.stats.tokens > 0


def test_a_greedy_row_goes_on_greedily():
    sampling = dataclasses.replace(SAMPLING, greedy_rows=1)
    sampler = rig.sampler(n=3, slots=4, window=4)
    once = sampler.generate(rig.params(), EXAMPLES, IDS, sampling)
    assert_same(drawn_in_stretches(sampler, 2, sampling)[0], once)


def test_what_was_carried_over_has_the_log_probabilities_of_those_who_drew_it(whole):
    """The second stretch is drawn with other weights: what was there stays as it was."""
    sampler = rig.sampler(n=3, slots=8, window=4)
    first = sampler.generate(
        rig.params(),
        EXAMPLES,
        IDS,
        SAMPLING,
        None,
        Stretch([None] * 6, lambda p: any(x.turns == 3 for x in p.values())),
    )
    places = [g for g in range(6) if first.is_open[g].any()]
    assert places
    other = jax.tree.map(lambda x: x * 1.1, rig.params())
    begun = [Rollouts(*(x[g] for x in first)) for g in places]
    got = sampler.generate(
        other,
        [EXAMPLES[g] for g in places],
        IDS[places],
        SAMPLING,
        None,
        Stretch(begun, lambda _: False),
    )
    alone = sampler.generate(other, EXAMPLES, IDS, SAMPLING)
    for part, before, g in zip(zip(*got, strict=True), begun, places, strict=True):
        part = Rollouts(*part)
        kept = np.arange(part.completions.shape[-1]) < before.lengths[:, None]
        np.testing.assert_array_equal(part.completions[kept], before.completions[kept])
        np.testing.assert_array_equal(part.logprobs[kept], before.logprobs[kept])
        assert not part.is_open.any()
        assert (part.lengths[before.is_open] > before.lengths[before.is_open]).all()
        assert (part.completions != Rollouts(*(x[g] for x in alone)).completions).any()


@pytest.mark.slow
def test_recurrent_states_are_made_anew(tmp_path):
    """Qwen3.5: what a row carries over is read behind the state of its prompt."""
    pair = families.make_pair("qwen3_5", tmp_path / "model")
    items = pair.family.prompts(pair.family.cases)[:4]
    examples = [families.as_example(p, i) for i, p in enumerate(items)]
    longest = max(len(e.tokens) for e in examples)
    shapes = ShapeTable((longest,), (12,), row_patches=64, completion_tokens=32)
    sampling = Sampling(max_tokens=24, seed=3)
    sampler = families.sampler(pair, shapes, n=2, slots=4, window=4)
    whole = sampler.generate(pair.params, examples, range(4), sampling)
    first = sampler.generate(
        pair.params,
        examples,
        range(4),
        sampling,
        None,
        Stretch([None] * 4, lambda p: max((x.turns for x in p.values()), default=0) > 2),
    )
    assert first.is_open.all()
    begun = [Rollouts(*(x[g] for x in first)) for g in range(4)]
    stretch = Stretch(begun, lambda _: False)
    got = sampler.generate(pair.params, examples, range(4), sampling, None, stretch)
    assert_same(got, whole, atol=1e-4)  # pieces of a prompt are summed otherwise than steps
