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


def with_layers_apart(params: Params, model: Model, mesh: Mesh | None = None) -> Params:
    """Returns the parameters to draw with, and each layer's once more in arrays of their own.

    Only on a CPU, where nothing is on a mesh: there a loop over the layers copies what it slices
    out of the stacks, at every decode step. TPUs read a slice where it lies, and one layer compiles
    faster than all of them; the stacks serve prompts, where a copy is nothing beside the products.

    Args:
        params: of a model without adapters, as `lay_out` returns them.
        model: that one.
        mesh: that draws.
    """
    is_alone = mesh is None or mesh.size == 1
    if jax.default_backend() != "cpu" or not is_alone:
        return params
    return params | {"text": params["text"] | {"apart": _apart(model)(params)}}


@functools.cache
def _apart(model: Model) -> Callable[[Params], tuple[Params, ...]]:
    return jax.jit(model.layers_apart)


@functools.cache
def _program(model: Model, mesh: Mesh | None) -> Callable[[Params], Params]:
    dtypes = model.compute_dtypes()

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.copy(leaf.astype(dtypes[name]))

    def cast(params):
        return jax.tree_util.tree_map_with_path(place, params)

    return jax.jit(cast) if mesh is None else jax.jit(cast, out_shardings=model.shardings(mesh))
