"""Mixed batches: the last completions of a group give way to trajectories that nobody just drew.

They come from the data, or are the policy's own best ones of earlier steps. `mix.treatment` says
what the loss makes of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evr1.config import MixSettings, ReplaySettings
from evr1.data.processor import Processor
from evr1.data.records import Row
from evr1.exchange import Group
from evr1.exchange.group import OFFLINE, POLICY, REPLAY, score_from_json, score_to_json
from evr1.exchange.sharing import own
from evr1.parallel import hosts
from evr1.rewards import Score
from evr1.rollout import trajectory as trajectories
from evr1.rollout.replay import Replay
from evr1.rollout.sample import GroupSampler
from evr1.rollout.trajectory import Trajectory
from evr1.types import Rollouts


class Mixer:
    """Puts trajectories into groups; its replay buffer is part of a checkpoint."""

    def __init__(
        self,
        mix: MixSettings,
        replay: ReplaySettings,
        sampler: GroupSampler,
        train_rows: Sequence[Row],
    ) -> None:
        """Reads the trajectories of the data once, to check them.

        Raises:
            ValueError: a trajectory that cannot be used, or there is none.
        """
        self._mix, self._has_replay, self._sampler = mix, replay.enabled, sampler
        self._replay = Replay(
            size=replay.size, per_prompt=replay.per_prompt, min_accuracy=replay.min_accuracy
        )
        self._candidates = self._triggered = 0
        if mix.enabled and not trajectories.check(
            train_rows, self._processor, self._limit, mix.overlong
        ):
            raise ValueError(
                "mix.enabled is on, but no training row has offline_output; add trajectories "
                "to the data file, or set mix.enabled=False"
            )

    @property
    def is_imitation(self) -> bool:
        """Whether trajectories are imitated, whatever their reward."""
        return self._mix.treatment == "sft"

    @property
    def _processor(self) -> Processor:
        return self._sampler.actor.processor

    @property
    def _limit(self) -> int:
        return self._sampler.sampling.max_tokens

    def get_state(self) -> dict[str, Any]:
        """Returns the replay buffer, for JSON."""
        return self._replay.to_json()

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes back to a state.

        Raises:
            ValueError: a completion in it is longer than this config allows.
        """
        self._replay.set_state(saved)
        longest = self._replay.longest()
        if longest > self._limit:
            raise ValueError(
                f"rollout.max_completion_tokens={self._limit}, but the checkpoint's replay buffer "
                f"has a completion of {longest} tokens; raise it, or choose a new config.workdir"
            )

    def mix(self, groups: list[Group], ids: Sequence[int]) -> list[Group]:
        """Returns the groups with trajectories in their last places, wherever they are due.

        Args:
            groups: as the policy drew them; its best completions go into the replay buffer.
            ids: request ids of theirs; they choose among several trajectories.
        """
        chosen: dict[int, list[Trajectory]] = {}
        for g, group in enumerate(groups):
            candidates = self._trajectories(group.example.row)
            self._candidates += bool(candidates)
            if candidates and is_triggered(group, self._mix.accuracy_threshold):
                chosen[g] = choose(candidates, self._mix.per_group, ids[g])
        self._triggered += len(chosen)
        if self._has_replay:
            for group in groups:
                self._replay.add(group)
        if not chosen:
            return groups
        with self._sampler.timer("score"):
            texts, scores = self._score(groups, chosen)
        result, start = list(groups), 0
        for g, group_chosen in chosen.items():
            at = slice(start, start + len(group_chosen))
            result[g] = replace(groups[g], group_chosen, texts[at], scores[at])
            start = at.stop
        return result

    def pop_metrics(self, groups: Sequence[Group]) -> dict[str, float]:
        """Returns mix/* of the groups drawn since the last call."""
        metrics = mix_metrics(groups, self._candidates, self._triggered) if groups else {}
        if groups:
            metrics["mix/buffer_prompts"] = float(len(self._replay))
        self._candidates = self._triggered = 0
        return metrics

    def _trajectories(self, row: Row) -> list[Trajectory]:
        """Returns those of the data, then the policy's own earlier ones."""
        result: list[Trajectory] = []
        if self._mix.enabled:
            result = [
                trajectories.from_text(text, self._processor, self._limit)
                for text in trajectories.texts(row)
            ]
        if self._has_replay:
            result += self._replay.get(row)
        return result

    def _score(
        self, groups: Sequence[Group], chosen: dict[int, list[Trajectory]]
    ) -> tuple[list[str], list[Score]]:
        """Returns text and score of each trajectory; they are scored as completions are."""
        flat = [(groups[g].example, t) for g, items in chosen.items() for t in items]
        texts = [self._processor.decode(t.tokens.tolist()) for _, t in flat]
        # Each host scores those of its groups: a judge may not say the same twice.
        at = own([example for example, _ in flat])
        scores = self._sampler.scorer.score(
            [texts[i] for i in at],
            [flat[i][0].row for i in at],
            [len(flat[i][1].tokens) for i in at],
            [flat[i][1].is_finished for i in at],
        )
        found = {i: score_to_json(s) for i, s in zip(at, scores, strict=True)}
        for told in hosts.gather_json([[i, s] for i, s in found.items()]):
            found |= dict(told)
        return texts, [score_from_json(found[i]) for i in range(len(flat))]


