"""Qwen2.5-VL: Qwen2-VL with another vision tower and with time positions in seconds."""

from collections.abc import Mapping
from typing import Any

from evr1.models.qwen2_5_vl.config import parse
from evr1.models.qwen2_vl.model import Qwen2VL


def build(config: Mapping[str, Any], *, dtype: str, remat: bool) -> Qwen2VL:
    """The model for a parsed config.json."""
    return Qwen2VL(parse(config), dtype=dtype, remat=remat)
