"""A rollout batch in parts: minibatches, an optimizer update each, of microbatches (NumPy)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from evr1.batch.assemble import pad_groups
from evr1.batch.shapes import ShapeTable, groups_per_part
from evr1.rl.weights import loss_weights
from evr1.types import GroupBatch

# The fields of GroupBatch that have no R axis.
PER_GROUP = ("groups", "is_offline", "kl_coef", "update", "entropy_coef")


class Owners(NamedTuple):
    """Which host has the pixels of each group.

    Attributes:
        hosts: int[G].
        host_count: of the run.
    """

    hosts: np.ndarray
    host_count: int


@dataclasses.dataclass(frozen=True)
class Cutter:
    """How the rollout batches of a run are cut.

    Attributes:
        shapes: the buckets.
        updates: minibatches of a rollout batch.
        aggregation: of the loss, see `evr1.rl.weights`.
        loss_divisor: of the loss, see `evr1.rl.weights`.
        microbatch_tokens: padded tokens of a microbatch, all devices together.
        group_multiple: number of devices that groups are spread over.
        drop_silent: see `microbatches`.
        hosts: that these devices belong to, in equal runs.
    """

    shapes: ShapeTable
    updates: int
    aggregation: str
    loss_divisor: float
    microbatch_tokens: int
    group_multiple: int = 1
    drop_silent: bool = False
    hosts: int = 1

    def cut(
        self,
        batch: GroupBatch,
        owners: Int[np.ndarray, " g"] | None = None,
        *,
        is_complete: bool = False,
        finish: Callable[[GroupBatch], GroupBatch] | None = None,
    ) -> list[list[GroupBatch]]:
        """Returns the microbatches of each minibatch.

        Where fewer groups than updates have something to train on, there are fewer minibatches.

        Args:
            batch: host arrays.
            owners: the host of each of the batch's groups, which has its pixels; None: all 0.
            is_complete: keep groups without signal, whatever `drop_silent` says.
            finish: is given each whole minibatch; what it returns is cut.
        """
        whole = [batch]
        trainable = int(batch.completion_mask.any(axis=(1, 2)).sum())
        if self.updates > 1 and trainable:
            whole = minibatches(
                batch,
                min(self.updates, trainable),
                aggregation=self.aggregation,
                max_tokens=self.loss_divisor,
            )
        if finish is not None:
            whole = [finish(minibatch) for minibatch in whole]
        return [
            microbatches(
                minibatch,
                self.microbatch_tokens,
                shapes=self.shapes,
                group_multiple=self.group_multiple,
                drop_silent=self.drop_silent and not is_complete,
                owners=None if owners is None else Owners(owners[minibatch.groups], self.hosts),
            )
            for minibatch in whole
        ]


def minibatches(
    batch: GroupBatch, count: int, *, aggregation: str, max_tokens: float
) -> list[GroupBatch]:
    """Returns the batch in `count` parts, an update each, each with its own loss weights.

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
    owners: Owners | None = None,
) -> list[GroupBatch]:
    """Returns the minibatch in parts of at most `max_tokens` tokens, whole groups each; their
    gradients add up to its own.

    Groups of similar size stand together, longest first, and every part is cut to the buckets that
    its prompts, vision rows and completions need. How many groups a part has follows from its
    buckets and from how many groups are in the minibatch, or in a whole one; a part with fewer is
    filled up with groups of weight 0. So few shapes are ever compiled. Groups without any trained
    token are left out. The same batch is always cut in the same way.

    Every part is a run of groups for each host, equally many, of those that it owns: the k-th run
    of all hosts together, in the buckets of the largest.

    Args:
        batch: host arrays.
        max_tokens: padded tokens of a part, all devices together: G * (P + N * R).
        shapes: the buckets; None: nothing is cut.
        group_multiple: number of devices that groups are spread over.
        drop_silent: leave out groups whose weighted advantages are all 0. They have no gradient,
            unless there is a KL term or an entropy bonus. Diagnostics then say nothing of them.
        owners: of the groups; None: there is one host.

    Raises:
        ValueError: `group_multiple` groups of the largest shape exceed `max_tokens`.
    """
    n, r = batch.completions.shape[1:]
    groups = np.flatnonzero(batch.completion_mask.any(axis=(1, 2)))
    total = (shapes.minibatch_groups if shapes else 0) or len(groups)
    if drop_silent:
        has_signal = (batch.advantages * batch.loss_weights != 0).any(axis=(1, 2))
        groups = groups[has_signal[groups]]
    sizes = _bucket_sizes(batch, shapes)
    order = groups[np.lexsort([groups, *(-sizes[groups].T[::-1])])]
    owners = owners or Owners(np.zeros(len(sizes), int), 1)
    hosts = owners.host_count
    queues = [order[owners.hosts[order] == host] for host in range(hosts)]
    longest = max(map(len, queues))
    # The largest group among the k-th of all hosts.
    layers = [np.max([sizes[q[k]] for q in queues if k < len(q)], axis=0) for k in range(longest)]
    parts: list[GroupBatch] = []
    start = 0
    while start < longest:
        end, size = start, layers[start]
        while end < longest:
            grown = np.maximum(size, layers[end])
            if shapes is not None:
                tokens, last, rows = grown.tolist()
                grown = np.array(shapes.part(tokens, last, rows, r))
            capacity = groups_per_part(grown, n, max_tokens, total, group_multiple)
            if (end - start) * hosts >= capacity:
                break
            end, size = end + 1, grown
        capacity = groups_per_part(size, n, max_tokens, total, group_multiple)
        runs = [_cut(_take(batch, queue[start:end]), *size.tolist()) for queue in queues]
        runs = [pad_groups(run, capacity // hosts) for run in runs]
        parts.append(jax.tree.map(lambda *xs: np.concatenate(xs), *runs))
        start = end
    return parts


def _bucket_sizes(batch: GroupBatch, shapes: ShapeTable | None) -> np.ndarray:
    """Returns int[G, 3]: prompt tokens, completion tokens and vision rows that groups need."""
    p, r = batch.prompts.tokens.shape[1], batch.completions.shape[2]
    f = batch.prompts.vision.patches.shape[1]
    if shapes is None:
        return np.tile([p, r, f], (len(batch.completions), 1))
    last = np.where(batch.completion_mask.any(axis=1), np.arange(1, r + 1), 0).max(axis=1)
    used = (batch.prompts.vision.segment_ids > 0).any(axis=2)
    rows = np.where(used, np.arange(1, f + 1), 0).max(axis=1, initial=0)
    return np.array(
        [
            shapes.part(*need, r)
            for need in zip(
                batch.prompts.lengths.tolist(), last.tolist(), rows.tolist(), strict=True
            )
        ]
    ).reshape(-1, 3)


def _take(batch: GroupBatch, groups: np.ndarray) -> GroupBatch:
    return jax.tree.map(lambda x: x[groups], batch)


def _cut(batch: GroupBatch, p: int, r: int, f: int) -> GroupBatch:
    """Returns the batch with P, R and F cut to these sizes; vision rows fill up from the first."""
    prompts = batch.prompts
    prompts = prompts._replace(
        tokens=prompts.tokens[:, :p],
        positions=prompts.positions[:, :, :p],
        visual_index=prompts.visual_index[:, :p],
        vision=jax.tree.map(lambda x: x[:, :f], prompts.vision),
    )
    arrays = batch._asdict()
    whole: dict[str, Any] = {"prompts": prompts} | {name: arrays[name] for name in PER_GROUP}
    rest: dict[str, Any] = {
        name: None if x is None else x[:, :, :r] for name, x in arrays.items() if name not in whole
    }
    return GroupBatch(**whole, **rest)
