"""Qwen3.5 against transformers in float32: layers, logits, gradients, groups, decoding."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_rig as rig
from hf import load_torch
from models_oracle import (
    CASES,
    CONFIG,
    gap,
    grad_gap,
    hf_inputs,
    hf_model,
    jit,
    pack,
    prompts,
    write_hf_dir,
)

from evr1.models import hf, layers, load_model, rope, safetensors
from evr1.models.qwen3_5 import text
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import param_shardings
from evr1.sampler import Sampling
from evr1.types import ShapeTable

torch = load_torch()
pytestmark = pytest.mark.parity

# Float32 keeps 24 bits; eight layers, each with a triangular system, move the last five.
TIGHT = 2e-5
BANNED = (90, 91)


def config(*, tied: bool = False, **changes) -> dict:
    """A small Qwen3.5 with two blocks; key and value heads differ in number and size."""
    raw = json.loads(json.dumps(CONFIG))
    raw["architectures"] = ["Qwen3_5ForConditionalGeneration"]
    raw["model_type"], raw["tie_word_embeddings"] = "qwen3_5", tied
    raw["vision_config"] |= {"model_type": "qwen3_5_vision"}
    del raw["vision_config"]["deepstack_visual_indexes"]
    old = raw["text_config"]
    raw["text_config"] = {
        "model_type": "qwen3_5_text",
        "vocab_size": old["vocab_size"],
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
        "max_position_embeddings": 512,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        },
        **changes,
    }
    return raw


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())


@pytest.fixture(scope="module")
def model(path):
    return load_model(str(path))


@pytest.fixture(scope="module")
def params(path, model):
    return hf.load_params(path, model)


@pytest.fixture(scope="module")
def reference():
    return hf_model(config())


@pytest.fixture(scope="module")
def hidden_fn(model):
    return jit(model.group_hidden)


def test_every_layer_from_its_input(model, params, reference):
    """Each layer of transformers' and ours on the same input, prompt and completion."""
    p = prompts(["two videos and an image"])[0]
    core, seen = reference.model.language_model, []
    hooks = [
        m.register_forward_hook(lambda _m, i, out: seen.append((i[0].numpy(), out.numpy())))
        for m in core.layers
    ]
    with torch.no_grad():
        reference(**hf_inputs(p, p.completions[0]))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 8
    length, after = len(p.tokens), np.arange(5) + p.positions.max() + 1
    positions = np.concatenate([p.positions, np.tile(after, (3, 1))], 1)[None]
    c = model.config
    assert c.pattern == (False, False, False, True)
    angles = rope.mrope(jnp.asarray(positions), c.rope_freqs, c.rope_axes)
    mixing = model.group_mixing(jnp.array([length]), length, 1, 5)

    def run(weights, x, is_full):
        return layers.bind(text.Layer, c, is_full, params=weights)(x, angles, mixing, ())[0]

    run = jit(run, static_argnames="is_full")
    for i, (x, expected) in enumerate(seen):
        weights = jax.tree.map(lambda y, b=i // 4: y[b], params["text"]["blocks"][str(i % 4)])
        assert gap(run(weights, x, i % 4 == 3), expected) < 1e-5, i
        other = jax.tree.map(lambda y, b=i // 4: y[1 - b], params["text"]["blocks"][str(i % 4)])
        assert gap(run(other, x, i % 4 == 3), expected) > 1e-2, i  # the negative twin


def test_logits_and_gradients(model, params, reference, hidden_fn):
    """All cases in one ragged batch: logits, then the gradient of a log-prob loss, by parameter."""
    items = prompts()
    batch, completions = pack(items)
    g, n, r = completions.shape
    weights = np.random.default_rng(3).normal(size=(g, n, r)).astype(np.float32)
    weights[1, 0, 3:], weights[2, 1, 1:] = 0, 0

    reference.zero_grad()
    expected = np.zeros((g, n, r, model.config.vocab_size), np.float32)
    for i, p in enumerate(items):
        for j in range(n):
            logits = reference(**hf_inputs(p, completions[i, j])).logits[0, len(p.tokens) - 1 : -1]
            expected[i, j] = logits.detach().numpy()
            tokens = torch.from_numpy(completions[i, j].astype(np.int64))[:, None]
            taken = torch.log_softmax(logits, -1).gather(-1, tokens)[:, 0]
            (taken * torch.from_numpy(weights[i, j])).sum().backward()

    def loss(params):
        logits = model.logits(params, model.group_hidden(params, batch, completions))
        logprobs = jax.nn.log_softmax(logits)
        taken = jnp.take_along_axis(logprobs, completions[..., None], axis=-1)[..., 0]
        return (taken * weights).sum(), logits

    step = jit(jax.value_and_grad(loss, has_aux=True))
    (_, logits), grads = step(params)
    assert gap(logits, expected) < TIGHT
    worst = grad_gap(reference, model, grads)
    assert max(worst.values()) < 1e-3, max(worst.items(), key=lambda kv: kv[1])

    # The negative twin: one number of one convolution.
    spoilt = jax.tree.map(lambda y: y, params)
    net = spoilt["text"]["blocks"]["1"]["delta"]
    net["conv"] = net["conv"].at[1, 2, 20].multiply(1.5)
    (_, logits), grads = step(spoilt)
    assert gap(logits, expected) > 1e-4
    assert max(grad_gap(reference, model, grads).values()) > 1e-3


def test_group_equals_separate_sequences(model, params, hidden_fn):
    """Two completions of a group, and each alone behind its prompt with less padding."""
    items = prompts(completions=(2, 5))
    batch, completions = pack(items)
    together = hidden_fn(params, batch, completions)
    for j in range(2):
        for i, p in enumerate(items):
            one = dataclasses.replace(p, completions=p.completions[j : j + 1])
            alone = model.group_hidden(params, *pack([one])) if (i, j) == (0, 0) else None
            if alone is not None:
                assert gap(together[i, j], alone[0, 0]) < TIGHT
        half = [dataclasses.replace(p, completions=p.completions[j : j + 1]) for p in items]
        single = jit(model.group_hidden)(params, *pack(half, prompt_tokens=40))
        assert gap(together[:, j], single[:, 0]) < TIGHT
        assert gap(together[:, 1 - j], single[:, 0]) > 1e-2  # the negative twin
