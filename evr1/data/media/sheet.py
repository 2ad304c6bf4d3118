"""A picture of many frames, for people."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

WIDTH_PX = 1600  # of a sheet, about
_LABEL_PX = 16
_GAP_PX = 4  # between frames
_GROUND = 90  # grey, which neither a dark nor a bright frame runs into


class Frame(Protocol):
    """A frame and its second in the source."""

    @property
    def pixels(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        ...

    @property
    def second(self) -> float | None:
        """None: of an image."""
        ...


def sheet(media: Sequence[Sequence[Frame]], width_px: int = WIDTH_PX) -> np.ndarray:
    """Returns all frames in order, uint8[H, W, 3], apart, each with its second under it.

    Args:
        media: frames of each medium, which begins a line of its own; not all empty.
        width_px: frames are made smaller where a line would be wider, and never larger.
    """
    count = max(map(len, media))
    width = max(frame.pixels.shape[1] for frames in media for frame in frames)
    columns = max(1, min(count, max(width_px // width, math.ceil(math.sqrt(count)))))
    scale = min(1.0, (width_px - (columns - 1) * _GAP_PX) / (columns * width))
    lines = [
        _line(frames[start : start + columns], scale)
        for frames in media
        for start in range(0, len(frames), columns)
    ]
    height = sum(len(a) for a in lines) + (len(lines) - 1) * _GAP_PX
    out = np.full((height, max(a.shape[1] for a in lines), 3), _GROUND, np.uint8)
    top = 0
    for line in lines:
        out[top : top + len(line), : line.shape[1]] = line
        top += len(line) + _GAP_PX
    return out


def _line(frames: Sequence[Frame], scale: float) -> np.ndarray:
    """Returns frames side by side, uint8[h, w, 3], with their seconds under them."""
    height, width, _ = frames[0].pixels.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = size[0] + _GAP_PX
    line = Image.new("RGB", (len(frames) * step - _GAP_PX, size[1] + _LABEL_PX), (_GROUND,) * 3)
    draw = ImageDraw.Draw(line)
    for i, frame in enumerate(frames):
        line.paste(Image.fromarray(frame.pixels).resize(size), (i * step, 0))
        if frame.second is not None:
            draw.text((i * step + 3, size[1] + 2), f"{frame.second:.4g} s", fill="white")
    return np.asarray(line)
