"""Qwen3-VL, mixture of experts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.decoder.model import DecoderModel
from evr1.models.families.qwen3_vl_moe.config import parse
from evr1.models.towers import qwen3


@dataclasses.dataclass(frozen=True)
class Qwen3VLMoe(DecoderModel):
    """Qwen3-VL with experts in some layers or all."""

    tower = qwen3
    text_root = "model.language_model."


def build(config: Mapping[str, Any], *, dtype: str, remat: str) -> Qwen3VLMoe:
    """Returns the model for a parsed config.json."""
    return Qwen3VLMoe(parse(config), dtype=dtype, remat=remat)
