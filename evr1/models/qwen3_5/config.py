"""Sizes of a Qwen3.5 model, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from evr1.models import rope
from evr1.models.fields import check, require, rotary, section
from evr1.models.qwen3_vl.config import (
    GELU,
    TEXT_SIZES,
    VISION_SIZES,
    VisionConfig,
    vision_config,
)

KINDS = ("linear_attention", "full_attention")
DELTA_SIZES = ("linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim")
DELTA_SIZES += ("linear_num_key_heads", "linear_num_value_heads")
EXPERT_SIZES = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
EXPERT_SIZES += ("shared_expert_intermediate_size",)


@dataclasses.dataclass(frozen=True)
class DeltaConfig:
    """The gated delta net of a layer."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int

    @property
    def channels(self) -> int:
        """Of the convolution: queries, keys and values side by side."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
    """The feed-forward of a mixture of experts."""

    count: int
    per_token: int  # experts that work on a token
    mlp_width: int  # of each expert
    shared_width: int  # of the expert that works on every token


@dataclasses.dataclass(frozen=True)
class Config:
    """A Qwen3.5 model."""

    layers: int
    pattern: tuple[bool, ...]  # of one block: true where a layer has full attention
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int  # of a head's channels, the first ones
    delta: DeltaConfig
    experts: ExpertsConfig | None  # None: every layer has one feed-forward of `mlp_width`
    vocab_size: int
    norm_eps: float
    rope_theta: float
    rope_sections: tuple[int, int, int]
    attention_bias: bool
    tied: bool
    init_scale: float
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    vision: VisionConfig

    @property
    def blocks(self) -> int:
        """Repetitions of the pattern."""
        return self.layers // len(self.pattern)

    @property
    def attention_layers(self) -> int:
        """Layers with full attention; the others have a gated delta net."""
        return self.blocks * sum(self.pattern)

    @property
    def state_flops(self) -> int:
        """Operations of a token on recurrent states: decay, two reads and a correction a head."""
        d = self.delta
        layers = self.layers - self.attention_layers
        return layers * 7 * d.value_heads * d.key_dim * d.value_dim

    @property
    def experts_per_token(self) -> int:
        """Experts that work on a token; 0: every token meets all of a layer."""
        return self.experts.per_token if self.experts else 0

    @property
    def routed_share(self) -> float:
        """The share of the experts that works on a token."""
        return self.experts.per_token / self.experts.count if self.experts else 0.0

    @property
    def rope_freqs(self) -> np.ndarray:
        """Inverse frequencies of the text model."""
        return rope.frequencies(self.rotary_dim, self.rope_theta)

    @property
    def rope_axes(self) -> np.ndarray:
        """The position axis (t, h, w) of each frequency."""
        return rope.interleaved_axes(self.rope_sections, self.rotary_dim // 2)


def parse(hf: Mapping[str, Any]) -> Config:
    """The sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    text = section(hf, "text_config", (*TEXT_SIZES, *DELTA_SIZES, *EXPERT_SIZES))
    is_moe = hf.get("model_type") == "qwen3_5_moe"
    experts = _experts(text) if is_moe else None
    tower = section(hf, "vision_config", VISION_SIZES)
    turn = rotary(text, "text_config")
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
    require("vision_config.hidden_act", tower.get("hidden_act", GELU), GELU)
    layers, head_dim = (
        text.get("num_hidden_layers", 40 if is_moe else 32),
        text.get("head_dim", 256),
    )
    part = turn.get("partial_rotary_factor", text.get("partial_rotary_factor", 0.25))
    sizes = Config(
        layers=layers,
        pattern=_pattern(text, layers),
        width=text.get("hidden_size", 2048 if is_moe else 4096),
        mlp_width=experts.mlp_width if experts else text.get("intermediate_size", 12288),
        heads=text.get("num_attention_heads", 16),
        kv_heads=text.get("num_key_value_heads", 2 if is_moe else 4),
        head_dim=head_dim,
        rotary_dim=int(head_dim * part),
        delta=_delta(text),
        experts=experts,
        vocab_size=text.get("vocab_size", 248320),
        norm_eps=text.get("rms_norm_eps", 1e-6),
        rope_theta=turn["rope_theta"],
        rope_sections=tuple(turn.get("mrope_section", (11, 11, 10))),
        attention_bias=bool(text.get("attention_bias", False)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        init_scale=text.get("initializer_range", 0.02),
        image_token_id=hf.get("image_token_id", 248056),
        video_token_id=hf.get("video_token_id", 248057),
        vision_start_token_id=hf.get("vision_start_token_id", 248053),
        vision_end_token_id=hf.get("vision_end_token_id", 248054),
        vision=vision_config({**tower, "deepstack_visual_indexes": ()}),
    )
    check(sizes)
    return sizes


def shortest_period(kinds: tuple[bool, ...]) -> tuple[bool, ...]:
    """The shortest pattern whose whole repetitions give `kinds`.

    >>> shortest_period((False, True, False, True))
    (False, True)
    >>> shortest_period((False, False, True))
    (False, False, True)
    """
    for size in range(1, len(kinds)):
        if len(kinds) % size == 0 and kinds == kinds[:size] * (len(kinds) // size):
            return kinds[:size]
    return kinds


def _pattern(text: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    every = text.get("full_attention_interval", 4)
    kinds = text.get("layer_types") or [KINDS[(i + 1) % every == 0] for i in range(layers)]
    if len(kinds) != layers or not set(kinds) <= set(KINDS):
        raise ValueError(
            f"config.json: text_config.layer_types={kinds!r}; give one of {' or '.join(KINDS)} for"
            f" each of num_hidden_layers={layers}"
        )
    return shortest_period(tuple(kind == KINDS[1] for kind in kinds))


def _delta(text: Mapping[str, Any]) -> DeltaConfig:
    keys, values = text.get("linear_num_key_heads", 16), text.get("linear_num_value_heads", 32)
    if values % keys:
        raise ValueError(
            f"config.json: text_config.linear_num_value_heads={values} is no multiple of"
            f" linear_num_key_heads={keys}; give a multiple"
        )
    return DeltaConfig(
        key_heads=keys,
        value_heads=values,
        key_dim=text.get("linear_key_head_dim", 128),
        value_dim=text.get("linear_value_head_dim", 128),
        conv_width=text.get("linear_conv_kernel_dim", 4),
    )


def _experts(text: Mapping[str, Any]) -> ExpertsConfig:
    count, per_token = text.get("num_experts", 256), text.get("num_experts_per_tok", 8)
    if per_token > count:
        raise ValueError(
            f"config.json: text_config.num_experts_per_tok={per_token} exceeds num_experts={count};"
            " lower it"
        )
    return ExpertsConfig(
        count=count,
        per_token=per_token,
        mlp_width=text.get("moe_intermediate_size", 512),
        shared_width=text.get("shared_expert_intermediate_size", 512),
    )
