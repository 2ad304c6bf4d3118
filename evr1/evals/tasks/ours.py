"""Our own rule: the scorers of the rewards. They never guess; what they cannot read scores 0."""

import contextlib
import string
from collections.abc import Sequence
from typing import Any

from evr1 import rewards
from evr1.evals.tasks.base import JUDGE, Doc, Verdict


def verdict(response: str, problem_type: str, answer: Any, **fields: Any) -> Verdict:
    """Scores a response as a reward would.

    Args:
        response: as it was generated.
        problem_type: of `evr1.formats.problem_types`.
        answer: the ground truth.
        **fields: further fields of the row, e.g. problem and options.

    Raises:
        ValueError: the row cannot be scored.
    """
    return of_row(response, {"problem_type": problem_type, "answer": answer, **fields})


def of_row(response: str, row: Doc, box_scale: str = "") -> Verdict:
    """Scores a response as a reward would.

    Args:
        response: as it was generated.
        row: of a data file.
        box_scale: the frame of the response's boxes; empty: the one of the ground truth.

    Raises:
        ValueError: the row cannot be scored.
    """
    score = rewards.score(response, row, box_scale=box_scale)
    if score.has_failed:
        raise ValueError(score.detail)
    return Verdict(score.extracted or None, score.accuracy)


def choice(response: str, question: str, options: Sequence[str], answer: str) -> Verdict:
    """Scores a response by the option that it states.

    Args:
        response: as it was generated.
        question: of the row.
        options: bare texts in order; their letters are A, B, ...
        answer: the right letter.
    """
    return verdict(response, "multiple choice", answer, problem=question, options=lettered(options))


def short_answer(response: str, answer: Any) -> Verdict:
    """Scores a response to an open question: 1 for the right answer, 0 for none, else by a judge.

    Args:
        response: as it was generated.
        answer: a word, a name, a number or a formula.
    """
    verdicts = []
    for problem_type in ("math", "ocr"):
        with contextlib.suppress(ValueError):  # the answer is none of this type
            verdicts.append(verdict(response, problem_type, answer))
    right = [each for each in verdicts if each.score == 1.0]
    if right or not any(each.extracted for each in verdicts):
        return (right or verdicts or [Verdict(None, 0.0)])[0]
    return Verdict(JUDGE, None)


def lettered(options: Sequence[str], form: str = "{letter}. {text}") -> list[str]:
    """Returns options with their letters.

    >>> lettered(["red", "blue"], "({letter}) {text}")
    ['(A) red', '(B) blue']
    """
    return [
        form.format(letter=letter, text=text)
        for letter, text in zip(string.ascii_uppercase, options, strict=False)
    ]
