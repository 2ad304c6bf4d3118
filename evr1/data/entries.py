"""Media as rows write them: a path, a list, an object with path, bytes or frames, and limits.

Every other tool has its own spelling. What can be read two ways is refused with the form to use.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evr1.config import urls
from evr1.data.records import MediaItem, Medium

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif"))
VIDEOS = frozenset(
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
    + (".3gp", ".ogv", ".mts", ".m2ts", ".vob")
)
_MOVING = frozenset((".webp", ".gif", ".avif"))  # pictures that may be videos
AUDIO = frozenset((".wav", ".mp3", ".flac", ".m4a", ".ogg", ".aac", ".opus"))
# What a row, or an entry of it, may say of its media, as in qwen-vl-utils.
VIDEO_LIMITS = ("fps", "nframes", "max_frames", "min_pixels", "max_pixels", "total_pixels")
IMAGE_LIMITS = ("min_pixels", "max_pixels")
TIMES = ("times", "timestamps", "frame_times", "frame_timestamps")
UNREAD = (
    ("min_frames", "resized_height", "resized_width", "num_frames", "frame_rate", "raw_fps")
    + ("video_fps", "video_max_frames", "video_min_pixels", "video_max_pixels")
    + ("video_total_pixels", "image_min_pixels", "image_max_pixels", "video_reader_backend")
    + ("audio", "audios", "tools")
)
SPANS = ("start", "end", "start_time", "end_time")  # of a row: the answer's, or what is shown?
_RATES = ("sample_fps", "fps")  # of frames that are given one by one
_MEDIA_WORDS = frozenset(
    ("video", "videos", "image", "images", "clip", "clips", "frame", "frames", "img", "imgs")
    + ("picture", "pictures", "photo", "photos", "media")
)
_TELLING = _MEDIA_WORDS | {"dir", "folder", "name", "names", "file", "files", "path", "paths"}
_TELLING |= {"id", "ids", "list", "root", "key", "url", "urls"}
_BOUNDS = {
    "video_start": ("video_start", "start", "start_time"),
    "video_end": ("video_end", "end", "end_time"),
}
_PATHS = {
    "image": ("image", "path", "image_path", "file_name", "file", "url", "image_url"),
    "video": ("video", "path", "video_path", "frames", "file_name", "file", "url", "video_url"),
}
_FILE = re.compile(r"(?i)^file:(//(localhost(?=/))?)?")
_MAX_PATH = 4096
FRAMES_FORM = (
    '{"videos": [["frame1.png", "frame2.png"]], "fps": 2.0} (or "times": [0.0, 0.5]) is one video '
    "of frames"
)


def media(kind: str, value: Any, row: Mapping[str, Any]) -> tuple[Medium, ...]:
    """Returns the media of one kind of a row.

    >>> media("video", [["a.png", "b.png"]], {"fps": 2.0})[0].frames
    ('a.png', 'b.png')

    Args:
        kind: image or video.
        value: a path, an object, or a list of them; of videos also a list of lists of frames.
        row: what it says of all of its media.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    field = f"{kind}s"
    if isinstance(value, str) and value[:1] in "[{":
        value = decoded(value)
    if value is None or value == "" or value == ():
        return ()
    entries = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(entries, Sequence) or isinstance(entries, bytes):
        raise ValueError(f"{field}: got {short(value)}; give a path or a list of paths")
    entries = [e for e in entries if e is not None]
    if kind == "video" and _are_frames(entries, row):
        entries = [list(entries)]
    return tuple(_item(kind, field, entry, row) for entry in entries)


def decoded(text: str) -> Any:
    """Returns what a JSON list or object in a text holds; the text itself where it is none."""
    if text.strip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def looks_like_media(value: Any) -> bool:
    """Returns whether a value names, or holds, an image or a video.

    >>> looks_like_media({"path": "a.MP4"}), looks_like_media("A cat."), looks_like_media(["a.png"])
    (True, False, True)
    """
    if isinstance(value, bytes):
        return True
    if isinstance(value, str):
        if value.startswith(("data:image/", "data:video/")):
            return True
        is_name = len(value) <= _MAX_PATH and "\n" not in value and len(value.split()) <= 8
        return is_name and suffix(value) in PICTURES | VIDEOS
    if isinstance(value, Mapping):
        return any(map(looks_like_media, value.values()))
    return isinstance(value, list | tuple) and any(map(looks_like_media, value[:8]))


