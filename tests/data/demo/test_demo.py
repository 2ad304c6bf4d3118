"""The demo's clips show what their rows say; its model is the one transformers loads."""

import json
import re
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from hf import load_torch
from models_oracle import on_device
from sklearn.datasets import load_digits

from configs import demo as demo_config
from evr1.batch.collate import Collator
from evr1.batch.shapes import ShapeTable
from evr1.data.demo import scenes
from evr1.data.demo.files import HELDOUT_ROWS, ROWS_PER_CLIP, TRAIN_ROWS, make_demo
from evr1.data.media.video import decode, read_header
from evr1.data.processor import Processor
from evr1.data.records import Budgets, Media, Row
from evr1.data.rows import load_rows
from evr1.formats.problem_types import TYPES
from evr1.models import load_model
from evr1.models.io import hf

ASKED = set(TYPES) - {"segmentation", "code", "svg-code", "html-code", "preference"}
CONFIG = demo_config.get_config()
BUDGETS = Budgets(
    video_fps=CONFIG.data.video_fps,
    video_max_frames=CONFIG.data.video_max_frames,
    video_min_pixels=CONFIG.data.video_min_pixels,
    video_max_pixels=CONFIG.data.video_max_pixels,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    make_demo(out, seed=3, train=120, heldout=24)
    return out


def _rows(data: Path, pattern: str) -> list[Row]:
    rows = load_rows(data / "train.jsonl") + load_rows(data / "heldout.jsonl")
    found = [r for r in rows if r.videos and re.search(pattern, r.problem)]
    assert found, f"no clip asks {pattern!r}"
    return found


def _sampled(data: Path, row: Row) -> Media:
    geometry = Processor.from_hf(CONFIG.model).geometry
    return decode(data / row.videos[0], BUDGETS, geometry)


def _ink(frame: np.ndarray) -> np.ndarray:
    """Where a frame is bright; the background, compressed, stays below 160."""
    return frame[..., 1].astype(int) > 175


def _box(frame: np.ndarray) -> list[int]:
    y, x = np.nonzero(_ink(frame))
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


def _centre(frame: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = _box(frame)
    return np.array([x0 + x1, y0 + y1]) / 2


def _iou(a, b) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
    return width * height / (sum(area) - width * height)


def test_same_seed_same_bytes(data, tmp_path):
    make_demo(tmp_path / "again", seed=3, train=120, heldout=24)
    files = sorted(p.relative_to(data) for p in data.rglob("*") if p.is_file())
    assert files == sorted(
        p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    for file in files:
        assert (data / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_other_seed_other_clips(data, tmp_path):
    make_demo(tmp_path, seed=4, train=8, heldout=4)
    ours = [r.problem + r.answer for r in load_rows(data / "train.jsonl")[:8]]
    assert ours != [r.problem + r.answer for r in load_rows(tmp_path / "train.jsonl")]


def test_finished_directory_is_kept_and_other_settings_are_refused(data):
    before = (data / "train.jsonl").stat().st_mtime_ns
    make_demo(data, seed=3, train=120, heldout=24)
    assert (data / "train.jsonl").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="made with .*use another directory"):
        make_demo(data, seed=5, train=120, heldout=24)


def test_interrupted_directory_is_finished(data, tmp_path):
    make_demo(tmp_path, seed=3, train=120, heldout=24)
    (tmp_path / "heldout.jsonl").unlink()
    clip = next((tmp_path / "clips").iterdir())
    clip.unlink()
    make_demo(tmp_path, seed=3, train=120, heldout=24)
    assert (tmp_path / "heldout.jsonl").read_bytes() == (data / "heldout.jsonl").read_bytes()
    assert clip.read_bytes() == (data / "clips" / clip.name).read_bytes()


@pytest.mark.parametrize("file", ["train.jsonl", "heldout.jsonl"])
def test_rows_load_with_their_media(data, file):
    for row in load_rows(data / file):
        assert row.problem_type in ASKED
        for path in row.videos + row.images:
            assert (data / path).is_file()


def test_default_sets_ask_every_type():
    """Without writing a clip: the same draws as make_split's."""
    for split, count in (("train", TRAIN_ROWS), ("heldout", HELDOUT_ROWS)):
        glyphs = scenes.load_glyphs(split)
        asked = [
            question.problem_type
            for clip in range(count // ROWS_PER_CLIP)
            for question in scenes.draw(split, 0, clip, glyphs, ROWS_PER_CLIP)[1]
        ]
        assert set(asked) == ASKED
    assert HELDOUT_ROWS >= 200


def test_splits_share_no_scan():
    digits = load_digits()
    scans, target = scenes.load_scans()
    np.testing.assert_array_equal(scans, digits.images)
    np.testing.assert_array_equal(target, digits.target)
    seen: set[int] = set()
    for split in scenes.SPLITS:
        ours = {int(i) for d in range(10) for i in scenes.scan_numbers(target, d, split)}
        assert not ours & seen
        seen |= ours
    assert len(seen) == len(target)


def test_clips_are_h264_and_sampled_on_half_seconds(data):
    row = _rows(data, "Which way")[0]
    with av.open(str(data / row.videos[0])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    header = read_header(data / row.videos[0])
    assert (header.frames, header.fps) == (scenes.FRAMES, scenes.FPS)
    media = _sampled(data, row)
    assert media.frames.shape == (8, scenes.SIDE, scenes.SIDE, 3)
    np.testing.assert_allclose(media.timestamps, np.arange(8) / 2)


def test_centre_moves_as_stated(data):
    for row in _rows(data, "Which way")[:6]:
        frames = _sampled(data, row).frames
        way = row.options["ABCD".index(row.answer)].split(". ")[1]
        step = _centre(frames[-1]) - _centre(frames[0])
        axis = int(np.abs(step).argmax())
        expected = {(0, -1): "left", (0, 1): "right", (1, -1): "up", (1, 1): "down"}
        assert expected[axis, int(np.sign(step[axis]))] == way


def test_speed_and_size_as_stated(data):
    for row in _rows(data, "How fast")[:6]:
        frames = _sampled(data, row).frames
        path = np.abs(_centre(frames[-1]) - _centre(frames[0])).max()
        assert path / 3.5 == pytest.approx(float(row.answer), abs=0.6)
    for row in _rows(data, "How tall")[:6]:
        box = _box(_sampled(data, row).frames[0])
        assert box[3] - box[1] == pytest.approx(float(row.answer), abs=3)


def test_visible_exactly_when_stated(data):
    for row in _rows(data, "When is")[:6] + _rows(data, "When and where")[:4]:
        media = _sampled(data, row)
        start, end = json.loads(row.answer)["time"]
        shown = np.array([_ink(f).any() for f in media.frames])
        np.testing.assert_array_equal(
            shown, (media.timestamps >= start) & (media.timestamps < end), row.problem_id
        )


def test_boxes_hold_the_ink(data):
    for row in _rows(data, "Track|When and where")[:8]:
        media = _sampled(data, row)
        for second, box in json.loads(row.answer)["boxes"].items():
            frame = media.frames[np.flatnonzero(media.timestamps == float(second))[0]]
            assert _iou(box, _box(frame)) > 0.6, row.problem_id


def test_shipped_model_is_small_and_loads():
    files = [p for p in Path(CONFIG.model).iterdir() if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 8e6
    model = load_model(CONFIG.model)
    params = hf.load_params(CONFIG.model, model)
    assert all(bool(np.isfinite(x).all()) for x in jax.tree.leaves(params))


def test_prompts_fit_the_configured_shapes(data):
    processor = Processor.from_hf(CONFIG.model)
    longest = 0
    ends = set(processor.end_ids)
    for row in load_rows(data / "train.jsonl"):
        if row.videos:
            example = processor.encode(row, [_sampled(data, row)])
            longest = max(longest, len(example.tokens))
        answer = processor.tokenize(f"<answer>{row.answer}</answer>")
        assert not ends & set(answer)
        assert processor.decode(answer) == f"<answer>{row.answer}</answer>"
        assert len(answer) < CONFIG.rollout.max_completion_tokens
    assert longest <= CONFIG.data.max_prompt_tokens


@pytest.mark.parity
@pytest.mark.parametrize("is_broken", [False, True], ids=["as it is", "one weight changed"])
def test_shipped_model_is_transformers_model(data, is_broken):
    """Prompt tokens are equal; logits of the gold answer agree to 1e-4 of their range (float32)."""
    torch = load_torch()
    pytest.importorskip("torchvision")
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration
    from transformers.video_utils import VideoMetadata

    row = _rows(data, "Which way")[0]
    media = _sampled(data, row)
    processor, model = Processor.from_hf(CONFIG.model), load_model(CONFIG.model)
    params = hf.load_params(CONFIG.model, model)
    example = processor.encode(row, [media])
    answer = np.array(processor.tokenize(f"<answer>{row.answer}</answer>"), np.int32)
    prompts = Collator(_shapes(), processor.geometry, 8, processor.pad_id)([example])
    hidden = model.group_hidden(params, *on_device((prompts, answer[None, None])))
    ours = model.logits(params, hidden)[0, 0]

    reference = AutoProcessor.from_pretrained(CONFIG.model)
    text = processor.prompt_text(row).removeprefix("<video>")
    content = [{"type": "video"}, {"type": "text", "text": text}]
    chat = reference.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    indices = (media.timestamps * scenes.FPS).astype(int).tolist()
    metadata = VideoMetadata(total_num_frames=scenes.FRAMES, fps=scenes.FPS, frames_indices=indices)
    inputs = reference(
        text=[chat + f"<answer>{row.answer}</answer>"],
        videos=[media.frames],
        video_metadata=[metadata],
        do_sample_frames=False,
        return_tensors="pt",
    )
    ids = inputs["input_ids"][0].tolist()
    assert ids == [*example.tokens.tolist(), *answer.tolist()]
    theirs = Qwen3VLForConditionalGeneration.from_pretrained(CONFIG.model, dtype=torch.float32)
    with torch.no_grad():
        if is_broken:
            theirs.model.visual.blocks[0].mlp.linear_fc2.bias[0] += 0.5
        logits = theirs(**inputs).logits[0, len(example.tokens) - 1 : -1].numpy()
    gap = np.abs(np.asarray(ours) - logits).max() / np.abs(logits).max()
    assert (gap < 1e-4) != is_broken


def _shapes() -> ShapeTable:
    s = CONFIG.shapes
    return ShapeTable(tuple(s.prompt_tokens), tuple(s.vision_rows), s.row_patches, 24)
