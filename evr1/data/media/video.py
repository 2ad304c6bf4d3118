"""Sampled, resized frames of a video file and their times, by PyAV.

Frame i of a video is the i-th one shown. Which frames are taken is told in `sampling`; how they are
reached (jumping from key frame to key frame, or decoding everything) is a question of speed only
and never changes the result.
"""

import bisect
import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
import av.error
import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media import patches, sampling
from evr1.data.media.resize import resize_float
from evr1.data.records import Budgets, Geometry, Media

DEFAULT_FPS = 24.0  # where a container states no rate, as in transformers
SEEK_COST_FRAMES = 6  # a jump costs about as much as decoding this many frames
# PyAV 18, the last for Python 3.11, refuses metadata that is no UTF-8; 19 reads any.
_ANY_METADATA: Any = {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
MIN_PRESENT_SHARE = 0.5  # fewer of the promised frames than this: the file is cut off


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a video as its container states it, without the rotation to apply."""

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


def read_header(path: str | pathlib.Path) -> Header:
    """Returns frame count, rate, size and duration, without decoding a frame.

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
    """Returns the shape that `decode` will give, from the header alone.

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
    indices, sample_fps = sampling.take(path, header.frames, header.fps, budgets, start, end)
    size = sampling.frame_size(path, len(indices), header.height, header.width, budgets, geometry)
    return patches.Shape(len(indices), *size, indices / header.fps, True, sample_fps)


def decode(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    times: Sequence[float] = (),
) -> Media:
    """Decodes the sampled frames of a video, resized and upright, with their times in the source.

    A container that promises more frames than it holds is sampled over those that are there. Times
    are index / fps, as in transformers, unless the frame rate varies by more than a frame; then
    they are the stored ones.

    Args:
        path: the file.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        times: seconds, ascending: the frames nearest to them are taken, and none are sampled.

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
            indices, sample_fps = sampling.take(path, total, fps, budgets, start, end)
            if times:
                known = _times(np.arange(total), fps, packets, float(stream.time_base))
                indices, sample_fps = sampling.nearest(known, times)
            frames, present = _fetch(container, stream, packets, indices, budgets, geometry, path)
            if frames is not None:
                break
            _check_present(path, present, total)
            total = min(present, total - 1)
        stamps = _times(indices, fps, packets, float(stream.time_base))
        return Media(frames, stamps, is_video=True, sample_fps=sample_fps)


def _check_present(path: str | pathlib.Path, present: int, promised: int) -> None:
    if present < promised * MIN_PRESENT_SHARE:
        reason = f"cut off or damaged: {present} of {promised} frames are there"
        raise MediaError("undecodable", path, reason)


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
    """Returns the frames at `indices`, or None and how many frames the file really holds."""
    keep = _Keep(len(indices), budgets, geometry, path)
    runs = _seek_plan(packets, indices)
    if runs and _fetch_by_seeking(container, stream, packets, runs, keep):
        return keep.stack(indices), len(packets.pts)
    chosen, present = set(indices.tolist()), 0
    with _open(path) as (container, stream):  # afresh: not every format can seek to its start
        for frame in _frames(container, stream):
            if present in chosen and present not in keep.frames:
                keep.add(present, frame)
            present += 1
            if present > indices[-1]:
                return keep.stack(indices), present
    return None, present


def _seek_plan(packets: _Packets, indices: np.ndarray) -> list[tuple[int, list[int]]]:
    """Returns runs of (where to seek, indices to take there); none where seeking does not pay."""
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
    """Returns whether every frame was found where the packets said it would be."""
    for dts, run in runs:
        index_of = {int(packets.pts[index]): index for index in run}
        last = int(packets.pts[run[-1]])
        container.seek(dts, stream=stream)
        for frame in _frames(container, stream):
            if frame.pts in index_of:
                keep.add(index_of.pop(frame.pts), frame)
            if not index_of or frame.pts is None or frame.pts > last:
                break
        if index_of:
            return False
    return True


def _frames(container, stream) -> Iterator[av.VideoFrame]:
    """Yields decoded frames from where the container stands; damaged packets give none."""
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
    """The chosen frames, resized to RGB as they come, so that no full-size frame is held."""

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
            self._size = sampling.frame_size(
                self._path, self._n_frames, height, width, self._budgets, self._geometry
            )
        self.frames[index] = resize_float(rgb[None], *self._size)[0]

    def stack(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([self.frames[int(i)] for i in indices])


def _times(indices: np.ndarray, fps: float, packets: _Packets, time_base: float) -> np.ndarray:
    by_rate = indices / fps
    if not packets.is_ordered:
        return by_rate
    stored_times = (packets.pts[indices] - packets.pts[0]) * time_base
    return stored_times if np.abs(stored_times - by_rate).max() > 1 / fps else by_rate
