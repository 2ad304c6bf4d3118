"""Prompts of Qwen2-VL and Qwen2.5-VL: ids, grids, pixels and positions equal those of HF."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_models
from hf import load_torch
from PIL import Image
from repo import TINY
from rows_rig import make_row, sizes_of

from evr1.data import positions
from evr1.data.media.patches import fit, load_image
from evr1.data.processor import Processor
from evr1.data.records import Budgets, Media
from evr1.formats import processor_files

FAMILIES = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
SIDE = 28  # pixels of a visual token
TOKENS_PER_SECOND = 2


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request, tmp_path_factory) -> Path:
    """The tiny tokenizer with the settings of the family's published directories."""
    out = tmp_path_factory.mktemp("hf") / request.param
    out.mkdir()
    for source in TINY.iterdir():
        (out / source.name).write_bytes(source.read_bytes())
    sizes = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, **CLIP}
    sizes |= {"processor_class": FAMILIES[request.param]}
    for kind in ("", "video_"):
        video = "Video" if kind else "Image"
        settings = sizes | {f"{kind or 'image_'}processor_type": f"Qwen2VL{video}Processor"}
        (out / f"{kind}preprocessor_config.json").write_text(json.dumps(settings))
    vision = {"patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2}
    if request.param == "qwen2_5_vl":
        vision["tokens_per_second"] = TOKENS_PER_SECOND
    config = {"model_type": request.param, "vision_config": vision}
    (out / "config.json").write_text(json.dumps(config))
    return out


def _random_prompt(rng, side=SIDE):
    """A problem with up to three media, as our Media and as HF's frames with their metadata."""
    text, media, frames, metadata, images = "Look", [], [], [], []
    for _ in range(rng.integers(0, 4)):
        height, width = (int(x) * side for x in rng.integers(1, 5, 2))
        if rng.random() < 0.4:
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            media.append(Media(image[None], np.zeros(0), is_video=False))
            images.append(image)
            text += " <image> is"
            continue
        n = int(rng.integers(2, 9))
        total, fps = int(rng.integers(n, 400)), float(rng.choice([10, 24, 25, 29.97, 30]))
        at = np.linspace(0, total - 1, n).round().astype(int)
        clip = rng.integers(0, 256, (n, height, width, 3), np.uint8)
        media.append(Media(clip, at / fps, is_video=True, sample_fps=n / total * fps))
        frames.append(clip)
        metadata.append({"total_num_frames": total, "fps": fps, "frames_indices": at.tolist()})
        text += " <video> was"
    return text, media, frames, metadata, images


def _chat(hf, text):
    parts = []
    for piece in text.replace("<image>", "|image|").replace("<video>", "|video|").split("|"):
        is_medium = piece in ("image", "video")
        parts.append({"type": piece} if is_medium else {"type": "text", "text": piece})
    message = {"role": "user", "content": parts}
    return hf.apply_chat_template([message], add_generation_prompt=True, tokenize=False)


def _rope_index(family, batch, torch):
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    model = {
        "qwen2_vl": modeling_qwen2_vl.Qwen2VLModel,
        "qwen2_5_vl": modeling_qwen2_5_vl.Qwen2_5_VLModel,
    }[family]
    vision = SimpleNamespace(spatial_merge_size=2, tokens_per_second=TOKENS_PER_SECOND)
    stub = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    stub.get_vision_position_ids = lambda *a, **k: model.get_vision_position_ids(stub, *a, **k)
    names = ["input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw"]
    names += ["second_per_grid_ts"] if family == "qwen2_5_vl" else []
    inputs = {k: batch.get(k) for k in names}
    if inputs.get("second_per_grid_ts") is not None:
        inputs["second_per_grid_ts"] = torch.as_tensor(inputs["second_per_grid_ts"])
    # One text token more tells where transformers goes on.
    for name, more in (("input_ids", 1), ("mm_token_type_ids", 0)):
        inputs[name] = torch.cat([inputs[name], torch.tensor([[more]])], dim=1)
    return model.get_rope_index(stub, **inputs)[0][:, 0].numpy()


@pytest.mark.parity
def test_prompts_equal_hf(directory):
    torch = load_torch()
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    hf = AutoProcessor.from_pretrained(directory)
    assert type(hf).__name__ == FAMILIES[directory.name]
    ours = Processor.from_hf(str(directory))
    rng, longest = np.random.default_rng(5), 0
    for _ in range(25):
        text, media, frames, metadata, images = _random_prompt(rng)
        batch = hf(
            text=[_chat(hf, text)],
            images=images or None,
            videos=frames or None,
            video_metadata=[VideoMetadata(**m) for m in metadata] or None,
            do_resize=False,
            do_sample_frames=False,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        row = make_row(text)
        example = ours.encode(row, media, raw=True)
        assert example.tokens.tolist() == batch["input_ids"][0].tolist()
        assert ours.plan(row, sizes_of(example, media), raw=True) == len(example.tokens)
        where = _rope_index(directory.name, batch, torch)
        np.testing.assert_array_equal(example.positions, where[:, :-1])
        assert example.next_position == where[0, -1]
        _compare_pixels(example, media, batch, **CLIP, atol=1e-5)
        longest = max(longest, int(example.positions[0].max() - example.positions[1].max()))
    # The negative twin: at one position a frame, videos would never outlast what follows them.
    assert longest > 8 if directory.name == "qwen2_5_vl" else longest <= 3


def _compare_pixels(example, media, batch, image_mean, image_std, atol):
    """Grids and normalized pixels of images and of videos."""
    is_video = np.array([m.is_video for m in media], bool)
    units = example.grid_thw.prod(axis=1)
    for kind, suffix in ((False, ""), (True, "_videos")):
        grid = batch.get("video_grid_thw" if kind else "image_grid_thw")
        if grid is None:
            assert not (is_video == kind).any()
            continue
        np.testing.assert_array_equal(example.grid_thw[is_video == kind], grid.numpy())
        mine = example.patches[np.repeat(is_video == kind, units)].reshape(
            int(grid.prod(-1).sum()), 3, -1
        )
        mean, std = (np.array(x)[:, None] for x in (image_mean, image_std))
        theirs = batch["pixel_values" + suffix].numpy().reshape(mine.shape)
        np.testing.assert_allclose((mine / 255 - mean) / std, theirs, atol=atol)


def test_run_positions_by_hand():
    """One text token, a video of three frames of 1 x 2 tokens at a pace of 2.5, one text token.

    2.5 positions a frame, rounded down, are 0, 2, 5; the likely wrong answer goes on at 7 or 8
    after the video, where HF goes on at 1 + max(1, 2) = 3.
    """
    visual = np.array([0, 1, 1, 1, 1, 1, 1, 0], bool)
    grid = np.array([[3, 2, 4]])
    where, following = positions.run_positions(visual, grid, 2, np.array([2.5]))
    assert where.tolist() == [
        [0, 1, 1, 3, 3, 6, 6, 3],
        [0, 1, 1, 1, 1, 1, 1, 3],
        [0, 1, 2, 1, 2, 1, 2, 3],
    ]
    assert following == 4


def test_time_positions_without_a_known_rate(directory):
    """Frames half a second apart are 2 a second: a temporal patch is 1 s, so 2 positions."""
    ours = Processor.from_hf(str(directory))
    media = [Media(np.zeros((6, SIDE, SIDE, 3), np.uint8), np.arange(6) / 2, is_video=True)]
    example = ours.encode(make_row("<video>"), media, raw=True)
    start, *more = example.positions[0, example.is_visual]
    steps = [2, 4] if directory.name == "qwen2_5_vl" else [1, 2]
    assert [p - start for p in more] == steps


@pytest.mark.parametrize("directory", ["qwen2_5_vl"], indirect=True)
def test_a_pace_of_zero_is_refused(directory, tmp_path):
    """transformers would put all frames at one time."""
    for source in directory.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["tokens_per_second"] = 0
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="tokens_per_second=0; give a number over 0"):
        Processor.from_hf(str(tmp_path))


BAD_STATISTICS = {
    "of two channels": ({"image_mean": [0.5] * 2}, "give a number for each of three channels"),
    "zero deviation": ({"image_std": [0.5, 0, 0.5]}, "deviations over 0"),
    "another scale": ({"rescale_factor": 1 / 127.5}, "rescale_factor=.* set it to 1/255"),
    "bilinear": ({"resample": 2}, "resample=2 is not supported; set it to 3"),
    "none at all": ({"do_normalize": False}, "do_normalize=false is not supported"),
}


@pytest.mark.parametrize("case", BAD_STATISTICS)
def test_pixel_statistics_that_cannot_be_met_are_refused(directory, tmp_path, case):
    change, message = BAD_STATISTICS[case]
    for source in directory.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        Processor.from_hf(str(tmp_path))


def test_pixel_statistics_are_those_of_the_directory(directory, tmp_path):
    """One number stands for three channels; the model's own where the files say nothing.

    Those of images hold for videos until a file speaks of videos.
    """
    clip = [tuple(x) for x in CLIP.values()]
    names = ("image_mean", "image_std", "video_mean", "video_std")
    assert processor_files.statistics(directory) == dict(zip(names, clip * 2, strict=True))
    assert processor_files.statistics(tmp_path) == {}
    file = tmp_path / "preprocessor_config.json"
    file.write_text('{"image_mean": 0.25, "image_std": [0.5, 1, 2]}')
    expected = {"image_mean": (0.25,) * 3, "image_std": (0.5, 1.0, 2.0)}
    videos = {"video_mean": (0.25,) * 3, "video_std": (0.5, 1.0, 2.0)}
    assert processor_files.statistics(tmp_path) == expected | videos
    file = tmp_path / "processor_config.json"
    file.write_text('{"video_processor": {"image_mean": [0.5, 0.5, 0.5]}}')
    assert processor_files.statistics(tmp_path) == expected | {"video_mean": (0.5,) * 3}


@pytest.mark.parity
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("patch", [14, 16])
def test_time_marked_prompts_equal_hf(family, patch, tmp_path):
    """Random media, rates, layouts and pixel budgets: ids and grids exact, pixels to 1/255."""
    load_torch()
    from transformers.video_utils import VideoMetadata

    sizes = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    statistics = {"image_mean": [0.2, 0.5, 0.4], "image_std": [0.3, 0.5, 0.25]}
    hf = small_models.make_processor(family, **sizes, **statistics)
    hf.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    ours = Processor.from_hf(str(tmp_path))
    rng = np.random.default_rng(patch)
    for _ in range(12):
        text, media, frames, metadata, images = _random_prompt(rng, 2 * patch)
        budgets = Budgets(image_max_pixels=int(rng.integers(4, 30)) * (2 * patch) ** 2)
        for i, image in enumerate(images):  # odd sizes are resized on both sides
            odd = rng.integers(0, 256, (*(np.array(image.shape[:2]) + 5), 3), np.uint8)
            Image.fromarray(odd).save(tmp_path / "odd.png")
            images[i] = odd
            at = [j for j, m in enumerate(media) if not m.is_video][i]
            media[at] = load_image(tmp_path / "odd.png", budgets, ours.geometry)
        edges = {
            "shortest_edge": budgets.image_min_pixels,
            "longest_edge": budgets.image_max_pixels,
        }
        batch = hf(
            text=[_chat(hf, text)],
            images=images or None,
            videos=frames or None,
            images_kwargs={"size": edges},
            videos_kwargs={
                "video_metadata": [VideoMetadata(**m) for m in metadata],
                "do_resize": False,
                "do_sample_frames": False,
            }
            if frames
            else {},
            return_tensors="pt",
        )
        row = make_row(text)
        example = ours.encode(row, media, raw=True)
        assert example.tokens.tolist() == batch["input_ids"][0].tolist()
        assert ours.plan(row, sizes_of(example, media), raw=True) == len(example.tokens)
        _compare_pixels(example, media, batch, **statistics, atol=1.01 / 255 / 0.25)


@pytest.mark.parity
def test_sizes_equal_hf():
    """Images are resized as HF's smart_resize says, for a token of 28 pixels."""
    load_torch()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rng = np.random.default_rng(2)
    for height, width in rng.integers(1, 2000, (300, 2)).tolist():
        if max(height, width) > 200 * min(height, width):
            continue
        budget = int(rng.integers(50_000, 1_000_000))
        theirs = smart_resize(height, width, SIDE, 3136, budget)
        assert fit(height, width, SIDE, 3136, budget, thinnest=0) == theirs
