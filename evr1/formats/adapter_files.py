"""Directories of adapters, which users take for models."""

from pathlib import Path
from typing import Any

from evr1.formats import processor_files

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
    return processor_files.read_json(file)


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


# Variants that compute something else than W + factor * B A, or train whole matrices beside it.
_VARIANTS = ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save")
_VARIANTS += ("trainable_token_indices", "layer_replication", "alora_invocation_tokens")
_VARIANTS += ("arrow_config", "kasa_config", "monteclora_config", "velora_config")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # they subtract from W at the start


def check_variant(root: Path, settings: dict[str, Any]) -> None:
    """Raises where an adapter is no plain LoRA.

    Raises:
        ValueError: names the field and what to do.
    """
    fix = "merge it with peft and give the merged model"
    kind = str(settings.get("peft_type", "LORA"))
    if kind.rpartition(".")[2].upper() != "LORA":
        raise ValueError(f"{root}: peft_type={kind} is not supported, LORA is; {fix}")
    for name in _VARIANTS:
        if settings.get(name):
            raise ValueError(f"{root}: {name}={settings[name]!r} is not supported; {fix}")
    if settings.get("bias", "none") != "none":
        raise ValueError(f"{root}: bias={settings['bias']!r} is not supported; {fix}")
    start = str(settings.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGES_BASE):
        raise ValueError(
            f"{root}: init_lora_weights={start} changes the base model, so these are adapters of"
            f" another one; save it with path_initial_model_for_weight_conversion, or {fix}"
        )
