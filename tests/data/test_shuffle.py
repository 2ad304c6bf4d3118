"""Frames in another order: what changes in an example, and what does not."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repo import TINY
from rows_rig import make_media, make_row

from evr1.data import shuffle
from evr1.data.processor import Processor
from evr1.data.records import Media


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.from_hf(str(TINY))


def clip(frames: np.ndarray) -> Media:
    return Media(frames, np.arange(len(frames)) / 2, is_video=True)


def random_clip(count: int, seed: int = 0) -> Media:
    return clip(make_media([count, 64, 96, [0], 1], np.random.default_rng(seed)).frames)


def order_of(before: Media, processor: Processor, after: np.ndarray) -> list[int]:
    """Which frame stands where, read off the first pixels of the merge-ordered patches."""
    side, depth = processor.geometry.patch_size, processor.geometry.temporal_patch_size
    first = after.reshape(-1, 4 * 6, 3, depth, side, side)[:, 0]  # patches (4, 6) a frame
    corners = np.moveaxis(first, 2, 1).reshape(-1, 3, side, side)
    wanted = before.frames[:, :side, :side].transpose(0, 3, 1, 2)
    return [next(i for i, w in enumerate(wanted) if (w == c).all()) for c in corners]


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("seed", [0, (7, 3)])
def test_patches_are_those_of_the_frames_in_that_order(processor, count, seed):
    """Bit for bit what the processor makes of the video with its frames moved."""
    row, video = make_row("<video>What?"), random_clip(count)
    plain = processor.encode(row, [video])
    got = shuffle.shuffled(plain, processor.geometry, seed)
    order = order_of(video, processor, got.patches)
    assert sorted(order) == list(range(count))
    assert all(i != frame for i, frame in enumerate(order))
    expected = processor.encode(row, [Media(video.frames[order], video.timestamps, True)])
    np.testing.assert_array_equal(got.patches, expected.patches)
    assert got.row is row
    assert got.next_position == plain.next_position
    for name in ("tokens", "is_visual", "positions", "grid_thw"):
        np.testing.assert_array_equal(getattr(got, name), getattr(plain, name))
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))


def test_two_frames_are_swapped(processor):
    """They share one temporal patch: moving whole patches would change nothing."""
    row, video = make_row("<video>What?"), random_clip(2)
    got = shuffle.shuffled(processor.encode(row, [video]), processor.geometry, 0)
    swapped = processor.encode(row, [clip(video.frames[::-1])])
    np.testing.assert_array_equal(got.patches, swapped.patches)


def test_the_frame_that_fills_the_last_patch_is_one_of_its_own(processor):
    """Frames 0 1 2, encoded as 0 1 2 2: four frames are moved, and frame 2 stays twice."""
    row, video = make_row("<video>What?"), random_clip(3)
    plain = dataclasses.replace(processor.encode(row, [video]), visual="of frames in order")
    got = shuffle.shuffled(plain, processor.geometry, 1)
    assert got.visual is None
    order = order_of(video, processor, got.patches)
    assert sorted(order) == [0, 1, 2, 2]
    assert order != [0, 1, 2, 2]
    expected = processor.encode(row, [clip(video.frames[order])])
    np.testing.assert_array_equal(got.patches, expected.patches)


def test_images_stay_and_every_video_has_its_own_order(processor):
    rng = np.random.default_rng(0)
    images = [make_media([64, 64], rng), make_media([32, 96], rng)]
    video = random_clip(8)
    row = make_row("<image>and <video>, then <video> and <image>?")
    plain = processor.encode(row, [*images, video, video])
    got = shuffle.shuffled(plain, processor.geometry, 5)
    at = np.cumsum([0, *plain.grid_thw.prod(axis=1)])
    parts = [slice(a, b) for a, b in zip(at[:-1], at[1:], strict=True)]
    for image in (parts[0], parts[3]):
        np.testing.assert_array_equal(got.patches[image], plain.patches[image])
    orders = [order_of(video, processor, got.patches[p]) for p in (parts[1], parts[2])]
    assert orders[0] != orders[1]
    moved = [clip(video.frames[order]) for order in orders]
    expected = processor.encode(row, [*images, *moved])
    np.testing.assert_array_equal(got.patches, expected.patches)


def test_the_seed_decides_and_the_original_is_left_alone(processor):
    plain = processor.encode(make_row("<video>What?"), [random_clip(8)])
    before = plain.patches.copy()
    one, same, other = (shuffle.shuffled(plain, processor.geometry, s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.patches, same.patches)
    assert (one.patches != other.patches).any()
    np.testing.assert_array_equal(plain.patches, before)


def test_without_a_video_it_is_the_example_itself(processor):
    text = processor.encode(make_row("How many?"), [])
    assert shuffle.shuffled(text, processor.geometry, 0) is text
    image = make_media([64, 64], np.random.default_rng(0))
    shown = processor.encode(make_row("<image>How many?"), [image])
    assert shuffle.shuffled(shown, processor.geometry, 0) is shown


@given(kinds=st.lists(st.integers(0, 2), min_size=2, max_size=9), seed=st.integers(0, 999))
def test_a_video_changes_unless_its_frames_are_all_alike(kinds, seed):
    order = shuffle.frame_order(len(kinds), np.random.default_rng(seed))
    assert sorted(order) == list(range(len(kinds)))
    assert ([kinds[i] for i in order] != kinds) == (len(set(kinds)) > 1)


def test_all_orders_of_one_cycle_are_drawn():
    """Of 4 frames there are 3! = 6, of 24 orders."""
    rng = np.random.default_rng(0)
    found = {tuple(shuffle.frame_order(4, rng)) for _ in range(200)}
    assert len(found) == 6


def test_an_example_without_its_patches_is_refused(processor):
    plain = processor.encode(make_row("<video>What?"), [random_clip(4)])
    bare = dataclasses.replace(plain, patches=plain.patches[:0])
    with pytest.raises(ValueError, match=r"rows.jsonl:3 \(p7\): 0 patches for grids"):
        shuffle.shuffled(bare, processor.geometry, 0)
