"""Sampled, resized frames of a video that is a folder or a list of images, and their times.

Frame i of a folder is the i-th image in the natural order of names (2 before 10), at i / rate
seconds. Which frames are taken, their size and their times are those of a video file that holds
them at that rate. Of a list, which somebody has chosen, every image is taken as long as there are
no more than the limit; the last one twice where their number is odd, as in qwen-vl-utils. So are
those whose times are given.
"""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media import files as media_files
from evr1.data.media import patches, sampling
from evr1.data.media.resize import resizer
from evr1.data.records import Budgets, Geometry, Media

T = TypeVar("T")
_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))


def measure(
    path: str | pathlib.Path,
    fps: float | None,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    *,
    listed: Sequence[str] = (),
    stamps: Sequence[float] = (),
) -> patches.Shape:
    """Returns the shape that `decode` will give, without decoding pixels.

    Args:
        path: the folder, or the first image of a list.
        fps: rate of its images; None where there are `stamps`.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        listed: paths of the images, instead of those in the folder.
        stamps: seconds of the images, ascending.

    Raises:
        MediaError: missing, empty, no frame within the clip, or an image is broken or of another
            size than the first one that is taken.
    """
    files = media_files.paths(listed) or images_of(path)
    taken = _take(path, len(files), fps, stamps, bool(listed), budgets, start, end)
    chosen = [files[i] for i in taken.indices]
    sizes = [_read(path, file, patches.read_size) for file in chosen]
    for file, other in zip(chosen, sizes, strict=True):
        _check_size(path, (chosen[0], sizes[0]), (file, other))
    size = sampling.frame_size(path, len(chosen), *sizes[0], budgets, geometry)
    return patches.Shape(len(chosen), *size, taken.seconds, True, taken.sample_fps)


def decode(
    path: str | pathlib.Path,
    fps: float | None,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    times: Sequence[float] = (),
    *,
    listed: Sequence[str] = (),
    stamps: Sequence[float] = (),
) -> Media:
    """Decodes the sampled images of a folder, resized and upright, with their times.

    Images that are not taken are not looked at.

    Args:
        path: the folder, or the first image of a list.
        fps: rate of its images; None where there are `stamps`.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        times: seconds, ascending: the frames nearest to them are taken, and none are sampled.
        listed: paths of the images, instead of those in the folder.
        stamps: seconds of the images, ascending.

    Raises:
        MediaError: see `measure`.
    """
    files = media_files.paths(listed) or images_of(path)
    taken = _take(path, len(files), fps, stamps, bool(listed), budgets, start, end)
    if times:
        known = np.array(stamps) if stamps else np.arange(len(files)) / (fps or 1.0)
        indices, sample_fps = sampling.nearest(known, times)
        taken = _Taken(indices, known[indices], sample_fps)
    indices = taken.indices
    first = files[indices[0]], _read(path, files[indices[0]], patches.read_size)
    size = sampling.frame_size(path, len(indices), *first[1], budgets, geometry)
    frames: dict[int, np.ndarray] = {}
    for index in dict.fromkeys(indices.tolist()):
        rgb = _read(path, files[index], patches.read_image)
        _check_size(path, first, (files[index], rgb.shape[:2]))
        frames[index] = resizer(budgets)(rgb[None], *size)[0]
    stacked = np.stack([frames[index] for index in indices.tolist()])
    return Media(stacked, taken.seconds, True, taken.sample_fps, source_size=first[1])


class _Taken(NamedTuple):
    """The images that are taken, int64[n], their seconds, float64[n], and how many a second."""

    indices: np.ndarray
    seconds: np.ndarray
    sample_fps: float


def _take(
    path: str | pathlib.Path,
    count: int,
    fps: float | None,
    stamps: Sequence[float],
    is_list: bool,
    budgets: Budgets,
    start: float | None,
    end: float | None,
) -> _Taken:
    """Returns which images are taken; of a list, or where there are stamps, all if they may be."""
    if stamps and len(stamps) != count:
        reason = f"{count} pictures and {len(stamps)} times; give one for each"
        raise MediaError("row", path, reason)
    if fps and not is_list:
        taken = sampling.take(path, count, fps, budgets, start, end)
        return _Taken(taken.indices, taken.indices / fps, taken.sample_fps)
    known = np.array(stamps, np.float64) if stamps else np.arange(count) / (fps or 1.0)
    low, high = start or 0.0, np.inf if end is None else end
    inside = np.flatnonzero((known >= low) & (known <= high))
    if not len(inside):
        raise MediaError("clip", path, sampling.no_frame(start, end, float(known[-1])))
    limit = budgets.video_max_frames // sampling.FRAME_STEP * sampling.FRAME_STEP
    if len(inside) > limit:
        inside = inside[sampling.spread(len(inside), limit)]
        share = limit / (inside[-1] - inside[0] + 1)
        return _Taken(inside, known[inside], share * (fps or 0.0))
    seconds = known[inside]
    if len(inside) % sampling.FRAME_STEP:
        following = seconds[-1] if stamps else (inside[-1] + 1) / (fps or 1.0)
        inside, seconds = np.append(inside, inside[-1]), np.append(seconds, following)
    return _Taken(inside, seconds, fps or 0.0)


def images_of(path: str | pathlib.Path) -> list[str | pathlib.Path]:
    """Returns the images of a folder in the natural order of their names; hidden files are none.

    Raises:
        MediaError: there is no such folder, or it holds none.
    """
    try:
        with os.scandir(path) as entries:
            names = [
                entry.name
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in _SUFFIXES
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    except FileNotFoundError:
        raise MediaError("missing", path, "no such folder of frames") from None
    except OSError as error:
        reason = f"cannot be read as a folder of frames ({error.strerror})"
        raise MediaError("undecodable", path, reason) from None
    if not names:
        raise MediaError("empty", path, f"the folder holds no {', '.join(sorted(_SUFFIXES))}")
    return [pathlib.Path(path, name) for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[str | int], str]:
    """Returns a key that sorts the numbers in names by their value.

    >>> sorted(["f10.jpg", "f2.jpg", "f02.jpg"], key=_natural)
    ['f02.jpg', 'f2.jpg', 'f10.jpg']
    """
    parts = re.split("([0-9]+)", name)  # texts and numbers in turn
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _read(
    path: str | pathlib.Path,
    file: str | pathlib.Path,
    read: Callable[[str | pathlib.Path], T],
) -> T:
    """Returns what an image gives; its error becomes one of the folder."""
    try:
        return read(file)
    except MediaError as error:
        raise MediaError(error.kind, path, f"{os.path.basename(file)}: {error.reason}") from None


def _check_size(
    path: str | pathlib.Path,
    first: tuple[str | pathlib.Path, tuple[int, ...]],
    other: tuple[str | pathlib.Path, tuple[int, ...]],
) -> None:
    if first[1] != other[1]:
        shown = (
            f"{os.path.basename(file)} has {width}x{height}"
            for file, (height, width) in (first, other)
        )
        raise MediaError("undecodable", path, f"images of mixed sizes: {', '.join(shown)} pixels")
