"""Sizes of a Qwen2-VL model, read from a HF config.json."""

from collections.abc import Mapping
from typing import Any

from evr1.models.config import VisionConfig
from evr1.models.decoder.config import Config, parse_qwen2
from evr1.models.fields import require, section
from evr1.models.towers import qwen2

_SIZES = ("depth", "hidden_size", "embed_dim", "num_heads", "patch_size", "in_channels")
_SIZES += ("temporal_patch_size", "spatial_merge_size")


def parse(hf: Mapping[str, Any]) -> Config:
    """Reads the sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    vision = section(hf, "vision_config", _SIZES)
    require("vision_config.hidden_act", vision.get("hidden_act", "quick_gelu"), "quick_gelu")
    width = vision.get("embed_dim", 1280)
    tower = VisionConfig(
        width=width,
        mlp_width=int(width * vision.get("mlp_ratio", 4)),
        out_width=vision.get("hidden_size", 3584),
        **qwen2.common_fields(vision),
    )
    return parse_qwen2(hf, tower)
