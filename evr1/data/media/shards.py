"""Decoded media kept on disk: uint8 frames in ArrayRecord files that are also a TFDS data set.

A directory holds `media-train.array_record-NNNNN` (one record an entry, one chunk a record, so the
container's 64-bit hash of each entry is checked whenever it is read), `index-NNNNN.npz` beside
each (key, size, timestamps: all that planning needs), `files.jsonl` (which file has which
content), `quarantine.jsonl`, and TFDS's metadata:
`tfds.builder_from_directory(DIR).as_data_source()` reads it without TensorFlow. Records are not
compressed: reading is 3 times faster than with zstd, which saves a quarter of the space. Where
`storage.json` says so, frames are JPEG or lossless WebP instead, see `evr1.data.media.storage`.

An entry is found by its content key, so it does not matter who asks or where the file lies. A
shard file appears by one rename when it is complete; what a killed run left half-written is
discarded by the next. A writer mends what it can: an index that is lost, damaged or of another
shard is made anew from the records, and a shard that does not open (cut off, overwritten) is set
aside as `damaged-NNNNN.array_record`, so that its media are decoded again, as are those of a shard
of which only the index is left.
"""

import contextlib
import dataclasses
import pathlib
import threading
import time

from evr1.data.media import patches, shard_files, shard_index, shard_readers, stage
from evr1.data.media import storage as storage_of
from evr1.data.media.place import Place
from evr1.data.media.tfds_format import media_features, parse, serialize, write_metadata
from evr1.data.records import Media

SHARD_BYTES = 256 * 2**20
SHARD_SECONDS = 300.0  # a shard is completed when it is so old, so that a kill loses no more
QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True)
class Entry:
    """The place of an entry, and its shape, known without reading it."""

    shard: int
    record: int
    shape: patches.Shape


class ShardStore:
    """A reader of a directory of shards; safe to use from many threads.

    Attributes:
        lost: a line for each shard file that is gone while its index is there.
    """

    def __init__(self, root: str | pathlib.Path | Place):
        """Reads the indexes.

        Raises:
            ValueError: no such directory, or a damaged index.
        """
        self._place, self._named = (root, root.named) if isinstance(root, Place) else (None, str)
        self.root = pathlib.Path(root)
        if not self.root.is_dir():
            raise ValueError(
                f"data.shards={str(self.root)!r}: no such directory; "
                "run evr1 preprocess --out, or leave data.shards empty"
            )
        self._counts: dict[int, int] = {}
        self._readers = shard_readers.Readers()
        self._bytes: dict[int, int] = {}
        tables: dict[int, shard_index.Table] = {}
        for shard, _ in shard_files.shards_in(self.root):
            index = shard_files.index_path(self.root, shard)
            if index.is_file():
                tables[shard], self._bytes[shard] = shard_index.read_table(index)
                self._counts[shard] = len(tables[shard].keys)
        self._catalog = shard_index.Catalog(tables)
        self.lost = [
            self._named(shard_files.lost(*shard)) for shard in shard_files.without_shard(self.root)
        ]

    def check(self) -> None:
        """Checks that every shard has its index, and that it is as long as the index says.

        Raises:
            ValueError: names the first that is not.
        """
        for shard, path in shard_files.shards_in(self.root):
            size = self._bytes.get(shard)
            if size is None:
                reason = f"its index {shard_files.index_path(self.root, shard).name} is gone"
            elif size != path.stat().st_size:
                reason = f"{path.stat().st_size} bytes, {size} in its index"
            else:
                continue
            raise ValueError(
                self._named(
                    f"{path}: {reason}; run evr1 preprocess again on this directory, which "
                )
                + "rebuilds the index, or sets the shard aside and decodes its media anew"
            )

    def __len__(self) -> int:
        return len(self._catalog)

    def __contains__(self, key: str) -> bool:
        return self._catalog.find(key) is not None

    def keys(self) -> list[str]:
        """Returns the keys of all media that are there, in order."""
        return self._catalog.keys()

    def find(self, key: str) -> Entry | None:
        """Returns the place and shape of a key's medium without reading it; None: no such key."""
        found = self._catalog.find(key)
        if found is None:
            return None
        row, shard, record = found
        return Entry(shard, record, self._catalog.shape(row))

    def read(self, key: str) -> Media:
        """Returns the medium of a key, its hash checked.

        Raises:
            KeyError: no such entry.
            ValueError: the shard is damaged, or cannot be read; names the file and the fix.
        """
        entry = self.find(key)
        if entry is None:
            raise KeyError(key)
        path = shard_files.shard_path(self.root, entry.shard)
        file = self._place.fetch(path) if self._place else path
        try:
            record = self._record(path, file, entry)
            stored_key, media = parse(record)
        except OSError as error:
            raise ValueError(self._named(shard_readers.tell(path, error))) from None
        except shard_files.UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise ValueError(self._named(_damage(path, key, reason))) from None
        if stored_key != key:
            reason = f"the record holds key {stored_key[:40]}"
            raise ValueError(self._named(_damage(path, key, reason)))
        return media

    def _record(self, path: pathlib.Path, file: pathlib.Path, entry: Entry) -> bytes:
        count = self._counts[entry.shard]
        try:
            return self._readers.read(file, entry.record, count)
        except FileNotFoundError:
            if self._place is None:
                raise
            # It had to make room for another one in this moment.
            return self._readers.read(self._place.fetch(path), entry.record, count)


