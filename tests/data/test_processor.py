"""The processor: token ids, time marks and positions equal HF's; bad rows are named."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hf import load_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from repo import GOLDEN, TINY
from rows_rig import make_media, make_row, sizes_of

from evr1.data import positions
from evr1.data.processor import Processor
from evr1.rollout import trajectory

CASES = json.loads((GOLDEN / "processor.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor.from_hf(str(TINY))


@pytest.mark.parametrize("case", CASES, ids=lambda c: ascii(c["problem"])[:30])
def test_tokens_equal_those_recorded_from_hf(processor, case):
    media = [make_media(m, np.random.default_rng(0)) for m in case["media"]]
    row = make_row(case["problem"])
    example = processor.encode(row, media, raw=True)
    assert example.tokens.tolist() == case["ids"]
    assert processor.plan(row, sizes_of(example, media), raw=True) == len(case["ids"])
    assert example.is_visual.sum() * 4 == len(example.patches)


def test_media_may_come_sorted_by_kind(processor):
    rng = np.random.default_rng(0)
    video, image = make_media([2, 32, 64, [0, 8], 8.0], rng), make_media([32, 32], rng)
    row = make_row("<image> and <video>")
    one, other = (processor.encode(row, m, raw=True) for m in ([image, video], [video, image]))
    np.testing.assert_array_equal(one.patches, other.patches)
    assert one.grid_thw.tolist() == [[1, 2, 2], [1, 2, 4]]


def test_task_prompt_is_planned_exactly(processor):
    rng = np.random.default_rng(0)
    media = [make_media([5, 64, 64, [0, 3, 6, 9, 12], 12.0], rng)]
    row = make_row("<video>Which?", "multiple choice", data_type="video", options=("A. x", "B. y"))
    example = processor.encode(row, media)
    assert processor.plan(row, sizes_of(example, media)) == len(example.tokens)


def test_end_pad_and_banned_ids(processor):
    names = [processor.tokenizer.id_to_token(i) for i in processor.end_ids]
    assert names == ["<|im_end|>", "<|endoftext|>"]
    assert processor.tokenizer.id_to_token(processor.pad_id) == "<|endoftext|>"
    banned = [processor.tokenizer.id_to_token(i) for i in processor.banned_ids]
    assert banned == ["<|image_pad|>", "<|video_pad|>"]


def test_decode_skips_special_tokens(processor):
    text = "<answer>3</answer>"
    assert processor.decode([*processor.tokenize(text), *processor.end_ids]) == text


def test_processor_survives_pickling(processor):
    row = make_row("How many?")
    again = pickle.loads(pickle.dumps(processor))
    assert again.encode(row, []).tokens.tolist() == processor.encode(row, []).tokens.tolist()


def test_missing_media_name_the_row(processor):
    with pytest.raises(ValueError, match=r"rows\.jsonl:3 \(p7\): 1 markers .* for 0 media"):
        processor.encode(make_row("<video>How many?"), [])


def test_placeholder_in_the_problem_is_refused(processor):
    with pytest.raises(ValueError, match=r"rows\.jsonl:3 \(p7\): .*1 placeholders for 0 media"):
        processor.encode(make_row("what is <|video_pad|>?"), [])


def test_wrong_number_of_timestamps_is_refused(processor):
    media = make_media([4, 32, 32, [0, 1, 2, 3], 2.0], np.random.default_rng(0))
    short = dataclasses.replace(media, timestamps=media.timestamps[:2])
    with pytest.raises(ValueError, match="2 timestamps for 2 temporal patches"):
        processor.encode(make_row("<video>"), [short])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("chat_template.jinja", None, "chat_template.jinja is missing"),
        ("tokenizer_config.json", "{", "not JSON"),
        ("generation_config.json", "[]", "holds no JSON object"),
        ("generation_config.json", '{"eos_token_id": -1}', "eos_token_id=-1; give token ids"),
        ("generation_config.json", '{"eos_token_id": ["x"]}', "eos_token_id=.*; give token ids"),
        ("processor_config.json", '{"image_processor": [1]}', "image_processor is no object"),
        ("tokenizer.json", "{", "no tokenizer"),
        (
            "preprocessor_config.json",
            '{"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}',
            "differ",
        ),
        (
            "processor_config.json",
            '{"image_processor": {"image_mean": [0.48, 0.46, 0.41]}}',
            "image_mean is .* in preprocessor_config.json and .* correct one of them",
        ),
    ],
)
def test_broken_directory_is_refused(tmp_path, file, content, message):
    for source in (TINY).iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / file).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        Processor.from_hf(str(tmp_path))


def test_a_name_instead_of_a_directory_is_refused():
    with pytest.raises(ValueError, match="Qwen/Some-VL is not a directory; .* nothing is downl"):
        Processor.from_hf("Qwen/Some-VL")


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path):
    """The tiny tokenizer's special tokens have the highest ids."""
    for source in (TINY).iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    start = Processor.from_hf(str(tmp_path)).tokenizer.token_to_id("<|im_start|>")
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": start}}))
    with pytest.raises(ValueError, match=rf"rows\.jsonl:3 \(p7\): .* 0 to {start - 1}; use"):
        Processor.from_hf(str(tmp_path)).encode(make_row("How many?"), [])


