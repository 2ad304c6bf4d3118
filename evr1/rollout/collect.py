"""Collecting a rollout batch: draw, score, mix; with dynamic sampling until it is full."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.config import DynamicSettings, RolloutSettings
from evr1.data.dataset import Dataset
from evr1.data.records import Example
from evr1.exchange import Group, Published, RolloutBatch, stack
from evr1.exchange import group as group_lib
from evr1.parallel import hosts
from evr1.rollout import flight as flight_lib
from evr1.rollout.flight import End
from evr1.rollout.mixing import Mixer
from evr1.rollout.outcomes import outcomes_of, reward_metrics
from evr1.rollout.sample import Drawing, Flight, GroupSampler, without_features
from evr1.rollout.temporal import TemporalBonus


class Made(NamedTuple):
    """Groups that are ready for a step.

    Attributes:
        groups: of a rollout batch.
        metrics: of making them.
    """

    groups: list[Group]
    metrics: dict[str, float]


class Collector:
    """Makes the rollout batches of a run, one after the other.

    What it carries from one to the next (the number of the next request, groups left over and
    groups that are not done, batches drawn ahead, the replay buffer) is in its state; with it a run
    goes on exactly.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: GroupSampler,
        rollout: RolloutSettings,
        dynamic: DynamicSettings,
        *,
        temporal: TemporalBonus | None = None,
        mixer: Mixer | None = None,
    ) -> None:
        """Draws nothing yet.

        Args:
            dataset: whose training rows are drawn for.
            sampler: draws and scores.
            rollout: how much is drawn; its slots are those of all hosts.
            dynamic: of dynamic sampling.
            temporal: adds the bonus of T-GRPO; None: there is none.
            mixer: puts trajectories into groups; None: there are none.
        """
        self._dataset, self._sampler, self._dynamic = dataset, sampler, dynamic
        self._rollout, self._temporal, self._mixer = rollout, temporal, mixer
        self._prompts = rollout.prompts
        self._next_id = 0
        self._left_over: list[Group] = []
        self._carried: list[Flight] = []
        self._queue: collections.deque[Drawing | Made] = collections.deque()

    @property
    def samplers(self) -> list[GroupSampler]:
        """What draws."""
        return [self._sampler, *([self._temporal.sampler] if self._temporal else [])]

    def get_state(self) -> dict[str, Any]:
        """Returns the state, for JSON; what is drawn ahead is scored by then."""
        self._settle()
        return {
            "next_id": self._next_id,
            "surplus": [group_lib.to_json(g) for g in self._left_over],
            "carried": [
                {
                    "row": flight.example.row.source,
                    "request": flight.request,
                    "group": flight.group and group_lib.to_json(flight.group),
                }
                for flight in self._carried
            ],
            "queue": [
                {"groups": list(map(group_lib.to_json, made.groups)), "metrics": made.metrics}
                for made in self._settle()
            ],
            "replay": self._mixer.get_state() if self._mixer else {},
        }

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes back to a state. The media of the groups in it are read again.

        Raises:
            ValueError: the row of such a group is gone, its media cannot be used any more, or the
                completions are not those of this config.
        """
        self._next_id = saved["next_id"]
        if self._mixer is not None:
            self._mixer.set_state(saved["replay"])
        hosts_in_turn = itertools.cycle(range(hosts.count()))

        def example_of(source: str) -> Example:
            example = self._dataset.example(source)
            example = dataclasses.replace(example, host=next(hosts_in_turn))
            if example.host != hosts.index():
                patches = np.broadcast_to(np.uint8(0), example.patches.shape)
                example = dataclasses.replace(example, patches=patches)
            return example

        def group_of(entry: dict[str, Any]) -> Group:
            return self._group_of(entry, example_of(entry["row"]))

        self._left_over = [group_of(entry) for entry in saved["surplus"]]
        self._carried = []
        for entry in saved["carried"]:
            example = example_of(entry["row"])
            group = entry["group"] and self._group_of(entry["group"], example)
            self._carried.append(Flight(example, entry["request"], group))
        self._queue = collections.deque(
            Made([group_of(entry) for entry in made["groups"]], made["metrics"])
            for made in saved["queue"]
        )

    def _group_of(self, entry: dict[str, Any], example: Example) -> Group:
        group = group_lib.from_json(entry, example, self._sampler.actor.texts)
        sampling = self._sampler.sampling
        n, limit = self._sampler.n, sampling.max_tokens
        rows = n if group.is_done else n + sampling.greedy_rows
        shape = group.rollouts.completions.shape
        if shape != (rows, limit):
            raise ValueError(
                f"rollout.n={n} rollout.max_completion_tokens={limit}, but the "
                f"checkpoint holds groups that were left over with {shape[0]} and {shape[1]}; "
                "go back to these, or choose a new config.workdir"
            )
        return group

    def collect(self, published: Published) -> tuple[RolloutBatch, dict[str, float]]:
        """Returns `prompts` groups, and the metrics of making them.

        With dynamic sampling, groups without signal are passed over and more are drawn until the
        batch is full, for at most `dynamic.max_rounds` rounds; then some without signal fill it up.
        Groups left over come first in the next batch. With `rollout.staleness` later batches are
        drawn first, and this one was drawn when it was a later one.

        Args:
            published: the weights that train on this batch; they draw the newest one.

        Raises:
            ValueError: too many scorers failed.
        """
        while len(self._queue) <= self._rollout.staleness:
            begun = self._begin(published)
            self._queue.append(begun)
        groups, metrics = self._made(self._queue.popleft())
        if self._rollout.staleness or self._rollout.overdraw:
            groups = self._with_features(published, groups)
            metrics = metrics | staleness(groups, published.version)
        actor = self._sampler.actor
        assert actor.shapes is not None
        outcomes = outcomes_of(groups, self._sampler.scorer.weights)
        metrics = metrics | reward_metrics(groups, outcomes)
        return stack(groups, outcomes, actor.collator(actor.shapes)), metrics

    def _begin(self, published: Published) -> Drawing | Made:
        """Draws the groups of a batch. Their scoring goes on, but where the drawing waits for it
        or completions are drawn in several rollouts."""
        if self._dynamic.enabled:
            groups, drawn, metrics = self._fill(published)
            return self._after(Made(groups, metrics), drawn)
        if self._temporal is not None:
            groups = self._draw(published, 1)
            return self._after(Made(groups, {}), groups)
        end = None
        if self._rollout.overdraw:
            self._settle()
            waiting = len(self._carried) + len(self._left_over)
            count = flight_lib.to_draw(self._prompts, self._rollout.overdraw, waiting)
            end = End(self._rollout.slots, self._prompts - len(self._left_over))
            with self._sampler.timer("data_wait"):
                examples = self._dataset.train.take(count)
        else:
            with self._sampler.timer("data_wait"):
                examples = next(self._dataset.train)
        flights = self._carried + list(map(Flight, examples, self._new_ids(len(examples))))
        self._carried = []
        examples = self._sampler.with_features(published, [f.example for f in flights])
        flights = [f._replace(example=e) for f, e in zip(flights, examples, strict=True)]
        drawing = self._sampler.begin(published, flights, end)
        if self._rollout.staleness:
            drawing.drop_features()
        return drawing

    def _settle(self) -> list[Made]:
        """Returns the queue, all of it scored."""
        made = [self._made(each) for each in self._queue]
        self._queue.clear()
        self._queue.extend(made)
        return made

    def _made(self, begun: Drawing | Made) -> Made:
        """Returns the groups of a batch with their scores; waits for these."""
        if isinstance(begun, Made):
            return begun
        flights = begun.finish()
        groups = [f.group for f in flights if f.group is not None and f.group.is_done]
        if self._mixer is not None:
            groups = self._mixer.mix(groups, [group.request for group in groups])
        if begun.cut is None:
            return self._after(Made(groups, {}), groups)
        not_done = (f for f in flights if f.group is None or not f.group.is_done)
        self._carried = list(map(without_features, not_done))
        ready = self._left_over + groups
        self._left_over = list(map(group_lib.without_features, ready[self._prompts :]))
        metrics = {
            "rollout/carried": float(sum(f.group is not None for f in self._carried)),
            "rollout/left_over": float(len(self._left_over)),
            "rollout/idle_slot_share": begun.cut.idle_share(self._rollout.slots),
        }
        return self._after(Made(ready[: self._prompts], metrics), groups)

    def _after(self, made: Made, drawn: Sequence[Group]) -> Made:
        """Returns it with the metrics of all that was drawn for it."""
        metrics = dict(made.metrics)
        metrics |= self._mixer.pop_metrics(drawn) if self._mixer else {}
        metrics |= self._temporal.pop_metrics() if self._temporal else {}
        broken = sum(int((~group.rollouts.is_finite).sum()) for group in drawn)
        metrics |= {"rollout/not_finite": float(broken)} if broken else {}
        groups = made.groups
        if self._rollout.staleness:
            groups = list(map(group_lib.without_features, groups))
        return Made(groups, metrics)

    def _new_ids(self, count: int) -> list[int]:
        """Returns request ids that nobody had."""
        self._next_id += count
        return list(range(self._next_id - count, self._next_id))

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
        ids = self._new_ids(len(examples))
        groups = self._sampler.draw(published, examples, ids)
        if self._temporal is not None:
            groups = self._temporal.add(published, groups, ids)
        if self._mixer is not None:
            groups = self._mixer.mix(groups, ids)
        return groups

    def _with_features(self, published: Published, groups: Sequence[Group]) -> list[Group]:
        """Returns the groups with the features that they lack."""
        out = list(groups)
        at = [i for i, group in enumerate(out) if group.example.visual is None]
        examples = self._sampler.with_features(published, [out[i].example for i in at])
        for i, example in zip(at, examples, strict=True):
            out[i] = out[i]._replace(example=example)
        return out


def _without_pixels(group: Group) -> Group:
    """Returns the group for metrics alone."""
    patches = group.example.patches[:0].copy()
    return group._replace(example=dataclasses.replace(group.example, patches=patches, visual=None))


def without_rows(saved: dict[str, Any], is_skipped: Callable[[str], bool]) -> dict[str, Any]:
    """Returns a state of a `Collector` without the groups of some rows; a batch that was drawn
    ahead and holds one is drawn anew.

    Args:
        saved: the state.
        is_skipped: whether the row of this file and line is to be passed over by now.
    """

    def kept(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry for entry in entries if not is_skipped(entry["row"])]

    waiting = {name: kept(saved[name]) for name in ("surplus", "carried")}
    queue = [made for made in saved["queue"] if kept(made["groups"]) == made["groups"]]
    return saved | waiting | {"queue": queue}


def staleness(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Returns how many updates old the policy's tokens are, as a mean and at most.

    Args:
        groups: of a rollout batch.
        version: of the weights that are to be trained on them.
    """
    counts = collections.Counter[int]()
    for group in groups:
        counts.update(group.tokens_by_version())
    ages = {version - drawn: tokens for drawn, tokens in counts.items() if tokens}
    mean = sum(age * tokens for age, tokens in ages.items()) / max(sum(ages.values()), 1)
    return {"staleness/mean": mean, "staleness/max": float(max(ages, default=0))}
