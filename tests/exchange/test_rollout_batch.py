"""A rollout batch: its microbatches get their media back, whole and in their places."""

import dataclasses

import jax
import numpy as np
import pytest
from rows_rig import GEOMETRY, make_example

from evr1.batch.assemble import group_batch
from evr1.batch.collate import Collator
from evr1.batch.cut import microbatches
from evr1.batch.shapes import ShapeTable
from evr1.exchange import Group, stack
from evr1.rl.outcomes import Outcomes
from evr1.types import Rollouts, Visual

SHAPES = ShapeTable(
    prompt_tokens=(8, 32, 64), vision_rows=(0, 1, 3), row_patches=32, completion_tokens=4
)
COLLATE = Collator(SHAPES, GEOMETRY, pos_grid=8, pad_id=0)
GRIDS = [[], [(2, 4, 6)], [(1, 2, 2)], [(3, 4, 8)], [(1, 4, 4), (2, 2, 2)]]
N, R = 2, 4


def make_batch(examples):
    """The examples with two completions each."""
    shape = (len(examples), N)
    lengths = np.full(shape, R, np.int32)
    rng = np.random.default_rng(0)
    completions = rng.integers(1, 9, (*shape, R)).astype(np.int32)
    logprobs = rng.normal(size=completions.shape).astype(np.float32)
    rollouts = Rollouts(completions, logprobs, lengths, lengths < R)
    groups = [
        Group(e, Rollouts(*(x[g] for x in rollouts)), ("",) * N, (), ("policy",) * N, 0)
        for g, e in enumerate(examples)
    ]
    outcomes = Outcomes(np.zeros(shape, np.float32), np.ones(shape, bool), lengths)
    return stack(groups, outcomes, COLLATE), rollouts


def parts_of(batch):
    """Microbatches of at most two groups of the largest size, without media."""
    whole = group_batch(
        batch.prompts,
        batch.rollouts,
        np.ones(batch.rollouts.lengths.shape, np.float32),
        aggregation="token_mean",
        max_tokens=R,
    )
    return microbatches(whole, 2 * (64 + N * R), shapes=SHAPES)


def test_groups_are_stacked_in_order_without_pixels():
    examples = [make_example(grid, seed) for seed, grid in enumerate(GRIDS)]
    batch, rollouts = make_batch(examples)
    for got, expected in zip(batch.rollouts, rollouts, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert batch.prompts.vision.patches.size == 0
    assert batch.merge_size == 2


def test_parts_are_those_of_a_direct_collation():
    """Groups stand in another order, parts are cut to their own buckets, one has padding."""
    examples = [make_example(grid, seed) for seed, grid in enumerate(GRIDS)]
    batch, _ = make_batch(examples)
    parts = parts_of(batch)
    held = [g for part in parts for g in part.groups.tolist()]
    assert sorted(g for g in held if g >= 0) == [0, 1, 2, 3, 4]
    assert held != sorted(held)
    assert -1 in held
    assert len({part.prompts.tokens.shape for part in parts}) > 1
    for part in parts:
        assert part.prompts.vision.patches.size == 0
        chosen = [examples[g] for g in part.groups.tolist() if g >= 0]
        expected = COLLATE(chosen, groups=len(part.groups))
        whole = batch.with_media(part)
        jax.tree.map(np.testing.assert_array_equal, whole.prompts, expected)
        rest, before = whole._replace(prompts=None), part._replace(prompts=None)
        jax.tree.map(np.testing.assert_array_equal, rest, before)


@pytest.mark.parametrize("has_features", [False, True])
def test_features_take_the_place_of_pixels_until_they_are_dropped(has_features):
    examples = [make_example(grid, seed) for seed, grid in enumerate(GRIDS)]
    shown = [
        dataclasses.replace(e, visual=Visual(np.full((24, 2), g), np.full((1, 24, 2), -g)))
        for g, e in enumerate(examples)
    ]
    batch, _ = make_batch(shown)
    for part in parts_of(batch):
        if not has_features:
            patches = batch.without_features().with_media(part).prompts.vision.patches
            chosen = [examples[g] for g in part.groups.tolist() if g >= 0]
            expected = COLLATE(chosen, groups=len(part.groups)).vision.patches
            np.testing.assert_array_equal(patches, expected)
            continue
        vision = batch.with_media(part).prompts.vision
        real = part.groups >= 0
        tokens = part.prompts.vision.segment_ids[0].size // 4
        assert vision.embeds.shape == (len(real), tokens, 2)
        np.testing.assert_array_equal(vision.embeds[real].max(axis=(1, 2)), part.groups[real])
        np.testing.assert_array_equal(vision.deepstack[real].min((1, 2, 3)), -part.groups[real])
