"""Spans, boxes and tracks of truths and answers, as the page draws them on frames and in time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from evr1.formats import box_frames
from evr1.report.frames import Pictures
from evr1.rewards import grounding
from evr1.rewards.base import Reading
from evr1.rewards.geometry import frames, regions, spans
from evr1.rewards.geometry.overlap import Box, Interval
from evr1.rewards.geometry.regions import Grounding, Tube

_MOST = 200  # spans, boxes or seconds of one answer


class Place(NamedTuple):
    """Where and when, in one frame of coordinates."""

    spans: Sequence[Interval] = ()
    boxes: Sequence[Box] = ()
    tube: Tube = {}  # noqa: RUF012  never written to


_TRUTHS: Mapping[str, Callable[[Any], Place]] = {
    "temporal grounding": lambda answer: Place(spans=grounding.read_spans(answer)[0]),
    "spatial grounding": lambda answer: Place(boxes=grounding.read_boxes(answer)[0]),
    "tracking": lambda answer: Place(tube=grounding.read_tube(answer)),
    "spatial-temporal grounding": lambda answer: _both(grounding.read_both(answer)[0]),
}
_ANSWERS: Mapping[str, tuple[Callable[[Any], Reading | None], Callable[[Any], Place]]] = {
    "temporal grounding": (spans.spans_of, lambda found: Place(spans=found)),
    "spatial grounding": (regions.boxes_of, lambda found: Place(boxes=found)),
    "tracking": (regions.tube_of, lambda found: Place(tube=found)),
    "spatial-temporal grounding": (
        lambda data: regions.both_of(data, spans.spans_of),
        lambda found: _both(found),
    ),
}


def _both(found: Grounding) -> Place:
    return Place(spans=found.time or (), tube=found.tube or {})


def truth(kind: str, answer: Any, asked: str, pictures: Pictures | None) -> dict[str, Any] | None:
    """Returns the places of a reference answer; None: it has none, or cannot be read.

    Args:
        kind: problem type.
        answer: of the row.
        asked: what boxes count in prompts (`rewards.box_scale`).
        pictures: of the row: their size, and what its boxes count; None: boxes are left out.
    """
    if kind not in _TRUTHS:
        return None
    try:
        place = _TRUTHS[kind](answer)
    except ValueError:
        return None
    return _shown(place, (pictures and pictures.box_scale) or asked, pictures)


def answer(
    kind: str, extracted: str, asked: str, pictures: Pictures | None
) -> dict[str, Any] | None:
    """Returns the places in what the scorer read as an answer; see `truth`."""
    if kind not in _ANSWERS or not extracted:
        return None
    read, take = _ANSWERS[kind]
    reading = regions.read(extracted, read)
    return None if reading is None else _shown(take(reading.value), asked, pictures)


def _shown(place: Place, scale: str, pictures: Pictures | None) -> dict[str, Any] | None:
    """Spans in seconds, boxes in fractions of the width and height; None: nothing is left.

    >>> _shown(Place(boxes=[(16, 0, 32, 24)]), "pixels", Pictures([], size=(64, 48)))
    {'boxes': [[0.25, 0.0, 0.5, 0.5]]}
    """
    out: dict[str, Any] = {}
    if place.spans:
        out["spans"] = [[float(x) for x in span] for span in place.spans[:_MOST]]
    try:
        size = (pictures.size[0], pictures.size[1]) if pictures and pictures.size else None
        factors = box_frames.factors(scale or "pixels", "unit", size)
    except ValueError:  # pixels of a medium whose size is not known
        return out or None
    if place.boxes:
        out["boxes"] = [_box(box, factors) for box in place.boxes[:_MOST]]
    tube = [(second, box) for second, box in place.tube.items() if box is not None][:_MOST]
    if tube:
        out["tube"] = [[float(second), *_box(box, factors)] for second, box in tube]
    return out or None


def _box(box: Box, factors: tuple[float, float]) -> list[float]:
    return [round(float(x), 4) for x in frames.scale_box(box, factors)]
