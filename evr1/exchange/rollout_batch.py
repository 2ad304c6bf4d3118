"""The groups of a step as one batch that owns its media."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evr1.batch.collate import Collator
from evr1.batch.features import with_vision
from evr1.exchange.group import Group, without_features
from evr1.parallel import hosts
from evr1.rl.outcomes import Outcomes
from evr1.types import GroupBatch, Prompts, Rollouts


@dataclasses.dataclass(frozen=True)
class RolloutBatch:
    """What the sampling side hands to the learner.

    Attributes:
        groups: G of them.
        prompts: theirs as host arrays, without pixels or features.
        rollouts: theirs, stacked.
        outcomes: what they earned.
        merge_size: patches on a side of a visual token.
    """

    groups: tuple[Group, ...]
    prompts: Prompts
    rollouts: Rollouts
    outcomes: Outcomes
    merge_size: int

    @property
    def owners(self) -> np.ndarray:
        """int[G], the host that has the pixels of each group."""
        return np.array([group.example.host for group in self.groups])

    def with_media(self, part: GroupBatch) -> GroupBatch:
        """Returns a microbatch of this batch with the pixels or features of its prompts; on several
        hosts, this one's run of it.

        One at a time: the pixels of a whole rollout batch are tens of gigabytes.
        """
        part = hosts.own_rows(part)
        examples = [self.groups[g].example if g >= 0 else None for g in part.groups.tolist()]
        # A part may be padding alone: any example has the sizes, one with features where any has.
        near = sorted((g.example for g in self.groups), key=lambda e: e.host != hosts.index())
        like = next((e for e in near if e.visual is not None), near[0])
        return part._replace(prompts=with_vision(part.prompts, examples, self.merge_size, like))

    def without_features(self) -> "RolloutBatch":
        """Returns the batch with its pixels alone."""
        return dataclasses.replace(self, groups=tuple(map(without_features, self.groups)))


def stack(groups: Sequence[Group], outcomes: Outcomes, collate: Collator) -> RolloutBatch:
    """Returns groups, and what they earned, as one batch."""
    parts = zip(*(g.rollouts for g in groups), strict=True)
    return RolloutBatch(
        groups=tuple(groups),
        # In the largest buckets: microbatches are cut out of it, in buckets of their own.
        prompts=collate([g.example for g in groups], has_patches=False, is_largest=True),
        rollouts=Rollouts(*(np.stack(part) for part in parts)),
        outcomes=outcomes,
        merge_size=collate.geometry.merge_size,
    )
