"""Per-token policy losses, to be minimised; `rl.weights` says how much each token counts.

A new loss is a function `(TokenInputs, LossConfig) -> (loss[G, N, R], Sums)` and a line in
`POLICY_LOSSES`; its default bounds stand in `evr1.config.algorithms.POLICIES`. The loss of a whole
completion stands on each of its tokens: with `sequence_mean` weights they add up to it. A is the
advantage, r = exp(logprobs - old_logprobs). Completions that the policy did not sample may have a
loss of their own, see `rl.offline`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evr1.rl.correction import Guards, correction_weights
from evr1.rl.diagnostics import Sums, masked
from evr1.rl.inputs import LossConfig, TokenInputs
from evr1.rl.kl import kl_loss
from evr1.rl.offline import OFFLINE_LOSSES
from evr1.rl.ratio import bounded, completion_mean, difference, log_ratio


def token_loss(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns the per-token loss float32[G, N, R] with all of its terms, and their diagnostics.

    Corrections never touch offline completions; the KL term and the entropy hold for all.

    Raises:
        ValueError: unknown policy loss, or treatment of offline completions.
    """
    if config.policy not in POLICY_LOSSES:
        raise ValueError(
            f"algorithm.policy={config.policy!r} is unknown; use one of {', '.join(POLICY_LOSSES)}"
        )
    if config.offline not in OFFLINE_LOSSES:
        raise ValueError(
            f"mix.treatment={config.offline!r} is unknown; use one of {', '.join(OFFLINE_LOSSES)}"
        )
    if config.on_policy:
        inputs = inputs._replace(old_logprobs=jax.lax.stop_gradient(inputs.logprobs))
    loss, sums = _policy_loss(inputs, config)
    loss, sums = _weighted(loss, sums, inputs, config)
    if config.has_kl:
        penalty = kl_loss(
            config.kl_estimator,
            config.kl_gradient,
            inputs.logprobs,
            inputs.ref_logprobs,
            inputs.old_logprobs,
            inputs.mask,
        )
        loss = loss + inputs.kl_coef * penalty
        sums["policy/kl_ref"] = masked(penalty, inputs.mask)
    if config.has_entropy:
        coef = config.entropy_coef if inputs.entropy_coef is None else inputs.entropy_coef
        loss = loss - coef * jnp.where(inputs.mask, inputs.entropy, 0)
    if config.has_offline:
        offline = inputs.mask & inputs.is_offline
        sums["policy/loss_online"] = masked(loss, inputs.mask & ~inputs.is_offline)
        sums["policy/loss_offline"] = masked(loss, offline)
        sums["policy/offline_logprob"] = masked(inputs.logprobs, offline)
    return loss, sums


