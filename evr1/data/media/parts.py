"""Shards whose places follow from their media's keys, so that many processes fill one directory.

The number of shards is agreed on once, by the first process that asks, and kept in `parts.json`. A
medium lies in the shard that its key says, a shard's records are in the order of their keys, and
part i of N writes the shards whose number is i modulo N. So whoever wrote a shard, alone or beside
others, wrote the same bytes, and a job may go on with another number of parts.

A shard is complete when each of its media is decoded or given up; it then appears by one rename,
and its index by another. A kill loses what is in the shards that were open: no more than one has
media, and those that were being decoded. One that is there already and lacks media (the rows are
more, or a file was mended) is written anew from its own records and the new ones.
"""

import contextlib
import fcntl
import pathlib
import threading
from collections import defaultdict
from collections.abc import Iterable

from evr1.data.media import manifest, shard_files, shard_index, shard_readers, stage
from evr1.data.media import storage as storage_of
from evr1.data.media.tfds_format import media_features, write_metadata
from evr1.data.records import Media
from evr1.formats.part import Part

MANIFEST = "parts.json"
MEDIA_PER_SHARD = 32
_COUNT = "shards"


def shard_of(key: str, count: int) -> int:
    """Returns the number of the shard, of `count`, that holds a key.

    >>> shard_of("0000001f" + 24 * "0", 8)
    7
    """
    return int(key[:8], 16) % count


def count_of(root: str | pathlib.Path) -> int:
    """Returns into how many shards a directory is cut; 0: it is not, or there is none.

    Raises:
        ValueError: its `parts.json` is damaged.
    """
    path, need = pathlib.Path(root) / MANIFEST, "the number of its shards"
    return manifest.read(path, _COUNT, lambda n: type(n) is int and n > 0, need) or 0


