"""What a minibatch as a whole says about how much its tokens count (host side)."""

import jax.numpy as jnp
import numpy as np

from evr1.config import AlgorithmSettings
from evr1.rl import selection
from evr1.rl.correction import mean_weight
from evr1.types import GroupBatch


def neutral(a: AlgorithmSettings, batch: GroupBatch) -> GroupBatch:
    """Returns the batch with the fields that the algorithm looks at, still without an effect.

    The programs of a run thus see the same fields in every batch.
    """
    ones = np.ones(batch.completion_mask.shape, np.float32)
    is_adaptive = a.entropy_controller == "adaptive"
    return batch._replace(
        policy_weights=ones if a.has_policy_weights else None,
        kl_old_coef=0 * ones if a.covariance == "kl" else None,
        entropy_coef=np.zeros_like(batch.kl_coef) if is_adaptive else None,
    )


def with_policy_weights(
    a: AlgorithmSettings, batch: GroupBatch, rng: np.random.Generator
) -> GroupBatch:
    """Returns a minibatch with the factors on its policy loss, where the algorithm has some.

    Offline completions keep a factor of 1 and enter no statistic.

    Args:
        a: the algorithm.
        batch: a whole minibatch, with the log-probabilities before its update and, for
            `entropy_share`, the entropies.
        rng: draws the tokens of Clip-Cov.
    """
    sampled = batch.completion_mask & ~batch.is_offline[..., None]
    weights = np.ones(sampled.shape, np.float32)
    if a.entropy_share < 1:
        assert batch.entropy is not None
        is_top = selection.top_entropy(batch.entropy, sampled, a.entropy_share)
        weights[sampled & ~is_top] = 0
    batch = batch._replace(entropy=None)
    if a.covariance == "clip":
        values = selection.covariance(batch.old_logprobs, batch.advantages, sampled)
        bounds = (a.covariance_low, a.covariance_high)
        weights[selection.clip_cov(values, sampled, a.covariance_share, bounds, rng)] = 0
    if a.covariance == "kl":
        values = selection.covariance(batch.old_logprobs, batch.advantages, sampled)
        chosen = selection.kl_cov(values, sampled, a.covariance_share)
        coef = np.where(chosen, a.covariance_coef, 0).astype(np.float32)
        batch = batch._replace(kl_old_coef=coef)
    if a.correction_normalized:
        weights[sampled] /= mean_weight(
            a.correction,
            jnp.asarray(batch.old_logprobs),
            jnp.asarray(batch.behavior_logprobs),
            jnp.asarray(sampled),
            a.correction_low,
            a.correction_high,
            a.correction_floor,
        )
    return batch._replace(policy_weights=weights) if a.has_policy_weights else batch
