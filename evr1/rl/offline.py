"""Losses of offline completions: those that the policy did not sample in this step.

They are another model's trajectories, or the policy's own of an earlier step. A new treatment is a
function `(TokenInputs, LossConfig) -> (loss[G, N, R], Sums)` and a line in `OFFLINE_LOSSES`; the
mask that it is given holds offline tokens only. A is the advantage, p = exp(logprobs).
`behavior_logprobs` of an offline token are those of what wrote it, or 0 (a probability of 1) where
nobody knows them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from evr1.rl.diagnostics import Sums, masked
from evr1.rl.inputs import LossConfig, TokenInputs
from evr1.rl.ratio import log_ratio


def importance(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -min(rho, offline_clip) A, rho = p / the behavior's; no gradient where it is clipped.

    p = .1, behavior .4, A = 1: loss -.25, gradient -.25. Behavior .05, clip 1: rho = 2, loss -1,
    gradient 0. At rho = clip the gradient is there.
    """
    rho = jnp.exp(log_ratio(inputs.logprobs, inputs.behavior_logprobs, inputs.mask))
    is_clipped = rho > config.offline_clip
    loss = -jnp.where(is_clipped, config.offline_clip, rho) * inputs.advantages
    return loss, {"policy/offline_clip_share": masked(is_clipped, inputs.mask)}


def luffy(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -A p / (p + gamma).

    The weight of a token's gradient is gamma / (p + gamma)**2: unlikely ones count more.
    p = .1, gamma = .1: p / (p + gamma) is .5, its derivative 2.5.

    Source: 2504.14945 §3.3; the probability of the offline policy is taken as 1.
    """
    p = jnp.exp(_logprobs(inputs))
    shaped = p / (p + config.luffy_gamma)
    return -inputs.advantages * shaped, {"policy/offline_shape": masked(shaped, inputs.mask)}


def sft(inputs: TokenInputs, config: LossConfig) -> tuple[jax.Array, Sums]:
    """Returns -A logprob: with a constant for A, its weight, this is supervised fine-tuning."""
    return -inputs.advantages * _logprobs(inputs), {}


# None: the loss of the policy, as if it had sampled them.
OFFLINE_LOSSES: dict[str, Callable[[TokenInputs, LossConfig], tuple[jax.Array, Sums]] | None] = {
    "on_policy": None,
    "importance": importance,
    "luffy": luffy,
    "sft": sft,
}


def _logprobs(inputs: TokenInputs) -> jax.Array:
    """Returns logprobs on the mask, 0 elsewhere: a wild value on padding must not reach exp."""
    return jnp.where(inputs.mask, inputs.logprobs, 0)
