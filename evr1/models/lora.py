"""Low-rank adapters on any family: W + (alpha / rank) * A @ B, where only A and B are trained.

`adapt(model, ...)` is a model whose parameters hold the adapters under "lora", beside the base
model's own. Everything that takes a `Model` takes it; `FROZEN` names what is not trained.

Source: arXiv 2106.09685; names of the adapter files: peft 0.18, LoraConfig.
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from evr1.models import hf, safetensors
from evr1.models.base import Model
from evr1.models.weights import Weight
from evr1.types import Params

FROZEN = r"(?!lora/).*"  # for `optim.freeze`: all but the adapters


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which matrices have adapters, and how large they are."""

    rank: int
    alpha: float
    targets: tuple[str, ...]  # regular expressions of whole parameter paths

    @property
    def scale(self) -> float:
        """What A @ B is multiplied by."""
        return self.alpha / self.rank


def adapt(model: Model, *, rank: int, alpha: float, targets: Sequence[str]) -> "LoraModel":
    """The model with adapters on every matrix that one of the patterns matches.

    Raises:
        ValueError: a pattern matches no matrix, or not only matrices.
    """
    lora = Lora(rank, alpha, tuple(targets))
    kernels = {w.path for w in model.weights() if w.is_kernel or w.is_either}
    paths = sorted(w.path for w in model.weights())
    for pattern in lora.targets:
        found = [path for path in paths if re.fullmatch(pattern, path)]
        if not found or not kernels.issuperset(found):
            got = f"matches {found[0]}, which is no matrix" if found else "matches no parameter"
            known = [p for p in sorted(kernels) if p.startswith("text/layers")][:3]
            raise ValueError(f"lora.targets: {pattern!r} {got}; paths look like {', '.join(known)}")
    return LoraModel(
        config=model.config,
        dtype=model.dtype,
        remat=model.remat,
        implementation=model.implementation,
        base=model,
        lora=lora,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraModel(Model):
    """A model with adapters; see Model for what the methods do."""

    base: Model
    lora: Lora

    def init(self, key: jax.Array) -> Params:
        """See Model; B is 0, so that the adapters change nothing yet."""
        return self.attach(self.base.init(key), key)

    def attach(self, params: Params, key: jax.Array) -> Params:
        """The base model's parameters with new adapters."""
        return {**params, "lora": self.init_adapters(key)}

    def init_adapters(self, key: jax.Array) -> Params:
        """A is uniform within 1 / sqrt(inputs), as peft has it; B is 0."""
        shapes = hf.flatten(self.base.abstract_params())
        adapters, rank = {}, self.lora.rank
        for i, weight in enumerate(self.targets()):
            stack, fan_in, fan_out = _split(weight, shapes[weight.path].shape)
            a = jax.random.uniform(jax.random.fold_in(key, i), (*stack, fan_in, rank), minval=-1)
            adapters[weight.path + "/a"] = a * fan_in**-0.5
            adapters[weight.path + "/b"] = jnp.zeros((*stack, rank, fan_out), jnp.float32)
        return hf.unflatten(adapters)

    def targets(self) -> list[Weight]:
        """The matrices that have adapters."""
        patterns = self.lora.targets
        return [w for w in self.weights() if any(re.fullmatch(p, w.path) for p in patterns)]

    def merge(self, params: Params) -> Params:
        """The base model's parameters, the adapters added to them."""
        flat = hf.flatten({k: v for k, v in params.items() if k != "lora"})
        adapters = hf.flatten(params["lora"])
        for weight in self.targets():
            path = weight.path
            change = jnp.matmul(
                adapters[path + "/a"], adapters[path + "/b"], precision=jax.lax.Precision.HIGHEST
            )
            flat[path] = flat[path] + self.lora.scale * change.reshape(flat[path].shape)
        return hf.unflatten(flat)

    def weights(self) -> tuple[Weight, ...]:
        """Of the base model; adapters are no part of a HF model."""
        return self.base.weights()

    def encode(self, params, vision):
        """See Model."""
        return self.base.encode(self.merge(params), vision)

    def group_forward(self, params, prompts, completions, visual=None, *, keep_router=False):
        """See Model."""
        return self.base.group_forward(
            self.merge(params), prompts, completions, visual, keep_router=keep_router
        )

    def prefill(self, params, prompts, visual=None):
        """See Model."""
        return self.base.prefill(self.merge(params), prompts, visual)

    def init_cache(self, groups, n, prompt_tokens, completion_tokens):
        """See Model."""
        return self.base.init_cache(groups, n, prompt_tokens, completion_tokens)

    def insert(self, cache, prefix, prefix_lengths, slots):
        """See Model."""
        return self.base.insert(cache, prefix, prefix_lengths, slots)

    def decode(self, params, cache, tokens, steps, positions):
        """See Model."""
        return self.base.decode(self.merge(params), cache, tokens, steps, positions)

    def logits(self, params, hidden):
        """See Model."""
        return self.base.logits(self.merge(params), hidden)


def plain(model: Model, params: Params) -> tuple[Model, Params]:
    """The model and its parameters without adapters, what those add being in the parameters."""
    if not isinstance(model, LoraModel):
        return model, params
    return model.base, jax.jit(model.merge)(params)


def _split(weight: Weight, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """(axes of a stack, inputs, outputs) of a parameter: layers and experts are stacks.

    A vision block's kernel [L, D, 3, D] is L matrices of D inputs and 3 D outputs.
    """
    inputs = len(shape) - 2 if weight.is_either else int(weight.is_stacked)
    return shape[:inputs], shape[inputs], int(np.prod(shape[inputs + 1 :]))


def save_adapter(params: Params, model: Model, out_dir: str | Path, *, source: str) -> None:
    """Writes the adapters as peft reads them; the directory appears only when complete.

    Args:
        params: of the model.
        model: made by `adapt`.
        out_dir: replaced where it is an adapter directory; anything else there is refused.
        source: name or directory of the base model, for the reader to find it.

    Raises:
        ValueError: `out_dir` holds something else, or an adapter is on experts, which peft has no
            name for.
    """
    model, out = cast(LoraModel, model), Path(out_dir)
    if out.exists() and not (out / "adapter_config.json").is_file():
        raise ValueError(f"{out}: exists and is no adapter directory; choose another or remove it")
    flat, tensors, modules = hf.flatten(params["lora"]), {}, []
    for weight in model.targets():
        if weight.is_either:
            raise ValueError(f"lora.targets: peft cannot hold {weight.path}; export it merged")
        pair = [np.asarray(jax.device_get(flat[f"{weight.path}/{x}"])) for x in "ab"]
        names = hf.hf_names(weight, pair[0].shape)
        for i, name in enumerate(names):
            module = name.removesuffix(".weight")
            modules.append(module)
            for letter, value in zip("AB", pair, strict=True):
                one = value[i] if weight.is_stacked else value
                key = f"base_model.model.{module}.lora_{letter}.weight"
                tensors[key] = np.ascontiguousarray(one.T)
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": model.lora.rank,
        "lora_alpha": model.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
    }
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    listing = [(name, value.shape, value.dtype) for name, value in tensors.items()]
    safetensors.write(partial / "adapter_model.safetensors", listing, iter(tensors.values()))
    (partial / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if out.exists():
        shutil.rmtree(out)
    os.rename(partial, out)
