"""Groups from prompts: completions drawn by the actor and scored."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.batch import features
from evr1.data.records import Example
from evr1.exchange import Group, Published
from evr1.exchange.group import POLICY, broken_lines
from evr1.exchange.sharing import own, share
from evr1.parallel import hosts
from evr1.rewards import Score
from evr1.rollout.flight import Clock, Cut, End, shortened
from evr1.rollout.scoring import RolloutScorer, check_failed
from evr1.sampler import Sampling
from evr1.sampler.actor import Actor
from evr1.sampler.groups import Stretch
from evr1.telemetry.phases import PhaseTimer
from evr1.types import Rollouts


class Flight(NamedTuple):
    """A prompt that is drawn for, in one rollout or in several.

    Attributes:
        example: the prompt.
        request: with the seed it decides the random numbers.
        group: what was drawn so far; None: nothing.
    """

    example: Example
    request: int
    group: Group | None = None


@dataclasses.dataclass(frozen=True)
class GroupSampler:
    """Draws and scores the completions of prompts.

    Attributes:
        actor: draws.
        n: completions of a group.
        sampling: how to draw; with `greedy_rows` a group has a greedy completion, too, of which
            only the score is kept.
        scorer: scores.
        timer: of the phases encode, rollout and score.
    """

    actor: Actor
    n: int
    sampling: Sampling
    scorer: RolloutScorer
    timer: PhaseTimer

    def with_features(self, published: Published, examples: Sequence[Example]) -> list[Example]:
        """Returns the examples with their features, where the vision tower is frozen; those of
        other hosts as they are."""
        out, places = list(examples), own(examples)
        if self.actor.encoder is None or not places:
            return out
        with self.timer("encode"):
            new = self.actor.with_features(published.params, [out[i] for i in places])
        for i, example in zip(places, new, strict=True):
            out[i] = example
        return out

    def draw(
        self, published: Published, examples: Sequence[Example], request_ids: Sequence[int]
    ) -> list[Group]:
        """Draws a group for each example, each host for its own; says whose logits are not finite.

        Args:
            published: weights to draw with.
            examples: the prompts of all hosts, this one's with their features.
            request_ids: one for each; with the seed they decide the random numbers.

        Raises:
            ValueError: too many scorers failed.
        """
        flights = [Flight(*each) for each in zip(examples, request_ids, strict=True)]
        return [f.group for f in self.begin(published, flights).finish() if f.group]

    def begin(
        self, published: Published, flights: Sequence[Flight], end: End | None = None
    ) -> "Drawing":
        """Draws; scoring may go on when this returns.

        Args:
            published: weights to draw with.
            flights: of all hosts, this one's with their features.
            end: when the rollout is over; None: once all groups are done.
        """
        return Drawing(self, published, flights, end)


class Drawing:
    """Groups that are drawn, and may not be scored yet; on each host its own."""

    def __init__(
        self,
        sampler: GroupSampler,
        published: Published,
        flights: Sequence[Flight],
        end: End | None,
    ) -> None:
        """Draws; see `GroupSampler.begin`."""
        self._sampler, self._version = sampler, published.version
        self._flights = list(flights)
        self._places = own([f.example for f in flights])
        mine = [flights[i] for i in self._places]
        self._scoring = sampler.scorer.begin([f.example for f in mine])
        clock = None if end is None else Clock(end, self._places, len(flights))
        options: dict[str, Any] = {}
        if clock is not None:
            begun = [None if f.group is None else f.group.rollouts for f in mine]
            options = {"stretch": Stretch(begun, clock)}
        self._rollouts: Rollouts | None = None
        self.cut: Cut | None = None
        self._done = 0
        with sampler.timer("rollout"):
            if mine:
                self._rollouts = sampler.actor.generate(
                    published.params,
                    [f.example for f in mine],
                    [f.request for f in mine],
                    sampler.sampling,
                    n=sampler.n,
                    on_finish=self._finished,
                    **options,
                )
            if clock is not None:
                self.cut = clock.wait()

    def _finished(self, g: int, rollouts: Rollouts) -> None:
        rows = len(rollouts.lengths)
        self._done += rows
        self._sampler.timer.count(self._done, len(self._places) * rows, "completions")
        if not rollouts.is_open.any():
            self._scoring.start(g, rollouts)

    def drop_features(self) -> None:
        """Keeps the pixels alone."""
        self._flights = list(map(without_features, self._flights))

    def finish(self) -> list[Flight]:
        """Returns the flights with their groups, which are scored where they are done.

        Raises:
            ValueError: too many scorers failed.
        """
        result = list(self._flights)
        begun = [i for i in range(len(result)) if self._has_begun(i)]
        groups = share([result[i].example for i in begun], self._own_groups())
        for i, group in zip(begun, groups, strict=True):
            result[i] = Flight(group.example, group.request, group)
        done = [group for group in groups if group.is_done]
        for line in broken_lines(done):
            hosts.say(line)
        scores = [s for g in done for s in (*g.scores, *([g.greedy] if g.greedy else []))]
        if done:
            most = self._sampler.scorer.max_failed_share
            check_failed(scores, [group.example for group in done], most)
        return result

    def _has_begun(self, i: int) -> bool:
        return self.cut is None or self.cut.turns[i] > 0

    def _own_groups(self) -> list[Group]:
        """Returns those of this host that have begun: scored where they are done."""
        if self._rollouts is None:
            return []
        sampler, version = self._sampler, self._version
        parts = {
            g: self._until_cut(i, Rollouts(*(x[g] for x in self._rollouts)))
            for g, i in enumerate(self._places)
            if self._has_begun(i)
        }
        done = [g for g, part in parts.items() if self.cut is None or not part.is_open.any()]
        groups: dict[int, Group] = {}
        if done:
            whole = Rollouts(*(np.stack(x) for x in zip(*(parts[g] for g in done), strict=True)))
            with sampler.timer("score"):
                texts, scores = self._scoring.finish(whole, done, sampler.timer.count)
            examples = [self._flights[self._places[g]].example for g in done]
            made = make_groups(examples, whole, texts, scores, version=version, n=sampler.n)
            groups = dict(zip(done, made, strict=True))
        origins = (POLICY,) * sampler.n
        result = []
        for g, part in parts.items():
            flight = self._flights[self._places[g]]
            group = groups.get(g) or Group(flight.example, part, (), (), origins, version)
            earlier = _versions_before(flight.group, version, sampler.n)
            result.append(group._replace(request=flight.request, earlier=earlier))
        return result

    def _until_cut(self, i: int, rollouts: Rollouts) -> Rollouts:
        if self.cut is None:
            return rollouts
        group, actor = self._flights[i].group, self._sampler.actor
        before = 0 if group is None else int(group.rollouts.lengths[group.rollouts.is_open][0])
        tokens = before + 1 + (self.cut.turns[i] - 1) * actor.window
        return shortened(rollouts, tokens, actor.processor.pad_id)


def without_features(flight: Flight) -> Flight:
    """Returns the flight with the pixels alone."""
    example = features.without_features(flight.example)
    group = flight.group and flight.group._replace(example=example)
    return Flight(example, flight.request, group)


def _versions_before(group: Group | None, version: int, n: int) -> tuple:
    """Returns `Group.earlier` of what goes on under a version of the weights."""
    if group is None:
        return ()
    if group.version == version:
        return group.earlier
    lengths = tuple(group.rollouts.lengths[:n].tolist())
    return (*group.earlier, (group.version, lengths))


def make_groups(
    examples: Sequence[Example],
    rollouts: Rollouts,
    texts: Sequence[str],
    scores: Sequence[Score],
    *,
    version: int,
    n: int,
) -> list[Group]:
    """Returns the groups of a draw.

    Args:
        examples: G prompts.
        rollouts: theirs.
        texts: of all completions, in order.
        scores: likewise.
        version: optimizer updates behind the weights that drew them.
        n: completions of a group; where one more was drawn it is the greedy one.
    """
    rows = rollouts.lengths.shape[1]
    groups = []
    for g, example in enumerate(examples):
        at = slice(g * rows, g * rows + n)
        greedy = scores[at.stop] if rows > n else None
        part = Rollouts(*(x[g, :n] for x in rollouts))
        group_texts, group_scores = tuple(texts[at]), tuple(scores[at])
        groups.append(
            Group(example, part, group_texts, group_scores, (POLICY,) * n, version, greedy)
        )
    return groups
