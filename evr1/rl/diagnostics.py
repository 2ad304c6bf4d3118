"""Metrics as (sum, count) pairs: added over microbatches and devices, divided once, at the end."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from evr1.rl.kl import k1, k3
from evr1.rl.ratio import log_ratio

Sums = dict[str, tuple[jax.Array, jax.Array]]  # name -> float32 sum, float32 count


def masked(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the values on the mask, and how many there are. No gradient flows."""
    values = jax.lax.stop_gradient(values)
    return jnp.sum(jnp.where(mask, values, 0), dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)


def add(a: Sums, b: Sums) -> Sums:
    """The sums of two parts of a batch together."""
    return jax.tree.map(lambda x, y: x + y, a, b)


def means(sums: Mapping[str, tuple[jax.Array, jax.Array]]) -> dict[str, float]:
    """sum / count of each; a name that counted nothing is left out. Waits for the device."""
    host = {name: (float(total), float(count)) for name, (total, count) in sums.items()}
    return {name: total / count for name, (total, count) in host.items() if count}


def policy_sums(
    logprobs: jax.Array, old_logprobs: jax.Array, entropy: jax.Array, mask: jax.Array
) -> Sums:
    """How the policy stands to the one before the update. All arrays [G, N, R].

    `kl_old` is k3 of KL(policy || old); `abs_log_ratio` is mean |log ratio|; entropy is in nats per
    token.
    """
    d = log_ratio(logprobs, old_logprobs, mask)
    return {
        "policy/ratio": masked(jnp.exp(d), mask),
        "policy/abs_log_ratio": masked(jnp.abs(d), mask),
        "policy/kl_old": masked(k3(d), mask),
        "policy/entropy": masked(entropy, mask),
        "policy/logprob": masked(logprobs, mask),
    }


def sampler_sums(logprobs: jax.Array, behavior_logprobs: jax.Array, mask: jax.Array) -> Sums:
    """How far the sampler's log-probabilities are from the trainer's, all arrays [G, N, R].

    `gap` is mean |difference| of log-probabilities, `gap_prob` of probabilities, `kl` is the k1
    estimate of KL(sampler || trainer). Near 0 where both run the same mathematics.
    """
    d = log_ratio(behavior_logprobs, logprobs, mask)
    return {
        "sampler/gap": masked(jnp.abs(d), mask),
        "sampler/gap_prob": masked(jnp.abs(jnp.exp(behavior_logprobs) - jnp.exp(logprobs)), mask),
        "sampler/kl": masked(k1(d), mask),
    }
