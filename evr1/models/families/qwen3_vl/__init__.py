"""Qwen3-VL, dense."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.decoder.config import parse_qwen3
from evr1.models.decoder.model import DecoderModel
from evr1.models.towers import qwen3


@dataclasses.dataclass(frozen=True)
class Qwen3VL(DecoderModel):
    """Qwen3-VL, all of whose layers are dense."""

    tower = qwen3
    text_root = "model.language_model."


def build(config: Mapping[str, Any], *, dtype: str, remat: str) -> Qwen3VL:
    """Returns the model for a parsed config.json."""
    return Qwen3VL(parse_qwen3(config, qwen3.parse(config)), dtype=dtype, remat=remat)
