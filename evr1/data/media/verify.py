"""Reads all that is in a directory of shards, and says what is not as it was written."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from concurrent import futures

from evr1.data.media import patches, shard_files, shard_index, shard_readers
from evr1.data.media.place import Place, named
from evr1.data.media.tfds_format import parse
from evr1.data.records import Media
from evr1.data.remote.cache import Differs
from evr1.parallel import leaving


@dataclasses.dataclass
class Report:
    """What was read, and what is wrong, a line each."""

    shards: int = 0
    records: int = 0
    record_bytes: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)


def verify(
    root: str | pathlib.Path | Place,
    *,
    workers: int = 4,
    on_progress: Callable[[Report, int], None] = lambda report, total: None,
) -> Report:
    """Reads every record of every shard; its hash, key and shape must be those of the index.

    A key that stands in two shards is a fault, too. Nothing is changed, and no lock is taken: what
    another process is writing is not looked at.

    Args:
        root: directory of shards; of one in a bucket, all shards are fetched.
        workers: threads that read; the hash is computed without the interpreter's lock.
        on_progress: called after each shard, with the number of all shards.

    Raises:
        ValueError: no such directory.
        OSError: a file cannot be read: nothing is known of it.
    """
    where, root = root, pathlib.Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such directory; give a directory of shards")
    numbered = list(shard_files.shards_in(root))
    lost = [shard_files.lost(*each) for each in shard_files.without_shard(root)]
    report = Report(faults=[named(where, line) for line in lost])
    seen: dict[str, str] = {}
    with futures.ThreadPoolExecutor(workers) as threads:
        try:
            found = threads.map(lambda shard: _verify_shard(where, *shard), numbered)
            for (_, path), (keys, size, faults) in zip(numbered, found, strict=True):
                leaving.sync_point()
                report.shards += 1
                report.records += len(keys)
                report.record_bytes += size
                report.faults += [named(where, fault) for fault in faults]
                for key in keys:
                    if key in seen:
                        report.faults.append(f"{path}: entry {key} is in {seen[key]}, too")
                    seen[key] = path.name
                on_progress(report, len(numbered))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return report


def _verify_shard(
    root: str | pathlib.Path | Place, number: int, path: pathlib.Path
) -> tuple[list[str], int, list[str]]:
    """Returns the keys that are as they were written, their bytes, and what is wrong."""
    index = shard_files.index_path(pathlib.Path(root), number)
    if not index.is_file():
        return [], 0, [f"{path}: its index {index.name} is gone"]
    try:
        entries, size = shard_index.read(index)
    except ValueError as error:
        return [], 0, [str(error)]
    if size != path.stat().st_size:
        return [], 0, [f"{path}: {path.stat().st_size} bytes, {size} in its index"]
    keys, read, faults, file = [], 0, [], path
    if isinstance(root, Place):
        try:
            file = root.fetch(path, is_fresh=True)
        except Differs as error:
            return [], 0, [str(error)]
    for key, fault, record_bytes in _verify_records(file, entries):
        read += record_bytes
        if fault:
            faults.append(f"{path}: entry {key or '(none)'} {fault}")
        else:
            keys.append(key)
    return keys, read, faults


def _verify_records(
    path: pathlib.Path, entries: list[tuple[str, patches.Shape]]
) -> Iterator[tuple[str, str, int]]:
    """Yields key, fault ("": none) and bytes of each record."""
    readers = shard_readers.Readers()
    for i, (key, shape) in enumerate(entries):
        if key == shard_index.LOST:
            yield key, "was damaged when the index was rebuilt", 0
            continue
        try:
            record = readers.read(path, i, len(entries))
            stored, media = parse(record, is_outline=True)
        except shard_files.UNREADABLE as error:
            yield key, f"is damaged ({' '.join(str(error).split())[:120]})", 0
            continue
        if stored != key:
            yield key, f"has the record of {stored[:40]}", len(record)
        elif _shape(media) != (shape.frames, shape.height, shape.width):
            yield key, f"has {_shape(media)} frames x height x width, not those of its index", 0
        else:
            yield key, "", len(record)


def _shape(media: Media) -> tuple[int, ...]:
    return media.frames.shape[:3]
