"""Qwen3-VL, dense."""

from collections.abc import Mapping
from typing import Any

from evr1.models.qwen3_vl.config import parse
from evr1.models.qwen3_vl.model import Qwen3VL


def build(config: Mapping[str, Any], *, dtype: str, remat: bool) -> Qwen3VL:
    """The model for a parsed config.json."""
    return Qwen3VL(parse(config), dtype=dtype, remat=remat)
