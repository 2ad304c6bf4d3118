"""Differences of log-probabilities, and ratios of probabilities that stay finite.

Only what goes into an exponential is cut: a mean or a sum over a completion is taken of the whole
differences.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from evr1.types import Array

LIMIT = 20.0  # exp(20) = 5e8 stays finite through products with advantages


def difference(
    logprobs: Float[Array, "g n r"],
    other: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
) -> Float[Array, "g n r"]:
    """Returns logprobs - other on the mask; off it exactly 0, with no gradient.

    The mask comes before any exponential: a wild value on padding would otherwise become inf, and 0
    * inf is NaN.
    """
    return jnp.where(mask, logprobs - other, 0)


def bounded(difference: jax.Array) -> jax.Array:
    """Returns a difference, mean or sum of them as it may go into exp: cut at +-LIMIT."""
    return jnp.clip(difference, -LIMIT, LIMIT)


def log_ratio(
    logprobs: Float[Array, "g n r"],
    other: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
) -> Float[Array, "g n r"]:
    """Returns the difference of single tokens as it may go into exp: `bounded`."""
    return bounded(difference(logprobs, other, mask))


def completion_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean over each completion's tokens, [G, N, 1]; 0 for an empty one."""
    total = jnp.where(mask, values, 0).sum(axis=-1, keepdims=True)
    return total / jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