def _policy_loss(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns the policy loss, with the loss of `config.offline` on offline completions.

    Each of the two losses sees the other's completions as padding.
    """
    online, treat = POLICY_LOSSES[config.policy], OFFLINE_LOSSES[config.offline]
    if treat is None:
        return online(inputs, config)
    mask, is_offline = inputs.mask, inputs.is_offline
    loss, sums = online(inputs._replace(mask=mask & ~is_offline), config)
    other, more = treat(inputs._replace(mask=mask & is_offline), config)
    return jnp.where(is_offline, other, loss), sums | more


def _weighted(
    loss: jax.Array, sums: Sums, inputs: TokenInputs, config: LossConfig
) -> tuple[jax.Array, Sums]:
    """Returns the policy loss with all that makes tokens count more, less or not at all.

    None of it touches offline completions, and the denominators stay as they are.
    """
    sampled = inputs.mask & ~inputs.is_offline  # no sampler drew the others
    if inputs.kl_old_coef is not None:  # KL-Cov
        distance = jnp.abs(difference(inputs.logprobs, inputs.old_logprobs, inputs.mask))
        loss = loss + inputs.kl_old_coef * distance
        sums = sums | {"policy/kl_cov_share": masked(inputs.kl_old_coef > 0, sampled)}
    if inputs.policy_weights is not None:
        loss = loss * inputs.policy_weights
        sums = sums | {"policy/selected_share": masked(inputs.policy_weights > 0, sampled)}
    if config.has_correction:
        guards = Guards(
            config.correction_floor,
            config.rejection,
            config.rejection_low,
            config.rejection_high,
            config.veto,
        )
        weights, more = correction_weights(
            config.correction,
            inputs.old_logprobs,
            inputs.behavior_logprobs,
            sampled,
            config.correction_low,
            config.correction_high,
            guards,
        )
        loss, sums = loss * jnp.where(inputs.is_offline, 1, weights), sums | more
    if config.off_policy_bound:
        is_off = off_policy(inputs, config.off_policy_bound)
        loss = jnp.where(is_off, 0, loss)
        sums = sums | {"policy/off_policy_share": masked(is_off, sampled)}
    return loss, sums


def off_policy(inputs: TokenInputs, bound: float) -> jax.Array:
    """Returns bool[G, N, R]: tokens of negative advantage in completions that left the sampler.

    They are those that the policy sampled and where the mean of log(behavior / policy) over the
    completion is over the bound. log(behavior / policy) = (1.5, 0), A = -1, bound .5: both are;
    with A = 1, or (.5, 0), none is.

    Source: DeepSeek-V3.2, 2512.02556 §3.1.
    """
    sampled = inputs.mask & ~inputs.is_offline
    logprobs = jax.lax.stop_gradient(inputs.logprobs)
    gap = completion_mean(difference(inputs.behavior_logprobs, logprobs, sampled), sampled)
    return sampled & (inputs.advantages < 0) & (gap > bound)


def ppo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns max(-r A, -clip(r) A), at most -clip_dual A where A < 0, and the clipped shares.

    A = -1, r = 10, clip_dual = 3: loss 3, gradient 0.

    Source: 1707.06347 eq. 7; separate bounds 2503.14476 eq. 10; dual clip 1912.09729 eq. 5.
    """
    return _clipped(jnp.exp(_log_ratio(inputs)), inputs, config)


def gspo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns `ppo` with one ratio for a completion: s = exp(mean of log r over its tokens).

    log r = (ln 4, 0): s = 2. log r = (-25, 12, 12): s = exp(-1/3).

    Source: 2507.18071 eq. 5 to 7.
    """
    s = jnp.exp(bounded(_mean_log_ratio(inputs)))
    return _clipped(jnp.broadcast_to(s, inputs.mask.shape), inputs, config)


def gspo_token(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns `gspo` with a ratio of value s whose gradient on every token is that token's alone.

    The gradient of `gspo` where all tokens of a completion have the same advantage.

    Source: 2507.18071 eq. 13 and 14.
    """
    mean = jax.lax.stop_gradient(bounded(_mean_log_ratio(inputs)))
    own = jnp.where(inputs.mask, inputs.logprobs, 0)
    return _clipped(jnp.exp(mean + own - jax.lax.stop_gradient(own)), inputs, config)


def cispo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -clip(r) A logprob without a gradient through clip(r): a clipped token still learns.

    A = 1, r = 10, clip_high = .28: gradient -1.28.

    Source: 2506.13585 eq. 4 and 5.
    """
    low, high = _bounds(config)
    ratio = jax.lax.stop_gradient(jnp.exp(_log_ratio(inputs)))
    loss = -jnp.clip(ratio, low, high) * inputs.advantages * _logprobs(inputs)
    return loss, {
        "policy/clip_low_share": masked(ratio < low, inputs.mask),
        "policy/clip_high_share": masked(ratio > high, inputs.mask),
    }


def sapo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -4 / tau sigmoid(tau (r - 1)) A, a gate that closes softly as r leaves 1. No bounds.

    At r = 1, tau = 1, A = 1: loss -2, derivative in r -1, as that of `ppo`.

    Source: 2511.20347.
    """
    a = inputs.advantages
    ratio = jnp.exp(_log_ratio(inputs))
    tau = jnp.where(a > 0, config.sapo_temperature_positive, config.sapo_temperature_negative)
    gate = jax.nn.sigmoid(tau * (ratio - 1))
    return -4 / tau * gate * a, {"policy/gate": masked(4 * gate * (1 - gate), inputs.mask)}


def reinforce(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -A logprob: no ratio, no bounds."""
    return -inputs.advantages * _logprobs(inputs), {}


def gmpo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -A exp(mean over the tokens of clipped log r).

    A > 0 is clipped above at clip_high, A < 0 below at -clip_low, both in log space.

    A = 1, log r = (.8, 0), clip_high = .4: -exp(.2), and only the second token learns.

    Source: 2507.20673.
    """
    a, d = inputs.advantages, difference(inputs.logprobs, inputs.old_logprobs, inputs.mask)
    is_high = (a > 0) & (d > (config.clip_high or jnp.inf))
    is_low = (a < 0) & (d < -(config.clip_low or jnp.inf))
    d = jnp.where(is_high, config.clip_high, jnp.where(is_low, -config.clip_low, d))
    return -a * jnp.exp(bounded(completion_mean(d, inputs.mask))), {
        "policy/clip_low_share": masked(is_low, inputs.mask),
        "policy/clip_high_share": masked(is_high, inputs.mask),
    }


POLICY_LOSSES: dict[str, Callable[[TokenInputs, LossConfig], tuple[jax.Array, Sums]]] = {
    "ppo": ppo,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "cispo": cispo,
    "sapo": sapo,
    "reinforce": reinforce,
    "gmpo": gmpo,
}


def _clipped(ratio: jax.Array, inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    low, high = _bounds(config)
    a = inputs.advantages
    loss = jnp.maximum(-a * ratio, -a * jnp.clip(ratio, low, high))
    sums = {
        "policy/clip_low_share": masked((a < 0) & (ratio < low), inputs.mask),
        "policy/clip_high_share": masked((a > 0) & (ratio > high), inputs.mask),
    }
    if config.clip_dual:
        is_dual = (a < 0) & (ratio > config.clip_dual)
        loss = jnp.where(a < 0, jnp.minimum(loss, -a * config.clip_dual), loss)
        sums["policy/clip_dual_share"] = masked(is_dual, inputs.mask)
    return loss, sums


def _bounds(config: LossConfig) -> tuple[float, float]:
    low = 1 - config.clip_low if config.clip_low else 0.0
    return low, 1 + config.clip_high if config.clip_high else float("inf")


def _log_ratio(inputs: TokenInputs) -> jax.Array:
    return log_ratio(inputs.logprobs, inputs.old_logprobs, inputs.mask)


def _logprobs(inputs: TokenInputs) -> jax.Array:
    """Returns logprobs on the mask, 0 elsewhere: a wild value on padding must not reach exp."""
    return jnp.where(inputs.mask, inputs.logprobs, 0)


def _mean_log_ratio(inputs: TokenInputs) -> jax.Array:
    d = difference(inputs.logprobs, inputs.old_logprobs, inputs.mask)
    return completion_mean(d, inputs.mask)
