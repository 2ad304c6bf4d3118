"""Decoded media kept on disk: uint8 frames in ArrayRecord files that are also a TFDS data set.

A directory holds `media-train.array_record-NNNNN` (one record an entry, one chunk a record, so the
container's 64-bit hash of each entry is checked whenever it is read), `index-NNNNN.npz` beside
each (key, size, timestamps: all that planning needs), `files.jsonl` (which file has which
content), `quarantine.jsonl`, and TFDS's metadata:
`tfds.builder_from_directory(DIR).as_data_source()` reads it without TensorFlow. Records are not
compressed: reading is 3 times faster than with zstd, which saves a quarter of the space.

An entry is found by its content key, so it does not matter who asks or where the file lies. A
shard file appears by one rename when it is complete; what a killed run left half-written is
discarded by the next.
"""

import dataclasses
import fcntl
import os
import pathlib
import threading
import time
import zipfile
from collections.abc import Iterator

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from evr1.data.media import patches
from evr1.data.media.tfds_format import (
    NAME,
    READ_OPTIONS,
    SPLIT,
    media_features,
    parse,
    serialize,
    write_metadata,
)
from evr1.data.records import Media

SHARD_BYTES = 256 * 2**20
SHARD_SECONDS = 300.0  # a shard is completed when it is so old, so that a kill loses no more
QUARANTINE = "quarantine.jsonl"
_WRITE_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The place of an entry, and its shape, known without reading it."""

    shard: int
    record: int
    shape: patches.Shape


class ShardStore:
    """A reader of a directory of shards; safe to use from many threads."""

    def __init__(self, root: str | pathlib.Path):
        """Reads the indexes.

        Raises:
            ValueError: no such directory, or a damaged index.
        """
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"data.shards={str(self.root)!r}: no such directory; "
                "run tools/preprocess_videos.py --out, or leave data.shards empty"
            )
        self._entries: dict[str, Entry] = {}
        self._counts: dict[int, int] = {}
        self._readers: dict[int, ArrayRecordReader] = {}
        self._locks: dict[int, threading.Lock] = {}
        for shard, path in _numbered(self.root, "index-", ".npz"):
            if _shard_path(self.root, shard).is_file():
                self._counts[shard] = 0
                self._locks[shard] = threading.Lock()
                for record, (key, entry) in enumerate(_read_index(path, shard)):
                    self._entries[key] = entry
                    self._counts[shard] = record + 1

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def find(self, key: str) -> Entry | None:
        """Returns the place and shape of a key's medium without reading it; None: no such key."""
        return self._entries.get(key)

    def read(self, key: str) -> Media:
        """Returns the medium of a key, its hash checked.

        Raises:
            KeyError: no such entry.
            ValueError: the shard is damaged; names the file, the key and the fix.
        """
        entry = self._entries[key]
        path = _shard_path(self.root, entry.shard)
        try:
            stored_key, media = parse(self._record(entry, path))
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            raise ValueError(_damage(path, key, " ".join(str(error).split()))) from None
        if stored_key != key:
            raise ValueError(_damage(path, key, f"the record holds key {stored_key[:40]}"))
        return media

    def _record(self, entry: Entry, path: pathlib.Path) -> bytes:
        with self._locks[entry.shard]:  # a reader has one position; seeking beats `read([i])` by 5
            reader = self._readers.pop(entry.shard, None) or ArrayRecordReader(
                str(path), READ_OPTIONS
            )
            if reader.num_records() != self._counts[entry.shard]:
                raise ValueError(
                    f"{reader.num_records()} records, {self._counts[entry.shard]} in the index"
                )
            reader.seek(entry.record)
            record = reader.read()
            self._readers[entry.shard] = reader  # one that failed is not used again
            return record


class ShardWriter:
    """A writer that appends entries to a directory of shards, the only one there at a time.

    `add` may be called from any thread. Use it as a context manager: leaving it completes the open
    shard, also after an error.
    """

    def __init__(
        self,
        root: str | pathlib.Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
    ):
        """Takes the directory's lock, discards half-written files and repairs indexes.

        Args:
            root: directory, made where it is missing.
            shard_bytes: a shard is completed when it has grown to this,
            shard_seconds: or when an entry comes so long after it was begun.

        Raises:
            ValueError: another process writes here.
        """
        media_features()  # TFDS replaces the import statement while it loads: before threads start
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._shard_bytes, self._shard_seconds = shard_bytes, shard_seconds
        self._lock = threading.Lock()
        self._lock_file = (self.root / ".lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise ValueError(f"{self.root}: another process writes here; wait for it") from None
        for path in self.root.glob(".writing-*"):
            path.unlink()
        self._keys = _repair(self.root)
        self._open: _OpenShard | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str, media: Media, path: str) -> None:
        """Appends an entry, unless the key is there already.

        Args:
            key: see `content_key`.
            media: its frames.
            path: of its file, for people who look into the shard.
        """
        record = serialize(key, media, path)
        with self._lock:
            if key in self._keys:
                return
            if self._open is None:
                numbers = {n for n, _ in _shards(self.root)}
                number = next(n for n in range(len(numbers) + 1) if n not in numbers)
                self._open = _OpenShard(self.root, number)
            self._open.add(key, media, record)
            self._keys.add(key)
            age = time.monotonic() - self._open.begun
            if self._open.size >= self._shard_bytes or age >= self._shard_seconds:
                self._complete()

    def close(self) -> None:
        """Completes the open shard and gives the lock back."""
        with self._lock:
            if self._open is not None:
                self._complete()
            self._lock_file.close()

    def _complete(self) -> None:
        assert self._open is not None
        self._open.complete()
        self._open = None
        write_metadata(self.root, [path for _, path in _shards(self.root)])


