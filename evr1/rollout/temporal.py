"""T-GRPO: answers that need the order of the frames earn a bonus.

A second group is drawn for every prompt with a video, on its frames in another order; where the
first one is right more often, its right answers earn the bonus.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from evr1.data.records import Geometry
from evr1.data.shuffle import shuffled
from evr1.exchange import Group, Published
from evr1.exchange.sharing import own
from evr1.rl.temporal import PASS_AT, temporal_bonus
from evr1.rollout.sample import GroupSampler

# The name of this term of the reward: 1 where the bonus is earned, else 0; its weight is the bonus.
TERM = "temporal_bonus"


class TemporalBonus:
    """Adds the bonus to groups, and counts what it did."""

    def __init__(
        self, sampler: GroupSampler, geometry: Geometry, *, bonus: float, margin: float
    ) -> None:
        """Draws nothing yet.

        Args:
            sampler: as the one that drew the groups; its n is that of the shuffled ones.
            geometry: how pixels were cut into patches.
            bonus: what a right answer earns more, the weight of the term.
            margin: how many times as often as the shuffled group a group must be right.
        """
        # Other random numbers than the ordered frames had.
        seed = (sampler.sampling.seed + 2**31) % 2**32
        sampling = dataclasses.replace(sampler.sampling, seed=seed, greedy_rows=0)
        self.sampler = dataclasses.replace(sampler, sampling=sampling)
        # Rewards are float32.
        self._geometry, self._bonus, self._margin = geometry, float(np.float32(bonus)), margin
        self._counts: dict[str, float] = collections.defaultdict(float)

    def add(self, published: Published, groups: list[Group], ids: Sequence[int]) -> list[Group]:
        """Returns the groups with the bonus as a further term of the reward.

        The greedy completion gets it where its group does: else it would be no baseline for it.

        Args:
            published: weights that drew the groups.
            groups: as they were drawn.
            ids: request ids of theirs.
        """
        at = [g for g, group in enumerate(groups) if group.example.row.videos]
        if not at:
            return groups
        examples = [groups[g].example for g in at]
        for i in own(examples):
            examples[i] = shuffled(examples[i], self._geometry, ids[at[i]])
        others = self.sampler.draw(published, examples, [ids[g] for g in at])
        bonus = temporal_bonus(
            np.array([groups[g].accuracy for g in at]),
            np.array([groups[g].valid & groups[g].rollouts.is_finite for g in at]),
            np.array([group.accuracy for group in others]),
            np.array([group.valid & group.rollouts.is_finite for group in others]),
            np.ones(len(at), bool),
            bonus=1.0,
            margin=self._margin,
        )
        result = [self._with_bonus(group, np.zeros(len(group.scores))) for group in groups]
        for g, earned in zip(at, bonus, strict=True):
            result[g] = self._with_bonus(groups[g], earned)
            greedy = groups[g].greedy
            if greedy is not None and greedy.accuracy >= PASS_AT:
                raised = greedy.overall + self._bonus * float(earned.max())
                result[g] = result[g]._replace(greedy=greedy._replace(overall=raised))
        self._counts["videos"] += len(at)
        self._counts["bonus"] += int((bonus > 0).any(axis=1).sum())
        self._count("ordered", [groups[g] for g in at])
        self._count("shuffled", others)
        return result

    def pop_metrics(self) -> dict[str, float]:
        """Returns temporal/* since the last call."""
        counts, metrics = self._counts, dict[str, float]()
        for name in ("ordered", "shuffled"):
            if counts[name]:
                metrics[f"temporal/accuracy_{name}"] = counts[f"{name}_accuracy"] / counts[name]
        if counts["videos"]:
            metrics["temporal/bonus_share"] = counts["bonus"] / counts["videos"]
        self._counts = collections.defaultdict(float)
        return metrics

    def _count(self, name: str, groups: Sequence[Group]) -> None:
        for group in groups:
            self._counts[name] += int(group.valid.sum())
            self._counts[f"{name}_accuracy"] += float(group.accuracy[group.valid].sum())

    def _with_bonus(self, group: Group, earned: np.ndarray) -> Group:
        """Returns the group with a further term of the reward, of 0 or 1."""
        scores = [
            s._replace(
                overall=s.overall + self._bonus * is_earned, terms=(*s.terms, (TERM, is_earned))
            )
            for s, is_earned in zip(group.scores, earned.tolist(), strict=True)
        ]
        return group._replace(scores=tuple(scores))
