"""Sizes of a model with the decoder, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from evr1.models.config import ModelConfig, VisionConfig
from evr1.models.fields import check, norm_eps, require, rope_sections, rotary, section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """A model with the text model of Qwen2-VL or with that of Qwen3-VL.

    Attributes:
        output_bias: of the attention's output projection.
        sparse_layers: the layers that have experts; the others are dense.
        is_swapped: in the HF files kernels of experts are [E, out, in].
    """

    output_bias: bool
    qk_norm: bool
    rope_interleaved: bool
    sparse_layers: tuple[int, ...] = ()
    is_swapped: bool = False

    @property
    def dense_layers(self) -> tuple[int, ...]:
        """The layers that have no experts."""
        return tuple(i for i in range(self.layers) if i not in self.sparse_layers)

    @property
    def rope_axes(self) -> np.ndarray:
        """See ModelConfig."""
        if self.rope_interleaved:
            return super().rope_axes
        return np.repeat(np.arange(3, dtype=np.int32), self.rope_sections)


def parse_qwen2(hf: Mapping[str, Any], vision: VisionConfig) -> Config:
    """Reads the sizes of a model with Qwen2-VL's text model.

    Those of the text model stand in text_config or beside it.

    Args:
        hf: the config.json.
        vision: of its tower.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    outer = hf if hf.get("text_config") is not None else {**hf, "text_config": hf}
    text = section(outer, "text_config", _TEXT_SIZES)
    turn = rotary(text, "text_config", theta=1000000.0)
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
    if _has_sliding_layers(text):
        raise ValueError(
            "config.json: use_sliding_window=true is not supported; take a model without"
        )
    width, heads = text.get("hidden_size", 8192), text.get("num_attention_heads", 64)
    sections = rope_sections(turn, (16, 24, 24))
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
        rotary_dim=width // heads,
        vocab_size=text.get("vocab_size", 152064),
        norm_eps=norm_eps(text, 1e-5),
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


def _has_sliding_layers(text: Mapping[str, Any]) -> bool:
    """Returns whether a layer attends to a window, by the flags that transformers looks at.

    The window is off unless both of its fields say so; layer_types go before max_window_layers.
    """
    if not text.get("use_sliding_window") or text.get("sliding_window", 4096) is None:
        return False
    layers, first = text.get("num_hidden_layers", 80), text.get("max_window_layers", 80)
    kinds = text.get("layer_types")
    return "sliding_attention" in kinds if kinds else first < layers


def parse_qwen3(hf: Mapping[str, Any], vision: VisionConfig) -> Config:
    """Reads the sizes of a model with Qwen3-VL's text model, all of its layers dense.

    Args:
        hf: the config.json.
        vision: of its tower.

    Raises:
        ValueError: see `parse_qwen2`.
    """
    text = section(hf, "text_config", (*_TEXT_SIZES, "head_dim"))
    turn = rotary(text, "text_config", theta=500000.0)
    require("text_config.hidden_act", text.get("hidden_act", "silu"), "silu")
    heads, head_dim = text.get("num_attention_heads", 32), text.get("head_dim", 128)
    sizes = Config(
        layers=text.get("num_hidden_layers", 32),
        width=text.get("hidden_size", 4096),
        mlp_width=text.get("intermediate_size", 22016),
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        rotary_dim=head_dim,
        vocab_size=text.get("vocab_size", 151936),
        norm_eps=norm_eps(text, 1e-6),
        rope_theta=turn["rope_theta"],
        rope_sections=rope_sections(turn, (24, 20, 20)),
        attention_bias=bool(text.get("attention_bias", False)),
        tied=bool(hf.get("tie_word_embeddings", False)),
        init_scale=text.get("initializer_range", 0.02),
        image_token_id=hf.get("image_token_id", 151655),
        video_token_id=hf.get("video_token_id", 151656),
        vision_start_token_id=hf.get("vision_start_token_id", 151652),
        vision_end_token_id=hf.get("vision_end_token_id", 151653),
        vision=vision,
        output_bias=bool(text.get("attention_bias", False)),
        qk_norm=True,
        rope_interleaved=True,
    )
    check(sizes)
    return sizes


_TEXT_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
_TEXT_SIZES += ("vocab_size",)
