"""When and where: intervals, boxes, boxes over time."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from evr1.rewards import frames, parse, regions
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.regions import (
    Box,
    Grounding,
    Interval,
    Tube,
    both_of,
    box_of,
    interval_of,
    tube_of,
)


def score_temporal(response: str, task: Task) -> Verdict | None:
    """Intersection over union of the interval.

    Raises:
        ValueError: the ground truth is no interval.
    """
    truth = read_interval(task.answer)
    return _score(response, interval_of, lambda given: interval_iou(given, truth))


def score_spatial(response: str, task: Task) -> Verdict | None:
    """Intersection over union of the box.

    Raises:
        ValueError: the ground truth is no box.
    """
    truth = asked_box(task)
    return _score(response, box_of, lambda given: box_iou(given, truth))


def score_tracking(response: str, task: Task) -> Verdict | None:
    """Mean intersection over union over the union of the seconds that truth and answer name.

    Raises:
        ValueError: the ground truth names no boxes.
    """
    truth = asked_tube(task)
    return _score(response, tube_of, lambda given: tube_iou(given, truth))


def score_spatial_temporal(response: str, task: Task) -> Verdict | None:
    """Half the interval's and half the boxes' intersection over union.

    Where the truth has no boxes, the interval counts alone.

    Raises:
        ValueError: the ground truth has no interval.
    """
    truth = asked_both(task)
    time, tube = truth.time or (0.0, 0.0), truth.tube
    if not tube:
        return _score(response, interval_of, lambda given: interval_iou(given, time))

    def accuracy(given: Grounding) -> float:
        when = interval_iou(given.time, time) if given.time else 0.0
        return 0.5 * when + 0.5 * tube_iou(given.tube or {}, tube)

    return _score(response, both_of, accuracy)


def read_interval(answer: Any) -> Interval:
    """The interval of a ground truth.

    Raises:
        ValueError: it is none, or ends before it starts.
    """
    return _forward(_truth(answer, interval_of, 'an interval such as {"time": [1, 2.5]}'), answer)


def read_box(answer: Any) -> Box:
    """The box of a ground truth.

    Raises:
        ValueError: it is none, or its corners are reversed.
    """
    return _upright(_truth(answer, box_of, 'a box such as {"boxes": [0, 0, 10, 10]}'), answer)


def read_tube(answer: Any) -> Tube:
    """The boxes by second of a ground truth.

    Raises:
        ValueError: it has none, or one that is no box.
    """
    tube = _truth(answer, tube_of, 'boxes such as {"boxes": {"1": [0, 0, 10, 10]}}')
    return _all_upright(tube, answer)


def read_both(answer: Any) -> Grounding:
    """The interval of a ground truth, and its boxes if it has any.

    Raises:
        ValueError: it has no interval.
    """
    form = '{"time": [1, 2], "boxes": {"1": [0, 0, 10, 10]}}'
    truth = _truth(answer, both_of, form)
    if truth.time is None:
        raise ValueError(f"the answer {answer!r} has no time as in {form}; correct the row")
    return Grounding(_forward(truth.time, answer), _all_upright(truth.tube or {}, answer) or None)


def asked_box(task: Task) -> Box:
    """The box of a task's ground truth, in the frame that the prompt asks for.

    Raises:
        ValueError: it is none, or cannot be written in that frame.
    """
    return frames.scale_box(read_box(task.answer), frames.to_asked(task))


def asked_tube(task: Task) -> Tube:
    """The boxes by second of a task's ground truth, in the frame that the prompt asks for.

    Raises:
        ValueError: it has none, or they cannot be written in that frame.
    """
    return _scale_tube(read_tube(task.answer), task)


def asked_both(task: Task) -> Grounding:
    """Interval and boxes of a task's ground truth, in the frame that the prompt asks for.

    Raises:
        ValueError: it has no interval, or its boxes cannot be written in that frame.
    """
    truth = read_both(task.answer)
    return truth._replace(tube=truth.tube and _scale_tube(truth.tube, task))


def _scale_tube(tube: Tube, task: Task) -> Tube:
    factors = frames.to_asked(task)
    return {second: box and frames.scale_box(box, factors) for second, box in tube.items()}


def _forward(interval: Interval, answer: Any) -> Interval:
    if interval[0] > interval[1]:
        raise ValueError(f"the answer {answer!r} ends before it starts; correct the row")
    return interval


def _upright(box: Box | None, answer: Any) -> Box:
    if box is None or box[0] > box[2] or box[1] > box[3]:
        raise ValueError(
            f"the answer {answer!r} has a box that no answer can meet; correct the row"
        )
    return box


def _all_upright(tube: Tube, answer: Any) -> Tube:
    return {second: _upright(box, answer) for second, box in tube.items()}


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
    found = parse.extract(response, lambda text: regions.read(text, read))
    if found is None:
        return None
    reading, where = found
    return Verdict(accuracy(reading.value), reading.exact, where.text)


def _truth(answer: Any, read: Callable[[Any], Reading | None], form: str) -> Any:
    answer = parse.ground_truth(answer)
    reading = regions.read(answer, read) if isinstance(answer, str) else read(answer)
    if reading is None:
        raise ValueError(f"the answer {answer!r} is not {form}; correct the row")
    return reading.value
