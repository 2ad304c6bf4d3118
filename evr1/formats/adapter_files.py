"""Directories of adapters, which users take for models."""

import json
from pathlib import Path
from typing import Any

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
_MODEL = ("model.safetensors", "model.safetensors.index.json")


def read_settings(root: Path) -> dict[str, Any]:
    """Returns the adapter_config.json of a directory.

    Raises:
        ValueError: there is none, or it is no JSON object.
    """
    file = root / CONFIG
    if not file.is_file():
        raise ValueError(f"{root}: no {CONFIG}; give a directory that peft or evr1 wrote")
    try:
        settings = json.loads(file.read_text("utf-8"))
    except ValueError as e:
        raise ValueError(f"{file}: not JSON ({e}); copy the file again") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: holds no JSON object; copy the file again")
    return settings


def refuse_as_model(root: Path) -> None:
    """Raises where a directory that is given as a model holds an adapter.

    transformers would load the base model that the adapter names, whatever else lies there.

    Raises:
        ValueError: says what to give.
    """
    if not (root / CONFIG).is_file():
        return
    if (root / "config.json").is_file() and any((root / name).is_file() for name in _MODEL):
        raise ValueError(
            f"{root}: holds a model and an adapter ({CONFIG}); remove {CONFIG} to use the model, or"
            f" give the adapter's base model with lora.adapter={root}"
        )
    base = read_settings(root).get("base_model_name_or_path") or "not named in it"
    raise ValueError(
        f"{root}: an adapter, no model; give its base model ({base}) as the model, and"
        f" lora.adapter={root}"
    )
