"""A video file → sampled, resized frames with their times, by PyAV.

Frame i of a video is the i-th one shown. Which frames are taken follows qwen-vl-utils 0.0.14
(`smart_nframes`, `fetch_video`); how they are reached (jumping from key frame to key frame, or
decoding everything) is a question of speed only and never changes the result.
"""

import bisect
import collections
import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
import av.error
import numpy as np

from evr1.data import patches
from evr1.data.errors import MediaError
from evr1.data.records import Budgets, Geometry, Media
from evr1.data.resize import resize_float

MIN_FRAMES = 4
FRAME_STEP = 2  # frame counts are even, whatever the temporal patch
DEFAULT_FPS = 24.0  # where a container states no rate, as in transformers
SEEK_COST_FRAMES = 6  # a jump costs about as much as decoding this many frames
# PyAV 18, the last for Python 3.11, refuses metadata that is no UTF-8; 19 reads any.
_ANY_METADATA: Any = {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
MIN_PRESENT_SHARE = 0.5  # fewer of the promised frames than this: the file is cut off


@dataclasses.dataclass(frozen=True)
class Header:
    """What a container says about its video; a rotation to apply is not in it."""

    frames: int
    fps: float  # source fps
    width: int
    height: int
    duration: float  # seconds


@dataclasses.dataclass(frozen=True)
class _Packets:
    """The frames of a stream in the order shown, known from its packets alone."""

    pts: np.ndarray  # int64[N], ascending
    present: int  # packets, those included that an edit list hides
    keys: list[int]  # indices of the key frames, ascending
    key_dts: list[int]  # where to seek for each of them
    is_ordered: bool  # every packet has its own pts, so that frames can be told apart by it


def sample_indices(
    total_frames: int, source_fps: float, fps: float, max_frames: int, first: int = 0
) -> np.ndarray:
    """Indices of the frames to take, int64[n], n even.

    `fps` frames a second, at least 4 and at most `max_frames`, never more than there are, evenly
    spaced from the first to the last. A video of one frame gives that frame twice, since a
    temporal patch needs two.

    >>> sample_indices(9, 30.0, 2.0, 128)
    array([0, 3, 5, 8])

    Args:
        total_frames: frames to choose from.
        source_fps: their rate.
        fps: the rate wanted.
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
    wanted = max(total_frames / source_fps * fps, MIN_FRAMES)
    wanted = min(wanted, max_frames // FRAME_STEP * FRAME_STEP, total_frames)
    n = math.floor(wanted / FRAME_STEP) * FRAME_STEP
    return _linspace_rounded(first, first + total_frames - 1, n)


def _linspace_rounded(start: int, stop: int, n: int) -> np.ndarray:
    """`torch.linspace(start, stop, n).round()`: float32, from both ends to the middle, half to
    even.

    Each value is rounded once (a fused multiply-add), hence the float64 in between.
    """
    step = float((np.float32(stop) - np.float32(start)) / np.float32(n - 1))
    i = np.arange(n)
    values = np.where(i < n // 2, start + step * i, stop - step * (n - 1 - i))
    return np.round(values.astype(np.float32)).astype(np.int64)


def clip_range(
    total_frames: int, source_fps: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """The first frame of a clip and the number of its frames, for a clip given in seconds.

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
        raise ValueError(
            f"no frame between {start or 0.0:g} s and {end or length:g} s of {length:.2f} s"
        )
    return first, last - first + 1


def read_header(path: str | pathlib.Path) -> Header:
    """Frame count, rate, size and duration, without decoding a frame.

    Where the container does not count its frames, its packets are counted.

    Raises:
        MediaError: missing, not a video, or empty.
    """
    for options in ({"probesize": "32"}, {}):  # a full probe decodes frames; mp4 needs none
        with _open(path, options) as (container, stream):
            fps = _rate(stream)
            height, width = stream.codec_context.height, stream.codec_context.width
            frames = stream.frames
            if frames and width and stream.average_rate:
                break
            if not options:
                frames = frames or len(_scan(container, stream).pts)
    if frames < 1:
        raise MediaError("empty", path, "the video stream holds no frames")
    if not width:
        raise MediaError("undecodable", path, "states no frame size")
    return Header(frames, fps, width, height, frames / fps)


def measure(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> patches.Shape:
    """The shape that `decode` will give, from the header alone.

    It differs where the header is wrong: fewer frames than promised, a varying frame rate (then the
    times do), a rotation to apply (then height and width are swapped, and their product is not).

    Args:
        path: the file.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: missing, not a video, empty, or no frame within the clip.
    """
    header = read_header(path)
    first, count = _clip(path, header.frames, header.fps, start, end)
    indices = sample_indices(count, header.fps, budgets.video_fps, budgets.video_max_frames, first)
    size = _size(path, len(indices), header.height, header.width, budgets, geometry)
    sample_fps = len(indices) / count * header.fps
    return patches.Shape(len(indices), *size, indices / header.fps, True, sample_fps)


def decode(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> Media:
    """The sampled frames of a video, resized and upright, and when each stands in the source.

    A container that promises more frames than it holds is sampled over those that are there. Times
    are index / fps, as in transformers, unless the frame rate varies by more than a frame; then
    they are the stored ones.

    Args:
        path: the file.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: missing, undecodable, empty, cut off, or no frame within the clip.
    """
    with _open(path) as (container, stream):
        fps = _rate(stream)
        packets = _scan(container, stream)
        total = len(packets.pts)
        _check_present(path, packets.present, stream.frames)
        while True:
            if total < 1:
                raise MediaError("empty", path, "the video stream holds no frames")
            first, count = _clip(path, total, fps, start, end)
            indices = sample_indices(count, fps, budgets.video_fps, budgets.video_max_frames, first)
            frames, found = _fetch(container, stream, packets, indices, budgets, geometry, path)
            if frames is not None:
                break
            _check_present(path, found, total)
            total = min(found, total - 1)
        times = _times(indices, fps, packets, float(stream.time_base))
        return Media(frames, times, is_video=True, sample_fps=len(indices) / count * fps)


def _clip(path, total_frames, fps, start, end) -> tuple[int, int]:
    try:
        return clip_range(total_frames, fps, start, end)
    except ValueError as error:
        raise MediaError("clip", path, str(error)) from None


def _size(path, n_frames, height, width, budgets, geometry) -> tuple[int, int]:
    try:
        return patches.video_size(n_frames, height, width, budgets, geometry)
    except ValueError as error:
        raise MediaError("undecodable", path, str(error)) from None


def _check_present(path: str | pathlib.Path, present: int, promised: int) -> None:
    if present < promised * MIN_PRESENT_SHARE:
        what = f"cut off or damaged: {present} of {promised} frames are there"
        raise MediaError("undecodable", path, what)


@contextlib.contextmanager
def _open(path: str | pathlib.Path, options: Mapping[str, str] | None = None) -> Iterator[tuple]:
    try:
        # by its protocol, or a path with a colon would be a URL
        with av.open(f"file:{path}", options=dict(options or {}), **_ANY_METADATA) as container:
            if not container.streams.video:
                raise MediaError("undecodable", path, "holds no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:  # a header that names no codec, or a damaged one
                raise MediaError("undecodable", path, "its codec cannot be told or is not known")
            stream.codec_context.thread_count = 1  # clips are decoded side by side instead
            yield container, stream
    except FileNotFoundError:
        raise MediaError("missing", path, "no such video") from None
    except (av.error.FFmpegError, OSError) as error:
        text = " ".join(str(error).split()).replace(f": 'file:{path}'", "")
        raise MediaError("undecodable", path, f"cannot be read as a video ({text})") from None


def _rate(stream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else DEFAULT_FPS


def _scan(container, stream) -> _Packets:
    """Reads every packet and decodes none."""
    pts, dts, is_key, present = [], [], [], 0
    try:
        for packet in container.demux(stream):
            present += packet.size > 0
            if packet.size and not packet.is_discard:
                pts.append(-1 if packet.pts is None else packet.pts)
                dts.append(pts[-1] if packet.dts is None else packet.dts)
                is_key.append(packet.is_keyframe)
    except av.error.InvalidDataError:
        pass  # a damaged tail: what came before it is there
    is_unsorted = stream.codec_context.has_b_frames and pts == sorted(pts)  # AVI knows no pts
    if is_unsorted or len(set(pts)) < len(pts):
        return _Packets(np.arange(len(pts)), present, [], [], is_ordered=False)
    order = np.argsort(np.array(pts, np.int64), kind="stable")
    keys = [i for i, k in enumerate(order) if is_key[k]]
    key_dts = [dts[order[i]] for i in keys]
    return _Packets(np.array(pts, np.int64)[order], present, keys, key_dts, is_ordered=True)


def _fetch(container, stream, packets, indices, budgets, geometry, path):
    """The frames at `indices`, or None and the number of frames that the file really holds."""
    keep = _Keep(len(indices), budgets, geometry, path)
    runs = _seek_plan(packets, indices)
    if runs and _fetch_by_seeking(container, stream, packets, runs, keep):
        return keep.stack(indices), len(packets.pts)
    wanted, present = set(indices.tolist()), 0
    with _open(path) as (container, stream):  # afresh: not every format can seek to its start
        for frame in _frames(container, stream):
            if present in wanted and present not in keep.frames:
                keep.add(present, frame)
            present += 1
            if present > indices[-1]:
                return keep.stack(indices), present
    return None, present


def _seek_plan(packets: _Packets, indices: np.ndarray) -> list[tuple[int, list[int]]]:
    """(where to seek, indices to take from there) for each run; nothing where it does not pay."""
    if not packets.is_ordered or not packets.keys:
        return []
    runs: dict[int, list[int]] = collections.defaultdict(list)
    for index in sorted(set(indices.tolist())):
        k = bisect.bisect_right(packets.keys, index) - 1
        if k < 0:
            return []
        runs[k].append(index)
    cost = sum(run[-1] - packets.keys[k] + 1 + SEEK_COST_FRAMES for k, run in runs.items())
    if cost >= int(indices[-1]) + 1:
        return []
    return [(packets.key_dts[k], run) for k, run in runs.items()]


def _fetch_by_seeking(container, stream, packets: _Packets, runs, keep: "_Keep") -> bool:
    """Whether every frame was found where the packets said it would be."""
    for dts, run in runs:
        wanted = {int(packets.pts[index]): index for index in run}
        last = int(packets.pts[run[-1]])
        container.seek(dts, stream=stream)
        for frame in _frames(container, stream):
            if frame.pts in wanted:
                keep.add(wanted.pop(frame.pts), frame)
            if not wanted or frame.pts is None or frame.pts > last:
                break
        if wanted:
            return False
    return True


def _frames(container, stream) -> Iterator[av.VideoFrame]:
    """Decoded frames from where the container stands; damaged packets give none."""
    packets = container.demux(stream)
    packet = next(packets, None)
    while True:
        with contextlib.suppress(av.error.InvalidDataError, av.error.EOFError):
            yield from stream.decode(packet)  # None: what the decoder still holds back
        if packet is None:
            return
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError:
            packet = None


class _Keep:
    """Turns wanted frames into resized RGB as they come, so that no full-size frame is held."""

    def __init__(self, n_frames: int, budgets: Budgets, geometry: Geometry, path):
        self.frames: dict[int, np.ndarray] = {}
        self._n_frames, self._budgets, self._geometry, self._path = (
            n_frames,
            budgets,
            geometry,
            path,
        )
        self._size: tuple[int, int] | None = None

    def add(self, index: int, frame: av.VideoFrame) -> None:
        rgb = frame.to_ndarray(format="rgb24")
        if frame.rotation % 360:  # degrees counterclockwise
            rgb = np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
        if self._size is None:
            height, width = rgb.shape[:2]
            self._size = _size(
                self._path, self._n_frames, height, width, self._budgets, self._geometry
            )
        self.frames[index] = resize_float(rgb[None], *self._size)[0]

    def stack(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.frames[int(i)] for i in indices])


def _times(indices: np.ndarray, fps: float, packets: _Packets, time_base: float) -> np.ndarray:
    by_rate = indices / fps
    if not packets.is_ordered:
        return by_rate
    stored = (packets.pts[indices] - packets.pts[0]) * time_base
    return stored if np.abs(stored - by_rate).max() > 1 / fps else by_rate
