"""Preference between two responses: a label, compared with the row's."""

import re

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_FIRST, _SECOND, _TIE = "Response 1", "Response 2", "Tie"
_NAMES = {"1": _FIRST, "a": _FIRST, "first": _FIRST, "one": _FIRST}
_NAMES |= {"2": _SECOND, "b": _SECOND, "second": _SECOND, "two": _SECOND}
_NAMES |= {"0": _TIE, "tie": _TIE, "equal": _TIE, "both equal": _TIE, "equally good": _TIE}
_NAMES |= {"a tie": _TIE, "same": _TIE, "both are equally good": _TIE, "tied": _TIE}
_FILLER = re.compile(r"\b(?:the|response|answer|assistant|model|candidate)\b")
_BETTER = re.compile(
    r"^(?P<best>.{1,40}?)\s+(?:is|wins|was)\b\s*(?:the\s+)?(?:better|best|preferred)?"
)


def score(response: str, task: Task) -> Verdict | None:
    """1 for the right label, else 0; None where no single label is given.

    Raises:
        ValueError: the ground truth is no label.
    """
    truth = read_truth(task.answer)
    found = parse.extract(response, read_label)
    if found is None:
        return None
    reading, where = found
    return Verdict(float(reading.value == truth), reading.exact, where.text)


def read_truth(answer: object) -> str:
    """The label of a ground truth.

    Raises:
        ValueError: it is none.
    """
    reading = read_label(str(parse.ground_truth(answer)))
    if reading is None:
        raise ValueError(
            f"the answer {answer!r} is not Response 1, Response 2 or Tie; correct the row"
        )
    return reading.value


def read_label(text: str) -> Reading | None:
    """The label that a text gives: "Response 1", "B", "the second response", "Tie"."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    text = parse.normalize(text).casefold().strip(" .!\"'*()[]")
    label = _name(text)
    if label is not None:
        return Reading(label)
    better = _BETTER.match(text)
    if better and "better" in text and " not " not in text:
        label = _name(better["best"])
        if label in (_FIRST, _SECOND):
            return Reading(label, exact=False)
    return None


def _name(text: str) -> str | None:
    """The label of "response 1", "the first one", "a tie"."""
    bare = " ".join(_FILLER.sub(" ", text).split())
    return _NAMES.get(text) or _NAMES.get(bare) or _NAMES.get(bare.removesuffix(" one"))
