"""Opening of video files by PyAV: which stream is the video, and when an index may be trusted.

The stream is chosen as browsers, decord and torchcodec do: no cover picture, then the one that is
marked as default, else the first.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import av
import av.error
from av.stream import Disposition

from evr1.data.errors import MediaError
from evr1.data.media import boxes, files

DEFAULT_FPS = 24.0  # where a container states no rate, as in transformers
# PyAV 18, the last for Python 3.11, refuses metadata that is no UTF-8; 19 reads any.
_ANY_METADATA: Any = {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
_NO_WEBP = (
    f"an animated WebP, which PyAV {av.__version__} cannot read; convert it to GIF, APNG or mp4, "
    "or use Python 3.12 or newer with PyAV 19"
)
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
_AVI = "avi"


@contextlib.contextmanager
def open_video(
    path: str | pathlib.Path, options: Mapping[str, str] | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yields (container, video stream); errors of FFmpeg inside become MediaError.

    Args:
        path: the file.
        options: of FFmpeg's demuxer.

    Raises:
        MediaError: missing, not a video, or one that cannot be read.
    """
    try:
        with files.reached(path), opened(path, **dict(options or {})) as container:
            if container.format.name == "webp_pipe" and _is_animated_webp(path):
                raise MediaError("undecodable", path, _NO_WEBP)
            stream = _video_stream(container, path)
            stream.codec_context.thread_count = 1  # clips are decoded side by side instead
            yield container, stream
    except FileNotFoundError:
        raise MediaError("missing", path, "no such video") from None
    except (av.error.FFmpegError, OSError) as error:
        text = " ".join(str(error).split()).replace(f": 'file:{path}'", "")
        reason = boxes.fault(path) or f"cannot be read as a video ({text})"
        raise MediaError("undecodable", path, reason) from None


@contextlib.contextmanager
def opened(path: str | pathlib.Path, **options: str) -> Iterator[Any]:
    """Yields the container of a file or address.

    Args:
        path: or address.
        **options: of FFmpeg's demuxer.
    """
    with files.source(path) as source:
        # By its protocol, or a path with a colon would be a URL.
        name = f"file:{source}" if isinstance(source, str) else source
        with av.open(name, options=options, **_ANY_METADATA) as container:
            yield container


def rate(stream) -> float:
    """Returns the frames per second that the header states."""
    stated = stream.average_rate or stream.guessed_rate
    return float(stated) if stated else DEFAULT_FPS


def trusted_index(path: str | pathlib.Path, container, stream) -> list[Any]:
    """Returns the entries of an mp4's index if it holds exactly what will be shown, else nothing.

    It does not where an edit list hides or repeats frames, where fragments follow the header, or
    where the file ends before the last frame. Other containers index key frames alone.
    """
    if container.format.name != _MOV or boxes.has_fragments(path):
        return []
    entries = list(stream.index_entries)
    end = files.stamp(path).size
    is_whole = len(entries) == stream.frames and not any(
        entry.is_discard or not entry.size or entry.pos + entry.size > end for entry in entries
    )
    return entries if is_whole else []


def promised(container, stream) -> int:
    """Returns how many packets the container says that the stream has; 0: it does not say.

    Edit lists leave packets out of an mp4's index that its header counts.
    """
    return len(stream.index_entries) if container.format.name == _MOV else stream.frames


def cut_off_s(path: str | pathlib.Path, container, stream) -> float:
    """Returns the seconds that a cut-off file states for its video; 0: it is whole, or states none.

    Infinity stands for a fragmented mp4 that is cut off and states none: fragments are written as
    they come. The others that state none are believed, as they state no bytes either.

    A file is known to be cut off by its bytes: a whole one may state more seconds than it has
    packets for, as after a pause or with sound that is longer. Read the packets first.
    """
    if container.format.name == _MOV and boxes.has_fragments(path):
        if not boxes.is_cut_fragmented(path):
            return 0.0
        last = max((e.timestamp for e in stream.index_entries), default=0) * stream.time_base
        stated = (container.duration or 0) / av.time_base
        return stated if stated > float(last) + 1 else math.inf  # else it is of what is there
    if container.format.name == _AVI:
        is_cut = boxes.is_cut_avi(path)
        return stream.frames / rate(stream) if is_cut else 0.0
    if container.format.name == _MOV:
        entries, end = list(stream.index_entries), files.stamp(path).size
        if not any(entry.pos + entry.size > end for entry in entries):
            return 0.0
        return float(max(entry.timestamp for entry in entries) * stream.time_base)
    if container.format.name != _MATROSKA or not boxes.is_cut_matroska(path):
        return 0.0
    try:
        hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))
    except (KeyError, ValueError):  # the track states none of its own
        return (container.duration or 0) / av.time_base
    return 3600 * hours + 60 * minutes + seconds


def _video_stream(container, path: str | pathlib.Path):
    streams = [s for s in container.streams.video if not s.disposition & _PICTURES]
    streams = streams or list(container.streams.video)
    if not streams:
        raise MediaError("undecodable", path, "holds no video stream")
    known = [s for s in streams if s.codec_context is not None]
    if not known:  # a header that names no codec, or a damaged one
        raise MediaError("undecodable", path, "its codec cannot be told or is not known")
    if len(known) > 1:
        known = _moving(container, known, path)
    return next((s for s in known if s.disposition & Disposition.default), known[0])


def _moving(container, streams: list, path: str | pathlib.Path) -> list:
    """Returns the streams of more than one frame, or all: not every cover is marked as one."""
    counts = {stream.index: stream.frames for stream in streams}
    if container.format.name != _MOV or not all(counts.values()):
        counts = dict.fromkeys(counts, 0)
        with (
            opened(path) as other,
            contextlib.suppress(av.error.InvalidDataError),  # a damaged tail
        ):
            for packet in other.demux(*(other.streams[index] for index in counts)):
                counts[packet.stream_index] += packet.size > 0
                if min(counts.values()) > 1:
                    break
    return [stream for stream in streams if counts[stream.index] > 1] or streams


def _is_animated_webp(path: str | pathlib.Path) -> bool:
    with files.open_file(path) as file:
        head = file.read(21)
    return head[8:16] == b"WEBPVP8X" and bool(head[20] & 0x02)
