"""Reading intervals, boxes and boxes over time, from JSON or prose; never one of several."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evr1.rewards import parse
from evr1.rewards.base import Reading

Interval = tuple[float, float]  # seconds
Box = tuple[float, float, float, float]  # left, top, right, bottom; any unit
Tube = dict[float, Box | None]  # second → box; None where what stands there is no box

_TIME_KEYS = ("time", "times", "timestamp", "timestamps", "span", "interval")
_TIME_KEYS += ("time_range", "time_span", "segment")
_BOX_KEYS = ("boxes", "box", "bbox", "bbox_2d", "bboxes", "bounding_box", "coordinates")
_SIDES = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2}(?:\.\d{1,6})?)"
_SECONDS = r"(\d{1,7}(?:\.\d{1,6})?)"
_JOIN = (
    r"\s{0,4}(?:s|sec|secs|second|seconds|秒)?\.?,?\s{0,4}"
    r"(?:->?|→|to|and|until|till|through|到|至|~|(?:and\s)?(?:ends?|ending|ended)\b(?:\stime)?"
    r"(?:\s(?:at|is))?\s?[:=]?)\s{0,4}"
)
_NO_MORE = r"(?!\.?\d|:|\s?(?:[-~]|to)\s?\d)"
_SPAN = re.compile(rf"(?<![\d.:_]){_SECONDS}{_JOIN}{_SECONDS}{_NO_MORE}")
_CHAIN = re.compile(rf"{_SECONDS}{_JOIN}{_SECONDS}{_JOIN}\d")
_CLOCK_SPAN = re.compile(rf"(?<![\d.:_]){_CLOCK}{_JOIN}{_CLOCK}{_NO_MORE}")
_NUMBERS = r"[-+\d\s.,()\[\]]{1,200}"
_BARE_NUMBERS = re.compile(
    rf"^(?:[^\d{{}}]{{0,80}}?(?P<list>[\[(]{_NUMBERS}[\])])[^\d{{}}]{{0,80}}|{_NUMBERS})$"
)
_NAMED_CORNERS = re.compile(  # "x1 = 10, y1: 20", "top-left (10, 20)", "bbox_2d: [...]"
    r"(?i)\b(?:[xy]_?(?:[12]|min|max)\s?[=:]|(?:top|upper)[- ]left|(?:bottom|lower)[- ]right"
    r"|bbox_2d(?!\w))(?:\s(?:corner|is|at)\b){0,3}:?"
)
_IN_MINUTES = re.compile(rf"{_SECONDS}\s?(?:m|mins?|minutes?|分钟?)(?![a-z])")
_AND_SECONDS = re.compile(
    rf"(\d{{1,4}})\s?(?:m|mins?|minutes?|分钟?),?\s?(?:and\s)?{_SECONDS}\s?(?:s|secs?|seconds?|秒)(?![a-z])"
)
_MOMENT = r"\d{1,7}(?::\d{2}){0,2}(?:\.\d{1,6})?"
_UNIT = r"\s?(?:s|secs?|seconds?|秒)?"
_IN_BRACKETS = re.compile(rf"[\[(]\s?({_MOMENT}{_UNIT})\s?,\s?({_MOMENT}{_UNIT})\s?[\])]")
_IN_ANGLES = re.compile(rf"<({_MOMENT}{_UNIT})>")
_KEY_UNIT = re.compile(r"\s?(?:s|secs?|seconds?|秒)$")
_DENIED = re.compile(r"\b(?:not|never)\b|n't\b|不")


class Grounding(NamedTuple):
    """What an answer says; None where it says nothing."""

    time: Interval | None = None
    tube: Tube | None = None


def read(text: str, read: Callable[[Any], Reading | None]) -> Reading | None:
    """What a text says as JSON, or else in prose; a reading is exact if both steps are."""
    text = parse.normalize(text)
    data = parse.read_json(text) or _bare_numbers(_NAMED_CORNERS.sub("", text))
    reading = read(data.value if data else text)
    if reading is None:
        return None
    return Reading(reading.value, reading.exact and data is not None and data.exact)


def _bare_numbers(text: str) -> Reading | None:
    """The one list of numbers in a text without keys: "(1, 2)", "box: [0, 0], [10, 10]"."""
    match = _BARE_NUMBERS.match(text)
    if not match or _DENIED.search(text):
        return None
    listed = re.sub(r"(?<=\d)\s{1,9}(?=[-+\d])", ", ", match["list"] or text)
    data = parse.read_json(f"[{listed.translate(_SQUARE)}]")
    while data and isinstance(data.value, list) and len(data.value) == 1:
        data = Reading(data.value[0])
    return data and Reading(data.value, exact=False)


_SQUARE = str.maketrans("()", "[]")


def interval_of(data: Any) -> Reading | None:
    """The interval in decoded JSON, or in prose if it is a text."""
    if isinstance(data, str):
        return _span_of(data)
    if isinstance(data, Mapping):
        if "time" in data:
            pair = _numbers(data["time"], 2)
            if pair:
                return Reading(pair)
        for key in _TIME_KEYS:
            if isinstance(data.get(key), list | Mapping | str):
                inner = interval_of(data[key])
                return inner and Reading(inner.value, exact=False)
        names = ("start", "end") if "start" in data else ("start_time", "end_time")
        inner = interval_of([data.get(name) for name in names])
        return inner and Reading(inner.value, exact=False)
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], list | Mapping):
        inner = interval_of(data[0])
        return inner and Reading(inner.value, exact=False)
    pair = _numbers(data, 2)
    if pair is None and isinstance(data, list) and [type(x) for x in data] == [str, str]:
        return _span_of(" - ".join(data))
    return Reading(pair, exact=False) if pair else None


def _span_of(text: str) -> Reading | None:
    """The one span of seconds that a text states; with two different ones there is none."""
    text = text.lower()
    if len(text) > 2000 or "{" in text or _DENIED.search(text) or _CHAIN.search(text):
        return None
    text = _IN_ANGLES.sub(r"\1", _IN_BRACKETS.sub(r"\1 - \2", _in_seconds(text)))
    spans = {tuple(map(float, m.groups())) for m in _SPAN.finditer(text)}
    for m in _CLOCK_SPAN.finditer(text):
        a, b = m.groups("0")[:3], m.groups("0")[3:]
        start, end = (float(h) * 3600 + float(mi) * 60 + float(s) for h, mi, s in (a, b))
        spans.add((start, end))
    return Reading(spans.pop(), exact=False) if len(spans) == 1 else None


def _in_seconds(text: str) -> str:
    """A text with its minutes in seconds; as it is where only one end has a unit.

    >>> _in_seconds("1 min 30 s to 2 minutes")
    '90.0 s to 120.0 s'
    """
    text = _AND_SECONDS.sub(lambda m: f"{60 * int(m[1]) + float(m[2])} s", text)
    text = re.sub(r"\bseconds?\s(?=\d)", "", text)
    text = re.sub(
        rf"{_SECONDS}(?=\s?(?:-|to|and|到|至|~)\s?{_SECONDS}\s?(?:mins?|minutes?|分钟?)(?![a-z]))",
        r"\1 min",
        text,
    )
    return _IN_MINUTES.sub(lambda m: f"{60 * float(m[1])} s", text)


def box_of(data: Any) -> Reading | None:
    """The one box in decoded JSON."""
    if isinstance(data, Mapping):
        if "boxes" in data:
            box = _numbers(data["boxes"], 4)
            if box:
                return Reading(box)
        inner = next((data[k] for k in _BOX_KEYS if k in data), None)
        sides = [_numbers([data.get(k) for k in names], 4) for names in _SIDES]
        named = [Reading(s) for s in sides if s]
        reading = named[0] if len(named) == 1 else None
        if isinstance(inner, list) or (
            isinstance(inner, Mapping) and inner.keys().isdisjoint(_BOX_KEYS)
        ):
            reading = box_of(inner)
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 1:
        reading = box_of(data[0])
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 2 and all(_numbers(p, 2) for p in data):
        data = [*data[0], *data[1]]  # two corners
    box = _numbers(data, 4)
    return Reading(box, exact=False) if box else None


def tube_of(data: Any) -> Reading | None:
    """Boxes by second in decoded JSON; seconds may be written "9", "09", "9.0", "9s" or "0:09"."""
    if isinstance(data, list):
        data = {"boxes": _by_second(data)}
    elif isinstance(data, Mapping) and isinstance(data.get("boxes"), list):
        data = {"boxes": _by_second(data["boxes"])}
    else:
        return _tube_of(data)
    reading = _tube_of(data)
    return reading and Reading(reading.value, exact=False)


def _by_second(entries: list[Any]) -> dict[Any, Any] | None:
    """Boxes by second from a list of {"time": 1, "bbox_2d": [...]}; None where it is another."""
    boxes: dict[Any, Any] = {}
    for entry in entries:
        names = [k for k in _TIME_KEYS if k in entry] if isinstance(entry, Mapping) else []
        if len(names) != 1 or isinstance(entry[names[0]], list | Mapping):
            return None
        boxes[entry[names[0]]] = {k: v for k, v in entry.items() if k != names[0]}
    return boxes


def _tube_of(data: Any) -> Reading | None:
    if not isinstance(data, Mapping):
        return None
    boxes = next((data[k] for k in _BOX_KEYS if isinstance(data.get(k), Mapping)), None)
    exact = isinstance(data.get("boxes"), Mapping)
    if boxes is None and not any(k in data for k in (*_BOX_KEYS, *_TIME_KEYS)):
        boxes = data
    if boxes is None:
        return None
    tube: Tube = {}
    for key, value in boxes.items():
        second = _second(str(key).strip())
        box = _numbers(value, 4)
        if box is None and isinstance(value, list) and len(value) == 1:
            box, exact = _numbers(value[0], 4), False
        if box is None and isinstance(value, Mapping):
            inner = box_of(value)
            box, exact = inner and inner.value, False
        if second is None:
            exact = False
            continue
        exact = exact and box is not None
        tube[second] = box
    return Reading(tube, exact and bool(tube)) if tube else None


def _second(key: str) -> float | None:
    """The second that a key names: "9", "9.0", "9 s", "00:09"."""
    clock = re.fullmatch(_CLOCK, key)
    if clock:
        hours, minutes, seconds = clock.groups("0")
        return 3600 * float(hours) + 60 * float(minutes) + float(seconds)
    return _number(_KEY_UNIT.sub("", key))


def both_of(data: Any) -> Reading | None:
    """Interval and boxes in decoded JSON; a span in prose gives the interval alone."""
    time, tube = interval_of(data), tube_of(data)
    if time is None and tube is None:
        return None
    exact = bool(time and tube and time.exact and tube.exact)
    return Reading(Grounding(time and time.value, tube and tube.value), exact)


def _numbers(values: Any, count: int) -> Any:
    """A tuple of `count` finite numbers, or None."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    numbers = tuple(_number(v) for v in values)
    return None if None in numbers else numbers


def _number(value: Any) -> float | None:
    """A finite number, also one written as text; booleans are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (len(value) > 40 or "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
