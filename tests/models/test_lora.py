"""Adapters: what they compute, what is trained, what is written."""

import dataclasses
import re

import families_oracle
import jax
import jax.numpy as jnp
import kinds
import numpy as np
import optax
import pytest
from adapters_rig import CONFIGS, family_model, stir_adapters
from models_oracle import config, gap, jit, on_device, pack, prompts, write_hf_dir

from evr1.learner import optimizer as optim
from evr1.learner.update import compile_update, init_state
from evr1.models import load_model, lora
from evr1.models.io import hf
from evr1.models.nn import layers
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import replicated

TARGETS = ("text/layers/attention/[qv]/kernel", "vision/blocks/qkv/kernel")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    base = load_model(str(path))
    model = lora.adapt(base, rank=2, alpha=6.0, targets=TARGETS)
    params = model.attach(hf.load_params(path, base), jax.random.key(0))
    return path, model, params


def _base(params):
    return {k: v for k, v in params.items() if k != "lora"}


def test_new_adapters_change_nothing_and_others_add_their_product(adapted):
    """alpha / rank is 3: W + 3 A B, for each layer; a vision kernel [L, D, 3, D] is [D, 3 D]."""
    _, model, params = adapted
    plain = flatten({k: v for k, v in params.items() if k != "lora"})
    merged = flatten(model.merge(params))
    assert all(np.array_equal(merged[k], plain[k]) for k in plain)
    stirred = stir_adapters(params)
    merged, adapters = flatten(model.merge(stirred)), flatten(stirred["lora"])
    changed = {k for k in plain if not np.array_equal(merged[k], plain[k])}
    assert changed == {
        "text/layers/attention/q/kernel",
        "text/layers/attention/v/kernel",
        "vision/blocks/qkv/kernel",
    }
    for path in changed:
        for i, w in enumerate(np.asarray(plain[path])):
            a, b = (np.asarray(adapters[f"{path}/{x}"][i]) for x in "ab")
            expected = w.reshape(len(w), -1) + 3 * a @ b
            assert gap(merged[path][i].reshape(expected.shape), expected) < 1e-6


def test_the_network_with_adapters_is_the_merged_network(adapted):
    _, model, params = adapted
    params = stir_adapters(params)
    batch, completions = pack(prompts(["text", "image"]))
    got = jit(model.group_hidden)(params, batch, completions)
    expected = jit(model.base.group_hidden)(model.merge(params), batch, completions)
    assert (
        gap(got, expected) < 3e-6
    )  # x W + x A B rounds otherwise than x (W + A B), layer by layer
    before = jit(model.base.group_hidden)(_base(params), batch, completions)
    assert gap(got, before) > 1e-2


HAS_TOWER = "qwen2_5_vl"  # one will do: towers are built of the same layers


@pytest.mark.parametrize("family", kinds.families(CONFIGS, ("qwen3_vl",)))
def test_gradients_of_adapters_follow_from_those_of_the_merged_matrices(family):
    """W' = W + s A B, so dA = s dW' B^T and dB = s A^T dW', in every matrix of every family."""
    model, params = family_model(family, has_tower=family == HAS_TOWER)
    case = ["image" if family == HAS_TOWER else "text"]
    if family.startswith("qwen2"):
        packed = families_oracle.pack(families_oracle.prompts(family, case))
    else:
        packed = pack(prompts(case))
    batch, completions = on_device(packed)

    def loss(model, params):
        hidden = model.group_hidden(params, batch, completions)
        return jnp.cos(model.logits(params, hidden)).mean()

    @jit
    def both(params):
        got = jax.value_and_grad(lambda x: loss(model, params | {"lora": x}))(params["lora"])
        return got, jax.value_and_grad(lambda x: loss(model.base, x))(model.merge(params))

    (value, grads), (expected, whole) = both(params)
    assert float(value) == pytest.approx(float(expected), abs=1e-6)
    grads, whole, adapters = map(flatten, (grads, whole, params["lora"]))
    assert len(grads) == 2 * len(model.targets())
    largest = max(np.abs(g).max() for g in grads.values())
    for path in (w.path for w in model.targets()):
        a, b = (np.asarray(adapters[f"{path}/{x}"]) for x in "ab")
        change = np.asarray(whole[path]).reshape(*a.shape[:-1], b.shape[-1])
        for x, wanted in (("a", change @ b.swapaxes(-1, -2)), ("b", a.swapaxes(-1, -2) @ change)):
            # Where softmax or norm make a gradient vanish, rounding is all there is.
            assert np.abs(grads[f"{path}/{x}"] - 2 * wanted).max() < 1e-4 * largest, path


def test_no_gradient_as_large_as_a_matrix_is_made(adapted):
    """The feed-forward is 32 x 48: products of that shape are gradients of its matrices."""
    base = adapted[1].base
    model = lora.adapt(base, rank=2, alpha=1.0, targets=["text/layers/mlp/.*/kernel"])
    params = model.init(jax.random.key(0))
    batch, completions = on_device(pack(prompts(["text"])))

    def made(model, params, key):
        def loss(part):
            return model.group_hidden(params | {key: part}, batch, completions).sum()

        text = jax.jit(jax.grad(loss)).lower(params[key]).as_text()
        return re.findall(r"dot_general.*-> tensor<(?:32x48|48x32)xf32>", text)

    assert made(base, _base(params), "text")
    assert not made(model, params, "lora")


