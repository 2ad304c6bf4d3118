"""Scoring the completions of a rollout batch while others are still drawn."""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from evr1 import heldout
from evr1.data.records import Example
from evr1.rewards import Score, compose
from evr1.rewards.judge import Judged
from evr1.run import Data
from evr1.types import Rollouts


class Scoring:
    """Scores the completions of some prompts, each group as soon as it is drawn."""

    def __init__(self, scorer: Judged, data: Data, examples: Sequence[Example]) -> None:
        self._scorer, self._data, self._examples = scorer, data, examples
        self._texts: dict[int, list[str]] = {}
        self._started: dict[int, Future[list[Score]]] = {}

    def start(self, g: int, group: Rollouts) -> None:
        """Starts scoring the completions of prompt g; `group` has no G axis."""
        texts = self._texts[g] = heldout.texts(self._data, group)
        self._started[g] = self._scorer.submit(texts, [self._examples[g].row] * len(texts))

    def finish(self, rollouts: Rollouts, terms: compose.Terms) -> list[Score]:
        """The scores of all G * N completions, in order, with the judge's rulings and the terms."""
        groups = range(len(self._examples))
        texts = [text for g in groups for text in self._texts[g]]
        rows = [e.row for e in self._examples for _ in range(rollouts.lengths.shape[1])]
        scores = [s for g in groups for s in self._started[g].result()]
        scores = self._scorer.rule(scores, texts, rows)
        outcomes = zip(texts, rows, rollouts.lengths.flat, rollouts.finished.flat, strict=True)
        return compose.add_terms(scores, outcomes, terms)


def check_failed(
    scores: Sequence[Score], examples: Sequence[Example], max_failed_share: float
) -> None:
    """Raises where too many scorers failed.

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