class ShardWriter:
    """A writer that appends entries to a directory of shards, the only one there at a time.

    `add` may be called from any thread. Use it as a context manager: leaving it completes the open
    shard, also after an error.

    Attributes:
        storage: how pixels are kept.
        repairs: what was mended in the directory, a line each.
    """

    def __init__(
        self,
        root: str | pathlib.Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
        storage: str = "",
        target: stage.Target = stage.HERE,
    ):
        """Takes the directory's lock, discards half-written files and repairs indexes.

        Args:
            root: directory, made where it is missing.
            shard_bytes: a shard is completed when it has grown to this,
            shard_seconds: or when an entry comes so long after it was begun.
            storage: how pixels are kept, see `evr1.data.media.storage`; empty: as they are, or as
                the directory has them.
            target: where complete shards go.

        Raises:
            ValueError: another process writes here, or the directory keeps pixels otherwise.
        """
        media_features()  # TFDS replaces the import statement while it loads: before threads start
        self.root = pathlib.Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._shard_bytes, self._shard_seconds = shard_bytes, shard_seconds
        self._target = target
        self._lock = threading.Lock()
        self._dir_lock = contextlib.ExitStack()
        self._dir_lock.enter_context(shard_files.lock(self.root))
        for path in self.root.glob(".writing-*"):
            path.unlink()
        try:
            is_new = next(shard_files.shards_in(self.root), None) is None
            self.storage = storage_of.agree(self.root, storage, is_new=is_new)
            self._keys, self._shards, self.repairs = shard_files.repair(
                self.root, is_remote=target.is_remote
            )
        except BaseException:
            self._dir_lock.close()
            raise
        self._open: _OpenShard | None = None
        self._next = 0
        if self._shards:
            self._write_metadata()

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
        record = serialize(key, media, path, self.storage)
        self.add_record(key, shard_files.hollow(media), record)

    def add_record(self, key: str, media: Media, record: bytes) -> None:
        """Appends an entry that is serialized already, unless the key is there.

        Args:
            key: see `content_key`.
            media: without its pixels, see `shard_files.hollow`.
            record: see `serialize`.
        """
        with self._lock:
            if key in self._keys:
                return
            if self._open is None:
                while self._next in self._shards:
                    self._next += 1
                self._open = _OpenShard(self.root, self._next)
            self._open.add(key, media, record)
            self._keys.add(key)
            age = time.monotonic() - self._open.begun
            if self._open.size >= self._shard_bytes or age >= self._shard_seconds:
                self._complete()

    def give_up(self, key: str) -> None:
        """Nothing waits for a medium here: a shard is complete by its size."""

    def close(self) -> None:
        """Completes the open shard and gives the lock back."""
        with self._lock, self._dir_lock:
            if self._open is not None:
                self._complete()

    def _complete(self) -> None:
        assert self._open is not None
        number = self._open.number
        self._shards[number] = self._open.complete()
        self._open = None
        self._target.publish(number)
        self._write_metadata()

    def _write_metadata(self) -> None:
        shards = [self._shards[number] for number in sorted(self._shards)]
        counts, sizes = [count for count, _ in shards], [size for _, size in shards]
        write_metadata(self.root, counts, sum(sizes), self.storage)


class _OpenShard:
    def __init__(self, root: pathlib.Path, number: int):
        self._root, self.number = root, number
        self._path = root / f".writing-{number:05d}.array_record"
        self._writer = shard_files.RecordWriter(self._path)
        self._index: list[tuple[str, Media]] = []
        self.size = 0
        self.begun = time.monotonic()

    def add(self, key: str, media: Media, record: bytes) -> None:
        self._writer.write(record)
        self._index.append((key, media))
        self.size += len(record)

    def complete(self) -> tuple[int, int]:
        """Gives the shard its name and its index; returns its records and its bytes."""
        self._writer.close()
        shard_index.sync(self._path)
        path = self._path.rename(shard_files.shard_path(self._root, self.number))
        shard_index.write(shard_files.index_path(self._root, self.number), path, self._index)
        return len(self._index), path.stat().st_size


def _damage(path: pathlib.Path, key: str, reason: str) -> str:
    return (
        f"{path}: entry {key} is damaged ({reason[:120]}); delete this shard file and run "
        "evr1 preprocess again, which writes only what is missing"
    )
