"""Qwen3-VL, mixture of experts."""

from collections.abc import Mapping
from typing import Any

from evr1.models.qwen3_vl.model import Qwen3VL
from evr1.models.qwen3_vl_moe.config import parse


def build(config: Mapping[str, Any], *, dtype: str, remat: bool) -> Qwen3VL:
    """The model for a parsed config.json."""
    return Qwen3VL(parse(config), dtype=dtype, remat=remat)
