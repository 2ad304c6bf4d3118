"""The records of scoring: the task, what a scorer reads, and the score."""

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from evr1.formats import problem_types

T = TypeVar("T")
MAX_CHARS = 100_000  # of a response that is looked at: its end, where the answer stands
SHOWN_CHARS = 500  # of the extracted answer that a score carries
_OWN_FIELDS = frozenset(
    ("problem_type", "answer", "ground_truth", "options", "problem", "response", "completion")
    + ("images", "videos", "offline_output", "has_offline_trajectory")  # nothing to score by
    + ("system", "think_open")
)


class Status(enum.StrEnum):
    """The outcome of scoring; metrics count them."""

    OK = "ok"
    UNPARSED = "unparsed"  # no answer could be read: a defined outcome, accuracy 0
    TIMEOUT = "timeout"  # the scorer was stopped at its deadline
    ERROR = "error"  # the scorer or the row's ground truth is at fault


class Score(NamedTuple):
    """One response's score; accuracy and format are in [0, 1]."""

    overall: float  # accuracy_weight * accuracy + format_weight * format, and what terms add
    accuracy: float
    format: float
    status: Status
    extracted: str = ""  # the answer as it was found
    detail: str = ""  # what went wrong, or why a judge decided so
    terms: tuple[tuple[str, float], ...] = ()  # further terms of overall, see compose

    @property
    def has_failed(self) -> bool:
        """Whether the scorer itself failed: its zeros say nothing of the response."""
        return self.status in (Status.TIMEOUT, Status.ERROR)


class Verdict(NamedTuple):
    """A scorer's judgement of a response whose answer it could read."""

    accuracy: float
    in_form: bool  # the answer stands in its tag, in the form that the prompt asks for
    extracted: str


class Reading(NamedTuple):
    """A value read from a text, and whether it was written in the asked form."""

    value: Any
    exact: bool = True


class Task(NamedTuple):
    """The part of a row that a scorer may know."""

    problem_type: str  # canonical
    answer: Any  # the ground truth: text, number, list or dict
    options: tuple[str, ...] = ()
    problem: str = ""
    box_scale: str = ""  # the frame that boxes are asked in; empty: the one of the ground truth
    think_open: bool = False  # the prompt left a think block open: responses start inside it
    extra: Mapping[str, Any] = MappingProxyType({})  # the row's other fields: tests, sizes, ...


class RowLike(Protocol):
    """A validated row (evr1.data.records.Row)."""

    @property
    def problem_type(self) -> str: ...
    @property
    def answer(self) -> Any: ...
    @property
    def options(self) -> Sequence[str]: ...
    @property
    def problem(self) -> str: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class Weights(NamedTuple):
    """The weights of accuracy and format in the overall score."""

    accuracy: float = 0.9
    format: float = 0.1

    def check(self) -> "Weights":
        """Returns the weights, if they lie in [0, 1] and sum to 1.

        Raises:
            ValueError: they do not.
        """
        if not all(0 <= w <= 1 for w in self) or abs(sum(self) - 1) > 1e-6:
            raise ValueError(
                f"rewards.accuracy_weight={self.accuracy} and rewards.format_weight={self.format} "
                "must lie in [0, 1] and sum to 1"
            )
        return self


DEFAULT_WEIGHTS = Weights()


def make_task(
    row: "RowLike | Mapping[str, Any] | Task",
    box_scale: str = "",
    canonical: Callable[[object], str] = problem_types.canonical,
    think_open: bool = False,
) -> Task:
    """Returns the task of a row, or of a mapping with a row's fields.

    In a mapping, `ground_truth` may stand for `answer`, and `think_open` speaks for its prompt.

    Args:
        row: a task comes back as it is.
        box_scale: the frame that boxes are asked in; empty: the one of the ground truth.
        canonical: the problem type that a mapping's spelling stands for.
        think_open: prompts leave a think block open; a mapping may say otherwise.

    Raises:
        ValueError: no such problem type, no ground truth, options that are no list, or a
            `think_open` that is neither true nor false.
    """
    if isinstance(row, Task):
        return row
    if not isinstance(row, Mapping):
        _check_answer(row.answer)
        options, extra = tuple(row.options), _extra(row.extra)
        return Task(
            row.problem_type, row.answer, options, row.problem, box_scale, think_open, extra
        )
    answer = row.get("answer")
    answer = row.get("ground_truth") if answer is None else answer
    _check_answer(answer)
    options = _options(row.get("options") or ())
    stated = row.get("think_open")
    if stated is not None and not isinstance(stated, bool):
        raise ValueError(f"think_open is {stated!r}; give true, false or null")
    return Task(
        canonical(row.get("problem_type")),
        answer,
        options,
        str(row.get("problem") or ""),
        box_scale,
        think_open if stated is None else stated,
        _extra(row),
    )


def _check_answer(answer: Any) -> None:
    """Refuses a missing ground truth, as None or as the NaN that tables hold in its place."""
    if answer is None or (isinstance(answer, float) and math.isnan(answer)):
        raise ValueError("the row has no answer; give the field answer or ground_truth")


def _options(options: Any) -> tuple[str, ...]:
    """Returns a mapping's options as texts.

    Raises:
        ValueError: they are no list.
    """
    if not options:
        return ()
    if isinstance(options, Mapping):
        return tuple(f"{label}. {text}" for label, text in options.items())
    if isinstance(options, str) or not isinstance(options, Iterable):
        raise ValueError(f"options are {options!r}; give a list of texts")
    return tuple(map(str, options))


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in _OWN_FIELDS}