def is_named_so(name: str) -> bool:
    """Returns whether a field is called as one that tells which medium a row is about.

    >>> is_named_so("video_dir"), is_named_so("videoName"), is_named_so("video_size")
    (True, True, False)
    """
    words = re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1_\2", name).lower())
    return bool(words) and words[-1] in _TELLING and any(word in _MEDIA_WORDS for word in words)


def suffix(path: str) -> str:
    """Returns the ending of a path or URL in lower case.

    >>> suffix("https://a.b/c.MP4?x=1")
    '.mp4'
    """
    if urls.is_remote(path):
        path = re.split("[?#]", path)[0]
    return os.path.splitext(path.strip())[1].lower()


def stem(path: str) -> str:
    """Returns the name of a path without folder and ending."""
    return os.path.splitext(os.path.basename(path.rstrip("/")))[0]


def short(value: Any) -> str:
    """Returns a value as messages show it, 60 characters at most."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def number(field: str, value: Any, least: float = 0.0) -> float:
    """Returns a number over `least`; a text may spell it.

    Raises:
        ValueError: it is none.
    """
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result) or result <= least:
        bound = f"over {least:g}" if least >= 0 else "from 0 on"
        raise ValueError(f"{field}: got {short(value)}; give a number {bound}")
    return result


def _are_frames(entries: Sequence[Any], row: Mapping[str, Any]) -> bool:
    """Returns whether the entries of `videos` are the frames of one."""
    names = [e for e in map(_name, entries) if e]
    pictures = [name for name in names if suffix(name) in PICTURES]
    still = [name for name in pictures if suffix(name) not in _MOVING]
    is_all = len(pictures) == len(entries) > 0
    if is_all and (_rate(row) is not None or _times(row)) and (len(entries) > 1 or still):
        return True
    if still:
        raise ValueError(
            f"videos: got {short(still[0])}, a picture; {FRAMES_FORM}, and a picture by itself "
            "belongs in images"
        )
    return False


def _name(entry: Any) -> str:
    """Returns the path of an entry; empty where it has none, or limits of its own."""
    if isinstance(entry, Mapping):
        entry = _path_of("video", entry)
    return entry if isinstance(entry, str) else ""


def _path_of(kind: str, entry: Mapping[str, Any]) -> Any:
    for key in _PATHS[kind]:
        value = entry.get(key)
        if isinstance(value, Mapping):  # {"image_url": {"url": ...}}
            value = _path_of(kind, value)
        if value is not None and value != "" and value != []:
            return value
    return None


def _item(kind: str, field: str, entry: Any, row: Mapping[str, Any]) -> Medium:
    said = {k: v for k, v in entry.items() if v is not None} if isinstance(entry, Mapping) else {}
    value = _path_of(kind, said) if isinstance(entry, Mapping) else entry
    how = {**row, **said}
    if value is None:
        raise ValueError(f"{field}: got {short(entry)}; every entry is the path of a file")
    if isinstance(value, list | tuple):
        if kind == "image":
            raise ValueError(f"images: got {short(value)}, a list in a list; give a list of paths")
        return _frames(value, how, said)
    path = local_path(field, value)
    ending = suffix(path)
    if kind == "image" and ending in VIDEOS:
        raise ValueError(f"images: got {short(path)}, a video; put it into videos")
    if kind == "video" and ending in PICTURES - _MOVING:
        raise ValueError(f"videos: got {short(path)}, a picture; {FRAMES_FORM}")
    limits = _limits(kind, how)
    times = _times(how) if kind == "video" and ending not in VIDEOS else ()  # of a folder
    start, end = _bounds(said) if kind == "video" else (None, None)
    if not limits and not times and start is None and end is None:
        return path
    return MediaItem(
        path, times=times, start=start, end=end,
        limits=limits,
    )  # fmt: skip


def _frames(value: Sequence[Any], how: Mapping[str, Any], said: Mapping[str, Any]) -> MediaItem:
    paths = []
    for frame in value:
        path = _path_of("image", frame) if isinstance(frame, Mapping) else frame
        path = local_path("videos", path)
        if suffix(path) in VIDEOS:
            raise ValueError(
                f"videos: got {short(path)} in a list in a list, which holds the frames of one "
                "video; give videos one by one"
            )
        paths.append(path)
    if not paths:
        raise ValueError("videos: got an empty list of frames; give its frames, or drop the entry")
    times, rate = _times(how), _rate(how)
    if times and len(times) != len(paths):
        raise ValueError(
            f"times: got {len(times)} for {len(paths)} frames; give one for each, in seconds"
        )
    if not times and rate is None:
        raise ValueError(
            f"videos: got {len(paths)} frames from {short(paths[0])} without a rate; add fps "
            "(frames a second) or times (seconds) to the row"
        )
    limits = tuple((k, v) for k, v in _limits("video", how) if k not in ("fps", "nframes"))
    start, end = _bounds(said)
    rate = None if times else rate
    return MediaItem("", tuple(paths), rate, times, start, end, limits=limits)


def check_folders(kind: str, items: Sequence[Medium], media_dir: str) -> None:
    """Raises ValueError for a folder that is no medium, as its row has it.

    Args:
        kind: image or video.
        items: media of a row.
        media_dir: put in front of relative paths.
    """
    for item in items:
        path = item if isinstance(item, str) else item.path
        if not path or suffix(path) in PICTURES | VIDEOS:
            continue
        has_rate = not isinstance(item, str) and (item.times or "fps" in dict(item.limits))
        if (kind == "image" or not has_rate) and os.path.isdir(os.path.join(media_dir, path)):
            raise ValueError(f"{kind}s: got {short(path)}, {folder_fault(kind)}")


def folder_fault(kind: str) -> str:
    """Returns what is wrong with a folder as an image, or as a video without a rate."""
    if kind == "image":
        return "a folder; give the paths of images in it"
    return (
        "a folder of pictures without a rate; add fps (pictures a second) or times (the seconds of "
        "each) to the row"
    )


def local_path(field: str, value: Any) -> str:
    """Returns the path of a file, without file://.

    Raises:
        ValueError: it is no path, or nothing on this machine.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > _MAX_PATH:
        raise ValueError(f"{field}: got {short(value)}; every entry is the path of a file")
    if urls.is_bucket(value):
        return value
    if urls.is_remote(value):
        raise ValueError(
            f"{field}: got {short(value)}; nothing is downloaded but from s3:// and gs://: "
            "fetch the file, give its path"
        )
    if value.startswith("data:"):
        raise ValueError(f"{field}: got {short(value)}; the data after base64, cannot be read")
    path = _FILE.sub("", value, count=1) if value[:5].lower() == "file:" else value
    if path != value and "%" in path:
        from urllib.parse import unquote

        path = path if os.path.exists(path) else unquote(path)
    return path


