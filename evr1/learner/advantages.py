"""From what the completions earned to the advantages of a batch (host side)."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from evr1.batch.assemble import token_advantages
from evr1.config import AlgorithmSettings, CriticSettings, MixSettings
from evr1.config.learner import LearnerSettings
from evr1.rl import entropy
from evr1.rl.advantages import group_advantages
from evr1.rl.gae import gae
from evr1.rl.kl import CONTROLLERS, kl
from evr1.rl.outcomes import Outcomes, update_moments
from evr1.rl.state import AlgorithmState
from evr1.rl.weights import loss_weights
from evr1.types import GroupBatch


def estimate(
    algorithm: AlgorithmSettings, mix: MixSettings, outcomes: Outcomes, memory: AlgorithmState
) -> tuple[np.ndarray, AlgorithmState]:
    """Returns the advantages, and the memory with the moments that this batch has moved.

    With mix.treatment=sft offline completions are no part of their groups' statistics; the weight
    of their loss stands in the place of their advantage.
    """
    outcomes, imitated = _without_imitated(mix, outcomes)
    if algorithm.advantage == "ema_grpo":
        moments = update_moments(memory.moments, outcomes, algorithm.ema_decay)
        memory = memory._replace(moments=moments)
    outcomes = outcomes._replace(
        moments=memory.moments, passk=algorithm.passk, discount=algorithm.discount
    )
    advantages = group_advantages(outcomes, algorithm.advantage)
    return _with_imitated(mix, advantages, imitated), memory


def with_gae(
    critic: CriticSettings, mix: MixSettings, outcomes: Outcomes, batch: GroupBatch
) -> GroupBatch:
    """Returns the batch with advantages and returns from its critic's values."""
    outcomes, imitated = _without_imitated(mix, outcomes)
    advantages, returns = gae(
        outcomes, batch.old_values, discount=critic.discount, decay=critic.decay
    )
    advantages = _with_imitated(mix, advantages, imitated)
    return with_advantages(batch, advantages)._replace(returns=returns)


def with_advantages(batch: GroupBatch, advantages: np.ndarray) -> GroupBatch:
    """Returns the batch with these, [G, N] or [G, N, R]."""
    return batch._replace(advantages=token_advantages(advantages, batch.completion_mask))


def for_critic(
    mix: MixSettings, batch: GroupBatch, *, aggregation: str, max_tokens: float
) -> GroupBatch:
    """Returns the batch without completions that are imitated: nobody estimated their returns."""
    if mix.treatment != "sft" or not batch.is_offline.any():
        return batch
    mask = batch.completion_mask & ~batch.is_offline[..., None]
    weights = loss_weights(mask, aggregation, max_tokens)
    return batch._replace(completion_mask=mask, loss_weights=weights)


def token_kl(estimator: str, batch: GroupBatch) -> np.ndarray:
    """Returns float32[G, N, R]: the KL of the old policy to the reference on every token."""
    return np.asarray(
        kl(
            estimator,
            jnp.asarray(batch.old_logprobs),
            jnp.asarray(batch.ref_logprobs),
            jnp.asarray(batch.completion_mask),
        )
    )


def next_kl_coef(
    settings: LearnerSettings, memory: AlgorithmState, observed: float
) -> AlgorithmState:
    """Returns the memory after a step with this mean KL of a token."""
    a = settings.algorithm
    share = settings.rollout.prompts * settings.rollout.n / a.kl_horizon
    coef = CONTROLLERS[a.kl_controller](memory.kl_coef, observed, a.kl_target, share)
    return memory._replace(kl_coef=coef)


def entropy_coef(algorithm: AlgorithmSettings, memory: AlgorithmState) -> float:
    """Returns the coefficient of the adaptive entropy bonus in this step."""
    return entropy.active(memory.entropy_coef, memory.entropy, algorithm.entropy_target)


def with_entropy_coef(
    algorithm: AlgorithmSettings, batch: GroupBatch, memory: AlgorithmState
) -> GroupBatch:
    """Returns the batch with the coefficient as data, where a controller changes it."""
    if algorithm.entropy_controller != "adaptive":
        return batch
    coef = entropy_coef(algorithm, memory)
    return batch._replace(entropy_coef=np.full_like(batch.kl_coef, coef))


def next_entropy(
    algorithm: AlgorithmSettings, memory: AlgorithmState, metrics: Mapping[str, float]
) -> AlgorithmState:
    """Returns the memory after a step with these metrics; as it is where nothing was trained."""
    if "policy/entropy" not in metrics:
        return memory
    observed, a = metrics["policy/entropy"], algorithm
    coef = entropy.adapted(memory.entropy_coef, observed, a.entropy_target, a.entropy_step)
    return memory._replace(entropy_coef=coef, entropy=observed)


def _without_imitated(mix: MixSettings, outcomes: Outcomes) -> tuple[Outcomes, np.ndarray | None]:
    """Returns the outcomes that advantages are for, and which completions are imitated instead."""
    if mix.treatment != "sft" or outcomes.is_offline is None:
        return outcomes, None
    imitated = outcomes.valid & outcomes.is_offline
    return outcomes._replace(valid=outcomes.valid & ~imitated), imitated


def _with_imitated(
    mix: MixSettings, advantages: np.ndarray, imitated: np.ndarray | None
) -> np.ndarray:
    if imitated is None:
        return advantages
    where = imitated if advantages.ndim == 2 else imitated[..., None]
    return np.where(where, np.float32(mix.sft_coef), advantages)
