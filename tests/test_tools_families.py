"""The two commands on Qwen2-VL and Qwen2.5-VL against transformers' forward pass."""

import json

import families_oracle as oracle
import numpy as np
import pytest
import tools_rig as rig
from hf import load_torch
from test_processor_families import directory  # noqa: F401  a fixture

from evr1.data.processor import Processor

torch = load_torch()
generate = rig.load("generate")
score = rig.load("score_completions")


@pytest.mark.parity
def test_commands_equal_transformers(directory, tmp_path):  # noqa: F811
    processor = Processor.from_hf(str(directory))
    raw = oracle.config(directory.name)
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    fields = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    for name, field in zip(names, fields, strict=True):
        raw[field] = processor.tokenizer.token_to_id(f"<|{name}|>")
    raw["vocab_size"] = processor.tokenizer.get_vocab_size()
    raw["vision_config"] |= {"patch_size": 14}
    if directory.name == "qwen2_5_vl":
        raw["vision_config"]["window_size"] = 56
    reference = oracle.hf_model(raw)
    oracle.write_hf_dir(directory, raw, reference)
    (directory / "config.json").write_text(json.dumps(raw))

    flags = ["--model", str(directory), "--media_dir", rig.write_media(tmp_path), *rig.BUDGETS]
    flags += ["--prompt", "raw"]
    rows = rig.write_rows(tmp_path / "rows.jsonl", rig.QUESTIONS)
    drawn, scored = tmp_path / "drawn.jsonl", tmp_path / "scored.jsonl"
    options = ["--n", "1", "--max_tokens", "6", "--seed", "1", "--rows", rows, "--out", str(drawn)]
    assert generate.main([*flags, *options]) == 0
    assert score.main([*flags, "--rows", str(drawn), "--out", str(scored)]) == 0
    for one, other in zip(rig.read(drawn), rig.read(scored), strict=True):
        np.testing.assert_allclose(one["logprobs"], other["logprobs"], atol=1e-4)
        if not np.isin(one["prompt_token_ids"], processor.banned_ids).any():
            ids = torch.tensor([one["prompt_token_ids"] + one["completion_token_ids"]])
            with torch.no_grad():
                logits = reference(input_ids=ids).logits[0, len(one["prompt_token_ids"]) - 1 : -1]
            taken = torch.tensor(one["completion_token_ids"])[:, None]
            theirs = torch.log_softmax(logits, -1).gather(-1, taken)[:, 0].numpy()
            np.testing.assert_allclose(other["logprobs"], theirs, atol=1e-4)