class _OpenShard:
    def __init__(self, root: pathlib.Path, number: int):
        self._root, self._number = root, number
        self._path = root / f".writing-{number:05d}.array_record"
        self._writer = ArrayRecordWriter(str(self._path), _WRITE_OPTIONS)
        self._index: list[tuple[str, Media]] = []
        self.size = 0
        self.begun = time.monotonic()

    def add(self, key: str, media: Media, record: bytes) -> None:
        self._writer.write(record)
        self._index.append(
            (key, Media(media.frames[:, :, :, :0], media.timestamps, media.is_video))
        )
        self.size += len(record)

    def complete(self) -> None:
        self._writer.close()
        _sync(self._path)
        self._path.rename(_shard_path(self._root, self._number))
        _write_index(self._root, self._number, self._index)


def _shard_path(root: pathlib.Path, number: int) -> pathlib.Path:
    return root / f"{NAME}-{SPLIT}.array_record-{number:05d}"


def _shards(root: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """Yields the (number, file) of every complete shard."""
    return _numbered(root, f"{NAME}-{SPLIT}.array_record-", "")


def _numbered(root: pathlib.Path, prefix: str, suffix: str) -> Iterator[tuple[int, pathlib.Path]]:
    for path in sorted(root.glob(f"{prefix}[0-9]*{suffix}")):
        digits = path.name.removeprefix(prefix).removesuffix(suffix)
        if digits.isdecimal():
            yield int(digits), path


def _damage(path: pathlib.Path, key: str, reason: str) -> str:
    return (
        f"{path}: entry {key} is damaged ({reason[:120]}); delete this shard file and run "
        "tools/preprocess_videos.py again, which writes only what is missing"
    )


def _repair(root: pathlib.Path) -> set[str]:
    """Makes every index match its shard, and returns the keys that are there."""
    for number, path in _numbered(root, "index-", ".npz"):
        if not _shard_path(root, number).is_file():
            path.unlink()
    keys = set()
    for number, path in _shards(root):
        index = root / f"index-{number:05d}.npz"
        if not index.is_file():  # killed between the two renames
            _write_index(root, number, list(_read_all(path)))
        keys.update(key for key, _ in _read_index(index, number))
    return keys


def _read_all(path: pathlib.Path) -> Iterator[tuple[str, Media]]:
    reader = ArrayRecordReader(str(path), READ_OPTIONS)
    for i in range(reader.num_records()):
        yield parse(reader.read([i])[0])


def _write_index(root: pathlib.Path, number: int, entries: list[tuple[str, Media]]) -> None:
    temporary = root / f".writing-{number:05d}.npz"
    counts = [len(m.timestamps) for _, m in entries]
    np.savez(
        temporary,
        keys=np.array([key for key, _ in entries], "S32"),
        sizes=np.array([m.frames.shape[:3] for _, m in entries], np.int32),
        is_video=np.array([m.is_video for _, m in entries], bool),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        timestamps=np.concatenate([m.timestamps for _, m in entries]).astype(np.float64),
    )
    _sync(temporary)
    temporary.rename(root / f"index-{number:05d}.npz")


def _read_index(path: pathlib.Path, shard: int) -> Iterator[tuple[str, Entry]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, sizes, offsets = file["keys"], file["sizes"].tolist(), file["offsets"]
            timestamps, is_video = file["timestamps"], file["is_video"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: damaged index ({' '.join(str(error).split())}); delete it and run "
            "tools/preprocess_videos.py again, which rebuilds it from the shard"
        ) from None
    if not np.shape(sizes) == (len(keys), 3) or (len(is_video), len(offsets)) != (
        len(keys),
        len(keys) + 1,
    ):
        raise ValueError(
            f"{path}: damaged index (its arrays are of different lengths); delete it and run "
            "tools/preprocess_videos.py again, which rebuilds it from the shard"
        )
    for i, (key, (frames, height, width)) in enumerate(zip(keys, sizes, strict=True)):
        times = timestamps[offsets[i] : offsets[i + 1]]
        shape = patches.Shape(frames, height, width, times, is_video[i])
        yield key.decode(), Entry(shard, i, shape)


def _sync(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
