"""The frames of a video in the order shown and when each is, from the packets and not the header.

Where the rate is constant and is the one that the header states, frame i is at i / rate, to the
bit as qwen-vl-utils and transformers have it. Elsewhere the times are the stored ones, the rate is
(n - 1) / (last - first), and a clip's first and last frame are found by their times.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import av.error
import numpy as np
from av.format import Flags

from evr1.data.media import container as containers
from evr1.data.media import sampling
from evr1.data.records import Budgets

_IN_TURN = ("avi", "asf")  # containers that know no time but that of decoding
_NEED_A_KEY = ("h264", "hevc")  # whose decoders show nothing before it
_HIDING = ("vp8", "vp9")  # whose packets may show nothing
_SLACK_SHARE = 0.25  # of a frame, by which a packet may be off the time that a header promises
_SUREST_SHARE = 0.5  # of a frame, by which an index may deviate: it knows no reordering


@dataclasses.dataclass(frozen=True)
class Clock:
    """The frames of a stream in the order shown.

    Attributes:
        times: float64[N], ascending seconds after the first frame.
        fps: the rate; where it varies, the mean.
        is_constant: times are i / fps.
        pts: int64[N], by which a decoder names these frames; None: it does not, or two have one.
        present: packets, those included that show nothing.
        keys: indices of the key frames, ascending; empty where they cannot be sought.
        key_dts: when each of them is decoded.
        slack: ticks by which a packet's pts may differ from `pts`.
        is_surmised: `pts` and `keys` are the header's; each packet met has to confirm them.
    """

    times: np.ndarray
    fps: float
    is_constant: bool
    pts: np.ndarray | None = None
    present: int = 0
    keys: Sequence[int] = ()
    key_dts: Sequence[int] = ()
    slack: int = 0
    is_surmised: bool = False

    def __len__(self) -> int:
        return len(self.times)

    def index_of(self, pts: int | None) -> int | None:
        """Returns the index of the frame of this pts; None: there is none.

        >>> Clock(np.arange(3) / 30, 30.0, True, pts=np.array([0, 10, 20]), slack=2).index_of(11)
        1
        """
        if pts is None or self.pts is None:
            return None
        i = int(np.searchsorted(self.pts, pts - self.slack))
        return i if i < len(self.pts) and abs(int(self.pts[i]) - pts) <= self.slack else None

    def take(
        self, path: str | pathlib.Path, budgets: Budgets, start: float | None, end: float | None
    ) -> sampling.Taken:
        """Returns the frames that are taken of a clip, see `sampling.take`.

        Raises:
            MediaError: no frame within the clip.
        """
        if self.is_constant:
            return sampling.take(path, len(self), self.fps, budgets, start, end)
        return sampling.take_by_times(path, self.times, budgets, start, end)


def of_times(stored: np.ndarray | None, n: int, fps: float) -> Clock:
    """Returns the clock of `n` frames.

    >>> of_times(np.array([0.0, 1.0, 2.0, 2.1]), 4, 30.0).fps.__round__(2)
    1.43

    Args:
        stored: float64[n], ascending seconds; None: the container stores none.
        n: number of frames.
        fps: the rate that the header states.
    """
    by_rate = np.arange(n) / fps
    if stored is None or n < 2 or stored[-1] <= stored[0]:
        return Clock(by_rate, fps, is_constant=True)
    times = stored - stored[0]
    if np.abs(times - by_rate).max() <= 1 / fps:
        return Clock(by_rate, fps, is_constant=True)
    return Clock(times, float((n - 1) / times[-1]), is_constant=False)


def from_index(path: str | pathlib.Path, container, stream) -> Clock | None:
    """Returns the clock of an mp4 of constant rate from its index, read without its frames.

    None: the index does not tell it.
    """
    return _of_entries(containers.trusted_index(path, container, stream), stream)


def from_header(path: str | pathlib.Path, container, stream) -> Clock | None:
    """Returns the clock of `from_index`, and where its frames may be sought; reads one packet.

    An index knows when frames are decoded. At a constant rate, those are the times of showing, in
    order, but for what the first one is late; that the packets met later have to confirm. None: the
    index does not tell it, or the codec has packets that show nothing.
    """
    if stream.codec_context.name in _HIDING:
        return None
    entries = containers.trusted_index(path, container, stream)
    clock = _of_entries(entries, stream)
    first = next(container.demux(stream), None) if clock and len(clock) > 1 else None
    if clock is None or first is None or first.pts is None:
        return None
    dts = np.array([entry.timestamp for entry in entries], np.int64)
    slack = int(_SLACK_SHARE * np.median(np.diff(dts)))
    if not first.is_keyframe or first.dts != dts[0] or first.pts != stream.start_time:
        return None
    return dataclasses.replace(
        clock,
        pts=dts - dts[0] + first.pts,
        keys=[i for i, entry in enumerate(entries) if entry.is_keyframe],
        slack=slack,
        is_surmised=True,
    )


def _of_entries(entries: Sequence[Any], stream) -> Clock | None:
    if not entries or not stream.average_rate:
        return None
    fps = containers.rate(stream)
    stamps = np.array([entry.timestamp for entry in entries], np.float64)
    elapsed = (stamps - stamps[0]) * float(stream.time_base)
    by_rate = np.arange(len(entries)) / fps
    if np.abs(elapsed - by_rate).max() > _SUREST_SHARE / fps:
        return None
    return Clock(by_rate, fps, is_constant=True, present=len(entries))


def from_packets(container, stream) -> Clock:
    """Returns the clock from every packet of the stream; none is decoded."""
    packets = _read(container, stream)
    fps, n = containers.rate(stream), len(packets.dts)
    stored, is_exact = _stored(container, stream, packets)
    if stored is None:
        return dataclasses.replace(of_times(None, n, fps), present=packets.present)
    order = np.argsort(stored, kind="stable")
    clock = of_times(stored[order] * float(stream.time_base), n, fps)
    if not is_exact:
        return dataclasses.replace(clock, present=packets.present)
    pts = np.array(packets.pts, np.int64)[order]
    keys = np.flatnonzero(np.array(packets.is_key, bool)[order])
    if (np.diff(pts) <= 0).any():  # filled in by FFmpeg, and not to be looked up
        return dataclasses.replace(clock, pts=pts, present=packets.present)
    dts = [pts[i] if packets.dts[order[i]] is None else packets.dts[order[i]] for i in keys]
    return dataclasses.replace(
        clock, pts=pts, present=packets.present, keys=keys.tolist(), key_dts=list(map(int, dts))
    )


def of_decoded(clock: Clock, pts: Sequence[int | None], stream) -> Clock:
    """Returns the clock of the frames that the decoder gave, where `clock` promised others."""
    if clock.pts is None or None in pts:
        n = min(len(pts), len(clock))
        return Clock(clock.times[:n], clock.fps, clock.is_constant)
    stored = np.maximum.accumulate(np.array(pts, np.float64)) * float(stream.time_base)
    return of_times(stored, len(pts), containers.rate(stream))


@dataclasses.dataclass
class _Packets:
    """What the packets state, in the order of decoding; those that show nothing are left out."""

    pts: list[int | None]
    dts: list[int | None]
    is_key: list[bool]
    present: int = 0

    def from_first_key(self) -> "_Packets":
        """Returns them without those that need frames before the first key frame."""
        if True not in self.is_key:
            return self
        first = self.is_key.index(True)
        start = self.pts[first]
        keep = range(first, len(self.pts))
        restart = next((i for i in keep if i > first and self.is_key[i]), len(self.pts))
        keep = [i for i in keep if i >= restart or start is None or (self.pts[i] or 0) >= start]
        pts, dts = ([values[i] for i in keep] for values in (self.pts, self.dts))
        return _Packets(pts, dts, [self.is_key[i] for i in keep], self.present)


def _read(container, stream) -> _Packets:
    packets = _Packets([], [], [])
    codec = stream.codec_context.name
    try:
        for packet in container.demux(stream):
            packets.present += packet.size > 0
            if packet.size and not packet.is_discard and _is_shown(packet, codec):
                packets.pts.append(packet.pts)
                packets.dts.append(packet.dts)
                packets.is_key.append(packet.is_keyframe)
    except av.error.InvalidDataError:
        pass  # a damaged tail: what came before it is there
    if container.format.name == "mpegts" and codec in _NEED_A_KEY:
        packets = packets.from_first_key()  # a recording may begin between key frames
    if container.format.name == "avi" and packets.dts and packets.dts[-1] is not None:
        packets.present = packets.dts[-1] + 1  # AVI counts what it drops, too
    return packets


def _is_shown(packet: Any, codec: str) -> bool:
    """Returns whether a packet shows a frame: VP8 and VP9 may store one for reference alone."""
    if codec == "vp8":
        return bool(memoryview(packet)[0] & 0x10)
    if codec == "vp9":
        data = memoryview(packet)
        bits, is_superframe = f"{data[0]:08b}", data[-1] & 0xE0 == 0xC0
        at = 5 if bits[2:4] == "11" else 4  # profile 3 has a bit more
        is_again, is_shown = bits[at] == "1", bits[at + 2] == "1"
        return is_superframe or is_again or is_shown
    return True


def _stored(container, stream, packets: _Packets) -> tuple[np.ndarray | None, bool]:
    """Returns each packet's stored time in ticks, and whether the decoder knows them by pts.

    None: nothing is stored. AVI and ASF store when a frame is decoded and FFmpeg fills in when it
    is shown, in that order, too; sorted, times of decoding are those of showing up to a constant.
    """
    if not packets.dts or Flags.no_timestamps.value & container.format.flags:
        return None, False
    pts, has_pts = packets.pts, None not in packets.pts
    is_exact = has_pts and len(set(pts)) == len(pts)
    if container.format.name in _IN_TURN or not has_pts:
        if None in packets.dts:
            return None, False
        return np.array(packets.dts, np.int64), is_exact and not stream.codec_context.has_b_frames
    stored = np.array(pts, np.int64)
    joined = _joined(stored, packets.dts)
    return joined, is_exact and joined is stored


def _joined(pts: np.ndarray, dts: Sequence[int | None]) -> np.ndarray:
    """Returns times that go on where a part starts anew, as where transport streams were joined.

    >>> _joined(np.array([0, 20, 10, 0, 10]), [0, 10, 20, 0, 10])
    array([ 0, 20, 10, 30, 40])

    Args:
        pts: int64[N], in the order of decoding; returned as it is if nothing starts anew.
        dts: N times of decoding, which ascend in a part; None: not known.
    """
    known = np.array([i for i, turn in enumerate(dts) if turn is not None], np.int64)
    forward = np.diff(np.array([dts[i] for i in known], np.int64))
    step = int(np.median(forward[forward > 0])) if (forward > 0).any() else 1
    breaks = known[1:][forward < -step]
    if not len(breaks):
        return pts
    parts = np.split(pts, breaks)
    for i in range(1, len(parts)):
        parts[i] = parts[i] - parts[i].min() + parts[i - 1].max() + step
    return np.concatenate(parts)
