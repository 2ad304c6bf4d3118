"""Frames as large as transformers' video processors make them."""

import json

import numpy as np
import pytest
from hf import load_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1.data.media import patches, resize, video_budget
from evr1.data.media.content import content_key
from evr1.data.media.decode import Job
from evr1.data.records import Budgets, Geometry, Media
from evr1.formats import video_size
from evr1.formats.video_size import VideoSize

QWEN3, QWEN2 = Geometry(16, 2, 2), Geometry(14, 2, 2)
HUB3 = VideoSize(4096, 25165824, 768, is_volume=True)
HUB2 = VideoSize(3136, 12845056, 128000, is_volume=False)
GEOMETRIES = {HUB3: QWEN3, HUB2: QWEN2}


def _budgets(name, size):
    return Budgets(video_budget=name, video_size=size)


def _tokens(n, height, width, budgets, geometry):
    t, h, w = patches.grid_of(n, *patches.video_size(n, height, width, budgets, geometry), geometry)
    return t * h * w // 4


@pytest.mark.parametrize(
    ("name", "size", "n", "tokens"),
    [  # of 1080p, from executed runs of transformers 5.24
        ("qwen_vl_utils", None, 16, 2016),
        ("hf", HUB3, 16, 12064),
        ("hf_capped", HUB3, 16, 5760),
        ("hf_capped", HUB3, 768, 12288),
    ],
)
def test_tokens_of_a_clip_by_hand(name, size, n, tokens):
    if n > 16:  # 25165824 // 768 = 32768 pixels of a frame: 224 x 128, 7 x 4 tokens
        tokens = 384 * 7 * 4
    assert _tokens(n, 1080, 1920, _budgets(name, size), QWEN3) == tokens


def _write(root, size, **fields):
    """Processor files as on the hub."""
    geometry = GEOMETRIES[HUB3 if size.is_volume else HUB2]
    kind = "Qwen3VL" if size.is_volume else "Qwen2VL"
    sizes = {
        "patch_size": geometry.patch_size,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": size.shortest_edge, "longest_edge": size.longest_edge},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    video = {**sizes, "video_processor_type": f"{kind}VideoProcessor", **fields}
    image = {**sizes, "image_processor_type": "Qwen2VLImageProcessor"}
    (root / "video_preprocessor_config.json").write_text(json.dumps(video))
    (root / "preprocessor_config.json").write_text(json.dumps(image))
    (root / "config.json").write_text(json.dumps({"model_type": f"{kind[:5].lower()}_vl"}))
    return geometry


def _processor(root):
    load_torch()
    import transformers

    return transformers.AutoVideoProcessor.from_pretrained(root)


def _grid(processor, n, height, width, **options):
    frames = np.zeros((n, height, width, 3), np.uint8)
    got = processor(frames, do_sample_frames=False, return_tensors="np", **options)
    return tuple(np.asarray(got["video_grid_thw"])[0].tolist())


SIZES = st.sampled_from((9, 31, 33, 60, 101, 144, 200, 367, 480, 719))


@pytest.mark.parity
@pytest.mark.parametrize(
    "size",
    [
        HUB3,
        HUB2,
        VideoSize(64 * 1024, 600 * 1024, 768, is_volume=True),  # both ends bind
        VideoSize(3136, 300 * 1024, 100, is_volume=True),  # the cap of a frame
        VideoSize(100 * 784, 120 * 784, 128000, is_volume=False),
        VideoSize(3136, 12845056, 400, is_volume=False),  # a share of the whole
    ],
)
def test_grids_equal_those_of_transformers(size, tmp_path):
    """Of random numbers of frames and shapes, without and with the cap."""
    tokens = {"max_video_tokens": size.max_tokens}
    geometry = _write(tmp_path, size, **tokens)
    theirs = _processor(tmp_path)
    assert video_size.read(tmp_path) == size

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(2, 20), SIZES, SIZES, st.booleans())
    def check(n, height, width, is_capped):
        budgets = _budgets("hf_capped" if is_capped else "hf", size)
        found = patches.video_size(n, height, width, budgets, geometry)
        expected = _grid(theirs, n, height, width, cap_pixels_per_frame=is_capped)
        assert patches.grid_of(n, *found, geometry) == expected

    check()


@pytest.mark.parity
@pytest.mark.parametrize("size", [HUB3, HUB2])
def test_pixels_equal_those_of_transformers(size, tmp_path):
    """Resized in whole numbers, unlike qwen-vl-utils' frames."""
    geometry, (n, height, width) = _write(tmp_path, size), (4, 90, 130)
    frames = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)
    options = {"do_sample_frames": False, "do_rescale": False, "do_normalize": False}
    got = _processor(tmp_path)(frames, return_tensors="np", cap_pixels_per_frame=True, **options)
    budgets = _budgets("hf_capped", size)
    found = patches.video_size(n, height, width, budgets, geometry)
    assert found != (height, width)
    resized = resize.resizer(budgets)(frames, *found)
    ours, grid = patches.patchify(Media(resized, np.zeros(n), is_video=True), geometry)
    np.testing.assert_array_equal(ours, got["pixel_values_videos"])
    assert grid == tuple(got["video_grid_thw"][0])
    assert resize.resizer(Budgets()) is resize.resize_float


