"""Mesh, sharding rules, and the same numbers on one device and on eight."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
from models_oracle import config, gap, jit, pack, prompts, write_hf_dir

from evr1.models import load_model
from evr1.models.io.hf import load_params
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import (
    batch_sharding,
    constrain,
    param_shardings,
    replicated,
    undivided,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_hf_dir(tmp_path_factory.mktemp("hf") / "model", config())


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((1, -1, 1), (1, 8, 1, 1)), ((2, 2, 2), (2, 2, 1, 2)), ((-1, 1, 4), (2, 1, 1, 4))],
)
def test_mesh(sizes, shape):
    mesh = make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("data", "fsdp", "context", "tensor")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1, 4, 1), "mesh.fsdp=4, mesh.context=1, mesh.tensor=1 needs 4 devices, there are 8"),
        ((3, -1, 1), "needs a multiple of 3 devices, there are 8"),
        ((-1, -1, 1), "one of them may be -1"),
        ((0, 8, 1), "at least 1"),
    ],
)
def test_mesh_that_does_not_fit(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])


def test_rules_by_hand(directory):
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    places = flatten(load_model(str(directory)).shardings(mesh))
    specs = {k: v.spec for k, v in places.items()}
    assert specs["text/layers/attention/q/kernel"] == P(None, ("fsdp", "context"), ("tensor",))
    assert specs["text/layers/attention/o/kernel"] == P(None, ("tensor",), ("fsdp", "context"))
    assert specs["text/embed"] == P(("tensor",), ("fsdp", "context"))
    assert specs["text/layers/norm1/scale"] == P()
    whole = [k for k, v in specs.items() if k.endswith("kernel") and v == P()]
    assert not whole  # every matrix is split


def test_a_parameter_without_axes_is_an_error():
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    with pytest.raises(ValueError, match="no axes for parameter text/router"):
        param_shardings(mesh, {"text": {"router": jnp.zeros((8, 8))}}, {"text": {"embed": ()}})


def test_an_axis_that_does_not_divide_stays_whole():
    """And is told, with the parameters together that have the same axis and size."""
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    params = {"embed": jnp.zeros((33, 8)), "q": jnp.zeros((2, 8, 6)), "k": jnp.zeros((2, 8, 6))}
    axes = {"embed": ("vocab", "embed"), "q": (None, "embed", "heads"), "k": (None, None, "heads")}
    places = param_shardings(mesh, params, axes)
    assert places["embed"].spec == P(None, ("fsdp", "context"))
    assert places["q"].spec == P(None, ("fsdp", "context"), None)
    assert undivided(mesh, params, axes) == (
        "mesh axis tensor=4 does not divide vocab (33): embed stays whole on each device; "
        "mesh axis tensor=4 does not divide heads (6): k and 1 more stay whole on each device"
    )
    assert not undivided(make_mesh(data=1, fsdp=8, tensor=1), params, axes)


def test_constrain_splits_inside_a_mesh_and_is_nothing_outside():
    x = jnp.ones((8, 6, 4))
    assert constrain(x, "batch", None, "heads") is x
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        y = jax.jit(lambda x: constrain(x, "batch", None, "heads"))(x)
    assert y.sharding.spec == P(("data", "fsdp"), None, "tensor")


def _loss(params, model, batch, completions):
    logits = model.logits(params, model.group_hidden(params, batch, completions))
    logprobs = jax.nn.log_softmax(logits)
    taken = jnp.take_along_axis(logprobs, completions[..., None], axis=-1)
    return (taken[..., 0] * jnp.cos(completions)).sum()


@pytest.fixture(scope="module")
def on_one_device(directory):
    model = load_model(str(directory))
    f = jit(jax.value_and_grad(_loss), static_argnums=1)
    return f(load_params(directory, model), model, *pack(prompts()))


@pytest.mark.parametrize(("sizes", "implementation"), [((1, 4, 2), "auto"), ((2, 2, 2), "blocked")])
def test_eight_devices_give_the_numbers_of_one(directory, on_one_device, sizes, implementation):
    model = dataclasses.replace(load_model(str(directory)), implementation=implementation)
    mesh = make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2])
    shardings = model.shardings(mesh)
    params = load_params(directory, model, shardings=shardings)
    f = jax.value_and_grad(_loss)
    with jax.set_mesh(mesh):
        batch = jax.device_put(pack(prompts()), batch_sharding(mesh))
        step = jit(f, static_argnums=1, out_shardings=(replicated(mesh), shardings))
        loss, grads = step(params, model, *batch)
    assert gap(loss, on_one_device[0]) < 1e-5
    assert max(jax.tree.leaves(jax.tree.map(gap, grads, on_one_device[1]))) < 1e-4
    up = grads["text"]["layers"]["mlp"]["up"]["kernel"]
    assert up.addressable_shards[0].data.size == up.size // (sizes[1] * sizes[2])


def test_prefill_and_decode_on_eight_devices(directory):
    model = load_model(str(directory))
    batch, completions = pack(prompts())
    slots = jnp.arange(4)

    def sample(params, batch, tokens):
        _, prefix = model.prefill(params, batch)
        cache = model.init_cache(4, 2, batch.tokens.shape[1], 5)
        cache = model.insert(cache, prefix, batch.lengths, slots)
        positions = jnp.broadcast_to(batch.next_positions[:, None], tokens.shape)
        return model.decode(params, cache, tokens, jnp.zeros_like(tokens), positions)[0]

    expected = jit(sample)(load_params(directory, model), batch, completions[..., 0])
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    shardings = model.shardings(mesh)
    with jax.set_mesh(mesh):
        spread = jax.device_put((batch, completions[..., 0]), batch_sharding(mesh))
        out = jit(sample)(load_params(directory, model, shardings=shardings), *spread)
    assert gap(out, expected) < 1e-5
