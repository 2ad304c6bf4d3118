"""Qwen2.5-VL: a tower with windows, and time positions in seconds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.decoder.model import DecoderModel
from evr1.models.families.qwen2_5_vl.config import parse
from evr1.models.towers import qwen2


@dataclasses.dataclass(frozen=True)
class Qwen25VL(DecoderModel):
    """Qwen2.5-VL."""

    tower = qwen2
    text_root = "model."


def build(config: Mapping[str, Any], *, dtype: str, remat: str) -> Qwen25VL:
    """Returns the model for a parsed config.json."""
    return Qwen25VL(parse(config), dtype=dtype, remat=remat)
