"""Qwen3.5 with experts against transformers in float32; what it shares is tested with the dense."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hf import load_torch
from models_oracle import gap, hf_inputs, hf_model, jit, pack, prompts
from test_models_qwen3_5 import MODEL, config

from evr1.models import hf, load_model, safetensors
from evr1.models.qwen3_5.config import ExpertsConfig
from evr1.models.qwen3_5.experts import Experts
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import param_shardings

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import conversion  # noqa: E402  of the scripts, not a package

torch = load_torch()
pytestmark = pytest.mark.parity


def moe_config(**changes) -> dict:
    """One block; six experts, two of which work on a token."""
    sizes = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    sizes |= {"num_hidden_layers": 4, "shared_expert_intermediate_size": 20}
    raw = config(**(sizes | changes))
    raw["architectures"], raw["model_type"] = ["Qwen3_5MoeForConditionalGeneration"], "qwen3_5_moe"
    raw["text_config"]["model_type"] = "qwen3_5_moe_text"
    raw["vision_config"]["model_type"] = "qwen3_5_moe_vision"
    del raw["text_config"]["intermediate_size"]
    return raw


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    """The directory that transformers saved, its model, and ours with its parameters."""
    theirs, path = hf_model(moe_config()), tmp_path_factory.mktemp("hf") / "model"
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "experts." in name or "mlp.gate." in name:
                p.mul_(2)  # so that routed experts weigh as much as the shared one
    theirs.save_pretrained(path)
    model = load_model(str(path))
    return path, theirs, model, hf.load_params(path, model)


def test_experts_by_hand():
    """Three experts of width 1 that give e, 10 e and 100 e, two a token; the shared one gives 0.

    A token (0, 1) has scores softmax(0, 1, 2): experts 1 and 2 with 1/(1+e) = 0.2689 and 0.7311.
    silu(30) = 30 to 1e-11, so with gate 30, up 1 / 30 and input 1 each gives its `down`:
    10 * 0.2689 + 100 * 0.7311 = 75.80.
    """
    c = ExpertsConfig(count=3, chosen=2, mlp_width=1, shared_width=1)
    module = Experts(2, c, 0.0, rngs=nnx.Rngs(0))
    module.router.kernel[...] = jnp.array([[0.0, 0, 0], [0, 1, 2]])
    module.gate[...] = jnp.broadcast_to(jnp.array([[0.0], [30]]), (3, 2, 1))
    module.up[...] = jnp.broadcast_to(jnp.array([[0.0], [1 / 30]]), (3, 2, 1))
    module.down[...] = jnp.array([[[1.0, 0]], [[10.0, 0]], [[100.0, 0]]])
    out, logits = module(jnp.array([[[0.0, 1]]]))
    assert logits.tolist() == [[[0, 1, 2]]]
    np.testing.assert_allclose(out, [[[75.797, 0]]], rtol=1e-4)


def test_logits_and_gradients(trio):
    """Logits and the gradient of a log-prob loss, image and text in a ragged batch."""
    _, reference, model, params = trio
    items = prompts(["text", "image"])
    batch, completions = pack(items)
    g, n, r = completions.shape
    reference.zero_grad()
    expected = np.zeros((g, n, r, model.config.vocab_size), np.float32)
    for i, p in enumerate(items):
        for j in range(n):
            logits = reference(**hf_inputs(p, completions[i, j])).logits[0, len(p.tokens) - 1 : -1]
            expected[i, j] = logits.detach().numpy()
            tokens = torch.from_numpy(completions[i, j].astype(np.int64))[:, None]
            torch.log_softmax(logits, -1).gather(-1, tokens).sum().backward()

    def loss(params):
        logits = model.logits(params, model.group_hidden(params, batch, completions))
        logprobs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(logprobs, completions[..., None], axis=-1).sum(), logits

    step = jit(jax.value_and_grad(loss, has_aux=True))
    (_, logits), grads = step(params)
    assert gap(logits, expected) < MODEL
    worst = _grad_gaps(reference, grads, model)
    assert len(worst) > 50
    assert max(worst.values()) < 1e-3, max(worst.items(), key=lambda kv: kv[1])

    spoilt = jax.tree.map(lambda y: y, params)  # the negative twin: two experts change places
    mlp = spoilt["text"]["blocks"]["1"]["mlp"]
    mlp["down"] = mlp["down"][:, np.array([1, 0, 2, 3, 4, 5])]
    assert gap(step(spoilt)[0][1], expected) > 1e-3


def _grad_gaps(reference, grads, model):
    """Relative difference of every gradient, by our path; transformers fuses its experts."""
    theirs = {k: p.grad.numpy() for k, p in reference.named_parameters() if p.grad is not None}
    flat, out = hf.flatten(grads), {}
    for w in model.weights():
        value, name = np.asarray(flat[w.path]), w.name
        if w.stacks == 2:
            fused = name.split("{}.mlp")[0] + f"{w.layers[0]}.mlp.experts."
            half = value.shape[-1]
            expected = {
                "gate": lambda f=fused, h=half: theirs[f + "gate_up_proj"][:, :h],
                "up": lambda f=fused, h=half: theirs[f + "gate_up_proj"][:, h:],
                "down": lambda f=fused: theirs[f + "down_proj"],
            }[w.path.rsplit("/", 1)[1]]()
            out[w.path] = gap(value[0].swapaxes(1, 2), expected)
            continue
        values = value if w.is_stacked else value[None]
        for hf_name, one in zip(hf.hf_names(w, value.shape), values, strict=True):
            if theirs[hf_name].any():
                out[hf_name] = gap(w.to_hf(one), theirs[hf_name])
    return out


def test_checkpoints_go_round_byte_by_byte(trio, tmp_path):
    """Every expert's tensors as transformers wrote them, and it loads what we write."""
    path, reference, model, params = trio
    hf.save_params(params, model, tmp_path / "out", source_dir=path, dtype="float32")
    before, after = hf.entries(path), hf.entries(tmp_path / "out")
    assert before.keys() == after.keys()
    assert "model.language_model.layers.3.mlp.experts.4.up_proj.weight" in after
    for name, entry in before.items():
        assert entry.open().tobytes() == after[name].open().tobytes(), name
    loaded = type(reference).from_pretrained(tmp_path / "out")
    for (name, a), b in zip(reference.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_orbax_and_back(trio, tmp_path):
    """Every tensor as it was, experts included."""
    path = trio[0]
    conversion.hf_to_orbax(path, tmp_path / "orbax", None)
    conversion.orbax_to_hf(tmp_path / "orbax", tmp_path / "out", None, 10_000)
    before, after = hf.entries(path), hf.entries(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, entry in before.items():
        assert entry.open().tobytes() == after[name].open().tobytes(), name


def test_fused_experts_are_read_alike(trio, tmp_path):
    """Published checkpoints hold the tensors that transformers has in memory."""
    path, reference, model, params = trio
    tensors = {k: p.detach().numpy() for k, p in reference.named_parameters()}
    assert "model.language_model.layers.2.mlp.experts.gate_up_proj" in tensors
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    listing = [(k, v.shape, v.dtype) for k, v in tensors.items()]
    safetensors.write(tmp_path / "model.safetensors", listing, tensors.values())
    fused = hf.load_params(tmp_path, model)
    for a, b in zip(jax.tree.leaves(fused), jax.tree.leaves(params), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()
    gone = "model.language_model.layers.2.mlp.experts.gate_up_proj"
    left = [row for row in listing if row[0] != gone]
    safetensors.write(tmp_path / "model.safetensors", left, (tensors[row[0]] for row in left))
    with pytest.raises(ValueError, match=r"missing .*layers.2.mlp.experts.0.gate_proj"):
        hf.load_params(tmp_path, model)


def test_parameters_on_a_mesh(trio):
    """Read straight to four devices, three of six experts on each half: the same numbers."""
    path, _, model, params = trio
    mesh = make_mesh(data=1, fsdp=2, tensor=2, devices=jax.devices()[:4])
    places = param_shardings(mesh, model.abstract_params())
    spread = hf.load_params(path, model, shardings=places)
    up = spread["text"]["blocks"]["0"]["mlp"]["up"]
    assert up.addressable_shards[0].data.shape == (1, 3, 16, 12)
    for a, b in zip(jax.tree.leaves(spread), jax.tree.leaves(params), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


def test_a_missing_expert_is_named(trio, tmp_path):
    path, _, model, _ = trio
    name = "model.language_model.layers.2.mlp.experts.3.gate_proj.weight"
    kept = {k: e for k, e in hf.entries(path).items() if k != name}
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    listing = [(k, e.shape, np.dtype(np.float32)) for k, e in kept.items()]
    values = (np.asarray(e.open()) for e in kept.values())
    safetensors.write(tmp_path / "model.safetensors", listing, values)
    with pytest.raises(ValueError, match=f"missing {name}"):
        hf.load_params(tmp_path, model)
