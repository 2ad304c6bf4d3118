"""Parameters as the sampler reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_rig
from adapters_rig import CONFIGS

from evr1.models import FAMILIES
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.sampler.weights import lay_out, with_layers_apart


def test_matrices_alone_are_cast_and_nothing_is_shared():
    given = flatten(sampler_rig.params())
    got = flatten(lay_out(sampler_rig.params(), sampler_rig.model("bfloat16")))
    assert got.keys() == given.keys()
    cast = {path for path, x in got.items() if x.dtype == jnp.bfloat16}
    assert {"text/embed", "text/head", "vision/embed/patch/kernel"} < cast
    assert {path.split("/")[-1] for path in cast} == {"embed", "head", "kernel"}
    assert {path.split("/")[-1] for path in got.keys() - cast} == {"scale", "bias", "table"}
    for path, x in got.items():
        assert x.dtype == (jnp.bfloat16 if path in cast else jnp.float32)
        np.testing.assert_array_equal(x, given[path].astype(x.dtype))
        assert x.unsafe_buffer_pointer() != given[path].unsafe_buffer_pointer()


def test_in_float32_they_are_copies():
    given = flatten(sampler_rig.params())
    for path, x in flatten(lay_out(sampler_rig.params(), sampler_rig.model())).items():
        np.testing.assert_array_equal(x, given[path])
        assert x.dtype == jnp.float32
        assert x.unsafe_buffer_pointer() != given[path].unsafe_buffer_pointer()


@pytest.mark.parametrize("family", CONFIGS)
def test_in_every_family_what_is_cast_has_two_axes_or_more(family):
    """Norms, biases, tables and the numbers of linear attention keep the precision they have."""
    model = FAMILIES[family](CONFIGS[family](), dtype="bfloat16", remat="none")
    got = flatten(jax.eval_shape(lambda x: lay_out(x, model), model.abstract_params()))
    dtypes = {path: x.dtype for path, x in got.items()}
    assert set(dtypes.values()) == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
    for path, dtype in dtypes.items():
        experts = ("gate", "up", "gate_up", "down")  # of all layers: one array each
        is_matrix = path.split("/")[-1] in ("embed", "head", "kernel", *experts)
        assert (dtype == jnp.bfloat16) == is_matrix
        assert not is_matrix or got[path].ndim >= 2


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe", "qwen3_5_moe"])
def test_layers_apart_decode_alike(family):
    """A dense stack, two kinds of layers in one model, and blocks of several layers."""
    model = FAMILIES[family](CONFIGS[family](), dtype="float32", remat="none")
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    params = jax.tree.map(draw, model.abstract_params())
    apart = with_layers_apart(params, model)
    stacked = apart["text"].pop("layers", None) or apart["text"].pop("blocks")  # nobody reads them
    sizes = [sum(x.size for x in jax.tree.leaves(y)) for y in (stacked, apart["text"]["apart"])]
    assert sizes[0] == sizes[1]
    cache = jax.tree.map(draw, model.init_cache(2, 2, 8, 4))._replace(
        prefix_lengths=jnp.array([8, 3])
    )

    @jax.jit
    def decode(params):
        tokens = jnp.array([[1, 2], [3, 4]])
        steps = jnp.array([[0, 1], [2, 3]])
        return model.decode(params, cache, tokens, steps, 8 + steps)

    for got, expected in zip(*map(jax.tree.leaves, map(decode, (apart, params))), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_layers_are_apart_on_one_device_alone():
    model = sampler_rig.model()
    mesh = make_mesh(data=1, fsdp=8, tensor=1)
    assert "apart" not in with_layers_apart(sampler_rig.params(), model, mesh)["text"]
    assert "apart" not in sampler_rig.params()["text"]
