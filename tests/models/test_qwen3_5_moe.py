"""Qwen3.5 with experts against transformers in float32; what it shares is tested with the dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import delta_moe_config as moe_config
from flax import nnx
from hf import load_torch
from models_oracle import CASES, gap, hf_inputs, hf_model, jit, pack, prompts

from evr1.cli import conversion
from evr1.models import load_model
from evr1.models.io import hf, safetensors
from evr1.models.nn.experts import Experts, ExpertsConfig
from evr1.parallel.mesh import make_mesh

torch = load_torch()
pytestmark = pytest.mark.parity


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
    c = ExpertsConfig(count=3, per_token=2, mlp_width=1, shared_width=1)
    module = Experts(2, c, 0.0, rngs=nnx.Rngs(0))
    module.router.kernel[...] = jnp.array([[0.0, 0, 0], [0, 1, 2]])
    module.gate[...] = jnp.broadcast_to(jnp.array([[0.0], [30]]), (3, 2, 1))
    module.up[...] = jnp.broadcast_to(jnp.array([[0.0], [1 / 30]]), (3, 2, 1))
    module.down[...] = jnp.array([[[1.0, 0]], [[10.0, 0]], [[100.0, 0]]])
    out, logits = module(jnp.array([[[0.0, 1]]]))
    assert logits.tolist() == [[[0, 1, 2]]]
    np.testing.assert_allclose(out, [[[75.797, 0]]], rtol=1e-4)


def test_router(trio):
    """The router's log-probabilities in every layer, prompts and completions of all layouts."""
    _, reference, model, params = trio
    items = prompts(CASES)
    batch, completions = pack(items, row_patches=28)
    kept = jit(model.group_forward, static_argnames="keep_router")(
        params, batch, completions, keep_router=True
    )[1]
    assert kept.router.shape[0] == 4
    p_max, r = batch.tokens.shape[1], completions.shape[2]
    for g, p in enumerate(items):
        with torch.no_grad():
            out = reference.model(**hf_inputs(p, completions[g, 1]), output_router_logits=True)
        places = [*range(len(p.tokens)), *range(p_max + r, p_max + 2 * r)]
        for mine, expected in zip(kept.router, out.router_logits, strict=True):
            expected = torch.log_softmax(expected, -1).numpy()
            assert gap(jax.nn.log_softmax(mine[g, places]), expected) < 1e-4
            assert gap(jax.nn.log_softmax(mine[g, places][::-1]), expected) > 1e-2  # the twin


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
    places = model.shardings(mesh)
    spread = hf.load_params(path, model, shardings=places)
    up = spread["text"]["blocks"]["0"]["mlp"]["up"]
    assert up.addressable_shards[0].data.shape == (1, 3, 16, 16)
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
