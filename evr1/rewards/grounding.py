"""When and where: intervals, boxes, boxes over time."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

Interval = tuple[float, float]  # seconds
Box = tuple[float, float, float, float]  # left, top, right, bottom; any unit
Tube = dict[float, Box | None]  # second → box; None where what stands there is no box

_TIME_KEYS = ("time", "times", "timestamp", "timestamps", "span", "interval")
_BOX_KEYS = ("boxes", "box", "bbox", "bbox_2d", "bboxes")
_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2}(?:\.\d{1,6})?)"
_SECONDS = r"(\d{1,7}(?:\.\d{1,6})?)"
_JOIN = (
    r"\s{0,4}(?:s|sec|secs|second|seconds|秒)?\.?,?\s{0,4}"
    r"(?:->?|→|to|and|until|till|through|到|至|~|(?:and\s)?(?:ends?|ending|ended)\b(?:\stime)?"
    r"(?:\s(?:at|is))?\s?[:=]?)\s{0,4}"
)
_NO_MORE = r"(?!\.?\d|:|\s?[-~]\s?\d)"
_SPAN = re.compile(rf"(?<![\d.:]){_SECONDS}{_JOIN}{_SECONDS}{_NO_MORE}")
_CLOCK_SPAN = re.compile(rf"(?<![\d.:]){_CLOCK}{_JOIN}{_CLOCK}{_NO_MORE}")
_BARE_NUMBERS = re.compile(r"^[\d\s.,+\-()\[\]]{3,200}$")


class Grounding(NamedTuple):
    """What an answer says; None where it says nothing."""

    time: Interval | None = None
    tube: Tube | None = None


def score_temporal(response: str, task: Task) -> Verdict | None:
    """Intersection over union of the interval.

    Raises:
        ValueError: the ground truth is no interval.
    """
    truth = read_interval(task.answer)
    return _score(response, _interval_of, lambda given: interval_iou(given, truth))


def score_spatial(response: str, task: Task) -> Verdict | None:
    """Intersection over union of the box.

    Raises:
        ValueError: the ground truth is no box.
    """
    truth = read_box(task.answer)
    return _score(response, _box_of, lambda given: box_iou(given, truth))


def score_tracking(response: str, task: Task) -> Verdict | None:
    """Mean intersection over union over the union of the seconds that truth and answer name.

    Raises:
        ValueError: the ground truth names no boxes.
    """
    truth = read_tube(task.answer)
    return _score(response, _tube_of, lambda given: tube_iou(given, truth))


def score_spatial_temporal(response: str, task: Task) -> Verdict | None:
    """Half the interval's and half the boxes' intersection over union.

    Where the truth has no boxes, the interval counts alone.

    Raises:
        ValueError: the ground truth has no interval.
    """
    truth = read_both(task.answer)
    time, tube = truth.time or (0.0, 0.0), truth.tube
    if not tube:
        return _score(response, _interval_of, lambda given: interval_iou(given, time))

    def accuracy(given: Grounding) -> float:
        when = interval_iou(given.time, time) if given.time else 0.0
        return 0.5 * when + 0.5 * tube_iou(given.tube or {}, tube)

    return _score(response, _both_of, accuracy)


def read_interval(answer: Any) -> Interval:
    """The interval of a ground truth.

    Raises:
        ValueError: it is none, or ends before it starts.
    """
    return _forward(_truth(answer, _interval_of, 'an interval such as {"time": [1, 2.5]}'), answer)


def read_box(answer: Any) -> Box:
    """The box of a ground truth.

    Raises:
        ValueError: it is none.
    """
    return _truth(answer, _box_of, 'a box such as {"boxes": [0, 0, 10, 10]}')


def read_tube(answer: Any) -> Tube:
    """The boxes by second of a ground truth.

    Raises:
        ValueError: it has none.
    """
    return _truth(answer, _tube_of, 'boxes such as {"boxes": {"1": [0, 0, 10, 10]}}')


def read_both(answer: Any) -> Grounding:
    """The interval of a ground truth, and its boxes if it has any.

    Raises:
        ValueError: it has no interval.
    """
    form = '{"time": [1, 2], "boxes": {"1": [0, 0, 10, 10]}}'
    truth = _truth(answer, _both_of, form)
    if truth.time is None:
        raise ValueError(f"the answer {answer!r} has no time as in {form}; correct the row")
    return Grounding(_forward(truth.time, answer), truth.tube)


def _forward(interval: Interval, answer: Any) -> Interval:
    if interval[0] > interval[1]:
        raise ValueError(f"the answer {answer!r} ends before it starts; correct the row")
    return interval


def interval_iou(a: Interval, b: Interval) -> float:
    """Intersection over union of two intervals; one that ends before it starts is empty.

    >>> interval_iou((12, 18), (10, 20))
    0.6
    """
    if a[0] > a[1] or b[0] > b[1]:
        return 0.0
    if a == b:
        return 1.0
    common = min(a[1], b[1]) - max(a[0], b[0])
    union = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, common / union)


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; one with its corners reversed is empty.

    >>> round(box_iou((5, 5, 15, 15), (0, 0, 10, 10)), 4)
    0.1429
    """
    if a[0] > a[2] or a[1] > a[3] or b[0] > b[2] or b[1] > b[3]:
        return 0.0
    if a == b:
        return 1.0
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    common *= max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = _area(a) + _area(b) - common
    return common / union if union > 0 and math.isfinite(union) else 0.0


