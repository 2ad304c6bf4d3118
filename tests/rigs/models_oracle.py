"""Random prompts with images and videos: `Prompts` for our model, tensors for transformers."""

import dataclasses
import functools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hf import load_torch

from evr1.models import load_model
from evr1.models.io import hf, safetensors
from evr1.models.tree import flatten
from evr1.types import Prompts, VisionInput

# Half the compile time; the numbers do not change beyond rounding.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

IMAGE, VIDEO, START, END, VOCAB = 90, 91, 92, 93, 96

CONFIG = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
            "rope_type": "default",
        },
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 2],
    },
}
SIDE, VALUES, MERGE = 6, 96, 2


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One prompt: its tokens and media.

    Attributes:
        tokens: int32[P].
        positions: int32[3, P].
        media: (kind, (t, h, w), uint8[t*h*w, C]) in order of appearance.
        completions: int32[N, R].
    """

    tokens: np.ndarray
    positions: np.ndarray
    media: tuple
    completions: np.ndarray


def prompt(
    rng: np.random.Generator, parts: Sequence[int | tuple], completions: tuple[int, int] = (2, 5)
) -> Prompt:
    """A random prompt; `parts` are text lengths and ("image" | "video", (t, h, w)) in order."""
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
        for frame in range(t):
            if kind == "video":
                text([50 + frame])  # stands for the timestamp
            text([START])
            for i in range(h // MERGE):
                for j in range(w // MERGE):
                    tokens.append(IMAGE if kind == "image" else VIDEO)
                    positions.append((at, at + i, at + j))
            at += max(h, w) // MERGE
            text([END])
    answers = rng.integers(0, IMAGE, completions).astype(np.int32)
    return Prompt(
        np.array(tokens, np.int32), np.array(positions, np.int32).T, tuple(media), answers
    )


def gap(got: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


CASES = {
    "text": (7,),
    "image": (3, ("image", (1, 4, 6)), 2),
    "video of three frames": (2, ("video", (3, 4, 4)), 5),
    "two videos and an image": (
        1,
        ("video", (2, 2, 4)),
        ("image", (1, 6, 4)),
        3,
        ("video", (1, 2, 2)),
        2,
    ),
}


def prompts(cases: Sequence[str] = tuple(CASES), **shape: Any) -> list[Prompt]:
    """The prompts of `CASES`, together a ragged batch."""
    rng = np.random.default_rng(0)
    return [prompt(rng, CASES[case], **shape) for case in cases]


def on_device(tree: Any) -> Any:
    """The batch as a jitted function sees it: for what is closed over, or called without jit."""
    return jax.tree.map(jnp.asarray, tree)


def pack(
    prompts: Sequence[Prompt], row_patches: int = 24, prompt_tokens: int = 0, rows: int = 0
) -> tuple[Prompts, np.ndarray]:
    """The batch of these prompts, frames packed into rows, and the completions int32[G, N, R]."""
    length = max(prompt_tokens, *(len(p.tokens) for p in prompts))
    g = len(prompts)
    packed = [_rows(p.media, row_patches) for p in prompts]
    rows = max(rows, *(len(r) for r in packed))
    vision = VisionInput(
        np.zeros((g, rows, row_patches, VALUES), np.uint8),
        np.zeros((g, rows, row_patches), np.int32),
        np.zeros((g, rows, row_patches, 2), np.int32),
        np.zeros((g, rows, row_patches, 4), np.int32),
        np.zeros((g, rows, row_patches, 4), np.float32),
        np.zeros((g, rows, row_patches), bool),
    )
    out = Prompts(
        np.zeros((g, length), np.int32),
        np.zeros((g, 3, length), np.int32),
        np.array([len(p.tokens) for p in prompts], np.int32),
        np.array([p.positions.max() + 1 for p in prompts], np.int32),
        np.full((g, length), -1, np.int32),
        vision,
    )
    for i, p in enumerate(prompts):
        n = len(p.tokens)
        out.tokens[i, :n], out.positions[i, :, :n] = p.tokens, p.positions
        places = []
        for f, row in enumerate(packed[i]):
            at = 0
            for segment, (kind, patches, h, w) in enumerate(row, 1):
                s = slice(at, at + h * w)
                vision.patches[i, f, s], vision.segment_ids[i, f, s] = patches, segment
                vision.positions[i, f, s], vision.is_image[i, f, s] = _order(h, w), kind == "image"
                index, weight = _bilinear(h, w)
                vision.interp_index[i, f, s], vision.interp_weight[i, f, s] = index, weight
                first = (f * row_patches + at) // MERGE**2
                places += range(first, first + h * w // MERGE**2)
                at += h * w
        out.visual_index[i, :n][np.isin(p.tokens, (IMAGE, VIDEO))] = places
    return out, np.stack([p.completions for p in prompts])


def _rows(media: tuple, row_patches: int) -> list[list]:
    rows, room = [], 0
    for kind, (t, h, w), patches in media:
        for frame in np.split(patches, t):
            if h * w > room:
                rows.append([])
                room = row_patches
            rows[-1].append((kind, frame, h, w))
            room -= h * w
    return rows


def _order(h: int, w: int) -> np.ndarray:
    """(row, column) of every patch in merge order."""
    grid = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1)
    grid = grid.reshape(h // MERGE, MERGE, w // MERGE, MERGE, 2)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, 2)


def _bilinear(h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    at = _order(h, w) * (SIDE - 1) / np.maximum(np.array([h, w]) - 1, 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, SIDE - 1), at - low
    index, weight = [], []
    for rows, wr in ((low[:, 0], 1 - part[:, 0]), (high[:, 0], part[:, 0])):
        for cols, wc in ((low[:, 1], 1 - part[:, 1]), (high[:, 1], part[:, 1])):
            index.append(rows * SIDE + cols)
            weight.append(wr * wc)
    return np.stack(index, -1), np.stack(weight, -1)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 weight of this name in every model made here; the same in all NumPy versions.

    Norms and biases are random too, so that none is a no-op.
    """
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    unit = ((raw >> 40) / 2**24 - 0.5).astype(np.float32).reshape(shape) * 12**0.5
    if name.endswith("A_log"):
        return unit - 2  # a memory of some ten tokens
    if len(shape) == 1:
        return (0.1 * unit + ("norm" in name and name.endswith("weight"))).astype(np.float32)
    fan_in = shape[-1] if ".experts." in name else np.prod(shape[1:])
    return unit * np.float32(fan_in**-0.5)


