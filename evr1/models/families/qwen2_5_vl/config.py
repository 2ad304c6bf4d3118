"""Sizes of a Qwen2.5-VL model, read from a HF config.json."""

from collections.abc import Mapping
from typing import Any

from evr1.models.config import VisionConfig
from evr1.models.decoder.config import Config, parse_qwen2
from evr1.models.fields import indices, require, section
from evr1.models.towers import qwen2


def parse(hf: Mapping[str, Any]) -> Config:
    """Reads the sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    vision = section(hf, "vision_config", _SIZES)
    require("vision_config.hidden_act", vision.get("hidden_act", "silu"), "silu")
    fields = qwen2.common_fields(vision)
    patch, merge = vision.get("patch_size", 14), fields["merge"]
    pixels, depth = vision.get("window_size", 112), fields["depth"]
    window = pixels // merge // patch * merge
    if not window:
        raise ValueError(
            f"config.json: vision_config.window_size={pixels} is less than one visual token of"
            f" {merge * patch} pixels; copy the file again"
        )
    full = indices(vision, "fullatt_block_indexes", (7, 15, 23, 31))
    tower = VisionConfig(
        width=vision.get("hidden_size", 3584),
        mlp_width=vision.get("intermediate_size", 3420),
        out_width=vision.get("out_hidden_size", 3584),
        is_gated=True,
        window=window,
        full_blocks=tuple(i for i in full if i < depth),
        **fields,
    )
    return parse_qwen2(hf, tower)


_SIZES = ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size", "in_channels")
_SIZES += ("temporal_patch_size", "spatial_merge_size", "out_hidden_size", "window_size")
