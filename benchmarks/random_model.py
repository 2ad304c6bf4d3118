"""Directories of random models, with the demo's tokenizer."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from evr1.models import load_model
from evr1.models.io import hf

DEMO = Path(__file__).resolve().parents[1] / "evr1" / "assets" / "demo_model"
WIDER = {  # 30 million parameters
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [12, 10, 10],
            "mrope_interleaved": True,
        },
    },
    "vision_config": {
        "depth": 4,
        "hidden_size": 256,
        "intermediate_size": 512,
        "out_hidden_size": 512,
    },
}


def write_model(folder: Path, sizes: Mapping[str, Mapping[str, Any]], dtype="float32") -> None:
    """Writes a random model.

    Args:
        folder: of the model; `side` beside it gets the files that are no weights.
        sizes: section of config.json -> fields that are not the demo's.
        dtype: of the weights.
    """
    side = folder.with_name("side")
    shutil.copytree(DEMO, side, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((side / "config.json").read_text())
    for section, fields in sizes.items():
        config[section].update(fields)
    (side / "config.json").write_text(json.dumps(config))
    model = load_model(str(side))
    hf.save_params(model.init(jax.random.key(0)), model, folder, source_dir=side, dtype=dtype)
