"""Every model family and variant, small and random: transformers' model and ours, from one file."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import families_oracle
import jax
import models_oracle
import numpy as np
import sampler_rig
from models_oracle import Prompt, jit, on_device

from evr1.data.records import Example
from evr1.models import Model, load_model
from evr1.models.io import hf
from evr1.models.tree import flatten
from evr1.types import Params, Prompts


@dataclasses.dataclass(frozen=True)
class Family:
    """How the prompts of a family look.

    Attributes:
        cases: names of prompt layouts.
        prompts: the random prompts of some layouts.
        random: a random prompt, see `models_oracle.prompt`.
        pack: them as a batch, and their completions.
        inputs: a prompt and a completion as transformers takes them.
        write: a HF directory of a config, and transformers' model in it.
    """

    cases: tuple[str, ...]
    prompts: Callable[[Sequence[str]], list[Prompt]]
    random: Callable[[np.random.Generator, Sequence[int | tuple]], Prompt]
    pack: Callable[[Sequence[Prompt]], tuple[Prompts, np.ndarray]]
    inputs: Callable[[Prompt, np.ndarray], dict]
    write: Callable[[Path, dict], Any]


@dataclasses.dataclass(frozen=True)
class Pair:
    """transformers' model, ours, and the family."""

    reference: Any
    model: Model
    params: Params
    family: Family


def _write_new(path: Path, raw: dict) -> Any:
    models_oracle.write_hf_dir(path, raw)
    return models_oracle.hf_model(raw)


def _write_old(path: Path, raw: dict) -> Any:
    model = families_oracle.hf_model(raw)
    families_oracle.write_hf_dir(path, raw, model)
    return model


def _write_experts(path: Path, raw: dict) -> Any:
    """As transformers saves it; routed experts weigh as much as the shared one."""
    import torch

    model = models_oracle.hf_model(raw)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "experts." in name or "mlp.gate." in name:
                p.mul_(2)
    model.save_pretrained(path)
    (path / "config.json").write_text(json.dumps(raw))
    return model


def _new(write: Callable[[Path, dict], Any] = _write_new) -> Family:
    """Qwen3-VL and later: a bracketed run of placeholders for every frame."""
    pack = functools.partial(models_oracle.pack, row_patches=28)
    cases = tuple(models_oracle.CASES)
    return Family(
        cases,
        models_oracle.prompts,
        models_oracle.prompt,
        pack,
        models_oracle.hf_inputs,
        write,
    )


def _old(name: str) -> Family:
    """Qwen2-VL and Qwen2.5-VL: a run of placeholders for a whole video."""
    return Family(
        tuple(families_oracle.CASES),
        functools.partial(families_oracle.prompts, name),
        functools.partial(families_oracle.prompt, family=name),
        families_oracle.pack,
        functools.partial(families_oracle.hf_inputs, family=name),
        _write_old,
    )


def moe_config(**text: Any) -> dict:
    """A small Qwen3-VL with four experts, two of which work on a token."""
    sizes = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    raw = models_oracle.config(**(sizes | text))
    raw["architectures"] = ["Qwen3VLMoeForConditionalGeneration"]
    raw["model_type"], raw["transformers_version"] = "qwen3_vl_moe", "5.24.0"
    raw["text_config"]["model_type"] = "qwen3_vl_moe_text"
    raw["vision_config"]["model_type"] = "qwen3_vl_moe_vision"
    return raw


def delta_config(*, tied: bool = False, **text: Any) -> dict:
    """A small Qwen3.5 with two blocks; key and value heads differ in number and size.

    The gated norm sees outputs near 0, where its gradient magnifies rounding a thousandfold; a
    larger epsilon keeps transformers' own float32 gradients within 1e-4 of float64 ones.
    """
    raw = json.loads(json.dumps(models_oracle.CONFIG))
    raw["architectures"] = ["Qwen3_5ForConditionalGeneration"]
    raw["model_type"], raw["tie_word_embeddings"] = "qwen3_5", tied
    raw["vision_config"] |= {"model_type": "qwen3_5_vision"}
    del raw["vision_config"]["deepstack_visual_indexes"]
    raw["text_config"] = {
        "model_type": "qwen3_5_text",
        "vocab_size": raw["text_config"]["vocab_size"],
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 6,
        "linear_conv_kernel_dim": 4,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
        **text,
    }
    return raw


def delta_moe_config(**text: Any) -> dict:
    """A small Qwen3.5 of one block; six experts, two of which work on a token."""
    sizes = {"num_hidden_layers": 4, "num_experts": 6, "num_experts_per_tok": 2}
    sizes |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 20}
    raw = delta_config(**(sizes | text))
    raw["architectures"], raw["model_type"] = ["Qwen3_5MoeForConditionalGeneration"], "qwen3_5_moe"
    raw["text_config"]["model_type"] = "qwen3_5_moe_text"
    raw["vision_config"]["model_type"] = "qwen3_5_moe_vision"
    del raw["text_config"]["intermediate_size"]
    return raw