@pytest.mark.parametrize("overlong", ["refuse", "truncate"])
def test_a_trajectory_beyond_the_vocabulary_is_refused_at_the_start(tmp_path, overlong):
    for source in (TINY).iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    start = Processor.from_hf(str(tmp_path)).tokenizer.token_to_id("<|im_start|>")
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": start}}))
    processor = Processor.from_hf(str(tmp_path))
    plain = dataclasses.replace(make_row("How many?"), extra={"offline_output": "three"})
    strange = dataclasses.replace(plain, extra={"offline_output": "<|im_start|>three"})
    assert trajectory.check([plain], processor, 99, overlong) == 1
    with pytest.raises(ValueError, match=rf"rows\.jsonl:3 \(p7\): .* 0 to {start - 1}; use"):
        trajectory.check([plain, strange], processor, 99, overlong)


def test_chat_template_of_older_directories(tmp_path, processor):
    for source in (TINY).iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    template = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert Processor.from_hf(str(tmp_path)).chat_template == processor.chat_template


def test_mrope_by_hand():
    # text, one 2 x 3 unit, text, two single-token units, text
    visual = np.array([0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0], bool)
    where, following = positions.mrope_positions(visual, np.array([[1, 4, 6], [2, 2, 2]]), 2)
    assert where.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5, 6, 7],
        [0, 1, 1, 1, 2, 2, 2, 4, 5, 6, 7],
        [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert following == 8


def test_mrope_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="1 placeholders for 4 visual tokens"):
        positions.mrope_positions(np.array([True]), np.array([[1, 4, 4]]), 2)
    with pytest.raises(ValueError, match="not contiguous"):
        positions.mrope_positions(np.array([True, False, True]), np.array([[1, 2, 4]]), 2)


@st.composite
def layouts(draw):
    """Media as (is video, (t, h, w)) and the lengths of the texts round and between their units."""
    merged = st.tuples(st.integers(1, 4), st.integers(1, 5))
    media = []
    for _ in range(draw(st.integers(0, 4))):
        is_video = draw(st.booleans())
        h, w = draw(merged)
        media.append((is_video, (draw(st.integers(1, 4)) if is_video else 1, 2 * h, 2 * w)))
    units = sum(g[0] for _, g in media)
    texts = draw(st.lists(st.integers(1, 6), min_size=units + 1, max_size=units + 1))
    return media, texts


def kinds_of(layout) -> np.ndarray:
    """0 text, 1 image, 2 video for each token."""
    media, texts = layout
    kinds = [0] * texts[0]
    after = iter(texts[1:])
    for is_video, (t, h, w) in media:
        for _ in range(t):
            kinds += [1 + is_video] * (h * w // 4) + [0] * next(after)
    return np.array(kinds)


def hf_rope_index(layout, torch) -> tuple[np.ndarray, int]:
    from types import SimpleNamespace

    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

    kinds = torch.tensor(kinds_of(layout))[None]
    grids = [
        torch.tensor([g for is_video, g in layout[0] if is_video == kind]).long().reshape(-1, 3)
        for kind in (False, True)
    ]
    model = SimpleNamespace(
        config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)),
    )
    model.get_vision_position_ids = lambda *a, **k: Qwen3VLModel.get_vision_position_ids(
        model, *a, **k
    )
    where, delta = Qwen3VLModel.get_rope_index(model, kinds, kinds, *grids)
    return where[:, 0].numpy(), int(delta[0, 0]) + kinds.shape[1]


@pytest.mark.parity
@settings(max_examples=80, deadline=None)
@given(layouts())
def test_mrope_equals_hf(layout):
    torch = load_torch()
    grid = np.array([g for _, g in layout[0]], np.int32).reshape(-1, 3)
    ours, following = positions.mrope_positions(kinds_of(layout) > 0, grid, 2)
    theirs, hf_following = hf_rope_index(layout, torch)
    np.testing.assert_array_equal(ours, theirs)
    assert following == hf_following


@pytest.mark.parity
def test_mrope_of_another_grid_differs_from_hf():
    torch = load_torch()
    theirs, _ = hf_rope_index(([(True, (2, 4, 8))], [3, 2, 1]), torch)
    kinds = kinds_of(([(True, (2, 4, 8))], [3, 2, 1])) > 0
    ours, _ = positions.mrope_positions(kinds, np.array([[2, 8, 4]]), 2)
    assert (ours != theirs).any()


@pytest.mark.parity
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=3), st.integers(2, 48))
def test_vision_indices_equal_hf(grids, side):
    torch = load_torch()
    from transformers import vision_utils

    grid = torch.tensor([(t, 2 * h, 2 * w) for t, h, w in grids])
    units = positions.units(grid.numpy()).tolist()
    index, weight = vision_utils.get_vision_interpolation_indices_and_weights(
        grid, side, align_corners=True, spatial_merge_size=2
    )
    ours = [positions.interpolation(h, w, 2, side) for h, w in units]
    np.testing.assert_array_equal(np.concatenate([i for i, _ in ours]), index.numpy())
    np.testing.assert_array_equal(np.concatenate([w for _, w in ours]), weight.numpy())
    where = vision_utils.get_vision_position_ids(grid, 2)
    ours = np.concatenate([positions.patch_positions(h, w, 2) for h, w in units])
    np.testing.assert_array_equal(ours, where.numpy())


@pytest.mark.parity
def test_vision_indices_of_another_table_differ_from_hf():
    torch = load_torch()
    from transformers import vision_utils

    index, _ = vision_utils.get_vision_interpolation_indices_and_weights(
        torch.tensor([[1, 4, 6]]), 8, align_corners=True, spatial_merge_size=2
    )
    assert (positions.interpolation(4, 6, 2, 9)[0] != index.numpy()).any()
