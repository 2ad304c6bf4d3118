"""Parameters as the sampler reads them: matrices in the dtype of the computation."""

import functools

import jax
import jax.numpy as jnp

from evr1.models import Model
from evr1.types import Params


def lay_out(params: Params, model: Model) -> Params:
    """Returns new arrays: matrices in the dtype of the computation, all else as it is.

    The model casts matrices at every use, which gives the same numbers but reads twice the bytes at
    every decode step. Nothing is shared with `params`: an update may give those away.

    Args:
        params: of a model without adapters.
        model: that one.
    """
    return _lay_out(params, model)


@functools.partial(jax.jit, static_argnames="model")
def _lay_out(params: Params, model: Model) -> Params:
    dtypes = model.compute_dtypes()

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return jnp.copy(leaf.astype(dtypes[name]))

    return jax.tree_util.tree_map_with_path(place, params)
