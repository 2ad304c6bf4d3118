"""The index of a shard: what its records hold, so that planning reads no record."""

import io
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evr1.data.media import patches
from evr1.data.records import Media
from evr1.data.remote.cache import digest_of

LOST = ""  # in place of the key of a record that cannot be read


def write(path: pathlib.Path, shard: pathlib.Path, entries: Sequence[tuple[str, Media]]) -> None:
    """Writes the index of a complete shard, by one rename.

    Args:
        path: of the index.
        shard: the file that it is of, whose size and hash it keeps.
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
        shard_blake2b=np.array(digest_of(shard), "S32"),
    )
    sync(temporary)
    temporary.rename(path)


class Table(NamedTuple):
    """The records of one shard, or of several, as arrays of n.

    Attributes:
        keys: S32[n].
        sizes: int32[n, 3], frames, height and width.
        is_video: bool[n].
        offsets: int64[n + 1], where the times of each begin.
        timestamps: float64, seconds of all frames.
    """

    keys: np.ndarray
    sizes: np.ndarray
    is_video: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray

    def shape(self, i: int) -> patches.Shape:
        """Returns the shape of a record's medium."""
        frames, height, width = self.sizes[i].tolist()
        times = self.timestamps[self.offsets[i] : self.offsets[i + 1]]
        return patches.Shape(frames, height, width, times, bool(self.is_video[i]))


class Catalog:
    """The records of many shards, found by key; some 200 bytes a record of 16 frames."""

    def __init__(self, tables: Mapping[int, Table]):
        """Takes the records of each shard; of a key that is in several, the last shard's counts."""
        numbers = sorted(tables)
        ordered = [tables[number] for number in numbers] or [_EMPTY]
        sizes = [len(table.keys) for table in ordered]
        times = [len(table.timestamps) for table in ordered]
        starts = np.cumsum([0, *times[:-1]])
        ends = [table.offsets[:-1] + start for table, start in zip(ordered, starts, strict=True)]
        self._table = Table(
            keys=np.concatenate([table.keys for table in ordered]),
            sizes=np.concatenate([table.sizes for table in ordered]),
            is_video=np.concatenate([table.is_video for table in ordered]),
            offsets=np.concatenate([*ends, [sum(times)]]),
            timestamps=np.concatenate([table.timestamps for table in ordered]),
        )
        self._shards = np.repeat(np.asarray(numbers or [0], np.int32), sizes)
        self._records = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        order = np.argsort(self._table.keys, kind="stable")
        sorted_keys = self._table.keys[order]
        is_last = np.ones(len(order), bool)
        is_last[:-1] = sorted_keys[1:] != sorted_keys[:-1]
        is_last &= sorted_keys != LOST.encode()
        self._order, self._keys = order[is_last], sorted_keys[is_last]

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> list[str]:
        """Returns all keys, in order."""
        return [key.decode() for key in self._keys.tolist()]

    def find(self, key: str) -> tuple[int, int, int] | None:
        """Returns the row of a key in the catalog, its shard and its record there; None: none."""
        wanted = key.encode()
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            return None
        row = int(self._order[place])
        return row, int(self._shards[row]), int(self._records[row])

    def shape(self, row: int) -> patches.Shape:
        """Returns the shape of the medium of a row of the catalog."""
        return self._table.shape(row)


def read(path: pathlib.Path) -> tuple[list[tuple[str, patches.Shape]], int]:
    """Returns the (key, shape) of every record, and the bytes of the shard.

    Raises:
        ValueError: the index is damaged; names it.
    """
    table, shard_bytes = read_table(path)
    shapes = (table.shape(i) for i in range(len(table.keys)))
    return list(zip((key.decode() for key in table.keys), shapes, strict=True)), shard_bytes


def read_table(path: pathlib.Path) -> tuple[Table, int]:
    """Returns what `read` does, as arrays.

    Raises:
        ValueError: the index is damaged; names it.
    """
    try:
        data = io.BytesIO(path.read_bytes())  # NumPy leaves a file open that it cannot read
        with np.load(data, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        table = {name: arrays[name] for name in Table._fields}
        return _checked(Table(**table)), int(arrays["shard_bytes"])
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path}: damaged index ({reason}); delete it and run evr1 preprocess "
            "again, which rebuilds it from the shard"
        ) from None


def digest(path: pathlib.Path) -> str:
    """Returns the blake2b of an index's shard; empty: the index is older than such hashes.

    Raises:
        ValueError: the index is damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return bytes(file["shard_blake2b"]).decode() if "shard_blake2b" in file.files else ""
    except _DAMAGE as error:
        raise ValueError(f"{path}: damaged index ({error})") from None


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


_EMPTY = Table(
    np.zeros(0, "S32"),
    np.zeros((0, 3), np.int32),
    np.zeros(0, bool),
    np.zeros(1, np.int64),
    np.zeros(0),
)


def _checked(table: Table) -> Table:
    """Returns the table, in the types that it should have.

    Raises:
        ValueError: its arrays do not fit each other.
    """
    keys, sizes, is_video, offsets, timestamps = (
        array.astype(empty.dtype, casting="safe", copy=False)
        for array, empty in zip(table, _EMPTY, strict=True)
    )
    count = len(keys)
    if (sizes.shape, is_video.shape, offsets.shape) != ((count, 3), (count,), (count + 1,)):
        raise ValueError("its arrays are of different lengths")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(timestamps):
        raise ValueError("its times do not fit its records")
    return Table(keys, sizes, is_video, offsets, timestamps)