def config(*, tied: bool = False, **text: Any) -> dict:
    """`CONFIG` with changes."""
    raw = json.loads(json.dumps(CONFIG))
    raw["tie_word_embeddings"] = tied
    raw["text_config"].update(text)
    return raw


def write_hf_dir(path: Path, raw: dict) -> Path:
    """A HF directory of this config with the weights of `weight`, made without torch."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(raw))
    model = load_model(str(path))
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    tensors = [
        (name, w.hf_shape(shapes[w.path][1:] if w.is_stacked else shapes[w.path]))
        for w in model.weights()
        for name in hf.hf_names(w, shapes[w.path])
    ]
    f32 = np.dtype(np.float32)
    safetensors.write(
        path / "model.safetensors",
        [(name, shape, f32) for name, shape in tensors],
        (weight(name, shape) for name, shape in tensors),
    )
    return path


def hf_model(raw: dict) -> Any:
    """The transformers model of this config with the weights of `weight`."""
    torch = load_torch()
    import transformers

    family = raw["architectures"][0].removesuffix("ForConditionalGeneration")
    hf_config = getattr(transformers, family + "Config")(**json.loads(json.dumps(raw)))
    hf_config._attn_implementation = "eager"
    model = getattr(transformers, raw["architectures"][0])(hf_config).eval().float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weight(name, tuple(p.shape))))
    return model


def hf_inputs(p: Prompt, completion: np.ndarray) -> dict:
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
            pixels = np.concatenate([m[2] for m in mine]).astype(np.float32)
            inputs["pixel_values" + suffix] = torch.from_numpy((pixels / 255 - 0.5) / 0.5)
            inputs[kind + "_grid_thw"] = torch.tensor([m[1] for m in mine])
    return inputs
