"""Sampled, resized frames of a video file and their times, by PyAV.

Frame i of a video is the i-th one shown. Which frames are taken is told in `sampling`, when they
are shown in `clock`; how they are reached (jumping from key frame to key frame, or decoding
everything) is a question of speed only and never changes the result.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence

import av
import av.error
import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media import clock as clocks
from evr1.data.media import container as containers
from evr1.data.media import patches, pixels, remarks, sampling, seeking
from evr1.data.media.clock import Clock
from evr1.data.media.container import open_video
from evr1.data.records import Budgets, Geometry, Media

MIN_PRESENT_SHARE = 0.5  # fewer of the promised frames than this: the file is cut off


@dataclasses.dataclass(frozen=True)
class Header:
    """A video's frames, known without decoding one, without the rotation to apply."""

    frames: int
    fps: float  # source fps; where the rate varies, the mean
    width: int
    height: int
    duration: float  # seconds


def read_header(path: str | pathlib.Path) -> Header:
    """Returns frame count, rate, size and duration, without decoding a frame.

    Raises:
        MediaError: missing, not a video, or empty.
    """
    clock, height, width = _survey(path)
    return Header(len(clock), clock.fps, width, height, len(clock) / clock.fps)


def measure(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> patches.Shape:
    """Returns the shape that `decode` will give, without decoding a frame.

    An mp4's index tells it where it is whole and its rate constant; else every packet is read. It
    differs where packets give no frame, and where there is a rotation to apply (then height and
    width are swapped, and their product is not).

    Args:
        path: the file.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: missing, not a video, empty, or no frame within the clip.
    """
    clock, height, width = _survey(path)
    indices, sample_fps = clock.take(path, budgets, start, end)
    size = sampling.frame_size(path, len(indices), height, width, budgets, geometry)
    return patches.Shape(len(indices), *size, clock.times[indices], True, sample_fps)


def first_size(path: str | pathlib.Path) -> tuple[int, int]:
    """Returns (height, width) of the first frame, upright.

    Raises:
        MediaError: missing, undecodable or empty.
    """
    with open_video(path) as (container, stream):
        for frame in _frames(container, stream):
            height, width, _ = pixels.upright(
                np.empty((frame.height, frame.width, 0), np.uint8), pixels.display_matrix(frame)
            ).shape
            return height, width
    raise MediaError("empty", path, "the video stream holds no frames")


def _survey(path: str | pathlib.Path) -> tuple[Clock, int, int]:
    """Returns the clock of a video and its (height, width)."""
    clock, height, width = None, 0, 0
    try:
        with open_video(path, {"probesize": "32"}) as (container, stream):
            clock = clocks.from_index(path, container, stream)
            height, width = stream.codec_context.height, stream.codec_context.width
    except MediaError as error:  # some formats have no streams before their first packets
        if error.kind != "undecodable":
            raise
    if clock is None or not width:
        with open_video(path) as (container, stream):  # a full probe decodes frames
            height, width = stream.codec_context.height, stream.codec_context.width
            clock = clock or clocks.from_packets(container, stream)
    if not len(clock):
        raise MediaError("empty", path, "the video stream holds no frames")
    if not width:
        raise MediaError("undecodable", path, "states no frame size")
    return clock, height, width


def decode(
    path: str | pathlib.Path,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    times: Sequence[float] = (),
    on_work: Callable[[int], None] = lambda frames: None,
) -> Media:
    """Decodes the sampled frames of a video, resized and upright, with their times in the source.

    A container that promises more frames than it holds is sampled over those that are there. Times
    are index / fps, as in transformers, unless the frame rate varies by more than a frame; then
    they are the stored ones. Frames of another size than the first one are fitted into its shape,
    with black bars where their aspect ratio is another.

    Args:
        path: the file.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        times: seconds, ascending: the frames nearest to them are taken, and none are sampled.
        on_work: called with the number of frames to decode, before that, at every attempt.

    Raises:
        MediaError: missing, undecodable, empty, cut off, or no frame within the clip.
    """
    sampled = _Sampler(path, budgets, geometry, start, end, tuple(times), on_work)
    with open_video(path) as (container, stream):
        clock = clocks.from_header(path, container, stream)
        media = sampled.decode(container, stream, clock) if clock else None
    if isinstance(media, Media):
        return media
    with open_video(path) as (container, stream):
        clock = clocks.from_packets(container, stream)
        _check_present(path, clock.present, containers.promised(container, stream))
        about = _about_end(path, container, stream, clock)
        while True:
            pts = sampled.decode(container, stream, clock)
            if isinstance(pts, Media):
                return dataclasses.replace(pts, remarks=about + pts.remarks)
            _check_present(path, len(pts), len(clock))
            clock = clocks.of_decoded(clock, pts, stream)


def _check_present(path: str | pathlib.Path, present: int, promised: int) -> None:
    if present < promised * MIN_PRESENT_SHARE:
        reason = f"cut off or damaged: {present} of {promised} frames are there"
        raise MediaError("undecodable", path, reason)


def _about_end(path: str | pathlib.Path, container, stream, clock: Clock) -> tuple[str, ...]:
    """Returns what there is to say where the file was cut off."""
    stated_s = containers.cut_off_s(path, container, stream)
    if not stated_s or not len(clock):
        return ()
    begin = float((stream.start_time or 0) * stream.time_base)
    return remarks.of_end(begin + float(clock.times[-1]) + 1 / clock.fps, stated_s)


@dataclasses.dataclass(frozen=True)
class _Sampler:
    """What `decode` is asked for."""

    path: str | pathlib.Path
    budgets: Budgets
    geometry: Geometry
    start: float | None
    end: float | None
    times: tuple[float, ...]
    on_work: Callable[[int], None]

    def decode(self, container, stream, clock: Clock) -> Media | list[int | None]:
        """Returns the frames that a clock promises, or the pts of all that the file really gives.

        Raises:
            MediaError: no frames at all, or none within the clip.
        """
        if not len(clock):
            raise MediaError("empty", self.path, "the video stream holds no frames")
        indices, sample_fps = clock.take(self.path, self.budgets, self.start, self.end)
        if self.times:
            indices, sample_fps = sampling.nearest(clock.times, self.times)
        keep = _Keep(indices, self.budgets, self.geometry, self.path)
        runs = seeking.plan(clock, indices)
        self.on_work(seeking.cost(clock, runs) if runs else int(indices[-1]) + 1)
        pts = _fetch(container, stream, clock, runs, keep)
        if pts is not None:
            return pts
        stamps = clock.times[indices]
        return Media(
            keep.frames, stamps, True, sample_fps, keep.remarks, source_size=keep.source_size
        )


def _fetch(container, stream, clock: Clock, runs: list[seeking.Run], keep: "_Keep"):
    """Keeps the frames that are asked for, or returns the pts of all that the file really gives."""
    if runs and seeking.fetch(container, stream, clock, runs, keep.add):
        return None
    pts, is_right, last = [], True, max(keep.missing | keep.found)
    if runs and clock.is_surmised:
        return pts
    with open_video(keep.path) as (container, stream):  # not every format can seek to its start
        for frame in _frames(container, stream):
            index = len(pts)
            pts.append(frame.pts)
            if index in keep.missing:
                keep.add(index, frame)
            is_right = is_right and _is_at(clock, index, frame.pts)
            if clock.is_surmised and not is_right:
                return pts
            if is_right and index >= last:
                return None
    return pts


def _is_at(clock: Clock, index: int, pts: int | None) -> bool:
    """Returns whether the decoder's frame is the one that the packets promised; if that matters."""
    if clock.is_surmised:
        return clock.index_of(pts) == index
    if clock.is_constant or clock.pts is None:
        return True
    return index < len(clock) and clock.pts[index] == pts


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

    def __init__(self, indices: np.ndarray, budgets: Budgets, geometry: Geometry, path):
        self.path = path
        self.missing, self.found = set(indices.tolist()), set[int]()
        self.frames = np.zeros((0, 0, 0, 3), np.uint8)  # uint8[len(indices), height, width, 3]
        self.remarks: tuple[str, ...] = ()
        self._indices, self._how = indices, (budgets, geometry)
        self._converter = pixels.Converter()
        self.source_size: tuple[int, int] = (0, 0)  # of the first frame
        self._size: tuple[int, int] = (0, 0)

    def add(self, index: int, frame: av.VideoFrame) -> None:
        rgb = self._converter.rgb(frame)
        source = rgb.shape[0], rgb.shape[1]
        if not self.found:
            n_frames = len(self._indices)
            self.source_size = source
            self._size = sampling.frame_size(self.path, n_frames, *source, *self._how)
            self.frames = np.empty((n_frames, *self._size, 3), np.uint8)
        elif source != self.source_size:
            self._remark(remarks.SIZES)
        if frame.is_corrupt:
            self._remark(remarks.DAMAGED)
        fitted = pixels.fit_frame(rgb, self.source_size, self._size, self._how[0])
        self.frames[self._indices == index] = fitted  # a frame may be taken twice
        self.missing.discard(index)
        self.found.add(index)

    def _remark(self, remark: str) -> None:
        if remark not in self.remarks:
            self.remarks += (remark,)
