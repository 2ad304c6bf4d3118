"""Adapters as the files that `peft` loads onto the transformers model.

peft adapts a module's weight, or, where a module holds parameters of its own, these: experts and
their router. Two such parameters of one module are two wrappers, one inside the other.

Source: peft 0.21, LoraConfig and ParamWrapper; module names of transformers 5.
"""

import collections
import json
import re
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from evr1.models.base import Model
from evr1.models.io import atomic, hf, safetensors
from evr1.models.lora import LoraModel
from evr1.models.tree import flatten
from evr1.models.weights import Weight
from evr1.types import Params

# Hub name -> module of transformers 5, for Qwen2-VL and Qwen2.5-VL; the others are equal.
_RENAMED = (
    (r"visual\.", "model.visual."),
    (r"model\.(?!language_model\.|visual\.)", "model.language_model."),
)
_ORDER = ("gate_up_proj", "down_proj")  # of an experts module; peft wraps the first one first


class Pair(NamedTuple):
    """The adapters of one transformers weight.

    Attributes:
        a: float32[..., I, R].
        b: float32[..., R, O].
    """

    a: np.ndarray
    b: np.ndarray


def save_adapter(params: Params, model: Model, out_dir: str | Path, *, source: str) -> None:
    """Writes the adapters as peft reads them; the directory appears only when complete.

    Args:
        params: of the model.
        model: made by `lora.adapt`.
        out_dir: replaced where it is an adapter directory; anything else there is refused.
        source: name or directory of the base model, for the reader to find it.

    Raises:
        ValueError: `out_dir` holds something else.
    """
    model, out = cast(LoraModel, model), Path(out_dir)
    atomic.recover(out)
    if out.exists() and not (out / "adapter_config.json").is_file():
        raise ValueError(f"{out}: exists and is no adapter directory; choose another or remove it")
    tensors, settings = adapter(model, params)
    settings["base_model_name_or_path"] = source
    listing = [(name, value.shape, value.dtype) for name, value in tensors.items()]
    with atomic.new_directory(out) as partial:
        safetensors.write(partial / "adapter_model.safetensors", listing, iter(tensors.values()))
        (partial / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def adapter(model: LoraModel, params: Params) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors of the adapter file, and its config but for the base model's name."""
    flat, tensors = flatten(params["lora"]), {}
    modules, parameters, ranks = [], [], {}
    experts: dict[str, list[Pair]] = collections.defaultdict(list)
    for weight in model.targets():
        pair = Pair(*(np.asarray(jax.device_get(flat[f"{weight.path}/{x}"])) for x in "ab"))
        if weight.role == "experts":
            for name, one in _experts(weight, pair):
                experts[name].append(one)
            continue
        for i, name in enumerate(hf.hf_names(weight, pair.a.shape)):
            one = Pair(*(x[i] for x in pair)) if weight.is_stacked else pair
            module = _module(name.removesuffix(".weight"))
            if weight.role == "router":
                parameters.append(module + ".weight")
            else:
                modules.append(module)
            tensors |= _tensors(module, one.a.T, one.b.T, weight.shape[1:])
    names_of: dict[str, list[str]] = collections.defaultdict(list)
    for name in sorted(experts, key=lambda name: _ORDER.index(name.rpartition(".")[2])):
        names_of[name.rpartition(".")[0]].append(name)
    for module, names in names_of.items():
        for i, name in enumerate(names):
            a = np.concatenate([pair.a for pair in experts[name]], axis=-1)
            b = np.concatenate([pair.b for pair in experts[name]], axis=-2)
            e, fan_in, rank = a.shape
            a, b = a.swapaxes(1, 2).reshape(e * rank, fan_in), b.transpose(2, 1, 0)
            inner = module + ".base_layer" * (len(names) - 1 - i)
            tensors |= _tensors(inner, a, b.reshape(len(b), rank * e))
            parameters.append(name)
            if rank != model.lora.rank:
                ranks[name] = rank
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": model.lora.rank,
        "lora_alpha": model.lora.alpha,
        "rank_pattern": {re.escape(name): rank for name, rank in ranks.items()},
        "alpha_pattern": {re.escape(k): model.lora.scale * rank for k, rank in ranks.items()},
        "lora_dropout": model.lora.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
    }
    return tensors, settings | ({"target_parameters": parameters} if parameters else {})


def _experts(weight: Weight, pair: Pair) -> list[tuple[str, Pair]]:
    """Returns (name, adapters) of every layer; `up` alone is the second half of `gate_up_proj`."""
    name, out = weight.fused or weight.name, pair.b.shape[-1]
    before = weight.part * out
    b = np.pad(pair.b, ((0, 0),) * 3 + ((before, (weight.parts - 1) * out - before),))
    layers = weight.layers or range(len(b))
    return [(_module(name.format(i)), Pair(*x)) for i, *x in zip(layers, pair.a, b, strict=True)]


def _tensors(
    module: str, a: np.ndarray, b: np.ndarray, window: tuple[int, ...] = ()
) -> dict[str, np.ndarray]:
    """Returns a module's adapters under peft's names.

    a is [R, I] and b [O, R]; of a convolution I is its window.
    """
    ones = (1,) * max(len(window) - 1, 0)
    key = f"base_model.model.{module}.lora_"
    return {
        f"{key}A.weight": np.ascontiguousarray(a.reshape(len(a), *(window or (-1,)))),
        f"{key}B.weight": np.ascontiguousarray(b.reshape(*b.shape, *ones)),
    }


def _module(name: str) -> str:
    """Returns the transformers module or parameter of a hub name."""
    for pattern, there in _RENAMED:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", there, name)
    return name
