"""The readers of MMMU, which several kits share: letters of options, and open answers."""

import re
from collections.abc import Sequence

FAILED = "API Error"  # what is read of an empty response; such are left out of the mean
NO_LETTER = "No Answere Found"

_MARKS = ",.!?;:'"
# Ranked: letters are looked for in the next form only where none occurs in those before; a period
# and a colon are of one rank, but places are those of the period if there is one.
_PERIOD, _COLON, _BRACKETS, _SPACE = "{}.", "{}:", "({})", "{} "
_LEAST_WORDS = 6  # of a response in which the text of an option counts

_KEYS = (
    "could be ",
    "so ",
    "is ",
    "thus ",
    "therefore ",
    "final ",
    "answer ",
    "result ",
    "are ",
    "in total ",
    "total ",
    "identify ",
    "recognize ",
    "calculated as ",
    "counted as ",
    "measured as ",
    "observed as ",
    "concluded as ",
    "found to be ",
    "equals ",
    "determined to be ",
    "number of ",
    "value is ",
    "adds up to ",
    "have ",
    "has ",
)
_TRIVIAL = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        # A run of digits is entered at its start only, which bounds the time.
        r"(?:-|(?<!\d))\d+(?:\.\d+)?[eE][+-]?\d+",
        r"(?:(?:-|(?<!\d))(?:\d+\.\d+|\d+\b)|-?\.\d+)(?![eE][+-]?\d+)(?![,\d])",
    )
)


def read_letter(response: str, options: Sequence[str]) -> str:
    """Returns the letter of the option that is stated last in the best form that occurs.

    Args:
        response: as it was generated.
        options: bare texts in order; their letters are A, B, ...
    """
    if response in ("", FAILED):
        return FAILED
    for mark in _MARKS:
        response = response.strip(mark)
    text = f" {response} "
    letters = {chr(ord("A") + place): option for place, option in enumerate(options)}
    for found_by, placed_by in (
        ((_PERIOD, _COLON), _PERIOD),
        ((_COLON,), _COLON),
        ((_BRACKETS,), _BRACKETS),
        ((_SPACE,), " {} "),
    ):
        found = [each for form in found_by for each in letters if form.format(each) in text]
        is_by_period = placed_by != _PERIOD or any(_PERIOD.format(each) in text for each in letters)
        if found and is_by_period:
            return max(found, key=lambda each: text.rfind(placed_by.format(each)))
    lower = text.lower()
    found = [each for each in letters if letters[each].lower() in lower]
    if found and len(text.split()) >= _LEAST_WORDS:
        return max(found, key=lambda each: lower.rfind(letters[each].lower()))
    return NO_LETTER


def read_open(response: str) -> list[str | float]:
    """Returns the phrases behind key words, else the whole, and all numbers in them."""
    text = response.strip().strip(".").lower()
    lines = text.split("\n")
    phrases = []
    for place, line in enumerate(lines):
        keys = _KEYS if place < len(lines) - 1 else (*_KEYS, "=")  # the last may be an equation
        ends = [line.rpartition(key)[2].strip() for key in keys if key in line]
        # The shortest counts, the first of equals; one that is empty counts for nothing.
        shortest = ""
        for end in ends:
            if not shortest or len(end) < len(shortest):
                shortest = end
        if shortest and shortest not in _TRIVIAL:
            phrases.append(shortest)
    phrases = phrases or [text]
    found = [number for each in phrases for form in _NUMBERS for number in form.findall(each)]
    return list(dict.fromkeys(part for each in [*phrases, *found] for part in _parts(each)))


def _parts(text: str) -> list[str | float]:
    """Returns a number to two digits, or a text; a letter gets a blank on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]


def is_right(read: Sequence[str | float], answer: str | Sequence[str]) -> bool:
    """Whether what was read holds an answer: the very number, or the text within a phrase."""
    answers = [answer] if isinstance(answer, str) else answer
    golds = [part for each in answers for part in _parts(each)]
    texts = [gold for gold in golds if isinstance(gold, str)]
    return any(
        any(gold in each for gold in texts) if isinstance(each, str) else each in golds
        for each in read
    )
