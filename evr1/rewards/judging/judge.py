"""An LLM judge beside the scorers: the answers it rules on, and what its rulings change.

A scorer is a pure function, a judge does I/O. So it comes after the scorers, and sees only answers
that they could read.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from evr1.formats import problem_types
from evr1.rewards import parse, text
from evr1.rewards.base import (
    DEFAULT_WEIGHTS,
    SHOWN_CHARS,
    RowLike,
    Score,
    Status,
    Task,
    Weights,
    make_task,
)
from evr1.rewards.judging.judge_prompt import MAX_DATA_CHARS, Question, Ruling


class Judge(Protocol):
    """A callable that rules on answers; a question that fails gets a ruling that says so."""

    @property
    def identity(self) -> str:
        """The name of the model behind it; rulings are cached under it."""
        ...

    def __call__(self, questions: Sequence[Question]) -> list[Ruling]:
        """Returns one ruling for each question, in order."""
        ...


class BatchScorer(Protocol):
    """A scorer of batches, such as `RewardPool`."""

    def submit(
        self, responses: Sequence[str | None], rows: Sequence[RowLike | Mapping[str, Any]]
    ) -> Future[list[Score]]:
        """Starts scoring responses[i] against rows[i]; the future gives the scores in order."""
        ...

    def score_batch(
        self, responses: Sequence[str | None], rows: Sequence[RowLike | Mapping[str, Any]]
    ) -> list[Score]:
        """Returns the scores of responses[i] against rows[i], in order."""
        ...


class Judged:
    """A scorer whose scores of some problem types are then ruled by a judge, if there is one.

    `score_batch` does both. To score while completions are still being drawn, `submit` some as they
    come, and give all of the scores to `rule` at the end.
    """

    def __init__(
        self,
        scorer: BatchScorer,
        judge: Judge | None,
        types: Sequence[str] = (),
        weights: Weights = DEFAULT_WEIGHTS,
        is_graded: bool = False,
    ) -> None:
        """Checks the arguments; asks nothing yet.

        Args:
            scorer: scores first.
            judge: rules on the answers that could be read; None: the scores stand.
            types: problem types, or their aliases, that are judged.
            weights: of accuracy and format in the overall score.
            is_graded: the judge gives a score from 0 to 1 instead of right or wrong.

        Raises:
            ValueError: no types, or one that does not exist.
        """
        if judge is not None and (isinstance(types, str) or not types):
            raise ValueError(f"the judged types are {types!r}; give a list of problem types")
        self._scorer = scorer
        self._judge = judge
        self._types = frozenset(problem_types.canonical(t) for t in types)
        self._weights = weights.check()
        self._is_graded = is_graded

    def score_batch(
        self, responses: Sequence[str | None], rows: Sequence[RowLike | Mapping[str, Any]]
    ) -> list[Score]:
        """Returns the scores of responses[i] against rows[i], in order.

        Raises:
            ValueError: lengths differ, or a row has no scorer.
        """
        return self.rule(self._scorer.score_batch(responses, rows), responses, rows)

    def submit(
        self, responses: Sequence[str | None], rows: Sequence[RowLike | Mapping[str, Any]]
    ) -> Future[list[Score]]:
        """Starts scoring responses[i] against rows[i]; `rule` comes after it.

        Raises:
            ValueError: lengths differ, or a row has no scorer.
        """
        return self._scorer.submit(responses, rows)

    def rule(
        self,
        scores: Sequence[Score],
        responses: Sequence[str | None],
        rows: Sequence[RowLike | Mapping[str, Any]],
    ) -> list[Score]:
        """Returns the scores, those of the judged types with the judge's accuracy."""
        scores = list(scores)
        if self._judge is None:
            return scores
        tasks = [make_task(row) for row in rows]
        chosen = [i for i, task in enumerate(tasks) if task.problem_type in self._types]
        ruled = apply_judge(
            [scores[i] for i in chosen],
            [responses[i] for i in chosen],
            [tasks[i] for i in chosen],
            self._judge,
            self._weights,
            self._is_graded,
        )
        for i, score in zip(chosen, ruled, strict=True):
            scores[i] = score
        return scores


def apply_judge(
    scores: Sequence[Score],
    responses: Sequence[str | None],
    rows: Sequence[RowLike | Mapping[str, Any] | Task],
    judge: Judge,
    weights: Weights = DEFAULT_WEIGHTS,
    is_graded: bool = False,
) -> list[Score]:
    """Returns the scores with the accuracy that the judge gives, wherever an answer was read.

    An answer that is the ground truth needs no judge, and equal questions are asked once. Where the
    judge fails, the score has status timeout or error: it is no zero.

    Args:
        scores: of the scorers.
        responses: the models' whole texts.
        rows: the questions, with their ground truths.
        judge: rules on the answers.
        weights: of accuracy and format in the overall score.
        is_graded: ask for a score from 0 to 1.
    """
    question_of: dict[int, Question] = {}
    for i, (score, response, row) in enumerate(zip(scores, responses, rows, strict=True)):
        if score.status is not Status.OK:
            continue
        task, answer = make_task(row), whole_answer(response or "", score.extracted)
        if any(_same(answer, truth) for truth in text.accepted_texts(task.answer)):
            continue
        question_of[i] = make_question(task, answer, is_graded)
    questions = list(dict.fromkeys(question_of.values()))
    rulings = dict(zip(questions, judge(questions) if questions else [], strict=True))
    return [
        _ruled(score, rulings[question_of[i]], weights) if i in question_of else score
        for i, score in enumerate(scores)
    ]


def _ruled(score: Score, ruling: Ruling, weights: Weights) -> Score:
    reason = ruling.reason[:SHOWN_CHARS]
    if ruling.status is Status.OK:
        overall = weights.accuracy * ruling.accuracy + weights.format * score.format
        return score._replace(overall=overall, accuracy=ruling.accuracy, detail=reason)
    # A reply that is no verdict is the judge's fault; `unparsed` would blame the response.
    status = Status.ERROR if ruling.status is Status.UNPARSED else ruling.status
    return Score(0.0, 0.0, 0.0, status, score.extracted, f"judge: {reason}")


def whole_answer(response: str, extracted: str) -> str:
    """Returns the answer that a scorer found, whole if its score shows only the beginning."""
    if len(extracted) < SHOWN_CHARS:
        return extracted
    texts = (f.text for f in parse.candidates(response) if f.text.startswith(extracted))
    return next(texts, extracted)


def make_question(task: Task, answer: str, is_graded: bool = False) -> Question:
    """Returns the question to the judge about an answer to a task."""
    options = problem_types.label_options(task.options)
    problem = "\n".join([task.problem, *(f"{k}. {v}" for k, v in options.items())])
    return Question(problem, "\nor\n".join(text.accepted_texts(task.answer)), answer, is_graded)


def _same(a: str, b: str) -> bool:
    """Returns whether two texts are equal but for case and spaces.

    Compatibility forms stay apart: 5² is not 52.
    """
    return max(len(a), len(b)) <= MAX_DATA_CHARS and _plain(a) == _plain(b)


def _plain(text: str) -> list[str]:
    return unicodedata.normalize("NFC", text).casefold().split()
