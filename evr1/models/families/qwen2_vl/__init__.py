"""Qwen2-VL: no DeepStack, whole frames, time positions that count temporal patches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.decoder.model import DecoderModel
from evr1.models.families.qwen2_vl.config import parse
from evr1.models.towers import qwen2


@dataclasses.dataclass(frozen=True)
class Qwen2VL(DecoderModel):
    """Qwen2-VL."""

    tower = qwen2
    text_root = "model."


def build(config: Mapping[str, Any], *, dtype: str, remat: str) -> Qwen2VL:
    """Returns the model for a parsed config.json."""
    return Qwen2VL(parse(config), dtype=dtype, remat=remat)
