"""evr1 score against the sampler's log-probabilities and transformers' own."""

import json
import pathlib

import numpy as np
import pytest
import tools_rig as rig
from hf import load_torch

from evr1.data import rows as data_rows
from evr1.data.processor import Processor

generate = rig.load("generate")
score = rig.load("score_completions")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The flags, and rows with completions of different lengths, given as text."""
    root = tmp_path_factory.mktemp("score")
    completions = ["<answer>3</answer>", "a somewhat longer answer: 3 digits", "17<|im_end|>"]
    rows = [{**q, "completion": c} for q, c in zip(rig.QUESTIONS, completions, strict=True)]
    flags = ["--model", rig.MODEL, "--media_dir", rig.write_media(root), *rig.BUDGETS]
    out = root / "out.jsonl"
    path = rig.write_rows(root / "rows.jsonl", rows)
    assert score.main([*flags, "--rows", path, "--prompt", "raw", "--out", str(out)]) == 0
    return root, flags, rows, out


def test_fields(files):
    _, _, rows, out = files
    processor = Processor.from_hf(rig.MODEL)
    (end,) = processor.tokenize("<|im_end|>")
    made = rig.read(out)
    assert [r["index"] for r in made] == [0, 1, 2]
    for given, row in zip(rows, made, strict=True):
        text = given["completion"].removesuffix("<|im_end|>")
        assert row["completion_token_ids"] == [*processor.tokenize(text), end]
        assert len(row["logprobs"]) == len(row["completion_token_ids"])
        assert row["completion"] == given["completion"]
        assert row["problem"] == given["problem"]


def test_scores_what_generate_drew(files):
    """Log-probabilities of both commands are the same quantity."""
    root, flags, _, _ = files
    rows = rig.write_rows(root / "questions.jsonl", rig.QUESTIONS)
    drawn, scored = root / "drawn.jsonl", root / "scored.jsonl"
    options = ["--n", "2", "--max_tokens", "12", "--temperature", "0.8", "--seed", "1"]
    assert generate.main([*flags, *options, "--rows", rows, "--out", str(drawn)]) == 0
    options = ["--temperature", "0.8", "--rows", str(drawn), "--out", str(scored)]
    assert score.main([*flags, *options]) == 0
    for ours, theirs in zip(rig.read(drawn), rig.read(scored), strict=True):
        assert ours["completion_token_ids"] == theirs["completion_token_ids"]
        assert ours["prompt_token_ids"] == theirs["prompt_token_ids"]
        np.testing.assert_allclose(ours["logprobs"], theirs["logprobs"], atol=1e-4)


def test_resumes(files, capsys):
    root, flags, rows, out = files
    want = rig.read(out)
    torn = root / "torn.jsonl"
    lines = out.read_text().splitlines(keepends=True)
    torn.write_text(lines[2] + lines[0] + lines[1][:30])
    path = rig.write_rows(root / "again.jsonl", rows)
    assert score.main([*flags, "--rows", path, "--prompt", "raw", "--out", str(torn)]) == 0
    assert "2 done before" in capsys.readouterr().out
    for got, row in zip(rig.read(torn), want, strict=True):
        np.testing.assert_allclose(got.pop("logprobs"), row.pop("logprobs"), atol=1e-5)
        assert got == row


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "completion: got None; give a text, or completion_token_ids"),
        ({"completion_token_ids": []}, "completion_token_ids: got []; give a list of ids"),
        ({"completion_token_ids": [1, 10**6]}, "got 1 to 1000000; the vocabulary has ids 0 to"),
    ],
)
def test_bad_rows_are_one_line(files, capsys, fields, message):
    root, flags, _, _ = files
    rows = rig.write_rows(root / "bad.jsonl", [{**rig.QUESTIONS[0], **fields}])
    assert score.main([*flags, "--rows", rows, "--out", str(root / "bad_out.jsonl")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "bad.jsonl:1" in error
    assert message in error


@pytest.mark.parity
def test_equals_transformers(files):
    """Prompt ids and log-probabilities, float32, from the mp4 file to the number."""
    torch = load_torch()
    from transformers import Qwen3VLForConditionalGeneration

    from evr1.data.media import patches, video
    from evr1.data.records import Budgets

    root, _, _, out = files
    reference = Qwen3VLForConditionalGeneration.from_pretrained(
        rig.MODEL, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    config = json.loads(pathlib.Path(rig.MODEL, "config.json").read_text())
    budgets = Budgets(video_fps=2, video_max_frames=4, video_max_pixels=4096, image_max_pixels=4096)
    processor = Processor.from_hf(rig.MODEL)
    media = {
        "videos": lambda: video.decode(root / "a.mp4", budgets, processor.geometry),
        "images": lambda: patches.load_image(root / "b.png", budgets, processor.geometry),
    }
    for row in rig.read(out):
        tokens = np.array(row["prompt_token_ids"] + row["completion_token_ids"])
        kinds = [config["image_token_id"], config["video_token_id"]]
        types = np.select([tokens == kinds[0], tokens == kinds[1]], [1, 2], 0)
        inputs = {
            "input_ids": torch.tensor(tokens)[None],
            "mm_token_type_ids": torch.tensor(types)[None],
        }
        for kind, suffix in (("images", ""), ("videos", "_videos")):
            if kind in row:
                pixels, grid = patches.patchify(media[kind](), processor.geometry)
                pixels = torch.from_numpy((pixels.astype(np.float32) / 255 - 0.5) / 0.5)
                inputs["pixel_values" + suffix] = pixels
                inputs[kind[:-1] + "_grid_thw"] = torch.tensor([grid])
        with torch.no_grad():
            logits = reference(**inputs).logits[0].double()
        start = len(row["prompt_token_ids"])
        full = logits[start - 1 : -1].log_softmax(-1)
        want = full[torch.arange(len(full)), torch.tensor(row["completion_token_ids"])]
        np.testing.assert_allclose(row["logprobs"], want.numpy(), atol=1e-4)
        assert np.abs(np.array(row["logprobs"][1:]) - want.numpy()[:-1]).max() > 0.1


def test_log_probabilities_that_are_none_are_told():
    row = data_rows.parse_row({"problem": "q", "answer": "a"}, 0, "r.jsonl:7")
    assert score._broken(row, np.array([-1.0, -2.0], np.float32)) == []
    assert score._broken(row, np.array([-1.0, np.nan, -np.inf], np.float32)) == [
        "not finite: r.jsonl:7 (0): log-probabilities of 2 of 3 tokens, the first after 1; they "
        "are null"
    ]
