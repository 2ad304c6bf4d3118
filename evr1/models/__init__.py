"""Model families in Flax NNX.

Outside this package a model is a parameter pytree and the methods of `Model`.
"""

from pathlib import Path
from typing import Any

from evr1.formats import processor_files
from evr1.models.base import Model
from evr1.models.families import qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_vl, qwen3_vl_moe
from evr1.models.io.hf import read_config, side_dir
from evr1.models.nn.cache import KV, Cache

FAMILIES = {
    "qwen2_vl": qwen2_vl.build,
    "qwen2_5_vl": qwen2_5_vl.build,
    "qwen3_vl": qwen3_vl.build,
    "qwen3_vl_moe": qwen3_vl_moe.build,
    "qwen3_5": qwen3_5.build,
    "qwen3_5_moe": qwen3_5.build,
}


def load_model(hf_dir: str | Path, *, dtype: str = "float32", remat: str = "full") -> Model:
    """Returns the model that a directory's config.json describes, without its weights.

    Args:
        hf_dir: HF directory, Orbax directory made by evr1 convert, or a run's
            checkpoint (see `evr1.formats.run_files`).
        dtype: of the computation: float32 or bfloat16.
        remat: what a layer keeps for the backward pass, see evr1.models.nn.remat.

    Raises:
        ValueError: no config.json, or a model_type that is not supported.
    """
    config = read_config(hf_dir)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{hf_dir}: model_type {kind!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind](_with_statistics(config, side_dir(hf_dir)), dtype=dtype, remat=remat)


def _with_statistics(config: dict[str, Any], root: Path) -> dict[str, Any]:
    """Returns the config with the pixel statistics of the processor files, where there are any."""
    tower = config.get("vision_config") or {}
    if not isinstance(tower, dict):
        return config  # which the family refuses
    return {**config, "vision_config": {**tower, **processor_files.statistics(root)}}


__all__ = ["FAMILIES", "KV", "Cache", "Model", "load_model"]
