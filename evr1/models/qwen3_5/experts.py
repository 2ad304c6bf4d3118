"""The feed-forward of Qwen3.5's mixture of experts: k experts a token, and one for all tokens.

Source: Qwen3_5MoeSparseMoeBlock, transformers 5.23.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from evr1.models import layers
from evr1.models.experts import dispatch, route
from evr1.models.qwen3_5.config import ExpertsConfig
from evr1.models.qwen3_vl.text import Mlp


class Experts(nnx.Module):
    """A router, its experts, and the shared expert with its gate."""

    def __init__(self, width: int, c: ExpertsConfig, scale: float, *, rngs: nnx.Rngs):
        def stack(*shape: int) -> nnx.Param:
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))

        opts = {"scale": scale, "bias": False, "rngs": rngs}
        self.router = layers.Linear(width, c.count, **opts)
        self.gate = stack(c.count, width, c.mlp_width)
        self.up = stack(c.count, width, c.mlp_width)
        self.down = stack(c.count, c.mlp_width, width)
        self.shared = Mlp(width, c.shared_width, scale, rngs=rngs)
        self.shared_gate = layers.Linear(width, 1, **opts)
        self.per_token = c.per_token

    def __call__(
        self, x: Float[Array, "b t d"]
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b t e"]]:
        """The output, and the router's logits."""
        logits = self.router(x)
        chosen, weights = route(logits, self.per_token)
        both = layers.beside([self.gate.get_value(), self.up.get_value()], x.dtype)
        routed = dispatch(x, chosen, weights, both, self.down.get_value())
        return routed + jax.nn.sigmoid(self.shared_gate(x)) * self.shared(x), logits
