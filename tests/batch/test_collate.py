"""Collation: every visual token finds its patches, padding is inert, mismatches name the row."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows_rig import CHANNELS, GEOMETRY, make_example

from evr1.batch.collate import Collator, fill_patches
from evr1.batch.shapes import ShapeTable
from evr1.batch.vision_rows import place_units
from evr1.data import positions

SHAPES = ShapeTable(
    prompt_tokens=(16, 64, 256), vision_rows=(0, 1, 2, 4, 64), row_patches=32, completion_tokens=8
)
collate = Collator(SHAPES, GEOMETRY, pos_grid=8, pad_id=0)


def test_first_fit_by_hand():
    rows, offsets, used = place_units(np.array([4, 4, 6, 2, 2]), 8)
    assert rows.tolist() == [0, 0, 1, 1, 2]
    assert offsets.tolist() == [0, 4, 0, 6, 0]
    assert used == 3


def test_first_fit_goes_back_to_an_earlier_row():
    rows, offsets, used = place_units(np.array([6, 4, 2]), 8)
    assert (rows.tolist(), offsets.tolist(), used) == ([0, 1, 0], [0, 0, 6], 2)


def test_patches_filled_in_later_are_those_of_the_whole():
    examples = [make_example([(2, 4, 6), (1, 2, 2)], 1), make_example([(3, 2, 2)], 2)]
    whole = collate(examples, groups=3)
    bare = collate(examples, groups=3, has_patches=False)
    assert bare.vision.patches.shape == (*whole.vision.patches.shape[:3], 0)
    filled = fill_patches(bare, [*examples, None], examples[0].patches.shape[1])
    np.testing.assert_array_equal(filled.vision.patches, whole.vision.patches)
    # in another order, and cut to the rows that one prompt fills
    swapped = bare._replace(vision=type(bare.vision)(*(x[[1]][:, :1] for x in bare.vision)))
    (patches,) = fill_patches(swapped, [examples[1]], examples[1].patches.shape[1]).vision.patches
    np.testing.assert_array_equal(patches, whole.vision.patches[1, :1])


grids = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([2, 4]), st.sampled_from([2, 4, 6, 8])),
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(grids, min_size=1, max_size=3), st.integers(0, 2))
def test_every_visual_token_finds_its_patches(all_grids, extra):
    examples = [make_example(g, seed) for seed, g in enumerate(all_grids)]
    out = collate(examples, groups=len(examples) + extra)
    g, f, s, c = out.vision.patches.shape
    tokens = out.vision.patches.reshape(g, f * s // 4, 4 * c)  # merging is a reshape
    for i, e in enumerate(examples):
        n = len(e.tokens)
        index = out.visual_index[i, :n]
        np.testing.assert_array_equal(index >= 0, e.is_visual)
        np.testing.assert_array_equal(tokens[i, index[index >= 0]], e.patches.reshape(-1, 4 * c))
        np.testing.assert_array_equal(out.tokens[i, :n], e.tokens)
        np.testing.assert_array_equal(out.positions[i, :, :n], e.positions)
        # a unit is one segment: as many segments as units, of their sizes, none across rows
        segments = out.vision.segment_ids[i]
        found = [k for row in segments for k in np.unique(row[row > 0], return_counts=True)[1]]
        assert sorted(found) == sorted(positions.units(e.grid_thw).prod(axis=1))
        weights = out.vision.interp_weight[i]
        np.testing.assert_allclose(weights.sum(-1), segments > 0, atol=1e-6)
    assert (out.lengths[len(examples) :] == 1).all()
    assert (out.visual_index[len(examples) :] == -1).all()
    assert (out.vision.segment_ids[len(examples) :] == 0).all()


def test_shapes_are_buckets():
    out = Collator(SHAPES, GEOMETRY, 8, 7)([make_example([(3, 4, 8)]), make_example([])])
    assert out.tokens.shape == (2, 64)
    assert out.vision.patches.shape == (2, 4, 32, CHANNELS)
    assert out.tokens[1, 2:].tolist() == [7] * 62
    assert out.lengths.tolist() == [2 + 3 * 9, 2]
    dtypes = {f: getattr(out, f).dtype.name for f in out._fields if f != "vision"}
    assert set(dtypes.values()) == {"int32"}


def test_text_alone_needs_no_vision_row():
    out = collate([make_example([])])
    assert out.vision.patches.shape == (1, 0, 32, CHANNELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_visual": np.zeros(3, bool)}, "0 placeholders, but 4 patches"),
        ({"patches": np.zeros((8, CHANNELS), np.uint8)}, "1 placeholders, but 8 patches"),
        ({"grid_thw": np.array([[2, 2, 2]])}, "4 patches in grids of 8"),
    ],
)
def test_mismatch_names_the_row(change, message):
    example = dataclasses.replace(make_example([(1, 2, 2)]), **change)
    with pytest.raises(ValueError, match=r"rows\.jsonl:3 \(p7\): .*" + message):
        collate([example])


@pytest.mark.parametrize(
    ("grids", "shapes", "message"),
    [
        ([(1, 8, 8)], SHAPES, "64 patches exceeds shapes.row_patches=32"),
        ([(3, 4, 8)] * 10, SHAPES, "largest bucket 256"),
        ([(3, 4, 8)], dataclasses.replace(SHAPES, vision_rows=(1, 2)), "3 vision rows"),
        ([(1, 2, 2)], dataclasses.replace(SHAPES, row_patches=33), "not a multiple of"),
    ],
)
def test_too_large_a_prompt_names_the_row(grids, shapes, message):
    with pytest.raises(ValueError, match=message) as e:
        Collator(shapes, GEOMETRY, 8, 0)([make_example(grids)])
    assert "row_patches=33" in str(e.value) or str(e.value).startswith("rows.jsonl:3 (p7)")


def test_too_many_prompts_for_the_groups():
    with pytest.raises(ValueError, match="2 prompts do not fit groups=1"):
        collate([make_example([])] * 2, groups=1)
