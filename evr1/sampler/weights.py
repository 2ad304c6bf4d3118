"""Parameters as the sampler reads them: in the computation's dtype, on the mesh that draws."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from evr1.models import Model
from evr1.types import Params


def lay_out(params: Params, model: Model, mesh: Mesh | None = None) -> Params:
    """Returns new arrays: matrices in the dtype of the computation, all else as it is.

    The model casts matrices at every use, which gives the same numbers but reads twice the bytes at
    every decode step. Nothing is shared with `params`: an update may give those away. One program
    casts and moves them from device to device, past the host.

    Args:
        params: of a model without adapters.
        model: that one.
        mesh: that draws, of the same devices in the same order; None: they stay where they are.
    """
    return _program(model, mesh)(params)


@functools.cache
def _program(model: Model, mesh: Mesh | None) -> Callable[[Params], Params]:
    dtypes = model.compute_dtypes()

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.copy(leaf.astype(dtypes[name]))

    def cast(params):
        return jax.tree_util.tree_map_with_path(place, params)

    return jax.jit(cast) if mesh is None else jax.jit(cast, out_shardings=model.shardings(mesh))
