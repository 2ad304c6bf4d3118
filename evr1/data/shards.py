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
import errno
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import stat
import threading
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from evr1.data import jsonl, patches
from evr1.data.errors import MediaError
from evr1.data.records import Budgets, Geometry, Media

DECODER = "pyav-3"  # raise the number whenever what is stored of a medium changes
NAME = "media"
SPLIT = "train"
SHARD_BYTES = 256 * 2**20
SHARD_SECONDS = 300.0  # a shard is completed when it is so old, so that a kill loses no more
FILES = "files.jsonl"
QUARANTINE = "quarantine.jsonl"
_SAMPLE_BYTES = 65536
_WRITE_OPTIONS = "group_size:1,uncompressed"
_READ_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where an entry lies, and what is known of it without reading it."""

    shard: int
    record: int
    shape: patches.Shape


def file_identity(path: str | pathlib.Path) -> str:
    """A name for a file's content: its size, and a hash of its first, middle and last 64 KiB.

    Not of all of it, because planning asks this of every clip and a corpus has terabytes; any
    other cut or encoding of a video changes its size or its header. Not of path and time, so that
    a copied corpus keeps its cache.

    Raises:
        OSError: no such file, or not a regular one: to open a pipe would wait for its writer.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
            file.seek(max(start, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def content_key(
    identity: str,
    kind: str,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
) -> str:
    """The key of a medium: everything that its decoded frames depend on, 32 hexadecimal digits.

    Args:
        identity: of the file, see `file_identity`.
        kind: image or video; a key holds only the budgets of its kind.
        budgets: how much is looked at.
        geometry: of the model.
        start: seconds, or None.
        end: seconds, or None.
    """
    limits = {k: v for k, v in dataclasses.asdict(budgets).items() if k.startswith(kind)}
    parts = [DECODER, identity, kind, start, end, limits, dataclasses.asdict(geometry)]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class FileTable:
    """Which content the file of a given name has, so that it need not be hashed, or even be there,
    again.

    Names are paths as rows write them; a known size and time stand for the content.
    """

    def __init__(self, root: str | pathlib.Path | None):
        self._path = pathlib.Path(root) / FILES if root else None
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int], str] = {}
        self._by_name: dict[str, set[str]] = {}
        for number, e in jsonl.read(self._path) if self._path else ():
            try:
                self._remember((e["name"], e["size"], e["mtime_ns"]), e["identity"])
            except (KeyError, TypeError):
                raise ValueError(
                    f"{self._path}:{number}: not a file entry; delete the line"
                ) from None

    def identity(self, name: str, path: str, *, is_written: bool = False) -> str:
        """The content of the file `name`, found at `path`; a missing file is known by its name
        alone.

        Args:
            name: the path as the row writes it.
            path: the path resolved.
            is_written: append what is new to the list on disk.

        Raises:
            MediaError: no such file, and no (or no single) content known for its name.
        """
        try:
            status = os.stat(path)
            key = (name, status.st_size, status.st_mtime_ns)
            if key in self._known:
                return self._known[key]
            found = file_identity(path)
        except OSError as error:
            known = self._by_name.get(name, set())
            if len(known) == 1:
                return next(iter(known))
            what = (
                f"not there, and {len(known)} files of that name are in the shards"
                if known
                else (f"cannot be opened ({error.strerror})")
            )
            raise MediaError("missing", path, what) from None
        with self._lock:
            self._remember(key, found)
            if is_written and self._path:
                entry = dict(zip(("name", "size", "mtime_ns"), key, strict=True), identity=found)
                jsonl.append(self._path, entry)
        return found

    def _remember(self, key: tuple[str, int, int], identity: str) -> None:
        self._known[key] = identity
        self._by_name.setdefault(key[0], set()).add(identity)


