"""Qwen3.5, dense and mixture of experts."""

from collections.abc import Mapping
from typing import Any

from evr1.models.families.qwen3_5.config import parse
from evr1.models.families.qwen3_5.model import Qwen35


def build(config: Mapping[str, Any], *, dtype: str, remat: str) -> Qwen35:
    """Returns the model for a parsed config.json."""
    return Qwen35(parse(config), dtype=dtype, remat=remat)
