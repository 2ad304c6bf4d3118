"""Both commands and the conversion on every model type, against what transformers makes of the
same directory."""

import re

import kinds
import numpy as np
import pytest
import small_models
import tools_rig as rig
from hf import load_torch

from evr1.data.media import patches, video
from evr1.data.processor import Processor
from evr1.data.records import Budgets
from evr1.models import load_model
from evr1.models.io import hf, safetensors

torch = load_torch()
generate = rig.load("generate")
score = rig.load("score_completions")
convert = rig.load("convert_checkpoint")
pytestmark = pytest.mark.parity

TOKENS = 8
BUDGETS = Budgets(video_fps=2, video_max_frames=4, video_max_pixels=4096, image_max_pixels=4096)
ROWS = [
    {
        "problem": "<video> and <image> then <video> what moves left?",
        "videos": ["a.mp4", "a.mp4"],
        "images": ["b.png"],
    },
]


@pytest.fixture(
    scope="module", params=kinds.families(small_models.FAMILIES, ("qwen2_5_vl", "qwen3_5"))
)
def made(request, tmp_path_factory):
    return small_models.make(request.param, tmp_path_factory.mktemp("hf") / request.param)


def _inputs(made, row, media) -> dict:
    """What transformers' processor, read back from the directory, makes of the row."""
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    geometry = Processor.from_hf(str(made.path)).geometry
    content = [
        {"type": p} if p in ("image", "video") else {"type": "text", "text": p}
        for p in re.split("<(image|video)>", row["problem"])
        if p
    ]
    processor = AutoProcessor.from_pretrained(made.path)
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    given = {"text": [chat], "return_tensors": "pt", "return_mm_token_type_ids": True}
    images = [patches.load_image(media / f, BUDGETS, geometry) for f in row["images"]]
    clips = [video.decode(media / f, BUDGETS, geometry) for f in row["videos"]]
    header = video.read_header(media / row["videos"][0])
    given |= {"images": [m.frames[0] for m in images], "videos": [m.frames for m in clips]}
    given["video_metadata"] = [
        VideoMetadata(
            total_num_frames=header.frames,
            fps=header.fps,
            frames_indices=np.round(m.timestamps * header.fps).astype(int).tolist(),
        )
        for m in clips
    ]
    batch = dict(processor(**given, do_resize=False, do_sample_frames=False))
    batch.pop("video_metadata", None)
    return batch


def test_commands_equal_transformers(made, tmp_path):
    """Prompt ids, greedy tokens and their log-probabilities. Negative twin: brighter pixels give
    others."""
    flags = ["--model", str(made.path), "--media_dir", rig.write_media(tmp_path), *rig.BUDGETS]
    flags += ["--prompt", "raw"]
    rows = rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    drawn, scored = tmp_path / "drawn.jsonl", tmp_path / "scored.jsonl"
    options = ["--temperature", "0", "--max_tokens", str(TOKENS), "--rows", rows]
    assert generate.main([*flags, *options, "--out", str(drawn)]) == 0
    assert score.main([*flags, "--rows", str(drawn), "--out", str(scored)]) == 0
    ours = Processor.from_hf(str(made.path))
    for one, other in zip(rig.read(drawn), rig.read(scored), strict=True):
        batch = _inputs(made, one, tmp_path)
        ids, completion = batch["input_ids"][0].tolist(), one["completion_token_ids"]
        assert one["prompt_token_ids"] == other["prompt_token_ids"] == ids
        options = {"do_sample": False, "max_new_tokens": TOKENS}
        options |= {"eos_token_id": list(ours.end_ids), "suppress_tokens": list(ours.banned_ids)}
        with torch.no_grad():
            theirs = made.model.generate(**batch, **options)[0, len(ids) :].tolist()
        assert completion == theirs
        want = _logprobs(made.model, batch, completion)
        np.testing.assert_allclose(other["logprobs"], want, atol=1e-4)
        batch["pixel_values"] = batch["pixel_values"] + 0.5
        assert np.abs(_logprobs(made.model, batch, completion) - want).max() > 1e-3


def _logprobs(model, batch, completion) -> np.ndarray:
    tokens = torch.cat([batch["input_ids"], torch.tensor([completion])], 1)
    kinds = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, len(completion)))
    whole = batch | {"input_ids": tokens, "mm_token_type_ids": kinds}
    whole["attention_mask"] = torch.ones_like(tokens)
    with torch.no_grad():
        logits = model(**whole, use_cache=False).logits[0, -len(completion) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0].numpy()


def _fuse(path, out, model):
    """The directory with every layer's experts in one tensor, as on the hub."""
    out.mkdir()
    for file in hf.side_files(path):
        (out / file.name).write_bytes(file.read_bytes())
    tensors = {k: p.detach().numpy() for k, p in model.named_parameters()}
    listing = [(k, v.shape, v.dtype) for k, v in tensors.items()]
    safetensors.write(out / "model.safetensors", listing, tensors.values())
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conversion_gives_back_every_tensor(made, dtype, tmp_path):
    """Names, shapes and bytes as in the source, of several files and of one."""
    source = made.path
    if dtype == "bfloat16":
        source = tmp_path / "source"
        model = type(made.model).from_pretrained(made.path, dtype=torch.bfloat16)
        model.save_pretrained(source)
    elif made.path.name == "qwen3_5_moe":
        source = _fuse(made.path, tmp_path / "fused", made.model)
    _there_and_back(source, tmp_path)
    if dtype == "float32":
        loaded = type(made.model).from_pretrained(tmp_path / "back")
        for (name, a), b in zip(made.model.named_parameters(), loaded.parameters(), strict=True):
            assert torch.equal(a, b), name


def _there_and_back(source, root):
    middle, back = root / "orbax", root / "back"
    assert convert.main([f"--from_hf={source}", f"--to_orbax={middle}"]) == 0
    flags = [f"--from_orbax={middle}", f"--to_hf={back}", "--max_shard_bytes=100000"]
    assert convert.main(flags) == 0
    before, after = hf.entries(source), hf.entries(back)
    assert before.keys() == after.keys()
    for name, entry in before.items():
        assert entry.shape == after[name].shape, name
        assert entry.open().tobytes() == after[name].open().tobytes(), name


def test_exported_experts_keep_their_layout(tmp_path):
    """A trained model is written in the layout of the one that it began as."""
    made = small_models.make("qwen3_5_moe", tmp_path / "whole")
    source = _fuse(made.path, tmp_path / "fused", made.model)
    model = load_model(str(source))
    params = hf.load_params(source, model)
    hf.save_params(params, model, tmp_path / "out", source_dir=source, dtype="float32")
    assert hf.layout(tmp_path / "out") == hf.layout(source)
    assert any(name.endswith("experts.gate_up_proj") for name in hf.layout(source))