class ShardStore:
    """Reads a directory of shards; safe to use from many threads."""

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
        """What is known of an entry, without reading it."""
        return self._entries.get(key)

    def read(self, key: str) -> Media:
        """The medium of a key, its hash checked.

        Raises:
            KeyError: no such entry.
            ValueError: the shard is damaged; names the file, the key and the fix.
        """
        entry = self._entries[key]
        path = _shard_path(self.root, entry.shard)
        try:
            found, media = _parse(self._record(entry, path))
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            raise ValueError(_damage(path, key, " ".join(str(error).split()))) from None
        if found != key:
            raise ValueError(_damage(path, key, f"the record holds key {found[:40]}"))
        return media

    def _record(self, entry: Entry, path: pathlib.Path) -> bytes:
        with self._locks[entry.shard]:  # a reader has one position; seeking beats `read([i])` by 5
            reader = self._readers.pop(entry.shard, None) or ArrayRecordReader(
                str(path), _READ_OPTIONS
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
    """Appends entries to a directory of shards. One writer at a time; `add` may be called from any
    thread.

    Use it as a context manager: leaving it completes the open shard, also after an error.
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
        _features()  # TFDS replaces the import statement while it loads: before threads start
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
        record = _serialize(key, media, path)
        with self._lock:
            if key in self._keys:
                return
            if self._open is None:
                taken = {n for n, _ in _numbered(self.root, f"{NAME}-{SPLIT}.array_record-", "")}
                number = next(n for n in range(len(taken) + 1) if n not in taken)
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
        _write_tfds_metadata(self.root)


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


def _numbered(root: pathlib.Path, prefix: str, suffix: str) -> Iterator[tuple[int, pathlib.Path]]:
    for path in sorted(root.glob(f"{prefix}[0-9]*{suffix}")):
        digits = path.name.removeprefix(prefix).removesuffix(suffix)
        if digits.isdecimal():
            yield int(digits), path


def _damage(path: pathlib.Path, key: str, what: str) -> str:
    return (
        f"{path}: entry {key} is damaged ({what[:120]}); delete this shard file and run "
        "tools/preprocess_videos.py again, which writes only what is missing"
    )


def _repair(root: pathlib.Path) -> set[str]:
    """The keys that are there, once every shard has its index and every index its shard."""
    for number, path in _numbered(root, "index-", ".npz"):
        if not _shard_path(root, number).is_file():
            path.unlink()
    keys = set()
    for number, path in _numbered(root, f"{NAME}-{SPLIT}.array_record-", ""):
        index = root / f"index-{number:05d}.npz"
        if not index.is_file():  # killed between the two renames
            _write_index(root, number, list(_read_all(path)))
        keys.update(key for key, _ in _read_index(index, number))
    return keys


def _read_all(path: pathlib.Path) -> Iterator[tuple[str, Media]]:
    reader = ArrayRecordReader(str(path), _READ_OPTIONS)
    for i in range(reader.num_records()):
        yield _parse(reader.read([i])[0])


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


@functools.cache
def _features() -> Any:
    import tensorflow_datasets as tfds  # half a second; only writing needs it

    return tfds.features.FeaturesDict(
        {
            "key": tfds.features.Text(),
            "path": tfds.features.Text(),
            "frames": tfds.features.Tensor(
                shape=(None, None, None, 3), dtype=np.uint8, encoding="bytes"
            ),
            "timestamps": tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes"),
            "is_video": tfds.features.Scalar(np.bool_),
            "sample_fps": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
        }
    )


def _serialize(key: str, media: Media, path: str) -> bytes:
    fields = {**vars(media), "sample_fps": np.float64(media.sample_fps)}
    return _features().serialize_example({**fields, "key": key, "path": path})


def _parse(record: bytes) -> tuple[str, Media]:
    """The key and the medium of a serialized tf.train.Example; the frames are not copied.

    Wire format: Example{1: Features{1: {1: name, 2: Feature{1: bytes or 3: int64 list}}}}.
    """
    fields: dict[str, memoryview] = {}
    [features] = _messages(memoryview(record))
    for entry in _messages(features):
        name, feature = _messages(entry)
        [values] = _messages(feature)
        fields[bytes(name).decode()] = next(_messages(values))
    shape = list(_varints(fields["frames/shape"]))
    frames = np.frombuffer(fields["frames/value"], np.uint8).reshape(shape)
    timestamps = np.frombuffer(fields["timestamps"], np.float64)
    is_video = next(_varints(fields["is_video"])) == 1
    stored = fields.get("sample_fps")  # older records have none, and keys that nobody asks for
    sample_fps = float(np.frombuffer(stored, np.float64)[0]) if stored else 0.0
    return bytes(fields["key"]).decode(), Media(frames, timestamps, is_video, sample_fps)


def _messages(data: memoryview) -> Iterator[memoryview]:
    """The payloads of a protobuf message whose fields are all length-delimited."""
    while data:
        if data[0] & 7 != 2:
            raise ValueError("not an example")
        size, shift, at = 0, 0, 1
        while True:
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        yield data[at : at + size]
        data = data[at + size :]


def _varints(data: memoryview) -> Iterator[int]:
    """Packed non-negative integers.

    >>> list(_varints(memoryview(bytes([5, 0x80, 3]))))
    [5, 384]
    """
    value, shift = 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value, shift = 0, 0


def _write_tfds_metadata(root: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    shards = [path for _, path in _numbered(root, f"{NAME}-{SPLIT}.array_record-", "")]
    counts = [ArrayRecordReader(str(path), _READ_OPTIONS).num_records() for path in shards]
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(root),
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
        dataset_name=NAME,
        split=SPLIT,
        filetype_suffix="array_record",
    )
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=counts,
        num_bytes=sum(path.stat().st_size for path in shards),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features=_features(),
        split_infos=[split],
        filename_template=template,
        check_data=False,
        description="Decoded, sampled and resized video frames and images.",
    )


def _sync(path: pathlib.Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
