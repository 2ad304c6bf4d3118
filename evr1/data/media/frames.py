"""Sampled, resized frames of a video that is a folder of images, and their times.

Frame i is the i-th image in the natural order of names (2 before 10), at i / rate seconds. Which
frames are taken, their size and their times are those of a video file that holds them at that rate.
"""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media import patches, sampling
from evr1.data.media.resize import resize_float
from evr1.data.records import Budgets, Geometry, Media

T = TypeVar("T")
_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))


def measure(
    path: str | pathlib.Path,
    fps: float,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> patches.Shape:
    """Returns the shape that `decode` will give, without decoding pixels.

    Args:
        path: the folder.
        fps: rate of its images.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.

    Raises:
        MediaError: missing, empty, no frame within the clip, or an image is broken or of another
            size than the first one that is taken.
    """
    files = _images(path)
    indices, sample_fps = sampling.take(path, len(files), fps, budgets, start, end)
    chosen = [files[i] for i in indices]
    sizes = [_read(path, file, patches.read_size) for file in chosen]
    for file, other in zip(chosen, sizes, strict=True):
        _check_size(path, (chosen[0], sizes[0]), (file, other))
    size = sampling.frame_size(path, len(indices), *sizes[0], budgets, geometry)
    return patches.Shape(len(indices), *size, indices / fps, True, sample_fps)


def decode(
    path: str | pathlib.Path,
    fps: float,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    times: Sequence[float] = (),
) -> Media:
    """Decodes the sampled images of a folder, resized and upright, with their times.

    Images that are not taken are not looked at.

    Args:
        path: the folder.
        fps: rate of its images.
        budgets: how much of it is looked at.
        geometry: of the model.
        start: seconds; None: from the beginning.
        end: seconds; None: to the end.
        times: seconds, ascending: the frames nearest to them are taken, and none are sampled.

    Raises:
        MediaError: see `measure`.
    """
    files = _images(path)
    indices, sample_fps = sampling.take(path, len(files), fps, budgets, start, end)
    if times:
        indices, sample_fps = sampling.nearest(np.arange(len(files)) / fps, times)
    first = files[indices[0]], _read(path, files[indices[0]], patches.read_size)
    size = sampling.frame_size(path, len(indices), *first[1], budgets, geometry)
    frames: dict[int, np.ndarray] = {}
    for index in dict.fromkeys(indices.tolist()):
        rgb = _read(path, files[index], patches.read_image)
        _check_size(path, first, (files[index], rgb.shape[:2]))
        frames[index] = resize_float(rgb[None], *size)[0]
    stacked = np.stack([frames[index] for index in indices.tolist()])
    return Media(stacked, indices / fps, is_video=True, sample_fps=sample_fps)


def _images(path: str | pathlib.Path) -> list[pathlib.Path]:
    """Returns the images of a folder in the natural order of their names; hidden files are none."""
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


def _read(path: str | pathlib.Path, file: pathlib.Path, read: Callable[[pathlib.Path], T]) -> T:
    """Returns what an image gives; its error becomes one of the folder."""
    try:
        return read(file)
    except MediaError as error:
        raise MediaError(error.kind, path, f"{file.name}: {error.reason}") from None


def _check_size(
    path: str | pathlib.Path,
    first: tuple[pathlib.Path, tuple[int, ...]],
    other: tuple[pathlib.Path, tuple[int, ...]],
) -> None:
    if first[1] != other[1]:
        shown = (f"{file.name} has {width}x{height}" for file, (height, width) in (first, other))
        raise MediaError("undecodable", path, f"images of mixed sizes: {', '.join(shown)} pixels")
