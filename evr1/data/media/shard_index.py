"""The index of a shard: what its records hold, so that planning reads no record."""

import io
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from evr1.data.media import patches
from evr1.data.records import Media

LOST = ""  # in place of the key of a record that cannot be read


def write(path: pathlib.Path, shard: pathlib.Path, entries: Sequence[tuple[str, Media]]) -> None:
    """Writes the index of a complete shard, by one rename.

    Args:
        path: of the index.
        shard: the file that it is of, whose size it keeps.
        entries: key and medium of every record, in order; the pixels are not looked at.
    """
    temporary = path.with_name(f".writing-{path.name}")
    counts = [len(m.timestamps) for _, m in entries]
    np.savez(
        temporary,
        keys=np.array([key for key, _ in entries], "S32"),
        sizes=np.array([m.frames.shape[:3] for _, m in entries], np.int32).reshape(-1, 3),
        is_video=np.array([m.is_video for _, m in entries], bool),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        timestamps=np.concatenate([np.zeros(0), *(m.timestamps for _, m in entries)]),
        shard_bytes=np.int64(shard.stat().st_size),
    )
    sync(temporary)
    temporary.rename(path)


def read(path: pathlib.Path) -> tuple[list[tuple[str, patches.Shape]], int]:
    """Returns the (key, shape) of every record, and the bytes of the shard.

    Raises:
        ValueError: the index is damaged; names it.
    """
    try:
        data = io.BytesIO(path.read_bytes())  # NumPy leaves a file open that it cannot read
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return list(_entries(arrays)), int(arrays["shard_bytes"])
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path}: damaged index ({reason}); delete it and run evr1 preprocess "
            "again, which rebuilds it from the shard"
        ) from None


def sync(path: pathlib.Path) -> None:
    """Puts a file on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


# What NumPy and zipfile raise on bytes that are no archive of arrays.
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def _entries(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, patches.Shape]]:
    keys, sizes, is_video = arrays["keys"], arrays["sizes"], arrays["is_video"]
    offsets, timestamps = arrays["offsets"], arrays["timestamps"]
    count = len(keys)
    if (sizes.shape, is_video.shape, offsets.shape) != ((count, 3), (count,), (count + 1,)):
        raise ValueError("its arrays are of different lengths")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(timestamps):
        raise ValueError("its times do not fit its records")
    for i, (key, (frames, height, width)) in enumerate(zip(keys, sizes.tolist(), strict=True)):
        times = timestamps[offsets[i] : offsets[i + 1]]
        yield key.decode(), patches.Shape(frames, height, width, times, bool(is_video[i]))
