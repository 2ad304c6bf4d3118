"""Which frames of a video are taken: those of a clip, at a rate, or those nearest to some times.

Source: qwen-vl-utils 0.0.14 (`smart_nframes`, `fetch_video`).
"""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media import patches
from evr1.data.records import Budgets, Geometry

MIN_FRAMES = 4
_TIME_ERROR_S = 1e-6  # stored times are whole ticks, so a mark that a user copies is rounded
FRAME_STEP = 2  # frame counts are even, whatever the temporal patch


class Taken(NamedTuple):
    """The frames that are taken.

    Attributes:
        indices: int64[n], ascending; of a video of one frame, that one twice.
        sample_fps: n over the seconds of the clip; 0: not known.
    """

    indices: np.ndarray
    sample_fps: float


def take(
    path: str | pathlib.Path,
    total_frames: int,
    source_fps: float,
    budgets: Budgets,
    start: float | None,
    end: float | None,
) -> Taken:
    """Returns the frames that are taken of a clip.

    Args:
        path: of the video, for the error.
        total_frames: of it.
        source_fps: their rate.
        budgets: how much of it is looked at.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: no frame within the clip.
    """
    try:
        first, count = clip_range(total_frames, source_fps, start, end)
    except ValueError as error:
        raise MediaError("clip", path, str(error)) from None
    rate, limit = budgets.video_fps, budgets.video_max_frames
    indices = sample_indices(count, source_fps, rate, limit, first)
    return Taken(indices, len(indices) / count * source_fps)


def take_by_times(
    path: str | pathlib.Path,
    times: np.ndarray,
    budgets: Budgets,
    start: float | None,
    end: float | None,
) -> Taken:
    """Returns the frames that are taken of a clip where the rate varies.

    The frames of a clip are those that begin in it, or, where none does, the one that is still on
    display. Their number is that of as many seconds at a constant rate: the clip's own mean.

    >>> take_by_times("v", np.arange(60) / 30 + 5 * (np.arange(60) > 29), Budgets(), 5.9, None)[0]
    array([30, 40, 49, 59])

    Args:
        path: of the video, for the error.
        times: float64[N], ascending seconds after the first frame; N > 1.
        budgets: how much of it is looked at.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: the clip is empty or begins after the last frame.
    """
    mean = (len(times) - 1) / float(times[-1] - times[0])
    first, last = 0, len(times) - 1
    if start is not None:
        first = int(np.searchsorted(times, start - _TIME_ERROR_S))
    if end is not None:
        last = int(np.searchsorted(times, end + _TIME_ERROR_S, side="right")) - 1
    length = len(times) / mean
    low, high = max(start or 0.0, 0.0), length if end is None else end
    if low > high or low >= length or last < 0:
        raise MediaError("clip", path, no_frame(start, end, float(times[-1])))
    first = min(first, last)  # the one on display
    count, rate = last - first + 1, mean
    if count > 1 and times[last] > times[first]:
        rate = (count - 1) / float(times[last] - times[first])
    indices = sample_indices(count, rate, budgets.video_fps, budgets.video_max_frames, first)
    return Taken(indices, len(indices) / count * rate)


def nearest(known: np.ndarray, times: Sequence[float]) -> Taken:
    """Returns the frames nearest to some times, in seconds and ascending.

    >>> nearest(np.array([0.0, 0.5, 1.0]), [0.1, 0.9]).indices
    array([0, 2])

    Args:
        known: seconds of every frame.
        times: one for each frame to take.
    """
    return Taken(np.abs(known - np.asarray(times)[:, None]).argmin(axis=1), 0.0)


def frame_size(
    path: str | pathlib.Path,
    n_frames: int,
    height: int,
    width: int,
    budgets: Budgets,
    geometry: Geometry,
) -> tuple[int, int]:
    """Returns what `patches.video_size` does, for the video at `path`.

    Raises:
        MediaError: there is no such size.
    """
    try:
        return patches.video_size(n_frames, height, width, budgets, geometry)
    except ValueError as error:
        raise MediaError("undecodable", path, str(error)) from None


def sample_indices(
    total_frames: int, source_fps: float, fps: float, max_frames: int, first: int = 0
) -> np.ndarray:
    """Returns the indices of the frames to take, int64[n], n even.

    `fps` frames a second, at least 4 and at most `max_frames`, never more than there are, evenly
    spaced from the first to the last. A video of one frame gives that frame twice, since a
    temporal patch needs two.

    >>> sample_indices(9, 30.0, 2.0, 128)
    array([0, 3, 5, 8])

    Args:
        total_frames: frames to choose from.
        source_fps: their rate.
        fps: the rate count.
        max_frames: upper limit, at least 2.
        first: index of the first of them in the file.

    Raises:
        ValueError: no frames, or a limit below 2.
    """
    if total_frames < 1:
        raise ValueError("the video has no frames")
    if max_frames < FRAME_STEP or fps <= 0 or source_fps <= 0:
        raise ValueError(
            f"video_max_frames={max_frames}, video_fps={fps}, source {source_fps} fps; "
            f"give at least {FRAME_STEP} frames and rates over 0"
        )
    if total_frames == 1:
        return np.full(FRAME_STEP, first, np.int64)
    count = max(total_frames / source_fps * fps, MIN_FRAMES)
    count = min(count, max_frames // FRAME_STEP * FRAME_STEP, total_frames)
    n = math.floor(count / FRAME_STEP) * FRAME_STEP
    return _linspace_rounded(first, first + total_frames - 1, n)


def spread(total: int, n: int) -> np.ndarray:
    """Returns n of the indices below `total`, int64[n], evenly spaced from the first to the last.

    >>> spread(9, 4).tolist()
    [0, 3, 5, 8]
    """
    return _linspace_rounded(0, total - 1, n)


def _linspace_rounded(start: int, stop: int, n: int) -> np.ndarray:
    """Returns `torch.linspace(start, stop, n).round()`, bit for bit: float32, half to even.

    Each value is rounded once (a fused multiply-add), hence the float64 in between.
    """
    spacing = float((np.float32(stop) - np.float32(start)) / np.float32(n - 1))
    i = np.arange(n)
    values = np.where(i < n // 2, start + spacing * i, stop - spacing * (n - 1 - i))
    return np.round(values.astype(np.float32)).astype(np.int64)


def clip_range(
    total_frames: int, source_fps: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """Returns the first frame of a clip and the number of its frames, for a clip given in seconds.

    >>> clip_range(300, 30.0, 2.0, 4.0)
    (60, 61)

    Raises:
        ValueError: no frame lies within the clip.
    """
    length = total_frames / source_fps
    first = math.ceil(min(start, length) * source_fps) if start is not None else 0
    last = total_frames - 1
    if end is not None:
        last = min(last, math.floor(min(end, length) * source_fps))
    if first > last:
        raise ValueError(no_frame(start, end, (total_frames - 1) / source_fps))
    return first, last - first + 1


def no_frame(start: float | None, end: float | None, last: float) -> str:
    """Returns what is said of a clip that holds none of the frames of its video.

    >>> no_frame(9.0, None, 8.0)
    'no frame between 9 s and the end; the last one is at 8.00 s'

    Args:
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        last: seconds of the last frame.
    """
    until = "the end" if end is None else f"{end:g} s"
    return f"no frame between {start or 0.0:g} s and {until}; the last one is at {last:.2f} s"
