"""From rollouts to what the update sees: assembly, minibatches, microbatches (host side, NumPy)."""

import math

import jax
import numpy as np
from jaxtyping import Bool, Float

from evr1.rl.weights import loss_weights
from evr1.types import GroupBatch, Prompts, Rollouts, ShapeTable

PER_GROUP = (
    "groups",
    "is_offline",
    "kl_coef",
    "update",
)  # the fields of GroupBatch that have no R axis


def group_batch(
    prompts: Prompts,
    rollouts: Rollouts,
    advantages: Float[np.ndarray, "g n"] | Float[np.ndarray, "g n r"],
    *,
    aggregation: str,
    max_tokens: int,
    valid: Bool[np.ndarray, "g n"] | None = None,
    is_offline: Bool[np.ndarray, "g n"] | None = None,
    kl_coef: float = 0.0,
) -> GroupBatch:
    """The rollouts of G prompts as one minibatch (host arrays).

    `old_logprobs` are the sampler's until they are replaced; `ref_logprobs` are 0.

    Args:
        prompts: G of them, or more: what follows the first G is padding.
        rollouts: of the first G prompts.
        advantages: one a completion, or one a token.
        aggregation: see `evr1.rl.weights`.
        max_tokens: the completion limit.
        valid: completions to train on, all by default.
        is_offline: completions that the policy did not sample, none by default.
        kl_coef: coefficient of the KL term in the loss.

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
        is_offline=np.zeros((groups, n), bool) if is_offline is None else is_offline,
        kl_coef=np.full(groups, kl_coef, np.float32),
        old_values=np.zeros(mask.shape, np.float32),
        returns=np.zeros(mask.shape, np.float32),
        update=np.full(groups, -1, np.int32),
    )
    return _pad_groups(batch, groups + pad)


def token_advantages(
    advantages: Float[np.ndarray, "g n"] | Float[np.ndarray, "g n r"],
    mask: Bool[np.ndarray, "g n r"],
) -> Float[np.ndarray, "g n r"]:
    """The advantage of every token; 0 off the mask."""
    per_token = advantages if advantages.ndim == 3 else advantages[..., None]
    return np.where(mask, per_token, 0).astype(np.float32)


def minibatches(
    batch: GroupBatch, count: int, *, aggregation: str, max_tokens: int
) -> list[GroupBatch]:
    """The batch in `count` parts, one for each optimizer update, each with its own loss weights.

    Groups are dealt out in turn, so that a sorted batch gives similar parts.

    Raises:
        ValueError: more parts than groups with something to train on.
    """
    order = np.flatnonzero(batch.completion_mask.any(axis=(1, 2)))
    if not 1 <= count <= max(len(order), 1):
        raise ValueError(
            f"algorithm.updates_per_rollout={count}, but only {len(order)} groups to train on; "
            "lower it or raise rollout.prompts"
        )
    parts = [_take(batch, order[i::count]) for i in range(count)]
    return [
        part._replace(loss_weights=loss_weights(part.completion_mask, aggregation, max_tokens))
        for part in parts
    ]


def microbatches(
    batch: GroupBatch,
    max_tokens: int,
    *,
    shapes: ShapeTable | None = None,
    group_multiple: int = 1,
    drop_silent: bool = False,
) -> list[GroupBatch]:
    """The minibatch in parts of at most `max_tokens` tokens, whole groups each; their gradients add
    up to its own.

    Groups of similar size stand together, longest first, and every part is cut to the buckets that
    its prompts, vision rows and completions need. How many groups a part has follows from its
    buckets and from the number of groups in the minibatch; a part with fewer is filled up with
    groups of weight 0. So few shapes are ever compiled. Groups without any trained token are left
    out. The same batch is always cut in the same way.

    Args:
        batch: host arrays.
        max_tokens: padded tokens of a part, all devices together: G * (P + N * R).
        shapes: the buckets; None: nothing is cut.
        group_multiple: number of devices that groups are spread over.
        drop_silent: leave out groups whose weighted advantages are all 0. They have no gradient,
            unless there is a KL term or an entropy bonus. Diagnostics then say nothing of them.

    Raises:
        ValueError: `group_multiple` groups of the largest shape exceed `max_tokens`.
    """
    n, r = batch.completions.shape[1:]
    groups = np.flatnonzero(batch.completion_mask.any(axis=(1, 2)))
    total = len(groups)
    if drop_silent:
        has_signal = (batch.advantages * batch.loss_weights != 0).any(axis=(1, 2))
        groups = groups[has_signal[groups]]
    sizes = _bucket_sizes(batch, shapes)[groups]
    order = np.lexsort([groups, *(-sizes.T[::-1])])
    parts: list[GroupBatch] = []
    start = 0
    while start < len(order):
        end, size = start, sizes[order[start]]
        while end < len(order):
            grown = np.maximum(size, sizes[order[end]])
            if end - start >= groups_per_part(grown, n, max_tokens, total, group_multiple):
                break
            end, size = end + 1, grown
        capacity = groups_per_part(size, n, max_tokens, total, group_multiple)
        part = _cut(_take(batch, groups[order[start:end]]), *size)
        parts.append(_pad_groups(part, capacity))
        start = end
    return parts


def groups_per_part(
    size: np.ndarray, n: int, max_tokens: int, total: int, group_multiple: int
) -> int:
    """How many groups of this size a part holds.

    What fits, evened out over the parts of the minibatch.
    """
    p, r, _ = (int(x) for x in size)
    fits = max_tokens // (p + n * r) // group_multiple * group_multiple
    if not fits:
        raise ValueError(
            f"{group_multiple} groups of {p} prompt and {n} x {r} completion tokens are "
            f"{group_multiple * (p + n * r)} tokens, over train.microbatch_tokens={max_tokens}; "
            "raise it, or lower data.max_prompt_tokens or rollout.max_completion_tokens"
        )
    even = math.ceil(total / math.ceil(total / fits))
    return math.ceil(even / group_multiple) * group_multiple


def _bucket_sizes(batch: GroupBatch, shapes: ShapeTable | None) -> np.ndarray:
    """int[G, 3].

    The buckets of prompt tokens, completion tokens and vision rows that each group needs.
    """
    p, r = batch.prompts.tokens.shape[1], batch.completions.shape[2]
    f = batch.prompts.vision.patches.shape[1]
    if shapes is None:
        return np.tile([p, r, f], (len(batch.completions), 1))
    last = np.where(batch.completion_mask.any(axis=1), np.arange(1, r + 1), 0).max(axis=1)
    used = (batch.prompts.vision.segment_ids > 0).any(axis=2)
    rows = np.where(used, np.arange(1, f + 1), 0).max(axis=1, initial=0)
    return np.stack(
        [
            [min(shapes.prompt_bucket(int(x)), p) for x in batch.prompts.lengths],
            [completion_bucket(int(x), r) for x in last],
            [min(shapes.vision_bucket(int(x)), f) for x in rows],
        ],
        axis=1,
    )


def completion_bucket(tokens: int, limit: int) -> int:
    """The smallest quarter of the limit that holds `tokens`: 33 tokens of 100 take 50."""
    quarters = [math.ceil(limit * i / 4) for i in range(1, 5)]
    return next(q for q in quarters if q >= tokens)


def _take(batch: GroupBatch, groups: np.ndarray) -> GroupBatch:
    return jax.tree.map(lambda x: x[groups], batch)


def _cut(batch: GroupBatch, p: int, r: int, f: int) -> GroupBatch:
    """The batch with P, R and F cut to these sizes; vision rows are filled from the first on."""
    prompts = batch.prompts
    prompts = prompts._replace(
        tokens=prompts.tokens[:, :p],
        positions=prompts.positions[:, :, :p],
        visual_index=prompts.visual_index[:, :p],
        vision=jax.tree.map(lambda x: x[:, :f], prompts.vision),
    )
    arrays = batch._asdict()
    whole = {"prompts": prompts} | {name: arrays[name] for name in PER_GROUP}
    rest = {name: x[:, :, :r] for name, x in arrays.items() if name not in whole}
    return GroupBatch(**whole, **rest)


def _pad_groups(batch: GroupBatch, groups: int) -> GroupBatch:
    """The batch filled up with groups of one prompt token and weight 0."""
    pad = groups - len(batch.completions)
    batch = jax.tree.map(lambda x: np.pad(x, ((0, pad), *((0, 0),) * (x.ndim - 1))), batch)
    batch.groups[groups - pad :] = -1
    batch.prompts.lengths[groups - pad :] = 1
    batch.prompts.next_positions[groups - pad :] = 1
    batch.prompts.visual_index[groups - pad :] = -1
    return batch
