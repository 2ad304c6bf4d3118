"""Drawing a rollout batch: sample, score, mix, and with dynamic sampling again until it is full."""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evr1 import groups as groups_lib
from evr1 import offline
from evr1.config import Config
from evr1.data.records import Example
from evr1.data.shuffle import shuffled
from evr1.groups import POLICY, Group
from evr1.offline import Trajectory
from evr1.rewards import Score, compose
from evr1.rewards.judge import Judged
from evr1.rl.temporal import PASS_AT, temporal_bonus
from evr1.run import Data, Policy
from evr1.sampler.driver import Sampler
from evr1.sampler.sampling import Sampling
from evr1.scoring import Scoring, check_failed
from evr1.types import Params, Rollouts
from evr1.writer import PhaseTimer

TEMPORAL = "temporal_bonus"  # the term of the reward that T-GRPO adds


class Drawer:
    """Makes the rollout batches of a run, one after the other.

    What it carries from one to the next (the number of the next request, groups left over, the
    replay buffer) is in its state; with it a run goes on exactly.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        data: Data,
        scorer: Judged,
        terms: compose.Terms,
    ) -> None:
        """Draws nothing yet.

        Raises:
            ValueError: an offline trajectory of the data that cannot be used.
        """
        self._config, self._policy, self._data = config, policy, data
        self._scorer, self._terms, self._timer = scorer, terms, PhaseTimer()
        self._next_id = 0
        self._surplus: list[Group] = []
        self._tally: dict[str, float] = collections.defaultdict(float)
        r, m = config.replay, config.mix
        self._replay = offline.Replay(
            size=r.size, per_prompt=r.per_prompt, min_accuracy=r.min_accuracy
        )
        self._limit = config.rollout.max_completion_tokens
        if m.enabled:
            n = offline.check(data.train_rows, data.processor, self._limit, m.overlong)
            if not n:
                raise ValueError(
                    "mix.enabled is on, but no training row has offline_output; add trajectories "
                    "to the data file, or set mix.enabled=False"
                )

    def get_state(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "next_id": self._next_id,
            "surplus": [groups_lib.to_json(g) for g in self._surplus],
            "replay": self._replay.to_json(),
        }

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes back to a state. The media of the groups left over are read again.

        Raises:
            ValueError: the row of such a group is gone, its media cannot be used any more, or the
                completions are not those of this config.
        """
        self._next_id = saved["next_id"]
        self._replay.set_state(saved["replay"])
        longest = self._replay.longest()
        if longest > self._limit:
            raise ValueError(
                f"rollout.max_completion_tokens={self._limit}, but the checkpoint's replay buffer "
                f"has a completion of {longest} tokens; raise it, or choose a new config.workdir"
            )
        self._surplus = []
        shape = (self._config.rollout.n, self._limit)
        for group in saved["surplus"]:
            example = self._data.example(group["row"])
            self._surplus.append(groups_lib.from_json(group, example))
            found = self._surplus[-1].rollouts.completions.shape
            if found != shape:
                raise ValueError(
                    f"rollout.n={shape[0]} rollout.max_completion_tokens={shape[1]}, but the "
                    f"checkpoint holds groups that were left over with {found[0]} and {found[1]}; "
                    "go back to these, or choose a new config.workdir"
                )

    def next_batch(
        self, params: Params, version: int, timer: PhaseTimer
    ) -> tuple[list[Group], dict[str, float]]:
        """`rollout.prompts` groups under these weights, and the metrics of making them.

        With dynamic sampling, groups without signal are passed over and more are drawn until the
        batch is full, for at most `dynamic.max_rounds` rounds; then some without signal fill it up.
        Groups left over come first in the next batch.

        Raises:
            ValueError: more than rewards.max_failed_share of the scorers failed.
        """
        c, want = self._config, self._config.rollout.prompts
        self._timer = timer
        self._tally.clear()
        if not c.dynamic.enabled:
            batch = self._draw(params, version, 1)
            return batch, self._metrics(batch)
        kept, silent = self._encoded(params, self._surplus), list[Group]()
        drawn: list[Group] = []
        rounds, carried = 0, len(kept)
        size = c.dynamic.draw_prompts or want
        while len(kept) < want and rounds < c.dynamic.max_rounds:
            new = self._draw(params, version, math.ceil((want - len(kept)) / size))
            for group in new:
                (kept if self._moves(group) else silent).append(group)
            silent = silent[:want]  # more will not be needed, and their pixels are large
            drawn += map(_without_pixels, new)
            rounds += 1
        short = max(want - len(kept), 0)
        batch = [*kept[:want], *silent[:short]]
        self._surplus = list(map(groups_lib.without_features, kept[want:]))
        metrics = {
            "dynamic/rounds": float(rounds),
            "dynamic/drawn": float(len(drawn)),
            "dynamic/carried": float(carried),
            "dynamic/left_over": float(len(self._surplus)),
            "dynamic/filled_up": float(short),
        }
        if drawn:
            accuracy = np.array([g.mean_accuracy() for g in drawn])
            moving = len(kept) - carried
            metrics["dynamic/kept_share"] = moving / len(drawn)
            metrics["dynamic/all_right_share"] = float((accuracy == 1).mean())
            metrics["dynamic/all_wrong_share"] = float((accuracy == 0).mean())
            if not np.isnan(accuracy).all():
                metrics["dynamic/accuracy_drawn"] = float(np.nanmean(accuracy))
        return batch, metrics | self._metrics(drawn)

    def _moves(self, group: Group) -> bool:
        """Whether the rewards of the group are spread enough to train on."""
        if self._config.mix.treatment == "sft" and group.is_offline.any():
            return True
        rewards = group.rewards[group.valid]
        if self._config.algorithm.advantage == "remax":
            rewards = np.append(rewards, np.float32(group.baseline))  # equal stays equal
        return bool(np.ptp(rewards) > self._config.dynamic.min_spread) if rewards.size else False

    def _metrics(self, drawn: Sequence[Group]) -> dict[str, float]:
        """What mixing and the shuffled frames did to the groups that were drawn."""
        c, t = self._config, self._tally
        metrics: dict[str, float] = {}
        if drawn and (c.mix.enabled or c.replay.enabled):
            metrics |= offline.metrics(drawn, t["candidates"], t["triggered"])
            metrics["mix/buffer_prompts"] = float(len(self._replay))
        for name in ("ordered", "shuffled"):
            if t[name]:
                metrics[f"temporal/accuracy_{name}"] = t[f"{name}_accuracy"] / t[name]
        if t["videos"]:
            metrics["temporal/bonus_share"] = t["bonus"] / t["videos"]
        return metrics

    def _draw(self, params: Params, version: int, batches: int) -> list[Group]:
        """So many batches of the loader, sampled, scored and mixed."""
        with self._timer("data_wait"):
            examples = [e for _ in range(batches) for e in next(self._data.train)]
        examples = self._encode(params, examples)
        ids = list(range(self._next_id, self._next_id + len(examples)))
        self._next_id += len(examples)
        sampling = self._policy.sampling
        rollouts, scores = self._sample(self._policy.sampler, params, examples, ids, sampling)
        drawn = make_groups(examples, rollouts, scores, version, sampling.greedy_rows)
        if self._config.algorithm.temporal_bonus:
            every = rollouts.lengths.shape[1]
            greedy = scores[every - 1 :: every] if sampling.greedy_rows else ()
            drawn = self._with_temporal_bonus(params, drawn, ids, greedy)
        if self._config.mix.enabled or self._config.replay.enabled:
            drawn = self._mix(drawn, ids)
        return drawn

    def _encode(self, params: Params, examples: Sequence[Example]) -> list[Example]:
        """With their features, where the vision tower is frozen."""
        if self._policy.encoder is None:
            return list(examples)
        with self._timer("encode"):
            return self._policy.encode(params, examples)

    def _encoded(self, params: Params, groups: Sequence[Group]) -> list[Group]:
        examples = self._encode(params, [g.example for g in groups])
        return [g._replace(example=e) for g, e in zip(groups, examples, strict=True)]

    def _sample(
        self,
        sampler: Sampler,
        params: Params,
        examples: Sequence[Example],
        ids: Sequence[int],
        sampling: Sampling,
    ) -> tuple[Rollouts, list[Score]]:
        scoring = Scoring(self._scorer, self._data, examples)
        with self._timer("rollout"):
            rollouts = sampler.generate(params, examples, ids, sampling, on_finish=scoring.start)
        with self._timer("score"):
            scores = scoring.finish(rollouts, self._terms)
            check_failed(scores, examples, self._config.rewards.max_failed_share)
        return rollouts, scores

    def _with_temporal_bonus(
        self, params: Params, drawn: list[Group], ids: Sequence[int], greedy: Sequence[Score]
    ) -> list[Group]:
        """Answers to the same videos with shuffled frames; what beats them earns the bonus.

        So does the greedy completion where its group does: else it would be no baseline for it.
        """
        a, policy = self._config.algorithm, self._policy
        at = [g for g, group in enumerate(drawn) if group.example.row.videos]
        if not at or policy.temporal_sampler is None:
            return drawn
        seed = (self._config.seed + 2**31) % 2**32  # other random numbers than the ordered had
        sampling = dataclasses.replace(policy.sampling, seed=seed, greedy_rows=0)
        geometry = self._data.processor.geometry
        examples = [shuffled(drawn[g].example, geometry, ids[g]) for g in at]
        request_ids = [ids[g] for g in at]
        rollouts, scores = self._sample(
            policy.temporal_sampler, params, examples, request_ids, sampling
        )
        other = make_groups(examples, rollouts, scores, 0)
        bonus = temporal_bonus(
            np.array([drawn[g].accuracy for g in at]),
            np.array([drawn[g].valid for g in at]),
            np.array([group.accuracy for group in other]),
            np.array([group.valid for group in other]),
            np.ones(len(at), bool),
            bonus=a.temporal_bonus,
            margin=a.temporal_margin,
        )
        result = [_with_bonus(group, np.zeros(len(group.scores))) for group in drawn]
        for g, added in zip(at, bonus, strict=True):
            result[g] = _with_bonus(drawn[g], added)
            if greedy and greedy[g].accuracy >= PASS_AT:
                raised = result[g].baseline + float(added.max())  # all that is given is the same
                result[g] = result[g]._replace(baseline=raised)
        t = self._tally
        t["videos"] += len(at)
        t["bonus"] += int((bonus > 0).any(axis=1).sum())
        for name, several in (("ordered", [drawn[g] for g in at]), ("shuffled", other)):
            for group in several:
                t[name] += int(group.valid.sum())
                t[f"{name}_accuracy"] += float(group.accuracy[group.valid].sum())
        return result

    def _mix(self, drawn: list[Group], ids: Sequence[int]) -> list[Group]:
        """The groups with trajectories in their last slots, wherever they are due."""
        m = self._config.mix
        chosen: dict[int, list[Trajectory]] = {}
        for g, group in enumerate(drawn):
            every = self._trajectories(group)
            self._tally["candidates"] += bool(every)
            if every and offline.is_triggered(group, m.accuracy_threshold):
                chosen[g] = offline.choose(every, m.per_group, ids[g])
        self._tally["triggered"] += len(chosen)
        if self._config.replay.enabled:
            for group in drawn:
                self._replay.add(group)
        if not chosen:
            return drawn
        with self._timer("score"):
            scores = iter(self._score(drawn, chosen))
        result = list(drawn)
        for g, several in chosen.items():
            result[g] = offline.replace(drawn[g], several, [next(scores) for _ in several])
        return result

    def _trajectories(self, group: Group) -> list[Trajectory]:
        """Those of the data, then the policy's own earlier ones."""
        row, every = group.example.row, []
        if self._config.mix.enabled:
            processor = self._data.processor
            every = [offline.trajectory(t, processor, self._limit) for t in offline.texts(row)]
        if self._config.replay.enabled:
            every += self._replay.get(row)
        return every

    def _score(self, drawn: Sequence[Group], chosen: dict[int, list[Trajectory]]) -> list[Score]:
        """Trajectories are scored as completions are, on what of them fits."""
        rows = [drawn[g].example.row for g, several in chosen.items() for _ in several]
        every = [t for several in chosen.values() for t in several]
        texts = [self._data.processor.decode(t.tokens.tolist()) for t in every]
        scores = self._scorer.score_batch(texts, rows)
        outcomes = zip(
            texts, rows, [len(t.tokens) for t in every], [t.is_finished for t in every], strict=True
        )
        return compose.add_terms(scores, outcomes, self._terms)


