"""Qwen3.5 against transformers in float32: layers, logits, gradients, groups, decoding."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import delta_config as config
from hf import load_torch
from models_oracle import (
    gap,
    hf_inputs,
    hf_model,
    jit,
    on_device,
    pack,
    prompts,
    write_hf_dir,
)

from evr1.cli import conversion
from evr1.models import load_model
from evr1.models.families.qwen3_5 import text
from evr1.models.io import hf, safetensors
from evr1.models.nn import layers, rope
from evr1.models.nn.stack import everything
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh

torch = load_torch()
torch.set_num_threads(1)  # thousands of tiny operations, which threads only slow down
pytestmark = pytest.mark.parity

# One layer alone: float32 sums in another order, and a triangular system.
LAYER = 1e-5
# Eight random layers hand on what each rounds, six of them through a memory: the usual limit.
MODEL = 1e-4
BANNED = (90, 91)
TOKENS = 64


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
def hidden(model):
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
        layer = layers.bind(text.Layer, c, is_full, params=weights)
        return layer(x, angles, mixing, (), everything)[0]

    run = jit(run, static_argnames="is_full")
    for i, (x, expected) in enumerate(seen):
        weights = jax.tree.map(lambda y, b=i // 4: y[b], params["text"]["blocks"][str(i % 4)])
        assert gap(run(weights, x, i % 4 == 3), expected) < LAYER, i
        other = jax.tree.map(lambda y, b=i // 4: y[1 - b], params["text"]["blocks"][str(i % 4)])
        assert gap(run(other, x, i % 4 == 3), expected) > 1e-2, i  # the negative twin


def test_group_equals_separate_sequences(hidden, params):
    """Two completions of a group, and each alone behind its prompt with other padding."""
    items = prompts()
    together = hidden(params, *pack(items))
    for j in range(2):
        half = [dataclasses.replace(p, completions=p.completions[j : j + 1]) for p in items]
        alone = hidden(params, *pack(half, prompt_tokens=40))
        assert gap(together[:, j], alone[:, 0]) < MODEL
        assert gap(together[:, 1 - j], alone[:, 0]) > 1e-2  # the negative twin


def test_decoding_equals_the_whole_sequence(model, params, hidden):
    """Token by token from the cached keys and states, prompts in slots 2, 0, 3, 1 of five."""
    batch, completions = pack(prompts())
    expected = hidden(params, batch, completions)
    g, n, r = completions.shape
    slots = np.array([2, 0, 3, 1])
    first, prefix = jit(model.prefill)(params, batch)
    assert gap(first, expected[:, 0, 0]) < MODEL
    states = prefix.states.memory
    assert states.shape == (6, g, 4, 8, 6)  # once a prompt
    cache = model.init_cache(5, n, batch.tokens.shape[1] + 3, r)
    cache = jit(model.insert)(cache, prefix, batch.lengths, slots)
    assert (cache.states.memory[:, slots] == states[:, :, None]).all()
    decode = jit(model.decode)
    tokens, next_positions = np.zeros((5, n, r), np.int32), np.zeros((5, n), np.int32)
    tokens[slots], next_positions[slots] = completions, batch.next_positions[:, None]
    for t in range(r - 1):
        at = np.full((5, n), t, np.int32)
        after, cache = decode(params, cache, tokens[:, :, t], at, next_positions + t)
        assert gap(after[slots], expected[:, :, t + 1]) < MODEL
        assert gap(after[slots[::-1]], expected[:, :, t + 1]) > 1e-2  # the negative twin

    # A row at the end of its cache changes nothing, whatever the other rows do.
    steps = np.full((5, n), r - 1, np.int32)
    steps[0], steps[2], steps[3, 0] = r, -1, r
    _, later = decode(params, cache, tokens[:, :, -1], steps, next_positions + r)
    for old, new in zip(cache.states, later.states, strict=True):
        assert (old[:, [0, 2]] == new[:, [0, 2]]).all()
        assert (old[:, 3, 0] == new[:, 3, 0]).all()
        assert (old[:, 3, 1] != new[:, 3, 1]).any()
        assert (old[:, 1] != new[:, 1]).any()


@pytest.mark.parametrize(("dtype", "tied"), [("float32", False), ("bfloat16", True)])
def test_checkpoints_go_round_byte_by_byte(tmp_path, tied, dtype):
    """HF to parameters to HF: every tensor as it was; transformers finds all of its own in it."""
    raw = config(tied=tied, attention_bias=True)
    source = write_hf_dir(tmp_path / "source", raw)
    entries = hf.entries(source)
    listing = [(k, e.shape, np.dtype(dtype)) for k, e in entries.items()]
    values = [np.asarray(e.open(), dtype) for e in entries.values()]
    # Layers for speculative decoding, as the published checkpoints hold them, are carried along.
    listing.append(("mtp.fc.weight", (2, 2), np.dtype(dtype)))
    values.append(np.arange(4, dtype=np.float32).astype(dtype).reshape(2, 2))
    safetensors.write(source / "model.safetensors", listing, values)
    model = load_model(str(source))
    params = hf.load_params(source, model, dtype=None)
    hf.save_params(params, model, tmp_path / "out", source_dir=source, dtype=dtype)
    back = hf.entries(tmp_path / "out")
    assert back.keys() == entries.keys()
    conversion.hf_to_orbax(source, tmp_path / "orbax", None)
    conversion.orbax_to_hf(tmp_path / "orbax", tmp_path / "again", None, 2**30)
    for out in ("out", "again"):
        found = hf.entries(tmp_path / out) | hf.drafts(tmp_path / out)
        for (name, _, _), value in zip(listing, values, strict=True):
            assert found[name].open().tobytes() == value.tobytes(), name
    theirs = {name: tuple(p.shape) for name, p in hf_model(raw).named_parameters()}
    assert {k: e.shape for k, e in back.items()} == theirs


def test_transformers_loads_what_we_save(path, model, params, reference, tmp_path):
    hf.save_params(params, model, tmp_path / "out", source_dir=path, dtype="float32")
    loaded, info = type(reference).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for (name, a), b in zip(reference.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_missing_tensor_is_named_with_its_layer(path, model, tmp_path):
    """Layer 6 of HF is the third of the second block."""
    name = "model.language_model.layers.6.linear_attn.A_log"
    kept = {k: e for k, e in hf.entries(path).items() if k != name}
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    listing = [(k, e.shape, np.dtype(np.float32)) for k, e in kept.items()]
    values = (np.asarray(e.open()) for e in kept.values())
    safetensors.write(tmp_path / "model.safetensors", listing, values)
    with pytest.raises(ValueError, match=f"missing {name}"):
        hf.load_params(tmp_path, model)


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"num_hidden_layers": 3, "full_attention_interval": 2}, (False, True, False)),
        ({"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}, (True,)),
        ({"num_hidden_layers": 2}, (False,)),
    ],
)
def test_layer_patterns(tmp_path, changes, pattern):
    """Any depth and order of layers; transformers has the same tensors, and the same logits."""
    raw = config(**changes)
    path = write_hf_dir(tmp_path / "model", raw)
    model = load_model(str(path))
    assert model.config.pattern == pattern
    theirs = hf_model(raw)
    p = prompts(["text"])[0]
    batch, completions = pack([p])
    params = hf.load_params(path, model)
    got = model.logits(params, jit(model.group_hidden)(params, batch, completions))
    with torch.no_grad():
        inputs = hf_inputs(p, completions[0, 0])
        expected = theirs(**inputs, use_cache=False).logits[0, len(p.tokens) - 1 : -1]
    assert gap(got[0, 0], expected.numpy()) < MODEL
    assert gap(got[0, 1], expected.numpy()) > 1e-2  # the negative twin: the other completion
    first, prefix = jit(model.prefill)(params, batch)
    cache = model.insert(
        model.init_cache(1, 2, 7, 5), prefix, *on_device((batch.lengths, np.array([0])))
    )
    steps = np.zeros((1, 2), np.int32)
    positions = np.broadcast_to(batch.next_positions[:, None], (1, 2))
    after, _ = jit(model.decode)(params, cache, completions[:, :, 0], steps, positions)
    second = model.logits(params, after[0, 0])
    assert gap(model.logits(params, first[0]), expected[0].numpy()) < MODEL
    assert gap(second, expected[1].numpy()) < MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"] * 7}, "layer_types.*num_hidden_layers=8"),
        ({"layer_types": ["sliding_attention"] * 8}, "linear_attention or full_attention"),
        ({"linear_num_value_heads": 3}, "no multiple of linear_num_key_heads=2"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta=0; give a number over 0"),
        ({"rope_parameters": {"mrope_section": [2, 1]}}, "for each of three axes"),
        ({"rms_norm_eps": None}, "text_config.rms_norm_eps=None; give a number over 0"),
        ({"linear_conv_kernel_dim": 0}, "linear_conv_kernel_dim=0; give a whole number"),
    ],
)
def test_bad_configs(tmp_path, changes, message):
    (tmp_path / "config.json").write_text(json.dumps(config(**changes)))
    with pytest.raises(ValueError, match=message):
        load_model(str(tmp_path))


def test_every_parameter_has_a_place(model):
    """On a mesh of 1 x 2 x 2 the large kernels are split, and no rule is missing."""
    mesh = make_mesh(data=1, fsdp=2, tensor=2, devices=jax.devices()[:4])
    places = flatten(model.shardings(mesh))
    spec = {k: tuple(v.spec) for k, v in places.items()}
    assert spec["text/blocks/3/attention/q/kernel"] == (None, ("fsdp", "context"), "tensor")
    assert spec["text/blocks/0/delta/qkv/kernel"] == (None, ("fsdp", "context"))
    assert spec["text/blocks/2/mlp/down/kernel"] == (None, "tensor", ("fsdp", "context"))