def choose(candidates: Sequence[Trajectory], count: int, turn: int) -> list[Trajectory]:
    """Returns `count` of them, or all there are; another turn starts at another one."""
    start = turn % max(len(candidates), 1)
    return [*candidates[start:], *candidates[:start]][:count]


def is_triggered(group: Group, threshold: float | None) -> bool:
    """Returns whether the group's own completions leave its last places to others.

    Args:
        group: drawn by the policy.
        threshold: of its mean accuracy, which must be below; None: always.
    """
    return threshold is None or group.mean_accuracy() < threshold


def replace(
    group: Group, chosen: Sequence[Trajectory], texts: Sequence[str], scores: Sequence[Score]
) -> Group:
    """Returns the group with its last completions replaced by trajectories.

    Args:
        group: of at least as many completions.
        chosen: none longer than the completion limit.
        texts: theirs.
        scores: theirs.
    """
    parts = Rollouts(*(part.copy() for part in group.rollouts))
    first = len(parts.lengths) - len(chosen)
    for n, t in enumerate(chosen, start=first):
        size = len(t.tokens)
        parts.completions[n, :size] = t.tokens
        parts.completions[n, size:] = 0  # off the mask
        parts.logprobs[n] = 0
        parts.logprobs[n, :size] = t.logprobs
        parts.lengths[n] = size
        parts.finished[n] = t.is_finished
    return group._replace(
        rollouts=parts,
        texts=(*group.texts[:first], *texts),
        scores=(*group.scores[:first], *scores),
        origins=(*group.origins[:first], *(t.origin for t in chosen)),
    )


def mix_metrics(groups: Sequence[Group], candidates: float, triggered: float) -> dict[str, float]:
    """Returns what mixing did to some groups.

    Args:
        groups: after it.
        candidates: groups with a trajectory to put in.
        triggered: candidates whose own completions left room.
    """
    origins = np.array([g.origins for g in groups])
    valid = np.array([g.valid for g in groups])
    rewards = np.array([g.rewards for g in groups])
    cut = ~np.array([g.rollouts.finished for g in groups])
    result = {
        "mix/candidates": float(candidates),
        "mix/triggered": float(triggered),
        "mix/replaced": float((origins == OFFLINE).sum()),
        "mix/replayed": float((origins == REPLAY).sum()),
        "mix/failed": float(((origins != POLICY) & ~valid).sum()),
        "mix/truncated": float((cut & (origins != POLICY)).sum()),
    }
    for name, mask in (("online", origins == POLICY), ("offline", origins != POLICY)):
        if (mask & valid).any():
            result[f"mix/reward_{name}"] = float(rewards[mask & valid].mean())
    return result
