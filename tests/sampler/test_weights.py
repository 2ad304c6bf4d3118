"""Parameters as the sampler reads them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sampler_rig
from adapters_rig import CONFIGS

from evr1.models import FAMILIES
from evr1.models.tree import flatten
from evr1.sampler.weights import lay_out


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
