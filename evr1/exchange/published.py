"""The weights that a learner hands to the sampling side."""

from typing import NamedTuple

from jax.sharding import Mesh

from evr1.models import Model, lora
from evr1.sampler.weights import lay_out, with_layers_apart
from evr1.types import Params


class Published(NamedTuple):
    """Weights to draw with.

    Attributes:
        params: of the model without adapters, as the sampler reads them; arrays of their own.
        version: optimizer updates behind them.
    """

    params: Params
    version: int


def publish(model: Model, params: Params, version: int, mesh: Mesh | None = None) -> Published:
    """Publishes the parameters that are being trained: adapters merged, cast and cut for decoding.

    No array is one of `params`, so the next update may give those away.

    Args:
        model: what is trained.
        params: of it.
        version: optimizer updates behind them.
        mesh: that draws; None: they stay where they are.
    """
    plain = lora.plain(model)
    drawn = lay_out(lora.merged(model, params), plain, mesh)
    return Published(with_layers_apart(drawn, plain, mesh), version)
