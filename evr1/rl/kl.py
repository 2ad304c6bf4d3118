"""Per-token estimators of KL(policy || reference) on sampled tokens.

With d = log policy - log reference: k1 = d (unbiased, high variance), abs = |d|, k2 = d**2 / 2,
k3 = exp(-d) + d - 1 (unbiased, low variance, never negative). As terms of a loss their gradients
differ: k1's is 0 on average, k2's is the KL's, k3's is that of another divergence. `GRADIENTS` give
any of them the KL's.
Source: Schulman, "Approximating KL divergence"; k3 in the loss: 2402.03300 eq. 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evr1.rl.ratio import LIMIT, bounded, difference


def k1(d: jax.Array) -> jax.Array:
    """Returns d."""
    return d


def k_abs(d: jax.Array) -> jax.Array:
    """Returns |d|."""
    return jnp.abs(d)


def k2(d: jax.Array) -> jax.Array:
    """Returns d**2 / 2."""
    return jnp.square(d) / 2


def k3(d: jax.Array) -> jax.Array:
    """Returns exp(-d) + d - 1: 0 at d = 0, 1/2 + ln 2 - 1 = .1931 at d = ln 2.

    Below -LIMIT it stays as it is there, without a gradient: the exponential alone must not run
    away, and without it the gradient would push the policy further off.
    """
    d = jnp.maximum(d, -LIMIT)
    return jnp.expm1(-d) + d  # expm1: near d = 0 the sum of exp(-d) and -1 would keep no digits


ESTIMATORS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "abs": k_abs,
}


def kl(
    estimator: str,
    logprobs: Float[Array, "g n r"],
    ref_logprobs: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
) -> Float[Array, "g n r"]:
    """Returns the estimate on every token of the mask, 0 elsewhere.

    Raises:
        ValueError: unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"algorithm.kl_estimator={estimator!r} is unknown; use one of {', '.join(ESTIMATORS)}"
        )
    return ESTIMATORS[estimator](difference(logprobs, ref_logprobs, mask))


def own(estimate: jax.Array, d: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Returns the estimate with the gradient that it has."""
    return estimate


def straight_through(estimate: jax.Array, d: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Returns the estimate with the gradient of k2, d: that of the KL on the policy's own samples.

    k3 at d = ln 2: value .1931, gradient .6931 instead of .5.

    Source: verl, `low_var_kl+`; 2506.09477.
    """
    return jax.lax.stop_gradient(estimate - k2(d)) + k2(d)


def importance(estimate: jax.Array, d: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Returns r * estimate, r = policy / old with its gradient: that of the KL on samples of old.

    k3 at d = ln 2, r = 1: value .1931, gradient .1931 + .5 = d; r = 2: value and gradient twice
    that. With k1 at r = 1 the gradient is d + 1, whose 1 is 0 on average.

    Source: DeepSeek-V3.2, 2512.02556 §3.1.
    """
    return jnp.exp(bounded(log_ratio)) * estimate


GRADIENTS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "own": own,
    "k2": straight_through,
    "importance": importance,
}


def kl_loss(
    estimator: str,
    gradient: str,
    logprobs: Float[Array, "g n r"],
    ref_logprobs: Float[Array, "g n r"],
    old_logprobs: Float[Array, "g n r"],
    mask: Bool[Array, "g n r"],
) -> Float[Array, "g n r"]:
    """Returns the KL as a term of the loss: the estimate on the mask, 0 elsewhere.

    Args:
        estimator: a key of `ESTIMATORS`.
        gradient: a key of `GRADIENTS`.
        logprobs: of the policy.
        ref_logprobs: of the reference.
        old_logprobs: of the policy that sampled.
        mask: trained tokens.

    Raises:
        ValueError: unknown estimator or gradient.
    """
    if gradient not in GRADIENTS:
        raise ValueError(
            f"algorithm.kl_gradient={gradient!r} is unknown; use one of {', '.join(GRADIENTS)}"
        )
    estimate = kl(estimator, logprobs, ref_logprobs, mask)
    d = difference(logprobs, ref_logprobs, mask)
    return GRADIENTS[gradient](estimate, d, difference(logprobs, old_logprobs, mask))


def fixed(coef: float, observed: float, target: float, share: float) -> float:
    """Returns the coefficient as it is."""
    return coef


def adaptive(coef: float, observed: float, target: float, share: float) -> float:
    """Returns coef * (1 + clip(observed / target - 1, -.2, .2) * share).

    Coefficient .1, a KL of twice the target, 256 of 1024 completions: .1 * (1 + .2 / 4) = .105.

    Source: Ziegler et al., 1909.08593 §2.2.

    Args:
        coef: of this step.
        observed: mean KL of a token in this step.
        target: where it should be.
        share: completions of a step / the horizon, in completions.
    """
    error = min(max(observed / target - 1, -0.2), 0.2)
    return coef * (1 + error * share)


CONTROLLERS: dict[str, Callable[[float, float, float, float], float]] = {
    "fixed": fixed,
    "adaptive": adaptive,
}
