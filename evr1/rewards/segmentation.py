"""Segmentation: a box and points that tell an object from what is round it.

From such an answer a segmenter draws the mask; the reward asks whether it would be the right one.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.rewards import frames, grounding, parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.masks import Mask, Point, read_mask

POINTS = 3  # of each kind that the prompt asks for
MAX_POINTS = 50  # of a kind that are read
APART = 0.02  # of the box's longer side: points closer together count once
NEAR, FAR = 0.25, 0.5  # of that side: full and no credit for a point, where there is no mask
TIME_SLACK_S, TIME_FADE_S = 0.5, 2.0  # no loss up to the first, then all of it over the second
MIN_BOX_IOU = 0.3  # of the truth's box and its mask; below, they count in different units
MASK_FIELDS = ("mask", "segmentation")

Box = grounding.Box


class Selection(NamedTuple):
    """An object as an answer picks it out; None where it does not say."""

    box: Box | None = None
    positive: tuple[Point, ...] | None = None  # on the object
    negative: tuple[Point, ...] | None = None  # beside it
    time: float | None = None  # seconds; of the frame


def score(response: str, task: Task) -> Verdict | None:
    """Half the box's IoU and half the points' accuracy; for a truth with a time, less if missed.

    Raises:
        ValueError: the ground truth has no box, or a mask that cannot be read.
    """
    truth, mask = read_truth(task)
    x, y = frames.to_asked(task)
    found = parse.extract(response, lambda text: _read(text, truth.time is not None))
    if found is None:
        return None
    reading, where = found
    given = _scaled(reading.value, 1 / x, 1 / y)  # a mask is hard to scale, so the answer is
    return Verdict(accuracy(given, truth, mask), reading.exact, where.text)


def accuracy(given: Selection, truth: Selection, mask: Mask | None) -> float:
    """How well a selection picks out the object, in [0, 1]."""
    assert truth.box
    when = 1.0
    if truth.time is not None:
        late = math.inf if given.time is None else abs(given.time - truth.time) - TIME_SLACK_S
        when = 1 - min(1.0, max(0.0, late / TIME_FADE_S))
    overlap = grounding.box_iou(given.box, truth.box) if given.box else 0.0
    return when * (0.5 * overlap + 0.5 * point_accuracy(given, truth, mask))


def point_accuracy(given: Selection, truth: Selection, mask: Mask | None) -> float:
    """The share of positive points on the object, times that of negative points off it.

    A product: points far off in a corner are off the object, and tell nothing about it.
    """
    assert truth.box
    side = max(truth.box[2] - truth.box[0], truth.box[3] - truth.box[1])
    shares = []
    for points, wanted, is_positive in (
        (given.positive, truth.positive, True),
        (given.negative, truth.negative, False),
    ):
        points = points or ()
        credits = (_credit(p, truth, mask, side, is_positive) for p in _distinct(points, side))
        needed = min(POINTS, len(wanted)) if wanted and mask is None else POINTS
        shares.append(sum(credits) / max(needed, len(points)))
    return shares[0] * shares[1]


def _credit(point: Point, truth: Selection, mask: Mask | None, side: float, is_on: bool) -> float:
    """What a point on the object (or, if not `is_on`, off it) earns."""
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
    """The object of a row, and its mask if the row holds one, in the box's units.

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
    if mask is not None and grounding.box_iou(truth.box, mask.box) < MIN_BOX_IOU:
        raise ValueError(
            f"the box {truth.box} and the mask, within {mask.box}, are not of one object in one "
            "unit; correct the row"
        )
    return truth, mask


def write_answer(task: Task) -> str:
    """The answer that earns 1.

    Raises:
        ValueError: the ground truth cannot be read.
    """
    truth, mask = read_truth(task)
    assert truth.box
    positive, negative = truth.positive or (), truth.negative or ()
    is_complete = len(positive) == len(negative) == POINTS
    if not is_complete or point_accuracy(truth, truth, mask) < 1:
        positive, negative = (_search(truth, mask, is_on) for is_on in (True, False))
    given = Selection(truth.box, tuple(positive), tuple(negative))
    box, positive, negative, _ = _scaled(given, *frames.to_asked(task))
    answer = {"boxes": box, "positive_points": positive, "negative_points": negative}
    return json.dumps(answer if truth.time is None else {"time": truth.time, **answer})


def _search(truth: Selection, mask: Mask | None, is_on: bool) -> list[Point]:
    """Three distinct points on the object or off it, on a grid over the box and its surroundings.

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
    """The selection with its coordinates multiplied."""
    box, positive, negative, time = selection

    def scale(points: tuple[Point, ...] | None) -> tuple[Point, ...] | None:
        return points and tuple((p[0] * x, p[1] * y) for p in points)

    box = box and frames.scale_box(box, (x, y))
    return Selection(box, scale(positive), scale(negative), time)


def _read(text: str, has_time: bool) -> Reading | None:
    data = parse.read_json(parse.normalize(text))
    reading = _selection(data.value, has_time) if data else None
    return reading and Reading(reading.value, reading.exact and bool(data and data.exact))


def _selection(data: Any, has_time: bool) -> Reading | None:
    """A selection in decoded JSON; exact if it says all that was asked for."""
    if isinstance(data, list) and len(data) == 1:
        inner = _selection(data[0], has_time)
        return inner and Reading(inner.value, exact=False)
    if not isinstance(data, Mapping):
        return None
    box = _numbers(data.get("boxes"), 4)
    is_named = box is not None
    for key in ("boxes", "box", "bbox", "bbox_2d"):
        value = data.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # a list of one box
        box = box or _numbers(value, 4)
    positive, negative = (_points(data.get(f"{k}_points")) for k in ("positive", "negative"))
    time = data.get("time")
    single = _numbers(time if isinstance(time, list | tuple) else [time], 1)
    if box is None and positive is None and negative is None:
        return None
    counts = [len(points or ()) for points in (positive, negative)]
    written = [p for k in ("positive", "negative") for p in _listed(data.get(f"{k}_points"))]
    is_plain = not any(isinstance(p, Mapping) for p in written)
    exact = (
        is_named
        and is_plain
        and counts == [POINTS, POINTS]
        and (single is not None or not has_time)
    )
    return Reading(Selection(box, positive, negative, single and single[0]), exact)


def _listed(data: Any) -> Sequence[Any]:
    return data if isinstance(data, list | tuple) else ()


def _points(data: Any) -> tuple[Point, ...] | None:
    if not isinstance(data, list | tuple) or not 0 < len(data) <= MAX_POINTS:
        return None
    points = [_numbers([p.get("x"), p.get("y")] if isinstance(p, Mapping) else p, 2) for p in data]
    return None if None in points else tuple(p for p in points if p)


def _numbers(values: Any, count: int) -> Any:
    """A tuple of `count` finite numbers, or None."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    numbers = tuple(map(_number, values))
    return None if None in numbers else numbers


def _number(value: Any) -> float | None:
    """A number of at most nine digits, also one written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value) if not isinstance(value, str) or len(value) <= 40 else math.inf
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e9 else None


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return json.loads(value)
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
