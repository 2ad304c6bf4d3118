"""Segmentation: a box and points that tell an object from what is round it.

From such an answer a segmenter draws the mask; the reward asks whether it would be the right one.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.geometry import frames, literals, regions, spans
from evr1.rewards.geometry.masks import Mask, Point, read_mask
from evr1.rewards.geometry.overlap import Box, box_iou

POINTS = 3  # of each kind that the prompt asks for
MAX_POINTS = 50  # of a kind that are read
APART = 0.02  # of the box's longer side: points closer together count once
NEAR, FAR = 0.25, 0.5  # of that side: full and no credit for a point, where there is no mask
TIME_SLACK_S, TIME_FADE_S = 0.5, 2.0  # no loss up to the first, then all of it over the second
MIN_BOX_IOU = 0.3  # of the truth's box and its mask; below, they count in different units
MASK_FIELDS = ("mask", "segmentation")
_POINT_KEYS = (
    ("positivepoints", "pospoints", "positive", "pos", "foreground"),
    ("negativepoints", "negpoints", "negative", "neg", "background"),
)


class Selection(NamedTuple):
    """An object as an answer picks it out; None for what it does not say."""

    box: Box | None = None
    positive: tuple[Point, ...] | None = None  # on the object
    negative: tuple[Point, ...] | None = None  # beside it
    time: float | None = None  # seconds; of the frame


def score(response: str, task: Task) -> Verdict | None:
    """Returns half the box's IoU and half the points' accuracy, less if the truth's time is missed.

    Raises:
        ValueError: the ground truth has no box, or a mask that cannot be read.
    """
    truth, mask = read_truth(task)
    x, y = frames.to_asked(task)
    extraction = parse.extract(
        response, lambda text: _read(text, truth.time is not None), parse.DATA
    )
    if extraction is None:
        return None
    reading, candidate = extraction
    selection = _scaled(reading.value, 1 / x, 1 / y)  # a mask is hard to scale, so the answer is
    in_form = reading.exact and regions.is_real(reading.value.box)
    return Verdict(accuracy(selection, truth, mask), in_form, candidate.text)


def accuracy(answer: Selection, truth: Selection, mask: Mask | None) -> float:
    """Returns how well a selection picks out the object, in [0, 1]."""
    assert truth.box
    when = 1.0
    if truth.time is not None:
        late = math.inf if answer.time is None else abs(answer.time - truth.time) - TIME_SLACK_S
        when = 1 - min(1.0, max(0.0, late / TIME_FADE_S))
    overlap = box_iou(answer.box, truth.box) if answer.box else 0.0
    return when * (0.5 * overlap + 0.5 * point_accuracy(answer, truth, mask))


def point_accuracy(answer: Selection, truth: Selection, mask: Mask | None) -> float:
    """Returns the share of positive points on the object, times that of negative points off it.

    A product: points far off in a corner are off the object, and tell nothing about it.
    """
    assert truth.box
    side = max(truth.box[2] - truth.box[0], truth.box[3] - truth.box[1])
    shares = []
    for points, truth_points, is_positive in (
        (answer.positive, truth.positive, True),
        (answer.negative, truth.negative, False),
    ):
        points = points or ()
        credits = (_credit(p, truth, mask, side, is_positive) for p in _distinct(points, side))
        needed = min(POINTS, len(truth_points)) if truth_points and mask is None else POINTS
        shares.append(sum(credits) / max(needed, len(points)))
    return shares[0] * shares[1]


def _credit(point: Point, truth: Selection, mask: Mask | None, side: float, is_on: bool) -> float:
    """Returns what a point on the object (or, if not `is_on`, off it) earns."""
    assert truth.box
    if mask is not None:
        return float(mask.contains(point) == is_on)
    left, top, right, bottom = truth.box
    is_in_box = left <= point[0] <= right and top <= point[1] <= bottom
    near, far = (_nearest(point, points) for points in (truth.positive, truth.negative))
    if not is_on:
        return float(not is_in_box or (math.isfinite(far) and far < near))
    if not is_in_box or near > far:
        return 0.0
    if math.isinf(near):  # the truth has no points
        return 1.0
    return min(1.0, max(0.0, (FAR * side - near) / ((FAR - NEAR) * side))) if side else 1.0


def _nearest(point: Point, points: Iterable[Point] | None) -> float:
    return min((math.dist(point, p) for p in points or ()), default=math.inf)


def _distinct(points: Sequence[Point], side: float) -> list[Point]:
    kept: list[Point] = []
    for point in points:
        if point not in kept and _nearest(point, kept) >= APART * side:
            kept.append(point)
    return kept


def read_truth(task: Task) -> tuple[Selection, Mask | None]:
    """Returns the object of a row, and its mask if the row holds one, in the box's units.

    Raises:
        ValueError: there is no box, the mask cannot be read, or the two do not belong together.
    """
    answer = parse.ground_truth(task.answer)
    data = parse.read_json(answer) if isinstance(answer, str) else Reading(answer)
    value = data.value if data else None
    reading = _selection(value, False) if isinstance(value, Mapping) else None
    truth = reading.value if reading else Selection()
    outline = value.get("mask") if isinstance(value, Mapping) else None
    outline = next((task.extra[f] for f in MASK_FIELDS if task.extra.get(f) is not None), outline)
    mask = None if outline is None else read_mask(_plain(outline))
    if isinstance(value, Mapping) and value.get("time") is not None and truth.time is None:
        raise ValueError(
            f"the time {value['time']!r} is not one number of seconds; correct the row"
        )
    if truth.box is None and mask is not None and isinstance(value, Mapping):
        truth = truth._replace(box=mask.box)
    if truth.box is None or truth.box[0] >= truth.box[2] or truth.box[1] >= truth.box[3]:
        raise ValueError(
            f"the answer {answer!r} has no box such as {{'boxes': [0, 0, 10, 10]}}; correct the row"
        )
    if mask is not None and box_iou(truth.box, mask.box) < MIN_BOX_IOU:
        raise ValueError(
            f"the box {truth.box} and the mask, within {mask.box}, are not of one object in one "
            "unit; correct the row"
        )
    return truth, mask


def write_answer(task: Task) -> str:
    """Returns the answer that earns 1.

    Raises:
        ValueError: the ground truth cannot be read.
    """
    truth, mask = read_truth(task)
    assert truth.box
    positive, negative = truth.positive or (), truth.negative or ()
    is_complete = len(positive) == len(negative) == POINTS
    if not is_complete or point_accuracy(truth, truth, mask) < 1:
        positive, negative = (_search(truth, mask, is_on) for is_on in (True, False))
    selection = Selection(truth.box, tuple(positive), tuple(negative))
    box, positive, negative, _ = _scaled(selection, *frames.to_asked(task))
    answer = {"boxes": box, "positive_points": positive, "negative_points": negative}
    return json.dumps(answer if truth.time is None else {"time": truth.time, **answer})


def _search(truth: Selection, mask: Mask | None, is_on: bool) -> list[Point]:
    """Returns three distinct points on the object or off it, from a grid over the box and around.

    Raises:
        ValueError: there are none.
    """
    assert truth.box
    left, top, right, bottom = truth.box
    side = max(right - left, bottom - top)
    for steps in (5, 25, 125):
        grid = [(i + 0.5) / steps for i in range(steps)]
        grid = grid if is_on else [2 * g - 0.5 for g in grid]
        points = (
            (left + u * (right - left), top + v * (bottom - top))
            for u, v in itertools.product(grid, grid)
        )
        good = [p for p in points if _credit(p, truth, mask, side, is_on) == 1]
        good = _distinct(good[:: max(1, len(good) // 20)], side)
        if len(good) >= POINTS:
            return [good[0], good[len(good) // 2], good[-1]]
    raise ValueError("no three points tell the object from what is round it; correct the row")


def _scaled(selection: Selection, x: float, y: float) -> Selection:
    """Returns the selection with its coordinates multiplied."""
    box, positive, negative, time = selection

    def scale(points: tuple[Point, ...] | None) -> tuple[Point, ...] | None:
        return points and tuple((p[0] * x, p[1] * y) for p in points)

    box = box and frames.scale_box(box, (x, y))
    return Selection(box, scale(positive), scale(negative), time)


def _read(text: str, has_time: bool) -> Reading | None:
    text = regions.unmarked(text)
    parts = regions.sections(text)
    data = literals.read_values(text) if parts is None else Reading(parts, exact=False)
    data = None if literals.is_denied_json(text) else data
    reading = _selection(data.value, has_time) if data else None
    return reading and Reading(reading.value, reading.exact and bool(data and data.exact))


def _selection(data: Any, has_time: bool) -> Reading | None:
    """Returns a selection in decoded JSON; exact if it says all that was asked for."""
    if isinstance(data, list) and len(data) == 1:
        inner = _selection(data[0], has_time)
        return inner and Reading(inner.value, exact=False)
    if not isinstance(data, Mapping):
        return None
    box = _small(literals.numbers_of(data.get("boxes"), 4))
    is_named = box is not None
    fields = literals.fields_of(data)
    if box is None:
        inner = regions.box_of(literals.first_of(fields, regions.BOX_KEYS))
        box = _small(inner and inner.value)
    nested = fields.get("points")
    if isinstance(nested, Mapping) and not any(k in fields for keys in _POINT_KEYS for k in keys):
        fields |= literals.fields_of(nested)
    written = [literals.first_of(fields, keys) for keys in _POINT_KEYS]
    positive, negative = map(_points, written)
    single = _second(literals.first_of(fields, ("time", "timestamp", *regions.SECOND_KEYS)))
    if box is None and positive is None and negative is None:
        return None
    counts = [len(points or ()) for points in (positive, negative)]
    is_plain = all(
        not isinstance(point, Mapping)
        for kind in ("positive_points", "negative_points")
        for point in _listed(data.get(kind))
    )
    has_points = {"positive_points", "negative_points"} <= data.keys()
    has_asked_time = literals.numbers_of(_alone(data.get("time")), 1) or not has_time
    is_whole = counts == [POINTS, POINTS] and has_points and has_asked_time
    return Reading(
        Selection(box, positive, negative, single), bool(is_named and is_plain and is_whole)
    )


def _second(value: Any) -> float | None:
    listed = _alone(value)
    return spans.second_of(listed[0]) if len(listed) == 1 else None


def _alone(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _listed(data: Any) -> Sequence[Any]:
    return data if isinstance(data, (list, tuple)) else ()


def _points(data: Any) -> tuple[Point, ...] | None:
    if not isinstance(data, (list, tuple)) or not 0 < len(data) <= MAX_POINTS:
        return None
    pairs = [[p.get("x"), p.get("y")] if isinstance(p, Mapping) else p for p in data]
    points = [_small(literals.numbers_of(pair, 2)) for pair in pairs]
    return None if None in points else tuple(p for p in points if p)


def _small(numbers: Any) -> Any:
    """Returns numbers if all of them have at most nine digits, or None."""
    return numbers if numbers and all(abs(n) < 1e9 for n in numbers) else None


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return json.loads(value)
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
