"""Random prompts of Qwen2-VL and Qwen2.5-VL: `Prompts` for our model, tensors for transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models_oracle as oracle
import numpy as np
from hf import load_torch
from models_oracle import END, IMAGE, MERGE, START, VALUES, VIDEO, Prompt, weight

from evr1.types import Prompts

TEXT = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}
TOWER = {"depth": 3, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2}
TOWERS = {
    "qwen2_vl": TOWER | {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
    "qwen2_5_vl": TOWER
    | {
        "hidden_size": 32,
        "out_hidden_size": 64,
        "intermediate_size": 40,
        "window_size": 16,  # 4 x 4 patches
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
}
SECONDS = 1.25  # of a temporal patch

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])

# Text lengths and media; 10 x 6 patches cut windows off on both sides.
CASES = {
    "text": (7,),
    "image": (3, ("image", (1, 10, 6)), 2),
    "video": (2, ("video", (3, 4, 6)), 5),
    "two videos and an image": (
        1,
        ("video", (2, 2, 4)),
        ("image", (1, 6, 8)),
        3,
        ("video", (1, 2, 2)),
        2,
    ),
}


def config(family: str, *, tied: bool = False) -> dict[str, Any]:
    """A config.json as on the hub: the text model's sizes stand at the top."""
    return json.loads(
        json.dumps(
            {
                "model_type": family,
                "image_token_id": IMAGE,
                "video_token_id": VIDEO,
                "vision_start_token_id": START,
                "vision_end_token_id": END,
                "tie_word_embeddings": tied,
                "vision_config": {"model_type": family, **TOWERS[family]},
                **TEXT,
            }
        )
    )


def prompt(rng: np.random.Generator, parts: Sequence[int | tuple], family: str) -> Prompt:
    """A random prompt with two completions of five tokens."""
    tokens, positions, media, at = [], [], [], 0

    def text(ids):
        nonlocal at
        tokens.extend(ids)
        positions.extend([(at + i,) * 3 for i in range(len(ids))])
        at += len(ids)

    for part in parts:
        if isinstance(part, int):
            text(rng.integers(0, IMAGE, part).tolist())
            continue
        kind, (t, h, w) = part
        media.append((kind, (t, h, w), rng.integers(0, 256, (t * h * w, VALUES), np.uint8)))
        pace = 2 * SECONDS if family == "qwen2_5_vl" and kind == "video" else 1
        text([START])
        for frame in range(t):
            for i in range(h // MERGE):
                for j in range(w // MERGE):
                    tokens.append(IMAGE if kind == "image" else VIDEO)
                    positions.append((at + int(frame * pace), at + i, at + j))
        at += max(h, w) // MERGE
        text([END])
    answers = rng.integers(0, IMAGE, (2, 5)).astype(np.int32)
    return Prompt(
        np.array(tokens, np.int32), np.array(positions, np.int32).T, tuple(media), answers
    )


def prompts(family: str, cases: Sequence[str] = tuple(CASES)) -> list[Prompt]:
    """The prompts of `CASES`, together a ragged batch."""
    rng = np.random.default_rng(0)
    return [prompt(rng, CASES[case], family) for case in cases]


def pack(items: Sequence[Prompt], row_patches: int = 64) -> tuple[Prompts, np.ndarray]:
    """As in `models_oracle`; completions go on from the last text token."""
    batch, completions = oracle.pack(items, row_patches)
    after = np.array([p.positions[0, -1] + 1 for p in items], np.int32)
    return batch._replace(next_positions=after), completions


def hf_model(raw: dict) -> Any:
    """The transformers model of this config with random weights, norms and biases too."""
    torch = load_torch()
    import transformers

    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[raw["model_type"]]
    hf_config = getattr(transformers, name + "Config")(**json.loads(json.dumps(raw)))
    hf_config._attn_implementation = "eager"
    model = getattr(transformers, name + "ForConditionalGeneration")(hf_config).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(key, tuple(p.shape))))
            if key.endswith("ln_q.weight"):
                p.add_(1)
    return model


def write_hf_dir(path: Path, raw: dict, model: Any) -> Path:
    """What transformers saves of the model, with the config as on the hub."""
    model.save_pretrained(path)
    (path / "config.json").write_text(json.dumps(raw))
    return path


def hf_inputs(p: Prompt, completion: np.ndarray, family: str) -> dict:
    """Keyword arguments of transformers' forward for the prompt followed by one completion."""
    import torch

    tokens = np.concatenate([p.tokens, completion]).astype(np.int64)
    kinds = np.select([tokens == IMAGE, tokens == VIDEO], [1, 2], 0)
    inputs = {
        "input_ids": torch.from_numpy(tokens)[None],
        "mm_token_type_ids": torch.from_numpy(kinds)[None],
    }
    for kind, suffix in (("image", ""), ("video", "_videos")):
        mine = [m for m in p.media if m[0] == kind]
        if mine:
            pixels = np.concatenate([m[2] for m in mine]).reshape(-1, 3, VALUES // 3) / 255
            pixels = (pixels - MEAN[:, None]) / STD[:, None]
            pixels = pixels.reshape(-1, VALUES).astype(np.float32)
            inputs["pixel_values" + suffix] = torch.from_numpy(pixels)
            inputs[kind + "_grid_thw"] = torch.tensor([m[1] for m in mine])
            if kind == "video" and family == "qwen2_5_vl":
                inputs["second_per_grid_ts"] = torch.tensor([SECONDS] * len(mine))
    return inputs
