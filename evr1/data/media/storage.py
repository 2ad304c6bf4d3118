"""How pixels are kept in shards: as they are, as JPEG, or without loss in fewer bytes.

A directory of shards has one way, which `storage.json` names; without that file it is as they are,
which is read fastest. The others are for stores that are slower than a decoder.
"""

import functools
import io
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from evr1.data.media import manifest

RAW = "raw"
JPEG = "jpeg"  # quality 95, colors at full size (4:4:4)
LOSSLESS = "lossless"  # WebP, the fastest method
NAMES = (RAW, JPEG, LOSSLESS)
MANIFEST = "storage.json"
_FIELD = "storage"
_SAVE = {
    JPEG: functools.partial(Image.Image.save, format="JPEG", quality=95, subsampling=0),
    LOSSLESS: functools.partial(
        Image.Image.save, format="WEBP", lossless=True, quality=0, method=0
    ),
}
_FORMATS = {JPEG: "JPEG", LOSSLESS: "WEBP"}


def encode(frames: np.ndarray, storage: str) -> list[bytes]:
    """Returns each of the frames, uint8[T, H, W, 3], as a file of its own; not for `RAW`."""
    save: Callable[..., None] = _SAVE[storage]
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        save(Image.fromarray(np.ascontiguousarray(frame)), buffer)
        parts.append(buffer.getvalue())
    return parts


def decode(parts: Sequence[bytes | memoryview], shape: Sequence[int], storage: str) -> np.ndarray:
    """Returns the frames that `encode` was given; of `JPEG` nearly.

    Args:
        parts: what `encode` returned.
        shape: (T, H, W, 3).
        storage: how they were encoded.

    Raises:
        ValueError: they are something else.
    """
    frames = np.empty(tuple(shape), np.uint8)
    if len(parts) != len(frames):
        raise ValueError(f"{len(parts)} frames, {len(frames)} in the record")
    for frame, part in zip(frames, parts, strict=True):
        with Image.open(io.BytesIO(part), formats=[_FORMATS[storage]]) as image:
            if (image.height, image.width, image.mode) != (*frame.shape[:2], "RGB"):
                raise ValueError(f"a frame of {image.size} in mode {image.mode}")
            frame[:] = np.asarray(image)
    return frames


def psnr(frames: np.ndarray, others: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of two lists of frames in dB, uint8[T, H, W, 3].

    >>> round(psnr(np.zeros((1, 2, 2, 3), np.uint8), np.ones((1, 2, 2, 3), np.uint8)), 2)
    48.13
    """
    square, values = 0, 0
    for frame, other in zip(frames, others, strict=True):
        square += int(np.square(frame.astype(np.int32) - other).sum())
        values += frame.size
    return 10 * float(np.log10(255**2 * values / square)) if square else float("inf")


def of_directory(root: str | os.PathLike[str]) -> str:
    """Returns how a directory of shards keeps pixels.

    Raises:
        ValueError: its `storage.json` is damaged, or names another way.
    """
    path, need = pathlib.Path(root) / MANIFEST, f"one of {', '.join(NAMES)}"
    return manifest.read(path, _FIELD, NAMES.__contains__, need) or RAW


def agree(root: str | os.PathLike[str], wanted: str, *, is_new: bool) -> str:
    """Returns how a directory keeps pixels; a new one keeps them as is wanted, from then on.

    Args:
        root: directory of shards, which exists.
        wanted: one of `NAMES`; empty: as the directory has it, a new one `RAW`.
        is_new: it has no shards yet.

    Raises:
        ValueError: it keeps them otherwise, or there is no such way.
    """
    root = pathlib.Path(root)
    if wanted and wanted not in NAMES:
        raise ValueError(f"data.storage={wanted!r}; give one of {', '.join(NAMES)}")
    if is_new:
        manifest.write_once(root / MANIFEST, _FIELD, wanted or RAW)
    has = of_directory(root)
    if wanted and wanted != has:
        raise ValueError(
            f"{root} keeps pixels as {has}, data.storage={wanted}; give another directory, or "
            "leave data.storage empty"
        )
    return has
