"""Adapters: what they compute, what is trained, what is written."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models_oracle import config, gap, jit, pack, prompts, write_hf_dir

from evr1 import optim, step
from evr1.models import hf, load_model, lora, safetensors
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import param_shardings

TARGETS = ("text/layers/attention/[qv]/kernel", "vision/blocks/qkv/kernel")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    path = write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())
    base = load_model(str(path))
    model = lora.adapt(base, rank=2, alpha=6.0, targets=TARGETS)
    params = model.attach(hf.load_params(path, base), jax.random.key(0))
    return path, model, params


def _stirred(params):
    """With adapters that are not 0."""
    rng = np.random.default_rng(0)
    stir = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    return params | {"lora": jax.tree.map(stir, params["lora"])}


def test_new_adapters_change_nothing_and_others_add_their_product(adapted):
    """alpha / rank is 3: W + 3 A B, for each layer; a vision kernel [L, D, 3, D] is [D, 3 D]."""
    _, model, params = adapted
    plain = hf.flatten({k: v for k, v in params.items() if k != "lora"})
    merged = hf.flatten(model.merge(params))
    assert all(np.array_equal(merged[k], plain[k]) for k in plain)
    stirred = _stirred(params)
    merged, adapters = hf.flatten(model.merge(stirred)), hf.flatten(stirred["lora"])
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
    params = _stirred(params)
    batch, completions = pack(prompts(["text", "image"]))
    got = jit(model.group_hidden)(params, batch, completions)
    expected = jit(model.base.group_hidden)(model.merge(params), batch, completions)
    assert gap(got, expected) < 1e-6
    before = jit(model.base.group_hidden)(
        {k: v for k, v in params.items() if k != "lora"}, batch, completions
    )
    assert gap(got, before) > 1e-2


def test_only_adapters_are_trained(adapted):
    """Moments for the adapters alone, twice each; an update leaves all else bit for bit."""
    _, model, params = adapted
    optimizer = optim.make_optimizer(optax.constant_schedule(0.1), freeze=(lora.FROZEN,))
    state = step.init_state(jax.tree.map(jnp.copy, params), optimizer)
    trained = sum(x.size for x in jax.tree.leaves(params["lora"]))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * trained
    batch, completions = pack(prompts(["image"]))

    def objective(params, batch, completions):
        is_on = optim.trainable(params, (lora.FROZEN,))
        params = jax.tree.map(lambda x, on: x if on else jax.lax.stop_gradient(x), params, is_on)
        return (model.group_hidden(params, batch, completions) ** 3).sum(), {}

    update = step.compile_update(objective, optimizer, model.abstract_params())
    grads, _ = update.accumulate(state.params, update.zeros(state.params), batch, completions)
    state, _ = update.apply(state, grads)
    after, before = hf.flatten(state.params), hf.flatten(params)
    moved = {k for k in before if not np.array_equal(after[k], before[k])}
    # A has no gradient while B is 0, but decays with its weight; B moves.
    assert moved == {k for k in before if k.startswith("lora/")}


def test_a_mesh_has_a_place_for_every_adapter(adapted):
    model = adapted[1]
    places = hf.flatten(
        param_shardings(make_mesh(data=2, fsdp=2, tensor=2), model.abstract_params())
    )
    held = [v.spec for k, v in places.items() if k.startswith("lora/")]
    assert len(held) == 6
    assert all(spec == jax.sharding.PartitionSpec() for spec in held)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("text/nothing", "matches no parameter; paths look like text/layers/attention"),
        ("text/norm/scale", "matches text/norm/scale, which is no matrix"),
    ],
)
def test_targets_that_do_not_fit(adapted, pattern, message):
    with pytest.raises(ValueError, match=message):
        lora.adapt(adapted[1].base, rank=2, alpha=1.0, targets=[pattern])


def test_adapter_files(adapted, tmp_path):
    """peft reads HF weight + alpha / r * lora_B @ lora_A, for each module it names."""
    path, model, params = adapted
    params = _stirred(params)
    lora.save_adapter(params, model, tmp_path / "adapter", source="base")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    tensors = safetensors.read_header(tmp_path / "adapter" / "adapter_model.safetensors")
    hf.save_params(
        model.merge(params), model.base, tmp_path / "m", source_dir=path, dtype="float32"
    )
    before, after = hf.entries(path), hf.entries(tmp_path / "m")
    scale = settings["lora_alpha"] / settings["r"]
    changed = set()
    for name in before:
        module = name.removesuffix(".weight")
        w, key = np.array(before[name].open()), f"base_model.model.{module}.lora_"
        if module in settings["target_modules"]:
            a, b = (np.asarray(tensors.pop(f"{key}{x}.weight").open()) for x in "AB")
            w = w + scale * (b @ a).reshape(w.shape)
            changed.add(module)
        assert gap(after[name].open(), w) < 1e-6, name
    assert not tensors
    assert len(changed) == len(settings["target_modules"]) == 9  # three layers of q, v; blocks


def test_experts_have_adapters_but_no_peft_files(tmp_path):
    raw = config(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)
    raw["model_type"] = "qwen3_vl_moe"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    base = load_model(str(tmp_path))
    model = lora.adapt(base, rank=2, alpha=2.0, targets=["text/layers/moe/down"])
    params = _stirred(model.init(jax.random.key(1)))
    pair = params["lora"]["text"]["layers"]["moe"]["down"]
    assert {k: v.shape for k, v in pair.items()} == {"a": (3, 4, 20, 2), "b": (3, 4, 2, 32)}
    kernel = params["text"]["layers"]["moe"]["down"]
    got = model.merge(params)["text"]["layers"]["moe"]["down"]
    assert gap(got[2, 3], kernel[2, 3] + pair["a"][2, 3] @ pair["b"][2, 3]) < 1e-6
    with pytest.raises(ValueError, match="peft cannot hold text/layers/moe/down"):
        lora.save_adapter(params, model, tmp_path / "adapter", source="base")
