"""The frames that box coordinates are written in, and the factors from one to another.

Pixels are those of the source medium, before any resizing. `unit` counts fractions of its width and
height, `thousand` thousandths of them, which is how Qwen3-VL was taught to write boxes.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

SCALES = ("pixels", "unit", "thousand")
_SIZE_PAIRS = ("image_size", "video_size")


def factors(source: str, target: str, size: tuple[float, float] | None) -> tuple[float, float]:
    """Returns the factors that take x and y from one frame to another.

    >>> factors("pixels", "thousand", (500, 200))
    (2.0, 5.0)

    Args:
        source: the frame that they are in.
        target: the frame to write them in.
        size: width and height of the source medium in pixels, where they are known.

    Raises:
        ValueError: no such frame, or pixels are on one side only and the size is not known.
    """
    for scale in (source, target):
        if scale not in SCALES:
            raise ValueError(f"box_scale is {scale!r}; give one of {', '.join(SCALES)}")
    if source == target:
        return 1.0, 1.0
    if size is None and "pixels" in (source, target):
        raise ValueError(
            f"the row's boxes are in {source} and rewards.box_scale asks for {target}; add width "
            f"and height (pixels of the source medium) to the row, or one of "
            f"{', '.join(_SIZE_PAIRS)} as [width, height]"
        )
    return _along(source, target, size and size[0]), _along(source, target, size and size[1])


def frame_of(fields: Mapping[str, Any]) -> str:
    """Returns the frame of a row's ground truth (its `box_scale`); empty where it names none.

    Raises:
        ValueError: it says something else.
    """
    frame = fields.get("box_scale")
    if frame is None or frame == "":
        return ""
    if frame not in SCALES:
        raise ValueError(f"box_scale is {frame!r}; give one of {', '.join(SCALES)}")
    return frame


def size_of(fields: Mapping[str, Any]) -> tuple[float, float] | None:
    """Returns width and height in pixels that a row gives its medium; None where it gives none.

    >>> size_of({"width": 640, "height": 480}) == size_of({"video_size": [640, 480]})
    True

    Raises:
        ValueError: they are no positive numbers, one is missing, or two sizes differ.
    """
    stated = [(k, fields[k]) for k in _SIZE_PAIRS if fields.get(k) is not None]
    sides = (fields.get("width"), fields.get("height"))
    if sides != (None, None):
        stated.append(("width and height", sides))
    sizes = {name: _pair(name, value) for name, value in stated}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{' and '.join(sizes)} differ: {sizes}; give the size of one medium")
    return next(iter(sizes.values()), None)


def _along(source: str, target: str, length: float | None) -> float:
    """Returns the factor along one axis."""
    whole = {"unit": 1.0, "thousand": 1000.0, "pixels": length or 1.0}
    return whole[target] / whole[source]


def _pair(name: str, value: Any) -> tuple[float, float]:
    is_pair = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if is_pair and all(_is_length(v) for v in value):
        return float(value[0]), float(value[1])
    raise ValueError(f"{name}: got {value!r}; give width and height in pixels, above 0")


def _is_length(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return 0 < float(value) <= 1e9
