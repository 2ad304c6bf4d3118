"""Weights that correct for a sampler that is not quite the policy of the trainer.

The sampler runs other programs, maybe at another precision, so its probability of a token differs
from that of the trainer under the same weights. With rho = old / behavior, the policy loss of each
token is multiplied by a weight made of rho; no gradient flows through it. Tokens of weight 0 stay
in the denominators of the loss. A new correction is a function of log rho and a line in
`CORRECTIONS`. A rejection and a veto may stand beside a correction, or without one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evr1.rl.diagnostics import Sums, masked
from evr1.rl.ratio import bounded, completion_mean, difference

Weights = Float[Array, "g n r"] | Float[Array, "g n 1"]


class Guards(NamedTuple):
    """What may stand beside the weight of a correction; by default nothing.

    Attributes:
        floor: weights below it are raised to it, before anything is rejected; 0: none.
        rejection: a key of `REJECTIONS`; empty: none.
        rejection_low: what is judged must not be below; 0: no such bound.
        rejection_high: nor above; 0: no such bound.
        veto: a completion with any rho below it has weight 0; 0: none.
    """

    floor: float = 0.0
    rejection: str = ""
    rejection_low: float = 0.0
    rejection_high: float = 0.0
    veto: float = 0.0


NO_GUARDS = Guards()


def correction_weights(
    correction: str,
    old_logprobs: Float[Array, "g n r"],
    behavior_logprobs: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
    low: float,
    high: float,
    guards: Guards = NO_GUARDS,
) -> tuple[Float[Array, "g n r"], Sums]:
    """Returns the weight of every token, 0 off the mask, and the `correction/` metrics.

    token_tis with high 2, floor .5, a rejection of completions whose product of rho is over 3, veto
    .01: rho (4, .25) gives (2, .5), (4, 1) gives (0, 0), (1, .001) gives (0, 0).

    Args:
        correction: a key of `CORRECTIONS`; empty: a weight of 1 where the guards let it be.
        old_logprobs: of the trainer, before the update.
        behavior_logprobs: of the sampler.
        mask: trained tokens that the sampler drew.
        low: lower bound on rho or on what takes its place; see each correction.
        high: the upper bound, likewise.
        guards: beside the correction.

    Raises:
        ValueError: unknown correction or rejection.
    """
    log_rho = jax.lax.stop_gradient(difference(old_logprobs, behavior_logprobs, mask))
    weights, plain = _weights(correction, log_rho, mask, low, high, guards.floor)
    if guards.rejection:
        if guards.rejection not in REJECTIONS:
            raise ValueError(
                f"algorithm.rejection={guards.rejection!r} is unknown; "
                f"use one of {', '.join(REJECTIONS)}"
            )
        judged = REJECTIONS[guards.rejection](log_rho, mask)
        low, high = guards.rejection_low, guards.rejection_high or math.inf
        weights = _inside(weights, judged, low, high)
    if guards.veto:
        weights = weights * veto(log_rho, mask, guards.veto, 0)[0]
    weights, plain = (jnp.broadcast_to(x, mask.shape) for x in (weights, plain))
    return jnp.where(mask, weights, 0), {
        "correction/weight": masked(weights, mask),
        "correction/weight_square": masked(jnp.square(weights), mask),
        "correction/clipped_share": masked((weights != plain) & (weights > 0), mask),
        "correction/masked_share": masked(weights == 0, mask),
    }


def mean_weight(
    correction: str,
    old_logprobs: Float[Array, "g n r"],
    behavior_logprobs: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
    low: float,
    high: float,
    floor: float = 0.0,
) -> float:
    """Returns the mean weight of a batch, by which `algorithm.correction_normalized` divides it.

    It is over tokens or, where a completion has one weight, over completions. token_tis of
    (4, .25) and (1, 1) with high 2: (2 + .25 + 1 + 1) / 4 = 1.0625. 1 where all weights are 0.
    """
    log_rho = difference(old_logprobs, behavior_logprobs, mask)
    weights, _ = _weights(correction, log_rho, mask, low, high, floor)
    on = mask if weights.shape[-1] == mask.shape[-1] else mask.any(axis=-1, keepdims=True)
    mean = float(jnp.sum(jnp.where(on, weights, 0)) / jnp.maximum(on.sum(), 1))
    return mean or 1.0


def _weights(
    correction: str, log_rho: jax.Array, mask: jax.Array, low: float, high: float, floor: float
) -> tuple[Weights, Weights]:
    """Returns the weights of a correction, and what they were before its bounds."""
    if not correction:
        ones = jnp.ones_like(log_rho)
        return ones, ones
    if correction not in CORRECTIONS:
        raise ValueError(
            f"algorithm.correction={correction!r} is unknown; use one of {', '.join(CORRECTIONS)}"
        )
    weights, plain = CORRECTIONS[correction](log_rho, mask, low, high)
    return (jnp.maximum(weights, floor) if floor else weights), plain


def token_tis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Returns min(rho, high) of each token: truncated importance sampling. `low` is not used."""
    rho = jnp.exp(bounded(log_rho))
    return jnp.minimum(rho, high), rho


def sequence_tis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Returns min(product of rho, high), one for all tokens of a completion. `low` is not used."""
    rho = jnp.exp(bounded(whole(log_rho, mask)))
    return jnp.minimum(rho, high), rho


def token_mis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Returns rho inside [low, high], else 0: masked importance sampling (IcePop)."""
    rho = jnp.exp(bounded(log_rho))
    return _inside(rho, log_rho, low, high), rho


def sequence_mis(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Returns the product of rho inside [low, high], else 0, one for all tokens of a completion."""
    product = whole(log_rho, mask)
    rho = jnp.exp(bounded(product))
    return _inside(rho, product, low, high), rho


def geometric(
    log_rho: jax.Array, mask: jax.Array, low: float, high: float
) -> tuple[Weights, Weights]:
    """Returns 1 where the geometric mean of a completion's rho is inside [low, high], else 0."""
    mean = completion_mean(log_rho, mask)
    ones = jnp.ones_like(mean)
    return _inside(ones, mean, low, high), ones


def veto(log_rho: jax.Array, mask: jax.Array, low: float, high: float) -> tuple[Weights, Weights]:
    """Returns 0 for a completion with any token whose rho is below low, else 1. No `high`."""
    smallest = log_rho.min(axis=-1, keepdims=True)  # off the mask rho is 1
    ones = jnp.ones_like(smallest)
    return jnp.where(smallest < math.log(low), 0, ones), ones


def whole(log_rho: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the log of the product of rho over each completion's tokens, [G, N, 1]."""
    return log_rho.sum(axis=-1, keepdims=True)


# (log rho, mask) -> the log of what must be inside the bounds.
REJECTIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "token": lambda log_rho, mask: log_rho,
    "sequence": whole,
    "geometric": completion_mean,
}

Correction = Callable[[jax.Array, jax.Array, float, float], tuple[Weights, Weights]]
CORRECTIONS: dict[str, Correction] = {
    "token_tis": token_tis,
    "sequence_tis": sequence_tis,
    "token_mis": token_mis,
    "sequence_mis": sequence_mis,
    "geometric": geometric,
    "veto": veto,
}


def _inside(weights: jax.Array, judged: jax.Array, low: float, high: float) -> jax.Array:
    """Returns the weights where exp(judged) is inside [low, high], else 0. Nothing is cut: exp(-25)
    is below a bound of exp(-22)."""
    least, most = math.log(low) if low else -math.inf, math.log(high)
    return jnp.where((judged >= least) & (judged <= most), weights, 0)
