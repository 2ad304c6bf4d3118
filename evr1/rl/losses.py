"""Per-token policy losses, to be minimised; `rl.weights` says how much each token counts.

A new loss is a function `(TokenInputs, LossConfig) -> (loss[G, N, R], Sums)` and a line in
`POLICY_LOSSES`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evr1.rl.diagnostics import Sums, masked
from evr1.rl.kl import kl
from evr1.rl.ratio import log_ratio


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of an update. Fields bear the names of `config.algorithm`.

    Attributes:
        policy: a key of `POLICY_LOSSES`.
        clip_low: the ratio is clipped below at 1 - clip_low.
        clip_high: and above at 1 + clip_high.
        clip_dual: bound on the loss of a token with advantage -1; 0: none.
        kl_coef: weight of the KL to the reference; 0: the reference is not looked at.
        kl_estimator: a key of `rl.kl.ESTIMATORS`.
        temperature: what the logits are divided by, as when sampling.
        on_policy: for one update per rollout batch: the policy itself is the old one, which saves
            the forward pass that would compute `old_logprobs`. The ratio is 1 and its gradient
            that of the log-probability; `old_logprobs` may hold the sampler's, which are then
            compared with the policy's (`sampler/` metrics) and not trained on.
    """

    policy: str = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    clip_dual: float = 3.0
    kl_coef: float = 0.0
    kl_estimator: str = "k3"
    temperature: float = 1.0
    on_policy: bool = False


class TokenInputs(NamedTuple):
    """What a policy loss may look at. A completion is a row along the last axis."""

    logprobs: jax.Array  # float32[G, N, R], of the policy that is trained
    old_logprobs: jax.Array  # float32[G, N, R]
    advantages: jax.Array  # float32[G, N, R]
    mask: jax.Array  # bool[G, N, R], trained tokens


def ppo(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """max(-r A, -clip(r) A), for A < 0 at most -clip_dual A. Shares of clipped tokens beside it.

    A = -1, r = 10, clip_dual = 3: loss 3, gradient 0.

    Source: 1707.06347 eq. 7; separate bounds 2503.14476 eq. 10; dual clip 1912.09729 eq. 5.
    """
    a = inputs.advantages
    ratio = jnp.exp(log_ratio(inputs.logprobs, inputs.old_logprobs, inputs.mask))
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = jnp.maximum(-a * ratio, -a * clipped)
    is_dual = jnp.zeros(a.shape, bool)
    if config.clip_dual:
        is_dual = (a < 0) & (ratio > config.clip_dual)
        loss = jnp.where(a < 0, jnp.minimum(loss, -a * config.clip_dual), loss)
    return loss, {
        "policy/clip_low_share": masked((a < 0) & (ratio < 1 - config.clip_low), inputs.mask),
        "policy/clip_high_share": masked((a > 0) & (ratio > 1 + config.clip_high), inputs.mask),
        "policy/clip_dual_share": masked(is_dual, inputs.mask),
    }


POLICY_LOSSES: dict[str, Callable[[TokenInputs, LossConfig], tuple[jax.Array, Sums]]] = {"ppo": ppo}


def token_loss(
    inputs: TokenInputs, ref_logprobs: jax.Array, config: LossConfig
) -> tuple[jax.Array, Sums]:
    """The per-token loss float32[G, N, R], KL term included, and the diagnostics of its parts.

    Raises:
        ValueError: unknown policy loss.
    """
    if config.policy not in POLICY_LOSSES:
        raise ValueError(
            f"policy loss {config.policy!r} is unknown; use one of {', '.join(POLICY_LOSSES)}"
        )
    if config.on_policy:
        inputs = inputs._replace(old_logprobs=jax.lax.stop_gradient(inputs.logprobs))
    loss, sums = POLICY_LOSSES[config.policy](inputs, config)
    if config.kl_coef:
        penalty = kl(config.kl_estimator, inputs.logprobs, ref_logprobs, inputs.mask)
        loss = loss + config.kl_coef * penalty
        sums["policy/kl_ref"] = masked(penalty, inputs.mask)
    return loss, sums