@pytest.mark.parity
@pytest.mark.parametrize("hub", [HUB3, HUB2])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"video_max_pixels": 100 * 28 * 28 * 16 * 16, "video_total_pixels": 40 * 32 * 32},
        {"video_max_pixels": 64 * 64 * 49, "video_fps": 1.0, "video_max_frames": 64},
        {"video_budget": "hf"},
        {"video_budget": "hf_capped"},
    ],
)
def test_an_exported_processor_has_the_budgets_of_the_run(hub, fields, tmp_path):
    geometry = _write(tmp_path, hub, cap_pixels_per_frame=None, min_pixels=1, max_pixels=2)
    fields = fields | {"image_min_pixels": 5000, "image_max_pixels": 90000}
    limits = Budgets(**fields)
    if limits.video_budget == "qwen_vl_utils":
        budgets = video_budget.of_directory(limits, tmp_path)
        assert budgets == limits
    else:
        _write(tmp_path, hub)
        budgets = video_budget.of_directory(limits, tmp_path)
        assert budgets.video_size == hub
    for name, text in video_budget.exported(tmp_path, budgets, geometry).items():
        (tmp_path / name).write_text(text)
    theirs = _processor(tmp_path)
    assert (theirs.fps, theirs.max_frames) == (limits.video_fps, limits.video_max_frames)
    for n, height, width in ((2, 480, 640), (8, 200, 367), (16, 719, 480), (30, 144, 200)):
        found = patches.video_size(n, height, width, budgets, geometry)
        assert patches.grid_of(n, *found, geometry) == _grid(theirs, n, height, width)
    image = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert image["size"] == {"shortest_edge": 5000, "longest_edge": 90000}
    again = video_size.read(tmp_path)  # what was written can be started from
    assert again.is_capped == (limits.video_budget != "hf")


def test_nested_and_single_files(tmp_path):
    """As transformers 5 saves them, and as Qwen2-VL's first directories were."""
    _write(tmp_path, HUB2)
    video = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    nested = {"video_processor": video | {"size": {"shortest_edge": 7, "longest_edge": 9}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested | {"image_processor": {}}))
    assert video_size.read(tmp_path)[:2] == (7, 9)
    files = video_budget.exported(tmp_path, Budgets(), QWEN2)
    assert json.loads(files["processor_config.json"])["video_processor"]["cap_pixels_per_frame"]
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "video_preprocessor_config.json").unlink()
    image = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(image))
    assert video_size.read(tmp_path) == HUB2
    files = video_budget.exported(tmp_path, Budgets(), QWEN2)
    made = json.loads(files["video_preprocessor_config.json"])
    assert made["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert made["patch_size"] == 14
    assert "min_pixels" not in made


def test_defaults_and_sizes_that_are_none(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    assert video_size.read(tmp_path) == VideoSize(128 * 784, 768 * 784, 128000, is_volume=False)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_5"}')
    assert video_size.read(tmp_path) == VideoSize(128 * 1024, 768 * 1024, 768, is_volume=True)
    (tmp_path / "video_preprocessor_config.json").write_text('{"size": {"height": 3, "width": 3}}')
    assert video_budget.of_directory(Budgets(), tmp_path) == Budgets()
    assert "has no size" in video_budget.describe(Budgets(), tmp_path, QWEN3)
    with pytest.raises(ValueError, match=r"set data\.video_budget=qwen_vl_utils"):
        video_budget.of_directory(_budgets("hf", None), tmp_path)


def test_the_line_at_the_start(tmp_path):
    _write(tmp_path, HUB3)
    lines = []
    for name in video_size.BUDGETS:
        budgets = video_budget.of_directory(_budgets(name, None), tmp_path)
        lines.append(video_budget.describe(budgets, tmp_path, QWEN3))
    assert lines == [
        "for scale: 8 s of 1080p video become 16 frames of 672 x 384 pixels, 2,016 visual tokens "
        "of the prompt; sizes of frames are by data.video_budget=qwen_vl_utils; with hf, as "
        "transformers does with this model, they would be 12,064, with hf_capped they would be "
        "5,760 tokens",
        "for scale: 8 s of 1080p video become 16 frames of 1664 x 928 pixels, 12,064 visual tokens "
        "of the prompt; sizes of frames are by data.video_budget=hf, as transformers does with "
        "this model; with hf_capped they would be 5,760 tokens",
        "for scale: 8 s of 1080p video become 16 frames of 1152 x 640 pixels, 5,760 visual tokens "
        "of the prompt; sizes of frames are by data.video_budget=hf_capped; with hf, as "
        "transformers does with this model, they would be 12,064 tokens",
    ]


def test_keys_name_the_budget_and_its_size():
    """Those of qwen-vl-utils are what they were before there was a choice."""

    def key(budgets, kind="video"):
        return content_key("id", kind, budgets, QWEN3)

    plain = Budgets()
    assert plain.of("video") == {
        "video_fps": 2.0,
        "video_max_frames": 128,
        "video_min_pixels": 3136,
        "video_max_pixels": 262144,
        "video_total_pixels": 0,
    }
    hf, capped = _budgets("hf", HUB3), _budgets("hf_capped", HUB3)
    other = _budgets("hf", HUB3._replace(longest_edge=1024**2))
    assert len({key(x) for x in (plain, hf, capped, other)}) == 4
    assert len({key(x, "image") for x in (plain, hf, capped, other)}) == 1
    assert key(hf) == key(_budgets("hf", HUB3._replace(is_capped=True)))
    job = Job("video", "x.mp4", hf, QWEN3)
    assert Job.from_json(job.to_json()) == job
