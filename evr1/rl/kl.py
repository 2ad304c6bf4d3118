"""Per-token estimators of KL(policy || reference) on sampled tokens.

With d = log policy - log reference: k1 = d (unbiased, high variance), abs = |d|, k2 = d**2 / 2,
k3 = exp(-d) + d - 1 (unbiased, low variance, never negative). As terms of a loss their gradients
differ: k1's is 0 on average, k2's is the KL's.
Source: Schulman, "Approximating KL divergence"; k3 in the loss: 2402.03300 eq. 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from evr1.rl.ratio import log_ratio


def k1(d: jax.Array) -> jax.Array:
    """d."""
    return d


def k_abs(d: jax.Array) -> jax.Array:
    """|d|."""
    return jnp.abs(d)


def k2(d: jax.Array) -> jax.Array:
    """d**2 / 2."""
    return jnp.square(d) / 2


def k3(d: jax.Array) -> jax.Array:
    """exp(-d) + d - 1: 0 at d = 0, 1/2 + ln 2 - 1 = .1931 at d = ln 2."""
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
    """The estimate on every token of the mask, 0 elsewhere.

    Raises:
        ValueError: unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"algorithm.kl_estimator={estimator!r} is unknown; use one of {', '.join(ESTIMATORS)}"
        )
    return ESTIMATORS[estimator](log_ratio(logprobs, ref_logprobs, mask))


def fixed(coef: float, observed: float, target: float, share: float) -> float:
    """The coefficient as it is."""
    return coef


def adaptive(coef: float, observed: float, target: float, share: float) -> float:
    """coef * (1 + clip(observed / target - 1, -.2, .2) * share).

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
