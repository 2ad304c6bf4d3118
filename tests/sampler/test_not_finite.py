"""Logits that are not finite: told, never drawn from, and no other row's business."""

import jax
import numpy as np
import pytest
import sampler_rig as rig

from evr1.sampler import Sampling

POISON = 7  # the token whose embedding is infinite
SAMPLING = Sampling(max_tokens=12, end_ids=(3,), banned_ids=(90, 91, POISON), seed=5)
CLEAN = [rig.text_example(range(10 + i, 22 + 3 * i), i) for i in range(6)]
POISONED = rig.text_example([*range(10, 50), POISON, 13], 9)  # the longest: others follow it


@pytest.fixture(scope="module")
def params():
    """The rig's; `POISON` is seen as infinite, but drawn as ever: the embeddings are untied."""
    made = jax.tree.map(np.array, rig.params())
    made["text"]["embed"][POISON] = np.inf
    return made


def draw(params, examples, ids, sampling=SAMPLING, **options):
    sampler = rig.sampler(n=2, **{"slots": 2, "prefill_groups": 1, "window": 4} | options)
    return sampler.generate(params, examples, ids, sampling)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", [{"prefill_groups": 2}, {"slots": 1}])
def test_a_poisoned_prompt_has_no_token_and_changes_no_other(params, options, temperature):
    """Among others in its prefill, beside it in decoding, and after it in its slot."""
    sampling = Sampling(temperature=temperature, max_tokens=12, banned_ids=(POISON,), seed=5)
    alone = draw(params, CLEAN, range(6), sampling, **options)
    mixed = draw(
        params,
        [*CLEAN[:2], POISONED, CLEAN[2], POISONED, *CLEAN[3:]],
        [0, 1, 77, 2, 78, 3, 4, 5],
        sampling,
        **options,
    )
    bad = [2, 4]
    assert not mixed.is_finite[bad].any()
    assert mixed.is_finite[[0, 1, 3, 5, 6, 7]].all()
    assert (mixed.drawn[bad] == 0).all()
    assert (mixed.lengths[bad] == 1).all()
    assert (mixed.completions[bad] == 0).all()  # the pad id
    assert not mixed.finished[bad].any()
    for ours, theirs in zip(alone, mixed, strict=True):
        np.testing.assert_array_equal(ours, theirs[[0, 1, 3, 5, 6, 7]])


def test_a_row_ends_where_its_logits_stop_to_be_finite(params):
    """Everything but the poison is banned from the second token on: it is drawn, then seen."""
    allowed = Sampling(max_tokens=12, allowed_ids=(POISON,), seed=5)
    got = draw(params, CLEAN[:3], range(3), allowed)
    assert not got.is_finite.any()
    assert (got.lengths == 2).all()
    assert (got.drawn == 1).all()
    assert (got.completions[..., :3] == [POISON, 0, 0]).all()
    assert np.isfinite(got.logprobs[..., 0]).all()
    assert np.isnan(got.logprobs[..., 1]).all()
    assert not got.finished.any()


def test_what_a_poisoned_row_leaves_in_its_slot_is_not_seen(params):
    """One token of eight is the poison, so that rows end anywhere; slots are used again or not."""
    sampling = Sampling(max_tokens=12, allowed_ids=(POISON, *range(20, 27)), seed=5)
    again, fresh = (draw(params, CLEAN, range(6), sampling, slots=n) for n in (1, 6))
    ends = again.lengths[~again.is_finite]
    assert len(set(ends.tolist())) > 2
    assert again.is_finite.any()
    for ours, theirs in zip(again, fresh, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
