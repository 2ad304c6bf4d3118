"""Weights that correct for a sampler that is not quite the policy of the trainer.

The sampler runs other programs, maybe at another precision, so its probability of a token differs
from that of the trainer under the same weights. With rho = old / behavior, the policy loss of each
token is multiplied by a weight made of rho; no gradient flows through it. Tokens of weight 0 stay
in the denominators of the loss. A new correction is a function of log rho and a line in
`CORRECTIONS`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evr1.rl.diagnostics import Sums, masked
from evr1.rl.ratio import LIMIT, log_ratio

Weights = Float[Array, "g n r"] | Float[Array, "g n 1"]


def correction_weights(
    correction: str,
    old_logprobs: Float[Array, "g n r"],
    behavior_logprobs: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
    low: float,
    high: float,
) -> tuple[Float[Array, "g n r"], Sums]:
    """The weight of every token, 0 off the mask, and the `correction/` metrics.

    Args:
        correction: a key of `CORRECTIONS`.
        old_logprobs: of the trainer, before the update.
        behavior_logprobs: of the sampler.
        mask: trained tokens that the sampler drew.
        low: bound on rho or on what takes its place; see each correction.
        high: the other bound.

    Raises:
        ValueError: unknown correction.
    """
    if correction not in CORRECTIONS:
        raise ValueError(
            f"algorithm.correction={correction!r} is unknown; use one of {', '.join(CORRECTIONS)}"
        )
    log_rho = jax.lax.stop_gradient(log_ratio(old_logprobs, behavior_logprobs, mask))
    weights, plain = CORRECTIONS[correction](log_rho, mask, low, high)
    weights, plain = (jnp.broadcast_to(x, mask.shape) for x in (weights, plain))
    return jnp.where(mask, weights, 0), {
        "correction/weight": masked(weights, mask),
        "correction/weight_square": masked(jnp.square(weights), mask),
        "correction/clipped_share": masked((weights != plain) & (weights > 0), mask),
        "correction/masked_share": masked(weights == 0, mask),
    }


def token_tis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """min(rho, high) of each token: truncated importance sampling. `low` is not used."""
    rho = jnp.exp(log_rho)
    return jnp.minimum(rho, high), rho


def sequence_tis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """min(product of rho, high), one for all tokens of a completion. `low` is not used."""
    rho = _product(log_rho)
    return jnp.minimum(rho, high), rho


def token_mis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """rho inside [low, high], else 0: masked importance sampling (IcePop)."""
    rho = jnp.exp(log_rho)
    return _inside(rho, rho, low, high), rho


def sequence_mis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Product of rho inside [low, high], else 0, one for all tokens of a completion."""
    rho = _product(log_rho)
    return _inside(rho, rho, low, high), rho


def geometric(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """1 where the geometric mean of a completion's rho is inside [low, high], else 0."""
    tokens = jnp.maximum(mask.sum(axis=-1, keepdims=True), 1)
    mean = jnp.exp(log_rho.sum(axis=-1, keepdims=True) / tokens)
    ones = jnp.ones_like(mean)
    return _inside(ones, mean, low, high), ones


def veto(log_rho: jax.Array, mask: jax.Array, low: float, high: float) -> tuple[Weights, Weights]:
    """1, but 0 for a completion with any token whose rho is below low. `high` is not used."""
    smallest = jnp.exp(log_rho.min(axis=-1, keepdims=True))  # off the mask rho is 1
    ones = jnp.ones_like(smallest)
    return jnp.where(smallest < low, 0, ones), ones


Correction = Callable[[jax.Array, jax.Array, float, float], tuple[Weights, Weights]]
CORRECTIONS: dict[str, Correction] = {
    "token_tis": token_tis,
    "sequence_tis": sequence_tis,
    "token_mis": token_mis,
    "sequence_mis": sequence_mis,
    "geometric": geometric,
    "veto": veto,
}


def _product(log_rho: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(log_rho.sum(axis=-1, keepdims=True), -LIMIT, LIMIT))


def _inside(weights: jax.Array, judged: jax.Array, low: float, high: float) -> jax.Array:
    return jnp.where((judged >= low) & (judged <= high), weights, 0)
