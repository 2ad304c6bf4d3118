"""Sizes of a Qwen3.5 model, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.config import ModelConfig
from evr1.models.fields import check, norm_eps, require, rope_sections, rotary, section
from evr1.models.nn.experts import ExpertsConfig
from evr1.models.towers import qwen3

KINDS = ("linear_attention", "full_attention")
TEXT_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
TEXT_SIZES += ("head_dim", "vocab_size")
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
        """Channels of the convolution: queries, keys and values side by side."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """A Qwen3.5 model."""

    pattern: tuple[bool, ...]  # of one block: true where a layer has full attention
    delta: DeltaConfig

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


def parse(hf: Mapping[str, Any]) -> Config:
    """Reads the sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    text = section(hf, "text_config", (*TEXT_SIZES, *DELTA_SIZES, *EXPERT_SIZES))
    is_moe = hf.get("model_type") == "qwen3_5_moe"
    experts = _experts(text) if is_moe else None
    turn = rotary(text, "text_config")
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
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
        norm_eps=norm_eps(text, 1e-6),
        rope_theta=turn["rope_theta"],
        rope_sections=rope_sections(turn, (11, 11, 10)),
        attention_bias=bool(text.get("attention_bias", False)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        init_scale=text.get("initializer_range", 0.02),
        image_token_id=hf.get("image_token_id", 248056),
        video_token_id=hf.get("video_token_id", 248057),
        vision_start_token_id=hf.get("vision_start_token_id", 248053),
        vision_end_token_id=hf.get("vision_end_token_id", 248054),
        vision=qwen3.parse(hf, has_taps=False),
    )
    check(sizes)
    return sizes


def shortest_period(kinds: tuple[bool, ...]) -> tuple[bool, ...]:
    """Returns the shortest pattern whose whole repetitions give `kinds`.

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
