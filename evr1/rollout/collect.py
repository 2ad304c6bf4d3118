"""Collecting a rollout batch: draw, score, mix; with dynamic sampling until it is full."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evr1.config import DynamicSettings
from evr1.data.dataset import Dataset
from evr1.exchange import Group, Published, RolloutBatch, stack
from evr1.exchange import group as group_lib
from evr1.parallel import hosts
from evr1.rollout.mixing import Mixer
from evr1.rollout.outcomes import outcomes_of, reward_metrics
from evr1.rollout.sample import GroupSampler
from evr1.rollout.temporal import TemporalBonus


class Collector:
    """Makes the rollout batches of a run, one after the other.

    What it carries from one to the next (the number of the next request, groups left over, the
    replay buffer) is in its state; with it a run goes on exactly.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: GroupSampler,
        dynamic: DynamicSettings,
        *,
        prompts: int,
        temporal: TemporalBonus | None = None,
        mixer: Mixer | None = None,
    ) -> None:
        """Draws nothing yet.

        Args:
            dataset: whose training rows are drawn for.
            sampler: draws and scores.
            dynamic: of dynamic sampling.
            prompts: groups of a rollout batch.
            temporal: adds the bonus of T-GRPO; None: there is none.
            mixer: puts trajectories into groups; None: there are none.
        """
        self._dataset, self._sampler, self._dynamic = dataset, sampler, dynamic
        self._prompts, self._temporal, self._mixer = prompts, temporal, mixer
        self._next_id = 0
        self._left_over: list[Group] = []

    def get_state(self) -> dict[str, Any]:
        """Returns the state, for JSON."""
        return {
            "next_id": self._next_id,
            "surplus": [group_lib.to_json(g) for g in self._left_over],
            "replay": self._mixer.get_state() if self._mixer else {},
        }

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes back to a state. The media of the groups left over are read again.

        Raises:
            ValueError: the row of such a group is gone, its media cannot be used any more, or the
                completions are not those of this config.
        """
        self._next_id = saved["next_id"]
        if self._mixer is not None:
            self._mixer.set_state(saved["replay"])
        n, limit = self._sampler.n, self._sampler.sampling.max_tokens
        self._left_over = []
        for i, entry in enumerate(saved["surplus"]):
            example = self._dataset.example(entry["row"])
            example = dataclasses.replace(example, host=i % hosts.count())
            if example.host != hosts.index():
                patches = np.broadcast_to(np.uint8(0), example.patches.shape)
                example = dataclasses.replace(example, patches=patches)
            group = group_lib.from_json(entry, example, self._sampler.actor.texts)
            shape = group.rollouts.completions.shape
            if shape != (n, limit):
                raise ValueError(
                    f"rollout.n={n} rollout.max_completion_tokens={limit}, but the "
                    f"checkpoint holds groups that were left over with {shape[0]} and {shape[1]}; "
                    "go back to these, or choose a new config.workdir"
                )
            self._left_over.append(group)

    def collect(self, published: Published) -> tuple[RolloutBatch, dict[str, float]]:
        """Returns `prompts` groups under these weights, and the metrics of making them.

        With dynamic sampling, groups without signal are passed over and more are drawn until the
        batch is full, for at most `dynamic.max_rounds` rounds; then some without signal fill it up.
        Groups left over come first in the next batch.

        Raises:
            ValueError: too many scorers failed.
        """
        if self._dynamic.enabled:
            groups, drawn, metrics = self._fill(published)
        else:
            groups = drawn = self._draw(published, 1)
            metrics = {}
        metrics |= self._mixer.pop_metrics(drawn) if self._mixer else {}
        metrics |= self._temporal.pop_metrics() if self._temporal else {}
        actor = self._sampler.actor
        assert actor.shapes is not None
        outcomes = outcomes_of(groups, self._sampler.scorer.weights)
        metrics |= reward_metrics(groups, outcomes)
        broken = sum(int((~group.rollouts.is_finite).sum()) for group in drawn)
        metrics |= {"rollout/not_finite": float(broken)} if broken else {}
        return stack(groups, outcomes, actor.collator(actor.shapes)), metrics

    def _fill(self, published: Published) -> tuple[list[Group], list[Group], dict[str, float]]:
        """Returns the groups of the batch, all that were drawn (for metrics), and dynamic/*."""
        dynamic, want = self._dynamic, self._prompts
        kept, silent = self._with_features(published, self._left_over), list[Group]()
        drawn: list[Group] = []
        rounds, carried = 0, len(kept)
        size = dynamic.draw_prompts or want
        while len(kept) < want and rounds < dynamic.max_rounds:
            new = self._draw(published, math.ceil((want - len(kept)) / size))
            for group in new:
                (kept if self._has_signal(group) else silent).append(group)
            silent = silent[:want]  # more will not be needed, and their pixels are large
            drawn += map(_without_pixels, new)
            rounds += 1
        short = max(want - len(kept), 0)
        self._left_over = list(map(group_lib.without_features, kept[want:]))
        metrics = {
            "dynamic/rounds": float(rounds),
            "dynamic/drawn": float(len(drawn)),
            "dynamic/carried": float(carried),
            "dynamic/left_over": float(len(self._left_over)),
            "dynamic/filled_up": float(short),
        }
        if drawn:
            accuracy = np.array([g.mean_accuracy() for g in drawn])
            metrics["dynamic/kept_share"] = (len(kept) - carried) / len(drawn)
            metrics["dynamic/all_right_share"] = float((accuracy == 1).mean())
            metrics["dynamic/all_wrong_share"] = float((accuracy == 0).mean())
            if not np.isnan(accuracy).all():
                metrics["dynamic/accuracy_drawn"] = float(np.nanmean(accuracy))
        return [*kept[:want], *silent[:short]], drawn, metrics

    def _has_signal(self, group: Group) -> bool:
        """Returns whether the rewards of the group are spread enough to train on."""
        if self._mixer and self._mixer.is_imitation and group.is_offline.any():
            return True
        rewards = group.rewards[group.valid]
        if self._sampler.sampling.greedy_rows:
            rewards = np.append(rewards, np.float32(group.baseline))  # equal stays equal
        return bool(np.ptp(rewards) > self._dynamic.min_spread) if rewards.size else False

    def _draw(self, published: Published, batches: int) -> list[Group]:
        """Returns the groups of so many batches of the loader, sampled, scored and mixed."""
        with self._sampler.timer("data_wait"):
            examples = [e for _ in range(batches) for e in next(self._dataset.train)]
        examples = self._sampler.with_features(published, examples)
        ids = list(range(self._next_id, self._next_id + len(examples)))
        self._next_id += len(examples)
        groups = self._sampler.draw(published, examples, ids)
        if self._temporal is not None:
            groups = self._temporal.add(published, groups, ids)
        if self._mixer is not None:
            groups = self._mixer.mix(groups, ids)
        return groups

    def _with_features(self, published: Published, groups: Sequence[Group]) -> list[Group]:
        examples = self._sampler.with_features(published, [g.example for g in groups])
        return [g._replace(example=e) for g, e in zip(groups, examples, strict=True)]


def _without_pixels(group: Group) -> Group:
    """Returns the group for metrics alone."""
    patches = group.example.patches[:0].copy()
    return group._replace(example=dataclasses.replace(group.example, patches=patches, visual=None))


def without_rows(saved: dict[str, Any], is_skipped: Callable[[str], bool]) -> dict[str, Any]:
    """Returns a state of a `Collector` without the groups left over of some rows.

    Args:
        saved: the state.
        is_skipped: whether the row of this file and line is to be passed over by now.
    """
    groups = [entry for entry in saved["surplus"] if not is_skipped(entry["row"])]
    return saved | {"surplus": groups}
