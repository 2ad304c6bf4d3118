"""Reading JSON as models write it: keys in any spelling, several values in one text."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from evr1.rewards import parse
from evr1.rewards.base import Reading

MAX_VALUES = 200  # JSON values of one text that are read

Fields = dict[str, Any]

LOOK_BACK = 80  # characters before a value that may deny it
_PLACE = r"(?:\s(?:of|for|from|in|at|between|the|box(?:es)?|interval|span|range|time)\b){0,4}"
_SAID = (
    r"(?:\s?[:=]|\s(?:answers?|one|time|box(?:es)?|span|interval|region|is|are|that|it|the)\b){0,6}"
)
_DENIED_BEFORE = re.compile(  # "outside of", "the wrong answer is"; not "he is outside from"
    rf"(?i)\b(?:(?:not|never|either|except|excluding|(?:anything|everything|all) but){_PLACE}"
    rf"|outside(?:\s(?:of|the|box|interval|span|range)\b){{0,3}}"
    rf"|(?:wrong|incorrect|false|rejected|doubt){_SAID})\W*$|~~[\"'(]*$|[!¬≠]$"
)
_DENIED_BEHIND = re.compile(
    r"(?i)^\W{0,3}(?:(?:s|secs?|seconds?)\b\W{0,3})?"
    r"(?:(?:(?:is|are|was|were|has been|have been|would be)\s)?"
    r"(?:not|wrong|incorrect|false|ruled out|excluded|rejected|unlikely)\b|(?:is|are|was)n't\b)"
    r"|^[\s\"')]*(?:[?？]\s*$|~~)"
)
_SEPARATORS = re.compile(r"[\s,;、。`*•-]+")
_BETWEEN = re.compile(
    r"(?i)json|and|then|和|以及|\d{1,3}[.):]"
)  # a word between two of several values
_SIGNS = re.compile(r"[\W_]+")
_COMMENT = re.compile(r"//[^\n\"']*$", re.MULTILINE)
_MOMENT = r"\d{1,7}(?::\d{2}){1,2}(?:\.\d{1,6})?|\d{1,7}(?:\.\d{1,6})?\s?(?:secs?|seconds?|s)"
_BARE_MOMENT = re.compile(rf"(?<=[\[(,:\s])({_MOMENT})(?=\s{{0,9}}[,\])}}])")
_SINGLE_QUOTED = re.compile(r"'([^'\"\n]{0,80})'(?=\s{0,9}[,:\]})])")


def is_denied(before: str, behind: str) -> bool:
    """Returns whether the prose before or behind a value denies it: "anything but", "is wrong"."""
    return bool(_DENIED_BEFORE.search(before[-LOOK_BACK:]) or _DENIED_BEHIND.match(behind))


def is_denied_json(text: str) -> bool:
    """Returns whether the prose round the JSON in a text denies it."""
    return _is_denied_round(text, "{[", "}]")


def is_denied_prose(text: str) -> bool:
    """Returns whether the prose round the numbers in a text denies them."""
    return _is_denied_round(text, "([0123456789", ")]0123456789")


def _is_denied_round(text: str, openings: str, closings: str) -> bool:
    starts = [at for at in map(text.find, openings) if at >= 0]
    end = max(map(text.rfind, closings)) + 1
    return bool(starts and end) and is_denied(text[: min(starts)], text[end:])


def read_values(text: str) -> Reading | None:
    """Returns the JSON that a text is or holds; exact if it is nothing else.

    Several values that only separators divide are one list. Objects without a key in common are
    one object. Otherwise the last one counts, as a correction.
    """
    data = _decode(text)
    if "{" not in text or (data is not None and data.exact):
        return data
    places = _places(text)
    readings = [_decode(text[start:end]) for start, end in places[: MAX_VALUES + 1]]
    parts = [r.value for r in readings if r is not None]
    if not 1 < len(parts) == len(readings) <= MAX_VALUES:
        return data
    values = [v for i, v in enumerate(parts) if v not in parts[:i]]
    objects = [v for v in values if isinstance(v, Mapping)]
    merged = {key: value for v in objects for key, value in v.items()}
    if len(objects) == len(values) and len(merged) == sum(map(len, objects)):
        return Reading(merged, exact=False)
    gaps = (text[a[1] : b[0]] for a, b in zip(places, places[1:], strict=False))
    if len(values) == 1 or all(map(_separates, gaps)):
        listed = [item for v in values for item in (v if isinstance(v, list) else [v])]
        return Reading(listed if len(values) > 1 else values[0], exact=False)
    return data


def _separates(text: str) -> bool:
    words = _SEPARATORS.split(text) if len(text) < 100 else [text]
    return all(not word or _BETWEEN.fullmatch(word) for word in words)


def _decode(text: str) -> Reading | None:
    """Returns the JSON in a text, also where moments are bare in it: [0:10, 12 s]."""
    data = parse.read_json(text)
    if data is not None or "{" not in text:
        return data
    text = _BARE_MOMENT.sub(r'"\1"', _COMMENT.sub("", text))
    data = parse.read_json(_SINGLE_QUOTED.sub(r'"\1"', text))
    return data and Reading(data.value, exact=False)


def _places(text: str) -> list[tuple[int, int]]:
    """Returns where objects, and lists of objects, start and end: the outermost ones."""
    places: list[tuple[int, int]] = []
    depth, start = 0, 0
    for bracket in re.finditer(r"[][{}]", text):
        if bracket[0] in "[{":
            start = bracket.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0 and re.match(r"\[?\s{0,80}\{", text[start : start + 90]):
                places.append((start, bracket.end()))
    return places


def plain_key(key: Any) -> str:
    """Returns a key in lower case, with letters and digits alone: "Start_Time" is "starttime"."""
    plain = str(key).casefold().replace("_", "")
    return plain if plain.isalnum() else _SIGNS.sub("", plain)


def fields_of(data: Mapping[Any, Any]) -> Fields:
    """Returns an object's values by their plain keys."""
    return {plain_key(key): value for key, value in data.items()}


def counted(data: Mapping[Any, Any]) -> list[Any] | None:
    """Returns the values of an object whose keys only count: {"1": …, "2": …}, {"box1": …}."""
    is_counted = data and all(re.fullmatch(r"[a-z]*\d{1,3}", plain_key(key)) for key in data)
    return list(data.values()) if is_counted and not any(map(_is_plain, data.values())) else None


def _is_plain(value: Any) -> bool:
    return not isinstance(value, list | Mapping)


def first_of(fields: Fields, keys: Iterable[str]) -> Any:
    """Returns the value of the first of the keys that an object has; None where it has none."""
    return next((fields[k] for k in keys if fields.get(k) is not None), None)


def numbers_of(values: Any, count: int) -> Any:
    """Returns a tuple of `count` finite numbers, or None."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    numbers = []
    for value in values:
        number = number_of(value)
        if number is None:
            return None
        numbers.append(number)
    return tuple(numbers)


def number_of(value: Any) -> float | None:
    """Returns a finite number, also one written as text; booleans are no numbers."""
    if type(value) is float:  # as JSON is read
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (len(value) > 40 or "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
