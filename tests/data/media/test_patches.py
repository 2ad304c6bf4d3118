import functools

import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY
from hf import load_torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from evr1.data.errors import MediaError
from evr1.data.media import patches, resize
from evr1.data.records import Budgets, Geometry, Media


@pytest.mark.parametrize(
    ("n_frames", "height", "width", "size", "tokens"),
    [  # the reference's own numbers at its defaults
        (20, 720, 1280, (384, 672), 2520),
        (128, 720, 1280, (384, 672), 16128),
        (4, 480, 640, (416, 576), 468),
        (100, 240, 320, (256, 320), 4000),
    ],
)
def test_video_sizes_of_the_reference(n_frames, height, width, size, tokens):
    found = patches.video_size(n_frames, height, width, Budgets(), GEOMETRY)
    t, h, w = patches.grid_of(n_frames, *found, GEOMETRY)
    assert (found, t * h * w // 4) == (size, tokens)


def test_a_frame_is_capped_at_its_share_of_the_total():
    # 32 * 32 * 2000 pixels in all, 2 frames a token: 100 frames may have 40 tokens' pixels each
    budgets = Budgets(video_total_pixels=32 * 32 * 2000)
    height, width = patches.video_size(100, 720, 1280, budgets, GEOMETRY)
    assert height * width <= 40 * 32 * 32
    assert (height, width) == (128, 256)
    # ... but never below 1.05 times the least
    budgets = Budgets(video_total_pixels=1, video_min_pixels=100 * 32 * 32)
    height, width = patches.video_size(100, 720, 1280, budgets, GEOMETRY)
    assert height * width <= 105 * 32 * 32
    assert (height, width) == (224, 416)


def test_a_given_maximum_over_768_tokens_is_cut():
    budgets = Budgets(video_max_pixels=10**9)
    height, width = patches.video_size(4, 4000, 4000, budgets, GEOMETRY)
    assert height * width == 864 * 864


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (720, 1280, (704, 1280)),  # both within the limits: the nearest multiples; 736 is as near
        (10, 10, (64, 64)),  # grown to at least 3136
        (2000, 2000, (1024, 1024)),
        (17, 3000, (32, 3008)),  # never 0
        (3000, 20, (3008, 32)),
    ],
)
def test_image_sizes(height, width, size):
    assert patches.image_size(height, width, Budgets(), GEOMETRY) == size


def test_extreme_shapes_are_refused():
    with pytest.raises(ValueError, match="10x2001 pixels: one side is over 200 times"):
        patches.fit(2001, 10, 32, 1, 10**6)
    with pytest.raises(ValueError, match="min_pixels=10 exceeds max_pixels=5"):
        patches.fit(64, 64, 32, 10, 5)


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 60),
    st.integers(240, 1500),  # rounding up to whole tokens needs some room
)
def test_sizes_stay_within_the_limits(height, width, low, high):
    assume(max(height, width) <= 200 * min(height, width))
    rows, columns = patches.fit(height, width, 32, low * 1024, high * 1024)
    assert rows % 32 == 0
    assert columns % 32 == 0
    assert rows * columns >= low * 1024
    # where a side cannot be shortened below one token, the other may exceed the limit
    assert rows * columns <= high * 1024 or 32 in (rows, columns)


def test_patches_by_hand():
    """Two frames of 4x4 pixels, patch 1, merge 2: four blocks of 2x2, each left to right."""
    pixels = np.arange(2 * 4 * 4).reshape(2, 4, 4, 1).repeat(3, axis=3).astype(np.uint8)
    pixels[..., 1] += 100  # the second channel
    media = Media(pixels, np.array([0.0, 1.0]), is_video=True)
    found, grid = patches.patchify(media, Geometry(1, 2, 2))
    assert grid == (1, 4, 4)
    assert found[:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert found[0].tolist() == [0, 16, 100, 116, 0, 16]  # channel, then time


def test_the_last_frame_fills_the_temporal_patch():
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    odd, grid = patches.patchify(Media(frames, np.arange(3.0), True), GEOMETRY)
    even, _ = patches.patchify(Media(frames[[0, 1, 2, 2]], np.arange(4.0), True), GEOMETRY)
    assert grid == (2, 2, 2)
    np.testing.assert_array_equal(odd, even)


def test_images_are_turned_and_composed_on_white(tmp_path):
    picture = Image.new("RGB", (64, 32), (10, 20, 30))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    media = patches.load_image(tmp_path / "turned.jpg", Budgets(), GEOMETRY)
    shape = patches.measure_image(tmp_path / "turned.jpg", Budgets(), GEOMETRY)
    assert media.frames.shape == (1, shape.height, shape.width, 3) == (1, 96, 64, 3)
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    media = patches.load_image(tmp_path / "clear.png", Budgets(), GEOMETRY)
    assert media.frames.min() == 255
    assert not media.is_video
    assert media.timestamps.shape == (0,)


def test_bad_images_are_typed(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (1, 300)).save(tmp_path / "thin.png")
    for name, kind in (
        ("none.png", "missing"),
        ("cut.png", "undecodable"),
        ("text.png", "undecodable"),
        ("thin.png", "undecodable"),
    ):
        with pytest.raises(MediaError) as error:
            patches.load_image(tmp_path / name, BUDGETS, GEOMETRY)
        assert error.value.kind == kind
        assert str(error.value).startswith(str(tmp_path / name))
        assert "\n" not in str(error.value)


@functools.cache
def hf_processors():
    load_torch()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "patch_size": 16}
    return Qwen2VLImageProcessor(**half), Qwen3VLVideoProcessor(cap_pixels_per_frame=False)


