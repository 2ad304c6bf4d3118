"""The parts that draw, score and evaluate."""

import functools

from evr1.config import RewardSettings, RolloutSettings
from evr1.data.dataset import Dataset
from evr1.parallel import hosts
from evr1.rewards import compose
from evr1.rewards.judging.judge import Judged
from evr1.rollout.heldout import HeldOut
from evr1.rollout.scoring import RolloutScorer
from evr1.rollout.temporal import TERM
from evr1.sampler import Sampling
from evr1.sampler.actor import Actor
from evr1.types import Count


def open_scorer(
    r: RewardSettings, bonus: float, judged: Judged, terms: compose.Terms, actor: Actor
) -> RolloutScorer:
    """Returns what scores rollouts; `bonus` is T-GRPO's."""
    weights = {"accuracy": r.accuracy_weight, "format": r.format_weight}
    weights |= dict(r.terms) | ({TERM: bonus} if bonus else {})
    think_open = actor.processor.think_open
    return RolloutScorer(judged, terms, weights, actor.texts, r.max_failed_share, think_open)


def sampling_of(r: RolloutSettings, actor: Actor, seed: int, greedy_rows: int) -> Sampling:
    """Returns how rollouts are drawn."""
    return actor.sampling(
        temperature=r.temperature,
        top_p=r.top_p,
        top_k=r.top_k,
        max_tokens=r.max_completion_tokens,
        seed=seed,
        greedy_rows=greedy_rows,
    )


def open_heldout(
    greedy: Sampling, dataset: Dataset, actor: Actor, judged: Judged, slots: int, count: Count
) -> HeldOut:
    """Returns the held-out evaluation; `slots` are those of all hosts."""
    rows, loader = dataset.rows.heldout, functools.partial(dataset.heldout, slots)
    own = -(-min(slots, len(rows)) // hosts.count())
    return HeldOut(rows, loader, actor, greedy, own, judged.score_batch, count)
