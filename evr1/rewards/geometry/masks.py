"""Masks of objects, as polygons or as COCO's runs of pixels, and which points lie inside."""

import bisect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Point = tuple[float, float]


class Mask(NamedTuple):
    """The outline of an object: what is inside, and the box round it (left, top, right, bottom)."""

    contains: Callable[[Point], bool]
    box: tuple[float, float, float, float]


def read_mask(data: Any) -> Mask:
    """Returns a mask from {"size": [height, width], "counts": ...} or a list of polygons.

    Runs go down the columns, background first, as a list of numbers or in COCO's compressed text.
    A polygon is [x1, y1, x2, y2, ...] or [[x1, y1], ...]; several are one object.

    Raises:
        ValueError: it is neither, or it is empty.
    """
    mask = _runs(data) if isinstance(data, Mapping) else _polygons(data)
    if mask is None:
        raise ValueError(
            f"the mask {str(data)[:80]!r} is neither runs with size and counts nor a list of "
            "polygons with an area; correct the row"
        )
    return mask


def _runs(data: Mapping[str, Any]) -> Mask | None:
    size, counts = _integers(data.get("size")), data.get("counts")
    counts = decode_counts(counts) if isinstance(counts, str) else _integers(counts)
    if not size or len(size) != 2 or not counts:
        return None
    height, width = size
    ends = list(itertools.accumulate(counts))
    if height <= 0 or width <= 0 or min(counts) < 0 or ends[-1] != height * width:
        return None
    objects = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=False) if a < b]
    if not objects:
        return None

    def contains(point: Point) -> bool:
        x, y = map(math.floor, point)
        if not (0 <= x < width and 0 <= y < height):
            return False
        return bisect.bisect_right(ends, x * height + y) % 2 == 1

    left, right = objects[0][0] // height, (objects[-1][1] - 1) // height + 1
    # A run that goes on in the next column covers the whole height.
    whole = any(a // height != (b - 1) // height for a, b in objects)
    top = 0 if whole else min(a % height for a, _ in objects)
    bottom = height if whole else max((b - 1) % height + 1 for _, b in objects)
    return Mask(contains, (left, top, right, bottom))


def decode_counts(text: str) -> list[int] | None:
    """Returns the run lengths in COCO's compressed text; None where it is cut off or no such text.

    Every character holds five bits, lowest first, and whether more follow; the last bit is the
    sign. From the fourth on, a number is a difference from the one two before it.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def _polygons(data: Any) -> Mask | None:
    if not isinstance(data, list) or not data:
        return None
    if not isinstance(data[0], list) or _pairs(data):
        data = [data]  # one polygon
    polygons = [_pairs(part) or _pairs(_in_pairs(part)) for part in data]
    points = [p for polygon in polygons for p in polygon or ()]
    if not all(polygons) or not any(map(_area, polygons)):
        return None
    xs, ys = zip(*points, strict=True)
    return Mask(
        lambda point: any(_is_inside(point, p or []) for p in polygons),
        (min(xs), min(ys), max(xs), max(ys)),
    )


def _in_pairs(values: Any) -> Any:
    if not isinstance(values, list) or len(values) % 2:
        return None
    return [list(pair) for pair in zip(values[::2], values[1::2], strict=True)]


def _pairs(values: Any) -> list[Point] | None:
    """Returns at least three points, or None."""
    if not isinstance(values, list) or len(values) < 3:
        return None
    is_pairs = all(
        isinstance(p, list | tuple)
        and len(p) == 2
        and all(isinstance(n, int | float) and math.isfinite(n) for n in p)
        for p in values
    )
    return [(float(x), float(y)) for x, y in values] if is_pairs else None


def _is_inside(point: Point, polygon: list[Point]) -> bool:
    """Returns whether a ray from the point crosses the outline an odd number of times."""
    x, y = point
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


def _area(polygon: list[Point] | None) -> float:
    polygon = polygon or []
    corners = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in corners)) / 2


def _integers(values: Any) -> list[int] | None:
    """Returns whole numbers, also where JSON made them floats."""
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        return None
    return [int(v) for v in values] if all(v == v // 1 for v in values) else None
