"""Sizes of a Qwen2-VL model, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from evr1.models.fields import check, require, rotary, section
from evr1.models.qwen3_vl.config import Config
from evr1.pixels import Statistics

# What OpenAI's CLIP normalizes pixels by; the checkpoints were trained with it.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower of Qwen2-VL or Qwen2.5-VL.

    Attributes:
        is_gated: blocks of Qwen2.5-VL: RMS norm and SwiGLU in place of layer norm and quick GELU.
        window: patches on a side of an attention window; 0: no windows.
        full_blocks: blocks that attend beyond the window, to their whole frame.
    """

    depth: int
    width: int
    mlp_width: int
    heads: int
    patch_values: int  # C
    patch_shape: tuple[int, int, int, int]  # channel, time, row, column
    merge: int
    out_width: int
    rope_theta: float
    is_gated: bool
    window: int
    full_blocks: tuple[int, ...]
    pixels: Statistics
    init_scale: float
    taps: tuple[int, ...] = ()  # there is no DeepStack
    table: int = 1  # there is no learned position table; batches are built for one of one row


def parse(hf: Mapping[str, Any]) -> Config:
    """The sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    vision = section(hf, "vision_config", (*_SIZES, "embed_dim"))
    require("vision_config.hidden_act", vision.get("hidden_act", "quick_gelu"), "quick_gelu")
    width = vision.get("embed_dim", 1280)
    tower = VisionConfig(
        width=width,
        mlp_width=int(width * vision.get("mlp_ratio", 4)),
        out_width=vision.get("hidden_size", 3584),
        is_gated=False,
        window=0,
        full_blocks=(),
        **common(vision),
    )
    return parse_text(hf, tower)


def common(vision: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the towers of Qwen2-VL and Qwen2.5-VL read alike."""
    patch, time = vision.get("patch_size", 14), vision.get("temporal_patch_size", 2)
    shape = (vision.get("in_channels", vision.get("in_chans", 3)), time, patch, patch)
    return {
        "depth": vision.get("depth", 32),
        "heads": vision.get("num_heads", 16),
        "patch_values": int(np.prod(shape)),
        "patch_shape": shape,
        "merge": vision.get("spatial_merge_size", 2),
        "rope_theta": rotary(vision, "vision_config", "axial")["rope_theta"],
        "pixels": Statistics.read(vision, mean=PIXEL_MEAN, std=PIXEL_STD),
        "init_scale": vision.get("initializer_range", 0.02),
    }


def parse_text(hf: Mapping[str, Any], vision: VisionConfig) -> Config:
    """The whole model's sizes; those of the text model stand in text_config or beside it.

    Args:
        hf: the config.json.
        vision: of its tower.

    Raises:
        ValueError: see `parse`.
    """
    outer = hf if hf.get("text_config") else {**hf, "text_config": hf}
    text = section(outer, "text_config", _TEXT_SIZES)
    turn = rotary(text, "text_config", theta=1000000.0)
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
    if text.get("use_sliding_window"):
        raise ValueError(
            "config.json: use_sliding_window=true is not supported; take a model without"
        )
    width, heads = text.get("hidden_size", 8192), text.get("num_attention_heads", 64)
    sections = tuple(turn.get("mrope_section", (16, 24, 24)))
    if width % heads or 2 * sum(sections) != width // heads:
        raise ValueError(
            f"config.json: mrope_section={list(sections)} does not turn half of the"
            f" {width}/{heads} channels of a head; copy the file again"
        )
    sizes = Config(
        layers=text.get("num_hidden_layers", 80),
        width=width,
        mlp_width=text.get("intermediate_size", 29568),
        heads=heads,
        kv_heads=text.get("num_key_value_heads", 8) or heads,
        head_dim=width // heads,
        vocab_size=text.get("vocab_size", 152064),
        norm_eps=text.get("rms_norm_eps", 1e-5),
        rope_theta=turn["rope_theta"],
        rope_sections=sections,
        attention_bias=True,
        tied=bool(hf.get("tie_word_embeddings") or text.get("tie_word_embeddings")),
        init_scale=text.get("initializer_range", 0.02),
        image_token_id=hf.get("image_token_id", 151655),
        video_token_id=hf.get("video_token_id", 151656),
        vision_start_token_id=hf.get("vision_start_token_id", 151652),
        vision_end_token_id=hf.get("vision_end_token_id", 151653),
        vision=vision,
        output_bias=False,
        qk_norm=False,
        rope_interleaved=False,
    )
    check(sizes)
    return sizes


_TEXT_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
_TEXT_SIZES += ("vocab_size",)
_SIZES = ("depth", "hidden_size", "num_heads", "patch_size", "in_channels")
_SIZES += ("temporal_patch_size", "spatial_merge_size")
