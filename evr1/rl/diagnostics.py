"""Metrics as (sum, count) pairs: added over microbatches and devices, divided once, at the end.

A name that ends in `_max` is a pair (largest value, 1), of which the larger is kept.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from evr1.rl.kl import k1, k3
from evr1.rl.ratio import bounded, difference
from evr1.types import Array

Sums = dict[str, tuple[Array, Array]]  # name -> float32 sum, float32 count


def masked(values: Array, mask: Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the values on the mask, and how many there are. No gradient flows."""
    values = jax.lax.stop_gradient(values)
    return jnp.sum(jnp.where(mask, values, 0), dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)


def largest(values: Array, mask: Array) -> tuple[jax.Array, jax.Array]:
    """Returns the largest of values >= 0 on the mask, and 1; (0, 0) where the mask is empty."""
    values = jax.lax.stop_gradient(values)
    return jnp.max(jnp.where(mask, values, 0)), jnp.any(mask).astype(jnp.float32)


def add(a: Sums, b: Sums) -> Sums:
    """Returns the added sums of two parts of a batch."""

    def join(name, x, y):
        return jnp.maximum(x, y) if name.endswith("_max") else x + y

    return {
        name: (join(name, a[name][0], total), join(name, a[name][1], count))
        for name, (total, count) in b.items()
    }


def means(sums: Mapping[str, tuple[Array, Array]]) -> dict[str, float]:
    """Returns sum / count of each, without those that counted nothing. Waits for the device.

    `correction/ess`, the effective share of the samples, is (mean weight)**2 / mean of its square.
    """
    host = {name: (float(total), float(count)) for name, (total, count) in sums.items()}
    result = {name: total / count for name, (total, count) in host.items() if count}
    square = result.pop("correction/weight_square", None)
    if square is not None:
        result["correction/ess"] = result["correction/weight"] ** 2 / square if square else 0.0
    return result


def policy_sums(logprobs: Array, old_logprobs: Array, entropy: Array, mask: Array) -> Sums:
    """Returns how the policy stands to the one before the update. All arrays [G, N, R].

    `kl_old` is k3 of KL(policy || old); `abs_log_ratio` is mean |log ratio|; entropy is in nats per
    token.
    """
    d = difference(logprobs, old_logprobs, mask)
    return {
        "policy/ratio": masked(jnp.exp(bounded(d)), mask),
        "policy/abs_log_ratio": masked(jnp.abs(d), mask),
        "policy/kl_old": masked(k3(d), mask),
        "policy/entropy": masked(entropy, mask),
        "policy/logprob": masked(logprobs, mask),
    }


def sampler_sums(logprobs: Array, behavior_logprobs: Array, mask: Array) -> Sums:
    """Returns how far the sampler's log-probabilities are from the trainer's, all arrays [G, N, R].

    `gap` is mean |difference| of log-probabilities, `gap_prob` of probabilities, `kl` is the k1
    estimate of KL(sampler || trainer). `chi2` is that of a token, E[rho**2] - 1 with rho = trainer
    / sampler, `chi2_sequence` of a completion. Near 0 where both run the same mathematics.
    """
    d = difference(behavior_logprobs, logprobs, mask)
    gap_prob = jnp.abs(jnp.exp(behavior_logprobs) - jnp.exp(logprobs))
    whole = bounded(-d.sum(axis=-1))
    return {
        "sampler/gap": masked(jnp.abs(d), mask),
        "sampler/gap_prob": masked(gap_prob, mask),
        "sampler/gap_prob_max": largest(gap_prob, mask),
        "sampler/kl": masked(k1(d), mask),
        "sampler/chi2": masked(jnp.expm1(-2 * bounded(d)), mask),
        "sampler/chi2_sequence": masked(jnp.expm1(2 * whole), mask.any(axis=-1)),
    }