def test_dropout_by_hand():
    """Of inputs 1 a quarter is 0 and the others 4/3; what W sees is whole."""
    x, a = jnp.ones((100, 400)), jnp.eye(400)
    noise = (jax.random.key(0), jnp.float32(0.25))
    seen = layers.matmul(x, layers.Adapted(jnp.zeros((400, 400)), a, a, noise))
    np.testing.assert_allclose(np.unique(seen), [0, 4 / 3], rtol=1e-6)
    assert float((seen == 0).mean()) == pytest.approx(0.25, abs=0.01)
    whole = layers.matmul(x, layers.Adapted(jnp.ones((400, 1)), a, jnp.zeros((400, 1)), noise))
    np.testing.assert_array_equal(whole, 400)


def test_dropout_of_an_update(adapted):
    """The same for the same update whether layers are recomputed or not, another for another, none
    outside of updates; the gradient is that of what was computed."""
    params, packed = stir_adapters(adapted[2]), pack(prompts(["text"]))
    batch, completions = on_device(packed)

    def made(**changes):
        base = dataclasses.replace(adapted[1].base, **changes)
        model = lora.adapt(base, rank=2, alpha=6.0, targets=TARGETS, dropout=0.5, seed=1)

        def loss(adapters, number):
            whole, at = params | {"lora": adapters}, jnp.array([number])
            noisy = model.with_dropout(whole, at, jnp.array([0])) if changes else whole
            return jnp.cos(model.group_hidden(noisy, batch, completions)).mean()

        return loss

    run, still = jit(jax.value_and_grad(made(remat="none"))), jit(made())
    adapters = params["lora"]
    value, grads = run(adapters, 3)
    again, recomputed = jit(jax.value_and_grad(made(remat="full")))(adapters, 3)
    assert float(again) == pytest.approx(float(value), abs=1e-6)
    for x, y in zip(jax.tree.leaves(recomputed), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)
    assert abs(float(run(adapters, 4)[0] - value)) > 1e-3
    assert float(run(adapters, -1)[0]) == pytest.approx(float(still(adapters, 0)), abs=1e-6)
    length = 1e-3
    moved = jax.tree.map(lambda x, g: x + length * jnp.sign(g), adapters, grads)
    slope = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(grads))
    assert float(run(moved, 3)[0] - value) / length == pytest.approx(slope, rel=0.1)


def test_only_adapters_are_trained(adapted):
    """Moments for the adapters alone, twice each; frozen arrays have scalars for gradients, and an
    update hands them on bit for bit."""
    _, model, params = adapted
    optimizer = optim.make_optimizer(optax.constant_schedule(0.1), freeze=(lora.FROZEN,))
    state = init_state(jax.tree.map(jnp.copy, params), optimizer)
    trained = sum(x.size for x in jax.tree.leaves(params["lora"]))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * trained
    batch, completions = pack(prompts(["image"]))

    def objective(params, batch, completions):
        return (model.group_hidden(params, batch, completions) ** 3).sum(), {}

    abstract = model.abstract_params()
    update = compile_update(objective, optimizer, abstract, freeze=(lora.FROZEN,))
    grads, _ = update.accumulate(state.params, update.zeros(state.params), batch, completions)
    assert sum(x.size for x in jax.tree.leaves(_base(grads))) == len(jax.tree.leaves(_base(grads)))
    state, _ = update.apply(state, grads)
    after, before = flatten(state.params), flatten(params)
    moved = {k for k in before if not np.array_equal(after[k], before[k])}
    # A has no gradient while B is 0, but decays with its weight; B moves.
    assert moved == {k for k in before if k.startswith("lora/")}


def test_a_mesh_has_a_place_for_every_adapter(adapted):
    model = adapted[1]
    places = flatten(model.shardings(make_mesh(data=2, fsdp=2, tensor=2)))
    held = [v.spec for k, v in places.items() if k.startswith("lora/")]
    assert len(held) == 6
    assert all(spec == jax.sharding.PartitionSpec() for spec in held)


def test_merged_parameters_lie_where_the_base_lies_and_share_what_is_not_adapted(adapted):
    _, model, params = adapted
    params, mesh = stir_adapters(params), make_mesh(data=2, fsdp=2, tensor=2)
    places = model.base.shardings(mesh)
    there = jax.device_put(_base(params), places)
    there["lora"] = jax.device_put(params["lora"], replicated(mesh))
    got, base = flatten(lora.merged(model, there)), flatten(_base(there))
    expected = flatten(model.merge(params))
    targets = {w.path for w in model.targets()}
    for path, x in got.items():
        assert x.sharding == base[path].sharding
        assert gap(x, expected[path]) < 1e-6
        assert (x is base[path]) == (path not in targets)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("text/nothing", "matches no parameter; paths look like text/layers/attention"),
        ("text/norm/scale", "matches text/norm/scale, which is no matrix"),
        ("text/head", "adapters on text/head: experts and the head have no dropout"),
    ],
)
def test_targets_that_do_not_fit(adapted, pattern, message):
    with pytest.raises(ValueError, match=message):
        lora.adapt(adapted[1].base, rank=2, alpha=1.0, targets=[pattern], dropout=0.1)


def test_a_matrix_with_adapters_is_not_frozen(adapted):
    model = adapted[1]
    path = next(w.path for w in model.targets() if w.path.startswith("text/"))
    with pytest.raises(ValueError, match=f"'text/.\\*' matches {path}, which has adapters"):
        lora.freeze(model, ["vision/none", "text/.*"])
    assert lora.freeze(model, ["text/embed"]) == ("text/embed", lora.FROZEN)