def to_uint8(pixel_values):
    return ((pixel_values.numpy() * 0.5 + 0.5) * 255).round().astype(np.uint8)


def smooth(rng, *shape):
    """Random content with edges and gradients, as pictures have."""
    coarse = rng.integers(0, 256, (shape[0], 9, 7, 3), np.uint8)
    return np.stack(
        [
            np.asarray(Image.fromarray(f).resize(shape[2:0:-1], Image.Resampling.LANCZOS))
            for f in coarse
        ]
    )


@pytest.mark.parity
@pytest.mark.parametrize("size", [(150, 210), (33, 47), (480, 300), (10, 500), (500, 3)])
def test_images_equal_hf(size):
    images, _ = hf_processors()
    pixels = smooth(np.random.default_rng(1), 1, *size)
    budgets = Budgets(image_min_pixels=4096, image_max_pixels=40000)
    limits = {"shortest_edge": 4096, "longest_edge": 40000}
    theirs = images(images=[Image.fromarray(pixels[0])], size=limits, return_tensors="pt")
    height, width = patches.image_size(*size, budgets, GEOMETRY)
    media = Media(resize.resize(pixels, height, width), np.zeros(0), is_video=False)
    ours, grid = patches.patchify(media, GEOMETRY)
    assert grid == tuple(theirs["image_grid_thw"][0].tolist())
    found = to_uint8(theirs["pixel_values"])
    np.testing.assert_array_equal(found, ours)
    wrong = np.abs(found.astype(int) - ours[::-1]).max()  # the twin: the wrong order is seen
    assert wrong > 1


@pytest.mark.parity
@pytest.mark.parametrize("content", ["smooth", "noise"])
@pytest.mark.parametrize(
    "size",
    [
        ((90, 130), (64, 96)),
        ((64, 64), (128, 160)),
        ((144, 176), (128, 192)),  # one side shorter, the other longer
        ((64, 300), (96, 128)),
        ((1080, 480), (64, 480)),  # one side as it is, the other much shorter
    ],
)
def test_pixels_are_resized_as_torchvision_does(size, content):
    torch = load_torch()
    from torchvision.transforms.v2 import InterpolationMode, functional

    (height, width), target = size
    rng = np.random.default_rng(2)
    pixels = smooth(rng, 2, height, width)
    if content == "noise":  # saturates between the two passes
        pixels = rng.integers(0, 256, pixels.shape, np.uint8)
    theirs = functional.resize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        list(target),
        interpolation=InterpolationMode.BICUBIC,
        antialias=True,
    ).permute(0, 2, 3, 1)
    ours = resize.resize(pixels, *target)
    np.testing.assert_array_equal(theirs.numpy(), ours)
    pillow = Image.fromarray(pixels[0]).resize(target[::-1], Image.Resampling.BICUBIC)
    assert (theirs[0].numpy() != np.asarray(pillow)).any()  # the test can see a rounding


@pytest.mark.parity
@pytest.mark.parametrize(
    "size", [((90, 130), (64, 96)), ((144, 176), (128, 192)), ((359, 641), (224, 384))]
)
def test_frames_are_resized_as_qwen_vl_utils_does(size):
    torch = load_torch()
    from torchvision.transforms import InterpolationMode, functional

    (height, width), target = size
    pixels = np.random.default_rng(2).integers(0, 256, (2, height, width, 3), np.uint8)
    theirs = functional.resize(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        list(target),
        interpolation=InterpolationMode.BICUBIC,
        antialias=True,
    ).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(theirs.numpy(), resize.resize_float(pixels, *target))
    whole = resize.resize(pixels, *target).astype(int)  # the way of images
    assert np.abs(theirs.numpy() - whole).max() > 4


@pytest.mark.parity
@pytest.mark.parametrize("frames", [2, 3, 6])
def test_video_patches_equal_hf(frames):
    torch = load_torch()
    _, videos = hf_processors()
    pixels = np.random.default_rng(3).integers(0, 256, (frames, 64, 96, 3), np.uint8)
    theirs = videos(
        videos=[torch.from_numpy(pixels).permute(0, 3, 1, 2)],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    ours, grid = patches.patchify(Media(pixels, np.arange(float(frames)), True), GEOMETRY)
    assert grid == tuple(theirs["video_grid_thw"][0].tolist())
    np.testing.assert_array_equal(to_uint8(theirs["pixel_values_videos"]), ours)
    swapped, _ = patches.patchify(Media(pixels[::-1], np.arange(float(frames)), True), GEOMETRY)
    assert (swapped != ours).any()
