"""The feed-forward of Qwen3.5's mixture of experts: k experts a token, and one for all tokens.

No token is dropped, however many ask for the same expert: tokens are sorted by expert, and every
expert works on a run of them.

Source: Qwen3_5MoeSparseMoeBlock, transformers 5.23.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from evr1.models import layers
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
        self.chosen = c.chosen

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        tokens = x.reshape(-1, x.shape[-1])
        # float32: small differences between probabilities decide which experts work.
        scores = jax.nn.softmax(self.router(tokens).astype(jnp.float32))
        weights, experts = jax.lax.top_k(scores, self.chosen)
        weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(x.dtype)
        order = jnp.argsort(experts.reshape(-1))
        rows = order // self.chosen
        sizes = jnp.zeros(scores.shape[-1], jnp.int32).at[experts.reshape(-1)].add(1)

        def product(y: jax.Array, kernels: nnx.Param) -> jax.Array:
            cast = jnp.asarray(kernels[...], y.dtype)
            return jax.lax.ragged_dot(y, cast, sizes, precision=layers.precision(y.dtype))

        y = tokens[rows]
        y = product(jax.nn.silu(product(y, self.gate)) * product(y, self.up), self.down)
        y = y * weights.reshape(-1)[order][:, None]
        routed = jnp.zeros_like(tokens).at[rows].add(y).reshape(x.shape)
        return routed + jax.nn.sigmoid(self.shared_gate(x)) * self.shared(x)