def agree(root: str | pathlib.Path, media: int, wanted: int = 0) -> int:
    """Returns into how many shards a directory is cut; decides it where nobody has.

    Args:
        root: directory of shards, made where it is missing.
        media: that are to be in it, so that a shard has some 32.
        wanted: this number instead; 0: any.

    Raises:
        ValueError: it is cut into another number than is wanted, or was written without parts.
    """
    root = pathlib.Path(root)
    root.mkdir(parents=True, exist_ok=True)
    if not count_of(root):
        if next(shard_files.shards_in(root), None):
            raise ValueError(
                f"{root}: its shards were written without parts; give another --out, or leave "
                "--part and --num_shards away"
            )
        count = wanted or max(1, -(-media // MEDIA_PER_SHARD))
        manifest.write_once(root / MANIFEST, _COUNT, count)
    count = count_of(root)
    if wanted and wanted != count:
        raise ValueError(
            f"{root} is cut into {count} shards, --num_shards={wanted}; leave the flag away, or "
            "give another --out"
        )
    return count


class PartWriter:
    """A writer of the shards of one part; safe to use from threads.

    Use it as a context manager: leaving it completes the open shards, also after an error.

    Attributes:
        storage: how pixels are kept.
        repairs: what was mended, a line each.
    """

    def __init__(
        self,
        root: str | pathlib.Path,
        count: int,
        part: Part,
        storage: str = "",
        target: stage.Target = stage.HERE,
    ):
        """Takes the part's lock and mends its shards.

        Args:
            root: directory of shards.
            count: shards that it is cut into, see `agree`.
            part: which of them to write.
            storage: see `shards.ShardWriter`.
            target: where complete shards go.

        Raises:
            ValueError: another process writes one of these shards.
        """
        media_features()  # TFDS replaces the import statement while it loads: before threads start
        self.root, self.count = pathlib.Path(root), count
        self._target = target
        self._mine = range(part.index, count, part.count)
        self._lock = threading.Lock()
        self._left: dict[int, set[str]] = defaultdict(set)
        self._open: dict[int, _Unsorted] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(shard_files.lock(self.root, is_shared=True))
            stack.enter_context(lock_shards(self.root, self._mine))
            is_new = next(shard_files.shards_in(self.root), None) is None
            self.storage = storage_of.agree(self.root, storage, is_new=is_new)
            for number in self._mine:
                for path in self.root.glob(f".writing-{number:05d}*"):
                    path.unlink()
            self._keys, _, self.repairs = shard_files.repair(
                self.root, self._mine.__contains__, is_remote=target.is_remote
            )
            self._locks = stack.pop_all()

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, kind: object, *_) -> None:
        with self._locks, self._lock:
            for number in list(self._open):
                self._complete(number)
            if kind is None:
                self._write_empty()
            self._target.refresh()
            self._write_metadata()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def is_mine(self, key: str) -> bool:
        """Returns whether the part writes the shard of a key."""
        return shard_of(key, self.count) in self._mine

    def expect(self, keys: Iterable[str]) -> None:
        """Says which media will be added or given up: a shard is complete when all of its are."""
        with self._lock:
            for key in keys:
                if key not in self._keys:
                    self._left[shard_of(key, self.count)].add(key)

    def add_record(self, key: str, media: Media, record: bytes) -> None:
        """Adds an entry, unless the key is there.

        Args:
            key: see `content_key`; one that was expected.
            media: without its pixels, see `shard_files.hollow`.
            record: see `tfds_format.serialize`.
        """
        del media  # the index is made from the records, once they are sorted
        number = shard_of(key, self.count)
        with self._lock:
            if key not in self._keys:
                if number not in self._open:
                    self._open[number] = _Unsorted(self.root, number)
                self._open[number].add(record)
                self._keys.add(key)
            self._settle(key)

    def give_up(self, key: str) -> None:
        """Says that a medium will not come."""
        with self._lock:
            self._settle(key)

    def _settle(self, key: str) -> None:
        number = shard_of(key, self.count)
        self._left[number].discard(key)
        if not self._left[number] and number in self._open:
            self._complete(number)

    def _complete(self, number: int) -> None:
        unsorted = self._open.pop(number)
        unsorted.writer.close()
        final, sources = (
            shard_files.shard_path(self.root, number),
            [(unsorted.path, unsorted.records)],
        )
        if final.is_file():
            self._target.fetch(final)
            reader = shard_readers.open_surely(final)
            sources.append((final, reader.num_records()))
            reader.close()
        _write_sorted(self.root, number, sources)
        unsorted.path.unlink()
        self._target.publish(number)

    def _write_empty(self) -> None:
        """Writes the shards that have no media: TFDS wants all numbers."""
        for number in self._mine:
            if not shard_files.shard_path(self.root, number).is_file():
                _write_sorted(self.root, number, [])
                self._target.publish(number)

    def _write_metadata(self) -> None:
        """Writes what TFDS reads, if every shard is there: the last part to end does it."""
        read = [shard_files.index_path(self.root, number) for number in range(self.count)]
        if all(path.is_file() for path in read):
            indexes = [shard_index.read_table(path) for path in read]
            counts, sizes = [len(table.keys) for table, _ in indexes], [size for _, size in indexes]
            write_metadata(self.root, counts, sum(sizes), self.storage)


class _Unsorted:
    """Records in the order in which they came."""

    def __init__(self, root: pathlib.Path, number: int):
        self.path = root / f".writing-{number:05d}-unsorted.array_record"
        self.writer = shard_files.RecordWriter(self.path)
        self.records = 0

    def add(self, record: bytes) -> None:
        self.writer.write(record)
        self.records += 1


def _write_sorted(root: pathlib.Path, number: int, sources: list[tuple[pathlib.Path, int]]) -> None:
    """Writes a shard and its index from the records of these (files, with so many)."""
    readers, places = shard_readers.Readers(), []
    for path, count in sources:
        for i, (key, media) in enumerate(shard_files.read_all(path, count)):
            if key != shard_index.LOST:
                places.append((key, media, path, i, count))
    places.sort(key=lambda place: place[0])
    temporary = root / f".writing-{number:05d}.array_record"
    writer = shard_files.RecordWriter(temporary)
    for _, _, path, i, count in places:
        writer.write(readers.read(path, i, count))
    writer.close()
    shard_index.sync(temporary)
    path = temporary.rename(shard_files.shard_path(root, number))
    entries = [(key, media) for key, media, *_ in places]
    shard_index.write(shard_files.index_path(root, number), path, entries)


@contextlib.contextmanager
def lock_shards(root: pathlib.Path, numbers: range):
    """Holds a byte of a file for each shard: parts of another number may overlap with these."""
    with (root / ".lock-parts").open("ab") as file:
        for number in numbers:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
            except OSError:
                raise ValueError(
                    f"{root}: another process writes shard {number}; wait for it, or give each "
                    "process its own --part"
                ) from None
        yield
