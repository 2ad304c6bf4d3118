"""Decoded frames to RGB, upright, and fitted into one size.

Colours are converted by FFmpeg's filter `format`, as in torchcodec, which the Qwen readers use:
chroma is scaled by its bicubic default and lies where the stream says.
"""

from typing import Any

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import Type

from evr1.data.media.resize import resizer
from evr1.data.records import Budgets


class Converter:
    """Turns decoded frames into upright RGB; its filter is made anew where the format changes."""

    def __init__(self):
        self._kind: tuple = ()
        self._graph = av.filter.Graph()

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Returns uint8[H, W, 3], upright by the display matrix."""
        kind = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
        if kind != self._kind:
            self._graph, self._kind = _rgb_graph(frame), kind
        self._graph.push(frame)
        shown = self._graph.pull()
        assert isinstance(shown, av.VideoFrame)
        return upright(shown.to_ndarray(), display_matrix(frame))


def _rgb_graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base,
    )
    to_rgb = graph.add("format", "rgb24")
    sink = graph.add("buffersink")
    source.link_to(to_rgb)
    to_rgb.link_to(sink)
    graph.configure()
    return graph


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Returns (a, b, c, d) of the frame's display matrix: x, y is shown at a·x + c·y, b·x + d·y."""
    try:
        side_data: Any = frame.side_data  # its stub knows names alone
        matrix = side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV 18 does not know every kind of it, such as EXIF
        quarter = round(frame.rotation / 90) % 4  # counterclockwise
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarter]
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        return a, b, c, d
    return 1, 0, 0, 1


def upright(rgb: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Returns uint8[H, W, 3] as a display matrix shows it: turned, mirrored or both.

    >>> upright(np.array([[[1], [2]]]), (-1, 0, 0, 1)).tolist()  # mirrored, and not upside down
    [[[2], [1]]]

    Args:
        rgb: the stored frame.
        matrix: (a, b, c, d), see `display_matrix`; another angle counts as the nearest quarter.
    """
    a, b, c, d = matrix
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb, across, down = rgb.transpose(1, 0, 2), c, b
    if across < 0:
        rgb = rgb[:, ::-1]
    if down < 0:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


def fit_frame(
    rgb: np.ndarray, first: tuple[int, int], size: tuple[int, int], budgets: Budgets
) -> np.ndarray:
    """Returns a frame resized as a video's first frame is; another aspect ratio gets black bars.

    Args:
        rgb: uint8[h, w, 3].
        first: (height, width) of the first frame.
        size: (height, width) to which that one is resized.
        budgets: whose budget says who resizes.
    """
    (h, w), (height, width) = rgb.shape[:2], size
    scale = min(first[0] / h, first[1] / w)
    rows = min(max(round(h * scale * height / first[0]), 1), height)
    columns = min(max(round(w * scale * width / first[1]), 1), width)
    inner = resizer(budgets)(rgb[None], rows, columns)[0]
    if (rows, columns) == size:
        return inner
    framed = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    framed[top : top + rows, left : left + columns] = inner
    return framed
