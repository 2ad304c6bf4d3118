"""Time and place: intervals, boxes, boxes over time."""

from collections.abc import Callable, Sequence
from typing import Any

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.geometry import frames, regions, spans
from evr1.rewards.geometry.overlap import Box, Interval, boxes_iou, spans_iou, tube_iou
from evr1.rewards.geometry.regions import Grounding, Tube

Spans = tuple[Interval, ...]
Boxes = tuple[Box, ...]


def score_temporal(response: str, task: Task) -> Verdict | None:
    """Returns the intersection over union of the seconds that truth and answer cover.

    Raises:
        ValueError: the ground truth is no interval.
    """
    truth, is_listed = read_spans(task.answer)
    reader = spans.spans_of if is_listed else _one(spans.interval_of)
    return _score(
        response,
        reader,
        lambda answer: spans_iou(answer, truth),
        lambda answer: _are_real_spans(answer, truth),
    )


def score_spatial(response: str, task: Task) -> Verdict | None:
    """Returns the intersection over union of the box, or the mean of several matched one to one.

    Raises:
        ValueError: the ground truth is no box.
    """
    truth, is_listed = asked_boxes(task)
    reader = regions.boxes_of if is_listed else _one(regions.box_of)
    return _score(
        response,
        reader,
        lambda answer: boxes_iou(answer, truth),
        lambda answer: all(regions.is_real(box) or box in truth for box in answer),
    )


def score_tracking(response: str, task: Task) -> Verdict | None:
    """Returns the mean intersection over union over all seconds that truth or answer names.

    Raises:
        ValueError: the ground truth names no boxes.
    """
    truth = asked_tube(task)
    return _score(
        response,
        regions.tube_of,
        lambda answer: tube_iou(answer, truth),
        lambda answer: _is_real_tube(answer, truth),
    )


def score_spatial_temporal(response: str, task: Task) -> Verdict | None:
    """Returns half the intervals' and half the boxes' intersection over union.

    Where the truth has no boxes, the intervals count alone.

    Raises:
        ValueError: the ground truth has no interval.
    """
    truth, is_listed = asked_both(task)
    time, tube = truth.time or (), truth.tube
    read_time = spans.spans_of if is_listed else _one(spans.interval_of)
    if not tube:
        return _score(
            response,
            read_time,
            lambda answer: spans_iou(answer, time),
            lambda answer: _are_real_spans(answer, time),
        )

    def accuracy(answer: Grounding) -> float:
        return 0.5 * spans_iou(answer.time or (), time) + 0.5 * tube_iou(answer.tube or {}, tube)

    def is_real(answer: Grounding) -> bool:
        return _are_real_spans(answer.time or (), time) and _is_real_tube(answer.tube or {}, tube)

    return _score(response, lambda data: regions.both_of(data, read_time), accuracy, is_real)


def one_or_all(parts: Sequence[Any]) -> Any:
    """Returns the one interval or box of a ground truth, or all of them, as answers write it."""
    return parts[0] if len(parts) == 1 else parts


def read_spans(answer: Any) -> tuple[Spans, bool]:
    """Returns the intervals of a ground truth, and whether it lists them: there may be several.

    Raises:
        ValueError: there are none, or one ends before it starts.
    """
    reading, is_listed = _truth(
        answer, spans.spans_of, spans.is_listed, 'an interval such as {"time": [1, 2.5]}'
    )
    return tuple(_forward(span, answer) for span in reading), is_listed


def read_boxes(answer: Any) -> tuple[Boxes, bool]:
    """Returns the boxes of a ground truth, and whether it lists them: there may be several.

    Raises:
        ValueError: there are none, or one's corners are reversed.
    """
    reading, is_listed = _truth(
        answer, regions.boxes_of, regions.is_listed, 'a box such as {"boxes": [0, 0, 10, 10]}'
    )
    return tuple(_upright(box, answer) for box in reading), is_listed


