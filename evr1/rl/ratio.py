"""The difference of two log-probabilities, safe to exponentiate."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LIMIT = 20.0  # exp(20) = 5e8 stays finite through products with advantages


def log_ratio(
    logprobs: Float[Array, "g n r"],
    other: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
) -> Float[Array, "g n r"]:
    """clip(logprobs - other, -LIMIT, LIMIT) on the mask; exactly 0, with no gradient, elsewhere.

    The mask comes before any exponential: a wild value on padding would otherwise become inf, and 0
    * inf is NaN.
    """
    return jnp.clip(jnp.where(mask, logprobs - other, 0), -LIMIT, LIMIT)