def _limits(kind: str, how: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    names = VIDEO_LIMITS if kind == "video" else IMAGE_LIMITS
    limits = [(k, number(k, how[k])) for k in names if how.get(k) not in (None, "")]
    if {"fps", "nframes"} <= dict(limits).keys():
        raise ValueError("nframes: got it beside fps; give one of them")
    return tuple((k, v if k == "fps" else int(v)) for k, v in limits)


def _times(how: Mapping[str, Any]) -> tuple[float, ...]:
    for name in TIMES:
        value = how.get(name)
        if value is None or value == []:
            continue
        if not isinstance(value, list | tuple):
            continue  # somebody else's field
        times = tuple(number(name, v, least=-1e-9) for v in value)
        if list(times) != sorted(times):
            raise ValueError(f"{name}: got {short(value)}; give seconds in ascending order")
        return times
    return ()


def _rate(how: Mapping[str, Any]) -> float | None:
    name = next((n for n in _RATES if how.get(n) not in (None, "")), None)
    return None if name is None else number(name, how[name])


def _bounds(said: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Returns the seconds between which an entry is shown."""
    found = []
    for field, names in _BOUNDS.items():
        name = next((n for n in names if said.get(n) not in (None, "")), field)
        found.append(_second(name, said.get(name)))
    start, end = found
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"videos: got an end of {end:g} s with a start of {start or 0.0:g} s")
    return start, end


def _second(field: str, value: Any) -> float | None:
    return None if value is None else number(field, value, least=-1e-9)