def read_tube(answer: Any) -> Tube:
    """Returns the boxes by second of a ground truth.

    Raises:
        ValueError: it has none, or one that is no box.
    """
    tube, _ = _truth(
        answer,
        regions.tube_of,
        lambda data: False,
        'boxes such as {"boxes": {"1": [0, 0, 10, 10]}}',
    )
    return _all_upright(tube, answer)


def read_both(answer: Any) -> tuple[Grounding, bool]:
    """Returns intervals and boxes (if any) of a ground truth, and whether it lists intervals.

    Raises:
        ValueError: it has no interval.
    """
    form = '{"time": [1, 2], "boxes": {"1": [0, 0, 10, 10]}}'
    truth, is_listed = _truth(
        answer, lambda data: regions.both_of(data, spans.spans_of), spans.is_listed, form
    )
    if truth.time is None:
        raise ValueError(f"the answer {answer!r} has no time as in {form}; correct the row")
    time = tuple(_forward(span, answer) for span in truth.time)
    return Grounding(time, _all_upright(truth.tube or {}, answer) or None), is_listed


def asked_boxes(task: Task) -> tuple[Boxes, bool]:
    """Returns the boxes of a task's ground truth, in the frame that the prompt asks for.

    Beside them, whether the truth lists them: then there may be several.

    Raises:
        ValueError: it has none, or they cannot be written in that frame.
    """
    boxes, is_listed = read_boxes(task.answer)
    factors = frames.to_asked(task)
    return tuple(frames.scale_box(box, factors) for box in boxes), is_listed


def asked_tube(task: Task) -> Tube:
    """Returns the boxes by second of a task's ground truth, in the frame that the prompt asks for.

    Raises:
        ValueError: it has none, or they cannot be written in that frame.
    """
    return _scale_tube(read_tube(task.answer), task)


def asked_both(task: Task) -> tuple[Grounding, bool]:
    """Returns what `read_both` does, in the frame that the prompt asks for.

    Raises:
        ValueError: it has no interval, or its boxes cannot be written in that frame.
    """
    truth, is_listed = read_both(task.answer)
    return truth._replace(tube=truth.tube and _scale_tube(truth.tube, task)), is_listed


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


def _are_real_spans(spans: Spans, truth: Spans) -> bool:
    """Returns whether every interval has a length, or is one of the truth's."""
    return all(span[0] < span[1] or span in truth for span in spans)


def _is_real_tube(tube: Tube, truth: Tube) -> bool:
    return all(regions.is_real(box) or box == truth.get(second) for second, box in tube.items())


def _one(read: Callable[[Any], Reading | None]) -> Callable[[Any], Reading | None]:
    """Returns a reader that gives what the reader of one gives, as a tuple of one."""

    def read_one(data: Any) -> Reading | None:
        reading = read(data)
        return reading and Reading((reading.value,), reading.exact)

    return read_one


def _score(
    response: str,
    read: Callable[[Any], Reading | None],
    accuracy: Callable[[Any], float],
    is_real: Callable[[Any], bool],
) -> Verdict | None:
    """Returns the verdict on a response; one that covers nothing is not in the asked form."""
    extraction = parse.extract(response, lambda text: regions.read(text, read), parse.DATA)
    if extraction is None:
        return None
    reading, candidate = extraction
    in_form = reading.exact and is_real(reading.value)
    return Verdict(accuracy(reading.value), in_form, candidate.text)


def _truth(
    answer: Any, read: Callable[[Any], Reading | None], is_listed: Callable[[Any], bool], form: str
) -> tuple[Any, bool]:
    def read_truth(data: Any) -> Reading | None:
        reading = read(data)
        return reading and Reading((reading.value, is_listed(data)))

    stated = parse.ground_truth(answer)
    reading = regions.read(stated, read_truth) if isinstance(stated, str) else read_truth(stated)
    if reading is None and stated != answer:  # some files lost the answer, and have it as a reason
        reading = regions.read(answer, read_truth)
    if reading is None:
        raise ValueError(f"the answer {answer!r} is not {form}; correct the row")
    return reading.value
