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
from collections.abc import Iterator, Sequence

import av
import numpy as np

from evr1.data import patches
from evr1.data.errors import MediaError
from evr1.data.records import Budgets, Geometry, Media

MIN_FRAMES = 4
FRAME_STEP = 2  # frame counts are even, whatever the temporal patch
DEFAULT_FPS = 24.0  # where a container states no rate, as in transformers
SEEK_COST_FRAMES = 6  # a jump costs about as much as decoding this many frames
MIN_PRESENT_SHARE = 0.5  # fewer of the promised frames than this: the file is cut off


@dataclasses.dataclass(frozen=True)
class Header:
    """What a container says about its video, rotation applied."""

    frames: int
    fps: float  # source fps
    width: int
    height: int
    duration: float  # seconds


@dataclasses.dataclass(frozen=True)
class _Packets:
    """The frames of a stream in the order shown, known from its packets alone."""

    pts: np.ndarray  # int64[N], ascending
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
    with _open(path) as (container, stream):
        fps = _rate(stream)
        frames = stream.frames or len(_scan(container, stream).pts)
        if frames < 1:
            raise MediaError("empty", path, "the video stream holds no frames")
        height, width = stream.codec_context.height, stream.codec_context.width
        return Header(frames, fps, width, height, frames / fps)


def planned_frames(
    header: Header, budgets: Budgets, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """Indices of the frames that `decode` will take, int64[n], from the header alone.

    Raises:
        ValueError: no frame lies within the clip.
    """
    first, count = clip_range(header.frames, header.fps, start, end)
    return sample_indices(count, header.fps, budgets.video_fps, budgets.video_max_frames, first)


def decode(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> Media:
    """The sampled frames of a video, resized, upright, with the second at which each stands in the
    source.

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
        promised = stream.frames
        packets = _scan(container, stream)
        total = len(packets.pts)
        while True:
            if total < 1:
                raise MediaError("empty", path, "the video stream holds no frames")
            if total < promised * MIN_PRESENT_SHARE:
                raise MediaError(
                    "undecodable", path, f"cut off: {total} of {promised} frames are there"
                )
            try:
                first, count = clip_range(total, fps, start, end)
            except ValueError as error:
                raise MediaError("clip", path, str(error)) from None
            indices = sample_indices(count, fps, budgets.video_fps, budgets.video_max_frames, first)
            frames, present = _fetch(container, stream, packets, indices, budgets, geometry, path)
            if frames is not None:
                break
            promised, total = max(promised, total), min(present, total - 1)
        times = _times(indices, fps, packets, float(stream.time_base))
        return Media(frames, times, is_video=True)


@contextlib.contextmanager
def _open(path: str | pathlib.Path) -> Iterator[tuple]:
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise MediaError("undecodable", path, "holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # clips run in parallel, so their frames need not
            if not stream.codec_context.width:
                raise MediaError("undecodable", path, "states no frame size")
            yield container, stream
    except FileNotFoundError:
        raise MediaError("missing", path, "no such video") from None
    except (av.FFmpegError, OSError) as error:
        text = " ".join(str(error).split()).replace(f": '{path}'", "")
        raise MediaError("undecodable", path, f"cannot be read as a video ({text})") from None


def _rate(stream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else DEFAULT_FPS


def _scan(container, stream) -> _Packets:
    """Reads every packet and decodes none."""
    pts, dts, is_key = [], [], []
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                pts.append(packet.pts)
                dts.append(packet.dts if packet.dts is not None else packet.pts)
                is_key.append(packet.is_keyframe)
    except av.error.InvalidDataError:
        pass  # a damaged tail: what came before it is there
    if None in pts or len(set(pts)) < len(pts):
        return _Packets(np.arange(len(pts)), [], [], is_ordered=False)
    order = np.argsort(np.array(pts, np.int64), kind="stable")
    keys = [i for i, k in enumerate(order) if is_key[k]]
    return _Packets(
        np.array(pts, np.int64)[order], keys, [dts[order[i]] for i in keys], is_ordered=True
    )


def _fetch(container, stream, packets, indices, budgets, geometry, path):
    """The frames at `indices`, or None and the number of frames that the file really holds."""
    keep = _Keep(len(indices), budgets, geometry, path)
    runs = _seek_plan(packets, indices)
    if runs and _fetch_by_seeking(container, stream, packets, runs, keep):
        return keep.stack(indices), len(packets.pts)
    wanted, present = set(indices.tolist()), 0
    for frame in _frames_from(container, stream, None):
        if present in wanted and present not in keep.frames:
            keep.add(present, frame)
        present += 1
        if present > indices[-1]:
            return keep.stack(indices), present
    return None, present


def _seek_plan(packets: _Packets, indices: np.ndarray) -> list[tuple[int, list[int]]]:
    """(where to seek, indices to take from there) for each run, or nothing where decoding
    everything is cheaper."""
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
    """Whether every frame was found where the packets said; if not, the caller decodes
    everything."""
    for dts, run in runs:
        wanted = {int(packets.pts[index]): index for index in run}
        last = int(packets.pts[run[-1]])
        for frame in _frames_from(container, stream, dts):
            if frame.pts in wanted:
                keep.add(wanted.pop(frame.pts), frame)
            if not wanted or frame.pts is None or frame.pts > last:
                break
        if wanted:
            return False
    return True


def _frames_from(container, stream, dts: int | None) -> Iterator[av.VideoFrame]:
    """Decoded frames from the key frame at `dts` (None: from the start); damaged packets give
    none."""
    begin = dts if dts is not None else min(stream.start_time or 0, 0)
    try:
        container.seek(begin, stream=stream, backward=True)
    except av.FFmpegError:
        container.seek(begin, stream=stream, backward=True, any_frame=True)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.InvalidDataError:
            packet = None
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


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
        if frame.rotation % 360:
            rgb = np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90))
        if self._size is None:
            try:
                self._size = patches.video_size(
                    self._n_frames, *rgb.shape[:2], self._budgets, self._geometry
                )
            except ValueError as error:
                raise MediaError("undecodable", self._path, str(error)) from None
        self.frames[index] = patches.resize(rgb[None], *self._size)[0]

    def stack(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.frames[int(i)] for i in indices])


def _times(indices: np.ndarray, fps: float, packets: _Packets, time_base: float) -> np.ndarray:
    by_rate = indices / fps
    if not packets.is_ordered:
        return by_rate
    stored = (packets.pts[indices] - packets.pts[0]) * time_base
    return stored if np.abs(stored - by_rate).max() > 1 / fps else by_rate
