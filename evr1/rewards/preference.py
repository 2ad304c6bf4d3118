"""Preference between two responses: a label, compared with the row's."""

import re

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_FIRST, _SECOND, _TIE = "Response 1", "Response 2", "Tie"
_NAMES = {"1": _FIRST, "a": _FIRST, "first": _FIRST, "1st": _FIRST, "one": _FIRST}
_NAMES |= {"2": _SECOND, "b": _SECOND, "second": _SECOND, "2nd": _SECOND, "two": _SECOND}
_NAMES |= {"0": _TIE, "tie": _TIE, "equal": _TIE, "both equal": _TIE, "equally good": _TIE}
_NAMES |= {"a tie": _TIE, "same": _TIE, "both are equally good": _TIE, "tied": _TIE}
_NAMES |= dict.fromkeys(("no difference", "neither is better", "both are equal"), _TIE)
_NAMES |= dict.fromkeys(("it's a tie", "it is a tie", "they are equal", "draw"), _TIE)
_NAMES |= dict.fromkeys(("both are the same", "平局", "一样好", "两个一样好"), _TIE)
_NAMES |= {"第一个": _FIRST, "第二个": _SECOND}
_NAMES |= dict.fromkeys(("1 and 2 are equal", "a and b are equal", "a = b", "1 = 2"), _TIE)
_FILLER = re.compile(r"\b(?:the|responses?|answer|assistant|model|candidate)\b|回答")
_BETTER = re.compile(
    r"^(?P<best>.{1,40}?)\s*(?:\b(?:is|was)\s+(?:\w+\s+)?(?:better|best|preferred|preferable|stronger)"
    r"|\b(?:slightly\s+|much\s+)?better|\bwins|>|更好|,?\s+(?:not|over|rather than)\s)(?P<rest>.*)$"
)
_OTHER_BETTER = re.compile(r"\b[12ab]\s*(?:(?:is|was)\s+(?:better|best|preferred)|wins|更好)")
_CHOSEN = re.compile(
    r"^(?:i\s+(?:prefer|choose|pick)|the\s+(?:better|best|preferred)\s+(?:response|answer|one)\s+is"
    r"|(?:the\s+)?(?:final\s+)?(?:winner|verdict|preferred|preference|better|best)\s?(?::|is\b))"
    r"\s*(?P<best>.{1,40})$"
)
_TURN = re.compile(r"\b(?:but|however|although|worse|or)\b|n't\b|\bnot\s+(?:better|the|as)\b")


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
    text = parse.unwrap(parse.normalize(text)).casefold().strip(" .!\"'*()[]")
    text = re.sub(r"(?<=[a-z答])[\s#_-]*(?=\d)|^#(?=\d)", " ", text).strip()
    label = _name(text)
    if label is not None:
        return Reading(label)
    first, _, reasons = text.partition("\n")
    label = _name(first.strip(" .:*()[]"))
    if reasons and label and not _TURN.search(reasons):
        others = read_label(reasons), read_label(reasons.strip().partition("\n")[0])
        return None if any(o and o.value != label for o in others) else Reading(label, exact=False)
    better = _CHOSEN.match(text) or _BETTER.match(text)
    if better and not _TURN.search(text):
        label, rest = _name(better["best"].strip(" .:*()[]")), better.groupdict().get("rest") or ""
        if label in (_FIRST, _SECOND) and not _OTHER_BETTER.search(rest) and _name(rest) != label:
            return Reading(label, exact=False)
    return None


def _name(text: str) -> str | None:
    """The label of "response 1", "the first one", "a tie"."""
    bare = " ".join(_FILLER.sub(" ", text).split())
    return _NAMES.get(text) or _NAMES.get(bare) or _NAMES.get(bare.removesuffix(" one"))
