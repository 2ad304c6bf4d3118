"""Groups from prompts: completions drawn by the actor and scored."""

import dataclasses
from collections.abc import Sequence

from evr1.data.records import Example
from evr1.exchange import Group, Published
from evr1.exchange.group import POLICY, broken_lines
from evr1.exchange.sharing import own, share
from evr1.parallel import hosts
from evr1.rewards import Score
from evr1.rollout.scoring import RolloutScorer, check_failed
from evr1.sampler import Sampling
from evr1.sampler.actor import Actor
from evr1.telemetry.phases import PhaseTimer
from evr1.types import Rollouts


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
        places = own(examples)
        groups = self._draw_own(
            published, [examples[i] for i in places], [request_ids[i] for i in places]
        )
        groups = share(examples, groups)
        for line in broken_lines(groups):
            hosts.say(line)
        scores = [s for g in groups for s in (*g.scores, *([g.greedy] if g.greedy else []))]
        check_failed(scores, examples, self.scorer.max_failed_share)
        return groups

    def _draw_own(
        self, published: Published, examples: Sequence[Example], request_ids: Sequence[int]
    ) -> list[Group]:
        if not examples:
            return []
        scoring = self.scorer.begin(examples)
        with self.timer("rollout"):
            rollouts = self.actor.generate(
                published.params,
                examples,
                request_ids,
                self.sampling,
                n=self.n,
                on_finish=scoring.start,
            )
        with self.timer("score"):
            texts, scores = scoring.finish(rollouts)
        return make_groups(examples, rollouts, texts, scores, version=published.version, n=self.n)


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
