"""A row's ground truth written as a response, in the form that the prompt asks for."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from evr1.formats import problem_types
from evr1.rewards import (
    boolean,
    choice,
    code,
    grounding,
    markup,
    math,
    number,
    preference,
    segmentation,
    text,
)
from evr1.rewards.base import RowLike, Task, make_task
from evr1.rewards.geometry import overlap, regions


def gold_answer(
    row: RowLike | Mapping[str, Any] | Task,
    *,
    thinking: bool = False,
    box_scale: str = "",
    think_open: bool = False,
) -> str:
    """Returns the response that must earn a reward of 1.

    Args:
        row: with its ground truth, in any form that its scorer reads.
        thinking: the prompt asks for reasoning first.
        box_scale: the frame that the prompt asks boxes in; empty: the one of the ground truth.
        think_open: the prompt has opened the think block itself.

    Raises:
        ValueError: the ground truth cannot be read.
    """
    task = make_task(row, box_scale)
    write = _WRITERS.get(task.problem_type, _text)
    reasoning = "As asked.</think>" if think_open else "<think>As asked.</think>" * thinking
    return f"{reasoning}<answer>{write(task)}</answer>"


def can_write(row: RowLike) -> bool:
    """Returns whether a row tells an answer that earns 1; a program's tests need not tell one.

    Raises:
        ValueError: the ground truth cannot be read.
    """
    task = make_task(row)
    return task.problem_type != "code" or code.write_solution(task) is not None


def _text(task: Task) -> str:
    return text.read_truths(task.answer)[0]


def _letters(task: Task) -> str:
    options = problem_types.label_options(task.options)
    return ", ".join(sorted(choice.read_truth(task.answer, options)))


def _number(task: Task) -> str:
    truth = number.read_truths(task.answer)[0]
    return f"{truth.value}{'%' if truth.percent else ''}"


def _math(task: Task) -> str:
    if task.options:
        return _letters(task)
    return math.read_truth(task.answer)


def _time(task: Task) -> str:
    spans, _ = grounding.read_spans(task.answer)
    return json.dumps({"time": grounding.one_or_all(spans)})


def _box(task: Task) -> str:
    boxes, _ = grounding.asked_boxes(task)
    return json.dumps({"boxes": grounding.one_or_all(boxes)})


def _tube(task: Task) -> str:
    return json.dumps({"boxes": _seconds(grounding.asked_tube(task))})


def _both(task: Task) -> str:
    truth, _ = grounding.asked_both(task)
    boxes = {"boxes": _seconds(truth.tube)} if truth.tube else {}
    return json.dumps({"time": grounding.one_or_all(truth.time or ()), **boxes})


def _seconds(tube: regions.Tube) -> dict[str, overlap.Box | None]:
    return {f"{second:.10g}": box for second, box in tube.items()}


def _code(task: Task) -> str:
    solution = code.write_solution(task)
    if solution is None:
        raise ValueError("the row's tests tell no solution; give one in the field solution")
    return solution


_WRITERS: Mapping[str, Callable[[Task], str]] = {
    "multiple choice": _letters,
    "numerical": _number,
    "regression": _number,
    "boolean": lambda task: "Yes" if boolean.read_truth(task.answer) else "No",
    "math": _math,
    "temporal grounding": _time,
    "spatial grounding": _box,
    "tracking": _tube,
    "spatial-temporal grounding": _both,
    "preference": lambda task: preference.read_truth(task.answer),
    "segmentation": segmentation.write_answer,
    "code": _code,
    "svg-code": lambda task: markup.truth_text(task.answer).strip(),
    "html-code": lambda task: markup.truth_text(task.answer).strip(),
}
