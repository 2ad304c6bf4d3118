"""Sizes of a Qwen3-VL model, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from evr1.models import rope
from evr1.models.fields import check, indices, require, rotary, section
from evr1.pixels import Statistics


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The vision tower."""

    depth: int
    width: int
    mlp_width: int
    heads: int
    patch_values: int  # C
    patch_shape: tuple[int, int, int, int]  # channel, time, row, column
    merge: int
    out_width: int
    table: int  # rows of the learned position table
    rope_theta: float
    taps: tuple[int, ...]  # DeepStack: blocks whose output is handed on
    pixels: Statistics
    init_scale: float
    window: int = 0  # patches on a side of an attention window; 0: whole frames
    full_blocks: tuple[int, ...] = ()  # that attend beyond a window


@dataclasses.dataclass(frozen=True)
class Moe:
    """The mixture of experts in the place of some layers' feed-forward."""

    count: int
    per_token: int
    mlp_width: int  # of an expert
    layers: tuple[int, ...]  # that have experts; the others are dense
    is_swapped: bool  # in the HF files kernels are [E, out, in]


@dataclasses.dataclass(frozen=True)
class Config:
    """A model with the text model of Qwen3-VL, or with that of Qwen2-VL."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    rope_sections: tuple[int, int, int]
    attention_bias: bool  # of q, k and v
    tied: bool
    init_scale: float
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    vision: Any  # VisionConfig of the family
    output_bias: bool = False  # of the attention's output projection
    qk_norm: bool = True
    rope_interleaved: bool = True
    moe: Moe | None = None

    @property
    def attention_layers(self) -> int:
        """Layers that keep keys and values: all."""
        return self.layers

    @property
    def state_flops(self) -> int:
        """Operations of a token on recurrent states: there are none."""
        return 0

    @property
    def experts_per_token(self) -> int:
        """Experts that work on a token; 0: every token meets all of a layer."""
        return self.moe.per_token if self.moe else 0

    @property
    def routed_share(self) -> float:
        """The share of the experts that works on a token."""
        return self.moe.per_token / self.moe.count if self.moe else 0.0

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """The layers that have no experts."""
        sparse = self.moe.layers if self.moe else ()
        return tuple(i for i in range(self.layers) if i not in sparse)

    @property
    def rope_freqs(self) -> np.ndarray:
        """Inverse frequencies of the text model."""
        return rope.frequencies(self.head_dim, self.rope_theta)

    @property
    def rope_axes(self) -> np.ndarray:
        """The position axis (t, h, w) of each frequency."""
        if not self.rope_interleaved:
            return np.repeat(np.arange(3, dtype=np.int32), self.rope_sections)
        return rope.interleaved_axes(self.rope_sections, self.head_dim // 2)


def parse(hf: Mapping[str, Any]) -> Config:
    """The sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    text = section(hf, "text_config", TEXT_SIZES)
    tower = section(hf, "vision_config", VISION_SIZES)
    turn = rotary(text, "text_config", theta=500000.0)
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
    require("vision_config.hidden_act", tower.get("hidden_act", GELU), GELU)
    heads = text.get("num_attention_heads", 32)
    sizes = Config(
        layers=text.get("num_hidden_layers", 32),
        width=text.get("hidden_size", 4096),
        mlp_width=text.get("intermediate_size", 22016),
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim", 128),
        vocab_size=text.get("vocab_size", 151936),
        norm_eps=text.get("rms_norm_eps", 1e-6),
        rope_theta=turn["rope_theta"],
        rope_sections=tuple(turn.get("mrope_section", (24, 20, 20))),
        attention_bias=bool(text.get("attention_bias", False)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        init_scale=text.get("initializer_range", 0.02),
        image_token_id=hf.get("image_token_id", 151655),
        video_token_id=hf.get("video_token_id", 151656),
        vision_start_token_id=hf.get("vision_start_token_id", 151652),
        vision_end_token_id=hf.get("vision_end_token_id", 151653),
        vision=vision_config(tower),
        output_bias=bool(text.get("attention_bias", False)),
    )
    check(sizes)
    return sizes


GELU = "gelu_pytorch_tanh"


TEXT_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
TEXT_SIZES += ("head_dim", "vocab_size")
VISION_SIZES = ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size")
VISION_SIZES += ("in_channels", "temporal_patch_size", "spatial_merge_size", "out_hidden_size")
VISION_SIZES += ("num_position_embeddings",)


def vision_config(hf: Mapping[str, Any]) -> VisionConfig:
    """The vision tower of a config.json's vision_config."""
    patch, time = hf.get("patch_size", 16), hf.get("temporal_patch_size", 2)
    shape = (hf.get("in_channels", 3), time, patch, patch)
    depth, taps = hf.get("depth", 27), indices(hf, "deepstack_visual_indexes", (8, 16, 24))
    if len(set(taps)) < len(taps) or not set(taps) <= set(range(depth)):
        raise ValueError(
            f"config.json: vision_config.deepstack_visual_indexes={list(taps)}; give distinct"
            f" blocks from 0 to {depth - 1}"
        )
    return VisionConfig(
        depth=depth,
        width=hf.get("hidden_size", 1152),
        mlp_width=hf.get("intermediate_size", 4304),
        heads=hf.get("num_heads", 16),
        patch_values=int(np.prod(shape)),
        patch_shape=shape,
        merge=hf.get("spatial_merge_size", 2),
        out_width=hf.get("out_hidden_size", 3584),
        table=hf.get("num_position_embeddings", 2304),
        rope_theta=rotary(hf, "vision_config", "axial")["rope_theta"],
        taps=taps,
        pixels=Statistics.read(hf, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        init_scale=hf.get("initializer_range", 0.02),
    )
