"""From rollouts to one `GroupBatch` on the host (NumPy)."""

import jax
import numpy as np
from jaxtyping import Bool, Float

from evr1.rl.weights import loss_weights
from evr1.types import GroupBatch, Prompts, Rollouts


def group_batch(
    prompts: Prompts,
    rollouts: Rollouts,
    advantages: Float[np.ndarray, "g n"] | Float[np.ndarray, "g n r"],
    *,
    aggregation: str,
    max_tokens: float,
    valid: Bool[np.ndarray, "g n"] | None = None,
) -> GroupBatch:
    """Returns the rollouts of G prompts as one minibatch (host arrays).

    `old_logprobs` are the sampler's until they are replaced; `ref_logprobs`, `kl_coef` and the
    critic's fields are 0; all completions count as the policy's own.

    Args:
        prompts: G of them, or more: what follows the first G is padding.
        rollouts: of the first G prompts.
        advantages: one a completion, or one a token.
        aggregation: see `evr1.rl.weights`.
        max_tokens: the completion limit, or what takes its place there.
        valid: completions to train on, all by default.

    Raises:
        ValueError: more rollouts than prompts, or an advantage that is not finite.
    """
    groups, n, r = rollouts.completions.shape
    pad = len(prompts.tokens) - groups
    if pad < 0:
        raise ValueError(f"{groups} groups of rollouts, but {len(prompts.tokens)} prompts")
    if not np.isfinite(advantages).all():
        raise ValueError("advantages must be finite; check the rewards")
    mask = np.arange(r) < rollouts.lengths[..., None]
    mask = mask if valid is None else mask & valid[..., None]
    behavior = np.where(mask, rollouts.logprobs, 0).astype(np.float32)
    batch = GroupBatch(
        prompts=jax.tree.map(lambda x: x[:groups], prompts),
        groups=np.arange(groups, dtype=np.int32),
        completions=rollouts.completions.astype(np.int32),
        completion_mask=mask,
        behavior_logprobs=behavior,
        old_logprobs=behavior,
        ref_logprobs=np.zeros(mask.shape, np.float32),
        advantages=token_advantages(advantages, mask),
        loss_weights=loss_weights(mask, aggregation, max_tokens),
        is_offline=np.zeros((groups, n), bool),
        kl_coef=np.zeros(groups, np.float32),
        old_values=np.zeros(mask.shape, np.float32),
        returns=np.zeros(mask.shape, np.float32),
        update=np.full(groups, -1, np.int32),
    )
    return pad_groups(batch, groups + pad)


def token_advantages(
    advantages: Float[np.ndarray, "g n"] | Float[np.ndarray, "g n r"],
    mask: Bool[np.ndarray, "g n r"],
) -> Float[np.ndarray, "g n r"]:
    """Returns the advantage of every token; 0 off the mask, and past the width of `advantages`."""
    if advantages.ndim == 2:
        per_token = advantages[..., None]
    else:
        missing = mask.shape[2] - advantages.shape[2]
        per_token = np.pad(advantages, ((0, 0), (0, 0), (0, missing)))
    return np.where(mask, per_token, 0).astype(np.float32)


def pad_groups(batch: GroupBatch, groups: int) -> GroupBatch:
    """Returns the batch filled up with groups of one prompt token and weight 0."""
    pad = groups - len(batch.completions)
    batch = jax.tree.map(lambda x: np.pad(x, ((0, pad), *((0, 0),) * (x.ndim - 1))), batch)
    batch.groups[groups - pad :] = -1
    batch.prompts.lengths[groups - pad :] = 1
    batch.prompts.next_positions[groups - pad :] = 1
    batch.prompts.visual_index[groups - pad :] = -1
    return batch
