"""The files of a directory of shards: their names, the lock, and what is mended in them."""

import contextlib
import dataclasses
import fcntl
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from evr1.data.media import shard_index, shard_readers
from evr1.data.media.tfds_format import NAME, SPLIT, parse
from evr1.data.records import Media

WRITE_OPTIONS = "group_size:1,uncompressed"
UNREADABLE = (RuntimeError, ValueError, LookupError)  # of a damaged record


def shard_path(root: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the file of a shard."""
    return root / f"{NAME}-{SPLIT}.array_record-{number:05d}"


def index_path(root: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the file of a shard's index."""
    return root / f"index-{number:05d}.npz"


def shards_in(root: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """Yields the (number, file) of every complete shard."""
    return _numbered(root, f"{NAME}-{SPLIT}.array_record-", "")


def _numbered(root: pathlib.Path, prefix: str, suffix: str) -> Iterator[tuple[int, pathlib.Path]]:
    for path in sorted(root.glob(f"{prefix}[0-9]*{suffix}")):
        digits = path.name.removeprefix(prefix).removesuffix(suffix)
        if digits.isdecimal():
            yield int(digits), path


def without_shard(
    root: pathlib.Path, is_mine: Callable[[int], bool] = lambda number: True
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Yields the (missing shard, index) of every index that is left alone."""
    for number, path in _numbered(root, "index-", ".npz"):
        if is_mine(number) and not shard_path(root, number).is_file():
            yield shard_path(root, number), path


def lost(shard: pathlib.Path, index: pathlib.Path) -> str:
    """Returns a line about a shard of which only the index is left."""
    try:
        media = f"the {len(shard_index.read(index)[0])} media"
    except ValueError:
        media = "the media"
    return f"{shard}: gone, and with it {media} that {index.name} names"


class RecordWriter:
    """A writer of a shard file; a disk that is full is one line."""

    def __init__(self, path: pathlib.Path):
        """Opens the file.

        Raises:
            ValueError: it cannot be written.
        """
        self._path = path
        with self._told():
            self._writer = ArrayRecordWriter(str(path), WRITE_OPTIONS)

    def write(self, record: bytes) -> None:
        """Appends a record.

        Raises:
            ValueError: it cannot be written.
        """
        with self._told():
            self._writer.write(record)

    def close(self) -> None:
        """Completes the file.

        Raises:
            ValueError: it cannot be written.
        """
        with self._told():
            self._writer.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            reason = " ".join(str(error).split()).partition("; writing")[0]
            raise ValueError(
                f"{self._path}: cannot be written ({reason}); give it a disk with room, and run "
                "again, which goes on"
            ) from None


@contextlib.contextmanager
def lock(root: pathlib.Path, *, is_shared: bool = False) -> Iterator[None]:
    """Holds a directory of shards: alone, or beside others that say that they share it.

    Raises:
        ValueError: another process writes here.
    """
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{root}: another process writes here; wait for it") from None
        yield


def repair(
    root: pathlib.Path,
    is_mine: Callable[[int], bool] = lambda number: True,
    *,
    is_remote: bool = False,
) -> tuple[set[str], dict[int, tuple[int, int]], list[str]]:
    """Makes every index match its shard.

    Args:
        root: directory of shards.
        is_mine: whether to look at a shard of this number.
        is_remote: only the indexes are here, and fit, see `evr1.data.media.stage`.

    Returns:
        The keys that are there, the (records, bytes) of each shard, and what was mended.

    Raises:
        ValueError: a shard cannot be read; nothing is done to it.
    """
    keys, repairs, shards = set[str](), list[str](), dict[int, tuple[int, int]]()
    for shard, index in list(without_shard(root, is_mine)):
        repairs.append(f"{lost(shard, index)}, and are decoded again")
        index.unlink()
    for number, path in [shard for shard in shards_in(root) if is_mine(shard[0])]:
        index = index_path(root, number)
        if is_remote:
            table, size = shard_index.read_table(index)
            keys.update(key.decode() for key in table.keys.tolist())
            shards[number] = len(table.keys), size
            continue
        try:
            reader = shard_readers.open_surely(path)
        except OSError as error:
            raise ValueError(shard_readers.tell(path, error)) from None
        except shard_readers.Damaged:
            aside = _set_aside(path)
            index.unlink(missing_ok=True)
            repairs.append(
                f"{path}: cut off, or no ArrayRecord file: set aside as {aside.name}; its media "
                "are decoded again"
            )
            continue
        count = reader.num_records()
        reader.close()
        reason, records = _misfit(index, path, count)
        if reason:
            entries = list(read_all(path, count))
            shard_index.write(index, path, entries)
            records = [key for key, _ in entries]
            gone = records.count(shard_index.LOST)
            damaged = f", {gone} of {len(records)} records are damaged" if gone else ""
            repairs.append(f"{path}: {reason}: rebuilt from the shard{damaged}")
        keys.update(records)
        shards[number] = count, path.stat().st_size
    return keys - {shard_index.LOST}, shards, repairs


def _misfit(index: pathlib.Path, shard: pathlib.Path, count: int) -> tuple[str, list[str]]:
    """Returns why an index is not that of a shard of so many records ("": it is), and its keys."""
    if not index.is_file():
        return f"{index.name} is gone", []  # or killed between the two renames
    try:
        records, size = shard_index.read(index)
    except ValueError:
        return f"{index.name} is damaged", []
    if len(records) != count or size != shard.stat().st_size:
        return f"{index.name} is of another file ({len(records)} records, {count} here)", []
    return "", [key for key, _ in records]


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    number = path.name.rpartition("-")[2]
    names = (path.with_name(f"damaged-{number}.array_record{n}") for n in ("", *range(1, 10**6)))
    return path.rename(next(name for name in names if not name.exists()))


def read_all(path: pathlib.Path, count: int) -> Iterator[tuple[str, Media]]:
    """Yields key and medium without its pixels of every record; `LOST` for one that is damaged."""
    readers = shard_readers.Readers()
    for i in range(count):
        try:
            yield parse(readers.read(path, i, count), is_outline=True)
        except UNREADABLE:
            yield shard_index.LOST, Media(np.zeros((0, 0, 0, 0), np.uint8), np.zeros(0), False)


def hollow(media: Media) -> Media:
    """Returns the medium without its pixels, but with their shape; it holds no memory of them."""
    return dataclasses.replace(media, frames=np.empty((*media.frames.shape[:3], 0), np.uint8))