VARIANTS: dict[str, tuple[dict, Family]] = {
    "qwen2_vl": (families_oracle.config("qwen2_vl"), _old("qwen2_vl")),
    "qwen2_vl tied": (families_oracle.config("qwen2_vl", tied=True), _old("qwen2_vl")),
    "qwen2_5_vl": (families_oracle.config("qwen2_5_vl"), _old("qwen2_5_vl")),
    "qwen2_5_vl tied": (families_oracle.config("qwen2_5_vl", tied=True), _old("qwen2_5_vl")),
    "qwen3_vl": (models_oracle.config(), _new()),
    "qwen3_vl tied": (models_oracle.config(tied=True), _new()),
    "qwen3_vl_moe": (moe_config(), _new()),
    "qwen3_vl_moe mixed": (moe_config(mlp_only_layers=[1]), _new()),
    "qwen3_5": (delta_config(), _new()),
    "qwen3_5 tied": (delta_config(tied=True), _new()),
    "qwen3_5_moe": (delta_moe_config(), _new(_write_experts)),
}


def make_pair(name: str, path: Path) -> Pair:
    """The variant of this name; `path` receives its HF directory."""
    raw, family = VARIANTS[name]
    reference = family.write(path, raw)
    model = load_model(str(path))
    return Pair(reference, model, hf.load_params(path, model), family)


def as_example(p: Prompt, index: int) -> Example:
    """A prompt as the data pipeline would give it; text stands at its end."""
    after = int(p.positions[0, -1]) + 1
    return dataclasses.replace(sampler_rig.as_example(p, index), next_position=after)


def sampler(pair: Pair, shapes: Any, **options: Any) -> Any:
    """A sampler of the model; the learned position table, if any, has the oracle's side."""
    options = {"n": 1, "slots": 2, "window": 16} | options
    return sampler_rig.sampler(model=pair.model, shapes=shapes, **options)


def expected_logits(pair: Pair, items: Sequence[Prompt], completions: np.ndarray) -> Any:
    """transformers' logits [g][n] of the completion tokens, each sequence by itself."""
    return [
        [
            pair.reference(**pair.family.inputs(p, tokens)).logits[0, len(p.tokens) - 1 : -1]
            for tokens in rows
        ]
        for p, rows in zip(items, completions, strict=True)
    ]


def taken_logprobs(logits: Any, tokens: np.ndarray) -> Any:
    """torch: the log-probabilities of the tokens."""
    import torch

    index = torch.from_numpy(tokens.astype(np.int64))[:, None]
    return torch.log_softmax(logits.float(), -1).gather(-1, index)[:, 0]


def logprob_step(model: Model, batch: Prompts, completions: np.ndarray, weights: np.ndarray) -> Any:
    """Jitted params -> ((weighted sum of log-probabilities, logits), gradients)."""
    import jax.numpy as jnp

    batch, completions = on_device((batch, completions))

    def loss(params):
        logits = model.logits(params, model.group_hidden(params, batch, completions))
        taken = jnp.take_along_axis(jax.nn.log_softmax(logits), completions[..., None], axis=-1)
        return (taken[..., 0] * weights).sum(), logits

    return jit(jax.value_and_grad(loss, has_aux=True))


def grad_gaps(pair: Pair, grads: Any) -> dict[str, float]:
    """Relative difference of every gradient; those of experts by our path, others by HF's name."""
    theirs = {k: p.grad for k, p in pair.reference.named_parameters()}
    flat, out = flatten(grads), {}
    for w in pair.model.weights():
        value = np.asarray(flat[w.path])
        if w.stacks == 2:
            for i, layer in enumerate(w.layers):
                fused = theirs[w.fused.format(layer)].numpy()
                rows = fused.shape[1] // w.parts
                part = fused[:, w.part * rows : (w.part + 1) * rows]
                out[f"{w.path} {layer}"] = models_oracle.gap(value[i].swapaxes(1, 2), part)
            continue
        values = value if w.is_stacked else value[None]
        for name, one in zip(hf.hf_names(w, value.shape), values, strict=True):
            expected = theirs[in_memory(name, pair.reference.config.model_type)]
            if expected is not None and expected.any():
                out[name] = models_oracle.gap(w.to_hf(one), expected.numpy())
            else:
                assert not one.any(), name
    return out


def in_memory(name: str, family: str) -> str:
    """transformers' name of a parameter, of which a checkpoint may keep a part by another name."""
    if family in ("qwen2_vl", "qwen2_5_vl"):
        inner = name.replace("model.", "model.language_model.", 1)
        return "model." + name if name.startswith("visual.") else inner
    expert = re.fullmatch(r"(.*experts)\.\d+\.(gate|up|down)_proj\.weight", name)
    if expert:
        return f"{expert[1]}.{'down' if expert[2] == 'down' else 'gate_up'}_proj"
    return name
