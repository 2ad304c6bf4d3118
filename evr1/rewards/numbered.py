"""Options that are numbered where others are lettered: "1. oak", "(2) elm"."""

import re
from collections.abc import Mapping

_NUMBERED = re.compile(r"\s{0,9}[\[(]?(\d{1,2})(?:[\])][.:]?|[.:、])\s{1,9}(?=\S)")
_NUMBER = re.compile(r"(?i)\s{0,9}(?:option\s)?[\[(]?(\d{1,2})[\])]?[.:]?(?P<text>\s.{0,500})?")


def option_numbers(options: Mapping[str, str]) -> dict[str, str]:
    """Returns number → letter of options that are numbered in order, from 0 or 1; or nothing.

    >>> option_numbers({"A": "1. oak", "B": "2. elm"})
    {'1': 'A', '2': 'B'}
    """
    marks = [_NUMBERED.match(option) for option in options.values()]
    numbers = [int(m[1]) for m in marks if m]
    if not 1 < len(numbers) == len(options) or numbers[0] > 1:
        return {}
    is_in_order = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    is_clear = {_text(o) for o in options.values()}.isdisjoint(map(str, numbers))  # not "1. 2"
    return dict(zip(map(str, numbers), options, strict=True)) if is_in_order and is_clear else {}


def _text(option: str) -> str:
    return _NUMBERED.sub("", option, count=1).strip().casefold()


def letter_of(text: str, options: Mapping[str, str]) -> str | None:
    """Returns the letter of the option whose number, or text, or both, a text is."""
    numbers = option_numbers(options)
    if not numbers:
        return None
    texts = [_text(option) for option in options.values()]
    said = text.strip().rstrip(".").casefold()
    if texts.count(said) == 1:
        return list(options)[texts.index(said)]
    match = _NUMBER.fullmatch(text)
    letter = numbers.get(match[1].lstrip("0") or "0") if match else None
    if match is None or letter is None:
        return None
    said = (match["text"] or "").strip().rstrip(".").casefold()
    return letter if said in ("", _text(options[letter])) else None
