"""Scoring completions, each group as soon as it is drawn, while others are still drawn."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from evr1.config import RewardSettings
from evr1.data.records import Example, Row
from evr1.rewards import Score, Weights, compose, extra
from evr1.rewards.base import make_task
from evr1.rewards.judging.judge import Judged
from evr1.rewards.pool import RewardPool
from evr1.types import Count, Rollouts, no_count


@dataclasses.dataclass(frozen=True)
class RolloutScorer:
    """How the completions of a run are scored: by scorers, a judge, further terms of the reward.

    Attributes:
        judged: scorers, and the judge behind them.
        terms: further terms of the reward.
        weights: of the parts of the reward, by name: accuracy, format, further terms.
        texts: returns completions as text, in order.
        max_failed_share: of the scorers; more is an error.
        think_open: prompts leave a think block open.
    """

    judged: Judged
    terms: compose.Terms
    weights: Mapping[str, float]
    texts: Callable[[Rollouts], list[str]]
    max_failed_share: float
    think_open: bool = False

    def begin(self, examples: Sequence[Example]) -> "Scoring":
        """Returns the scoring of one draw for these prompts."""
        return Scoring(self, examples)

    def score(
        self,
        texts: Sequence[str],
        rows: Sequence[Row],
        lengths: Sequence[int],
        finished: Sequence[bool],
    ) -> list[Score]:
        """Returns the scores of completions that nobody drew, judge and terms included."""
        scores = self.judged.score_batch(texts, rows)
        return self.add_terms(scores, texts, rows, lengths, finished)

    def add_terms(
        self,
        scores: Sequence[Score],
        texts: Sequence[str],
        rows: Sequence[Row],
        lengths: Iterable[int],
        finished: Iterable[bool],
    ) -> list[Score]:
        """Returns the scores with the further terms of the reward."""
        tasks = (make_task(row, think_open=self.think_open) for row in rows)
        outcomes = zip(texts, tasks, lengths, finished, strict=True)
        return compose.add_terms(scores, outcomes, self.terms)


class Scoring:
    """Scores the completions of some prompts."""

    def __init__(self, scorer: RolloutScorer, examples: Sequence[Example]) -> None:
        self._scorer, self._examples = scorer, examples
        self._texts: dict[int, list[str]] = {}
        self._started: dict[int, Future[list[Score]]] = {}

    def start(self, g: int, group: Rollouts) -> None:
        """Starts scoring the completions of prompt g; `group` has no G axis."""
        texts = self._texts[g] = self._scorer.texts(group)
        rows = [self._examples[g].row] * len(texts)
        self._started[g] = self._scorer.judged.submit(texts, rows)

    def finish(
        self, rollouts: Rollouts, groups: Sequence[int], count: Count = no_count
    ) -> tuple[list[str], list[Score]]:
        """Returns text and score of all completions of some prompts, in order, judge and terms
        included.

        Args:
            rollouts: of these prompts.
            groups: which they are; their scoring was started.
            count: takes how many are scored.
        """
        texts = [text for g in groups for text in self._texts[g]]
        rows = [self._examples[g].row for g in groups for _ in range(rollouts.lengths.shape[1])]
        scores: list[Score] = []
        for g in groups:
            scores += self._started[g].result()
            count(len(scores), len(texts), "completions")
        scores = self._scorer.judged.rule(scores, texts, rows)
        lengths, finished = rollouts.lengths.flat, rollouts.finished.flat
        return texts, self._scorer.add_terms(scores, texts, rows, lengths, finished)


def open_pool(
    settings: RewardSettings, stack: contextlib.ExitStack, think_open: bool
) -> RewardPool:
    """Starts the processes that score.

    Args:
        settings: of the rewards.
        stack: ends them.
        think_open: prompts leave a think block open.
    """
    pool = RewardPool(
        workers=settings.workers,
        timeout_s=settings.timeout_s,
        weights=Weights(settings.accuracy_weight, settings.format_weight),
        extra=settings.extra,
        box_scale=settings.box_scale,
        think_open=think_open,
    )
    return stack.enter_context(pool)


def find_terms(settings: RewardSettings, max_completion_tokens: int) -> compose.Terms:
    """Returns the further terms of the reward that the config names.

    Raises:
        ValueError: there is no such term.
    """
    limits = compose.Settings(
        max_length=max_completion_tokens,
        overlong_cache=settings.overlong_cache_tokens,
        repetition_words=settings.repetition_words,
    )
    return compose.find_terms(settings.terms, extra.load(settings.extra).terms, limits)


def check_failed(
    scores: Sequence[Score], examples: Sequence[Example], max_failed_share: float
) -> None:
    """Checks that not too many scorers failed.

    Args:
        scores: of all completions, those of a prompt in a run.
        examples: the prompts.
        max_failed_share: that may.

    Raises:
        ValueError: more failed; names the first.
    """
    failed = np.array([s.has_failed for s in scores])
    if failed.mean() <= max_failed_share:
        return
    first = int(np.flatnonzero(failed)[0])
    row = examples[first * len(examples) // len(scores)].row
    raise ValueError(
        f"{failed.sum()} of {failed.size} rewards failed, over rewards.max_failed_share="
        f"{max_failed_share:g}; first: {row.source} ({row.problem_type}): {scores[first].detail}"
    )
