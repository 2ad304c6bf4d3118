"""Scores of responses: problem type → scorer, one table.

A scorer is a pure function `(response, task) -> Verdict | None`: None where no answer can be read.
A ground truth that it cannot read raises ValueError, which becomes a score of status `error`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from evr1.formats import problem_types, think_block
from evr1.rewards import (
    boolean,
    choice,
    code,
    grounding,
    markup,
    math,
    number,
    parse,
    preference,
    segmentation,
    text,
)
from evr1.rewards.base import (
    DEFAULT_WEIGHTS,
    SHOWN_CHARS,
    RowLike,
    Score,
    Status,
    Task,
    Verdict,
    Weights,
    make_task,
)

__all__ = [
    "SCORERS",
    "Score",
    "Scorer",
    "Status",
    "Task",
    "Verdict",
    "Weights",
    "check_row",
    "score",
]

Scorer = Callable[[str, Task], Verdict | None]

SCORERS: Mapping[str, Scorer] = {
    "multiple choice": choice.score,
    "numerical": number.score_numerical,
    "regression": number.score_regression,
    "boolean": boolean.score,
    "ocr": text.score_ocr,
    "math": math.score,
    "temporal grounding": grounding.score_temporal,
    "spatial grounding": grounding.score_spatial,
    "spatial-temporal grounding": grounding.score_spatial_temporal,
    "tracking": grounding.score_tracking,
    "open-ended": text.score_open,
    "preference": preference.score,
    "segmentation": segmentation.score,
    "code": code.score,
    "svg-code": markup.score_svg,
    "html-code": markup.score_html,
}


def score(
    response: str | None,
    row: RowLike | Mapping[str, Any] | Task,
    weights: Weights = DEFAULT_WEIGHTS,
    scorers: Mapping[str, Scorer] = SCORERS,
    box_scale: str = "",
    think_open: bool = False,
) -> Score:
    """Returns the score of one response.

    Args:
        response: the model's whole text; None (nothing was generated) counts as empty.
        row: a row of a data file, or a mapping with `problem_type` and `answer`.
        weights: of accuracy and format in the overall score.
        scorers: problem type → scorer.
        box_scale: the frame that the response's boxes are in; empty: the one of the ground truth.
        think_open: the prompt left a think block open: what stands before the first `</think>` is
            reasoning. A mapping's own `think_open` goes first.

    Raises:
        ValueError: the row's problem type has no scorer, or the row has no answer.
    """
    if weights != DEFAULT_WEIGHTS:
        weights.check()
    task = make_task(
        row, box_scale, lambda name: problem_types.canonical(name, scorers), think_open
    )
    scorer = find_scorer(task.problem_type, scorers)
    seen, is_inside = parse.last_part(response, task.think_open)
    is_lost = is_inside and not think_block.closes(seen)  # reasoning alone: nothing of it counts
    if is_inside:
        seen = "" if is_lost else think_block.OPENING + seen
    try:
        verdict = check_verdict(scorer(seen, task))
    except TimeoutError as e:
        return Score(0.0, 0.0, 0.0, Status.TIMEOUT, detail=str(e))
    # Whatever a scorer trips over is a counted outcome of this row, not the end of the run.
    except Exception as e:  # noqa: BLE001
        return Score(0.0, 0.0, 0.0, Status.ERROR, detail=_shorten(f"{type(e).__name__}: {e}"))
    if verdict is None or is_lost:
        return Score(0.0, 0.0, 0.0, Status.UNPARSED)
    form = float(verdict.in_form)
    overall = weights.accuracy * verdict.accuracy + weights.format * form
    return Score(overall, verdict.accuracy, form, Status.OK, verdict.extracted[:SHOWN_CHARS])


def _shorten(text: str) -> str:
    """Returns a message without the middle of what it quotes, where that is long."""
    return (
        text
        if len(text) <= SHOWN_CHARS
        else f"{text[: SHOWN_CHARS // 2]} ... {text[-SHOWN_CHARS // 2 :]}"
    )


def find_scorer(problem_type: str, scorers: Mapping[str, Scorer] = SCORERS) -> Scorer:
    """Returns the scorer of a problem type.

    Raises:
        ValueError: there is none.
    """
    if problem_type not in scorers:
        raise ValueError(
            f"problem_type {problem_type!r} has no scorer; there are {', '.join(scorers)}"
        )
    return scorers[problem_type]


def check_verdict(verdict: object) -> Verdict | None:
    """Returns what a scorer returned, if it is what a scorer may return.

    Raises:
        ValueError: it is neither None nor a verdict with an accuracy in [0, 1].
    """
    if verdict is None:
        return None
    if not isinstance(verdict, Verdict) or not isinstance(verdict.extracted, str):
        raise ValueError(f"the scorer returned {verdict!r}; return a Verdict or None")
    if not 0 <= verdict.accuracy <= 1:  # nor NaN
        raise ValueError(f"the scorer gave accuracy {verdict.accuracy!r}; give 0 to 1")
    return verdict


def check_row(
    row: RowLike | Mapping[str, Any],
    scorers: Mapping[str, Scorer] = SCORERS,
    box_scale: str = "",
) -> None:
    """Refuses a row that cannot be scored, before anything is generated for it.

    Args:
        row: a row of a data file.
        scorers: problem type → scorer.
        box_scale: the frame that boxes will be asked in; empty: the one of the ground truth.

    Raises:
        ValueError: no scorer for its problem type, its ground truth cannot be read, or its boxes
            cannot be written in the asked frame.
    """
    # the truth is read first, so nothing is compared
    result = score("", row, scorers=scorers, box_scale=box_scale)
    if result.status is Status.ERROR:
        raise ValueError(result.detail.removeprefix("ValueError: "))