def _without_pixels(group: Group) -> Group:
    """The group for metrics alone."""
    patches = group.example.patches[:0].copy()
    return group._replace(example=dataclasses.replace(group.example, patches=patches, visual=None))


def make_groups(
    examples: Sequence[Example],
    rollouts: Rollouts,
    scores: Sequence[Score],
    version: int,
    greedy_rows: int = 0,
) -> list[Group]:
    """The groups of a drawn batch.

    Args:
        examples: G prompts.
        rollouts: theirs.
        scores: of all completions, in order.
        version: optimizer updates behind the weights that drew them.
        greedy_rows: 1: the last completion of each is greedy, and gives the baseline alone.
    """
    every = rollouts.lengths.shape[1]
    n = every - greedy_rows
    groups = []
    for g, example in enumerate(examples):
        mine = scores[g * every : (g + 1) * every]
        baseline = float("nan")
        if greedy_rows and not mine[n].has_failed:
            baseline = mine[n].overall
        part = Rollouts(*(x[g, :n] for x in rollouts))
        groups.append(Group(example, part, tuple(mine[:n]), (POLICY,) * n, version, baseline))
    return groups


def _with_bonus(group: Group, bonus: np.ndarray) -> Group:
    """The group with a further term of the reward."""
    scores = [
        s._replace(overall=s.overall + added, terms=(*s.terms, (TEMPORAL, added)))
        for s, added in zip(group.scores, bonus.tolist(), strict=True)
    ]
    return group._replace(scores=tuple(scores))
