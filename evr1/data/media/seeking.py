"""Reaching single frames of a video: from key frame to key frame, decoding only what they need.

Demuxers disagree about where a seek lands (mov and matroska look for a time of showing, MPEG-TS for
one of decoding), so every landing is looked at, and packets before the key frame are passed by
undecoded. Frames to which no other refers are decoded only if they are taken.
"""

import bisect
import collections
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator

import av
import av.error
import numpy as np

from evr1.data.media.clock import Clock

SEEK_COST_FRAMES = 6  # a jump costs about as much as decoding this many frames
# Whose frames tell that no other refers to them; in HEVC a higher layer may refer to them all the
# same, and FFmpeg's decoders of the others skip nothing.
_SKIPPING = ("h264",)
_REORDERED = 64  # packets by which a frame may come late, over any codec's


@dataclasses.dataclass
class Run:
    """Frames that are reached from one key frame.

    Attributes:
        key: number of the key frame among `clock.keys`.
        indices: of the frames to take, ascending.
    """

    key: int
    indices: list[int]


def plan(clock: Clock, indices: np.ndarray) -> list[Run]:
    """Returns how to reach the frames at `indices`; nothing where decoding everything is cheaper.

    A key frame that the last run comes near to is not jumped to.
    """
    if not clock.keys:
        return []
    groups: dict[int, list[int]] = collections.defaultdict(list)
    for index in sorted(set(indices.tolist())):
        groups[bisect.bisect_right(clock.keys, index) - 1].append(index)
    if min(groups) < 0:
        return []
    runs: list[Run] = []
    for key, group in groups.items():
        if runs and clock.keys[key] - runs[-1].indices[-1] <= SEEK_COST_FRAMES:
            runs[-1].indices.extend(group)
        else:
            runs.append(Run(key, group))
    jumps = SEEK_COST_FRAMES * len(runs)
    return runs if cost(clock, runs) + jumps < int(indices[-1]) + 1 else []


def cost(clock: Clock, runs: list[Run]) -> int:
    """Returns how many frames the runs decode, those included that may be left out."""
    return sum(run.indices[-1] - clock.keys[run.key] + 1 for run in runs)


def fetch(container, stream, clock: Clock, runs: list[Run], add: Callable) -> bool:
    """Calls `add(index, frame)` for every frame of the runs, in order.

    Returns whether each was found where the clock said it would be; if not, some may be added.
    """
    seeker = _Seeker(container, stream, clock)
    try:
        return all(seeker.take(run, add) for run in runs)
    finally:
        stream.codec_context.skip_frame = "DEFAULT"


def decoded_frames(stream, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
    """Yields what the decoder gives for a packet; None: what it still holds back."""
    with contextlib.suppress(av.error.EOFError):
        yield from stream.decode(packet)


class _Doubt(Exception):
    """Raised where what is left out may matter: at damage, and at interlaced pictures."""


class _Seeker:
    def __init__(self, container, stream, clock: Clock):
        self._container, self._stream, self._clock = container, stream, clock
        self._by_dts = False  # what the demuxer takes a seek to mean, as far as is known
        # Nothing is left out: frames stand in for damaged ones to which no other refers, and a
        # picture's second field may be a packet of its own.
        self._is_careful = False

    def take(self, run: Run, add: Callable) -> bool:
        """Returns whether every frame of the run was found."""
        try:
            packets = self._land(run)
            return packets is not None and self._take(packets, run, add)
        except _Doubt:
            self._is_careful = True
            packets = self._land(run)
            return packets is not None and self._take(packets, run, add)

    def _take(self, packets: Iterator[av.Packet], run: Run, add: Callable) -> bool:
        missing, unsent = set(run.indices), set(run.indices)
        limit = run.indices[-1] - self._clock.keys[run.key] + 1 + _REORDERED
        context, has_rest = self._stream.codec_context, False
        skips = context.name in _SKIPPING and not self._is_careful
        context.skip_frame = "DEFAULT"
        for packet in itertools.islice(packets, limit):
            if not packet.size:
                break
            if packet.is_corrupt and not self._is_careful:
                raise _Doubt
            index = self._clock.index_of(packet.pts)
            if index is None and self._clock.is_surmised:
                return False
            if skips:
                context.skip_frame = "DEFAULT" if index in unsent else "NONREF"
            unsent -= {index}
            self._keep(packet, missing, add)
            if not missing:
                return True
            if not unsent and (has_rest or not self._is_careful):
                break
            has_rest = not unsent
        self._keep(None, missing, add)
        return not missing

    def _keep(self, packet: av.Packet | None, missing: set[int], add: Callable) -> None:
        """Decodes a packet and adds what is missing."""
        try:
            for frame in decoded_frames(self._stream, packet):
                if (frame.interlaced_frame or frame.is_corrupt) and not self._is_careful:
                    raise _Doubt
                index = self._clock.index_of(frame.pts)
                if index in missing:
                    add(index, frame)
                    missing.remove(index)
        except av.error.InvalidDataError:
            if not self._is_careful:
                raise _Doubt from None

    def _land(self, run: Run) -> Iterator[av.Packet] | None:
        """Returns the packets from a key frame on from which the run can be decoded, if found."""
        clock, stamps = self._clock, self._clock.pts
        assert stamps is not None
        if clock.is_surmised:
            first = run.indices[0]
            packets = self._seek(int(stamps[first]) + clock.slack)
            packet = next(packets, None)
            index = clock.index_of(packet.pts) if packet else None
            if packet is None or not packet.is_keyframe or index is None or index > first:
                return None
            return itertools.chain([packet], packets)
        key_pts, key_dts = int(stamps[clock.keys[run.key]]), clock.key_dts[run.key]
        attempts = [(False, key_pts), (True, key_dts)]
        if self._by_dts:
            attempts.reverse()
        attempts.append((self._by_dts, clock.key_dts[max(run.key - 1, 0)]))
        for by_dts, target in attempts:
            packets = self._seek(target)
            for packet in packets:
                if packet.is_keyframe and packet.pts == key_pts:
                    self._by_dts = by_dts
                    return itertools.chain([packet], packets)
                if packet.dts is not None and packet.dts > key_dts:
                    break
        return None

    def _seek(self, target: int) -> Iterator[av.Packet]:
        """Yields the packets from where a seek lands; none after a fault of the container."""
        try:
            self._container.seek(target, stream=self._stream)
            yield from self._container.demux(self._stream)
        except (av.error.InvalidDataError, av.error.PermissionError):
            return