def tube_iou(a: Mapping[float, Box | None], b: Mapping[float, Box | None]) -> float:
    """Mean box IoU over every second that either names; a second of one alone counts 0.

    >>> tube_iou({1: (0, 0, 10, 10)}, {1: (0, 0, 10, 10), 2: (0, 0, 10, 10)})
    0.5
    """
    seconds = a.keys() | b.keys()
    pairs = [(a.get(s), b.get(s)) for s in seconds]
    return sum(box_iou(p, q) for p, q in pairs if p and q) / len(seconds) if seconds else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _score(
    response: str, read: Callable[[Any], Reading | None], accuracy: Callable[[Any], float]
) -> Verdict | None:
    found = parse.extract(response, lambda text: _read(text, read))
    if found is None:
        return None
    reading, where = found
    return Verdict(accuracy(reading.value), reading.exact, where.text)


def _read(text: str, read: Callable[[Any], Reading | None]) -> Reading | None:
    """What a text says as JSON, or else in prose; a reading is exact if both steps are."""
    text = parse.normalize(text)
    data = parse.read_json(text) or _bare_numbers(text)
    reading = read(data.value if data else text)
    if reading is None:
        return None
    return Reading(reading.value, reading.exact and data is not None and data.exact)


def _bare_numbers(text: str) -> Reading | None:
    """Numbers without keys: "(1, 2)", "[1, 2] s", "(0, 0), (10, 10)"."""
    text = re.sub(r"(?<=[\d)\]])\s?(?:s|sec|seconds)\.?$", "", text)
    if not _BARE_NUMBERS.match(text):
        return None
    data = parse.read_json(f"[{text.translate(_SQUARE)}]")
    while data and isinstance(data.value, list) and len(data.value) == 1:
        data = Reading(data.value[0])
    return data and Reading(data.value, exact=False)


_SQUARE = str.maketrans("()", "[]")


def _truth(answer: Any, read: Callable[[Any], Reading | None], form: str) -> Any:
    answer = parse.ground_truth(answer)
    reading = _read(answer, read) if isinstance(answer, str) else read(answer)
    if reading is None:
        raise ValueError(f"the answer {answer!r} is not {form}; correct the row")
    return reading.value


def _interval_of(data: Any) -> Reading | None:
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
                inner = _interval_of(data[key])
                return inner and Reading(inner.value, exact=False)
        pair = _numbers([data.get("start"), data.get("end")], 2)
        return Reading(pair, exact=False) if pair else None
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], list):
        return _interval_of(data[0])
    pair = _numbers(data, 2)
    if pair is None and isinstance(data, list) and [type(x) for x in data] == [str, str]:
        return _span_of(" - ".join(data))
    return Reading(pair, exact=False) if pair else None


def _span_of(text: str) -> Reading | None:
    """The one span of seconds that a text states; with two different ones there is none."""
    text = text.lower()
    if len(text) > 2000 or "{" in text:
        return None
    spans = {tuple(map(float, m.groups())) for m in _SPAN.finditer(text)}
    for m in _CLOCK_SPAN.finditer(text):
        a, b = m.groups("0")[:3], m.groups("0")[3:]
        start, end = (float(h) * 3600 + float(mi) * 60 + float(s) for h, mi, s in (a, b))
        spans.add((start, end))
    return Reading(spans.pop(), exact=False) if len(spans) == 1 else None


def _box_of(data: Any) -> Reading | None:
    """The one box in decoded JSON."""
    if isinstance(data, Mapping):
        if "boxes" in data:
            box = _numbers(data["boxes"], 4)
            if box:
                return Reading(box)
        inner = next((data[k] for k in _BOX_KEYS if k in data), None)
        sides = _numbers([data.get(k) for k in ("x1", "y1", "x2", "y2")], 4)
        reading = Reading(sides) if sides else None
        if isinstance(inner, list) or (isinstance(inner, Mapping) and "x1" in inner):
            reading = _box_of(inner)
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 1:
        reading = _box_of(data[0])
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 2 and all(_numbers(p, 2) for p in data):
        data = [*data[0], *data[1]]  # two corners
    box = _numbers(data, 4)
    return Reading(box, exact=False) if box else None


def _tube_of(data: Any) -> Reading | None:
    """Boxes by second in decoded JSON; seconds may be written "9", "09", "9.0" or "9s"."""
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
        second = _number(str(key).strip().removesuffix("s"))
        box = _numbers(value, 4)
        if box is None and isinstance(value, list) and len(value) == 1:
            box, exact = _numbers(value[0], 4), False
        if second is None:
            exact = False
            continue
        exact = exact and box is not None
        tube[second] = box
    return Reading(tube, exact and bool(tube)) if tube else None


def _both_of(data: Any) -> Reading | None:
    """Interval and boxes in decoded JSON; a span in prose gives the interval alone."""
    time, tube = _interval_of(data), _tube_of(data)
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
    if isinstance(value, str) and len(value) > 40:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
