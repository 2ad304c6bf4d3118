"""Directories of shards in buckets, read: small files copied to this machine, shards when needed.

The copy has every index and list, and for each shard an empty file of its size (sparse: it takes no
room), so that all that reads names, sizes and indexes does what it does on a local disk. The bytes
of a shard come from `evr1.data.remote.cache`. A shard whose index is not there is being written,
and is not seen.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping

from evr1.config import urls
from evr1.data.media import shard_files, shard_index
from evr1.data.remote.cache import FileCache, locked
from evr1.data.remote.lease import is_lease
from evr1.data.remote.store import Object, Store

_SMALL = re.compile(r"[^.].*\.(npz|jsonl?)")


class Place:
    """A directory of shards in a bucket; as a path, it is that of its copy on this machine."""

    def __init__(self, url: str, cache: FileCache | None = None):
        """Copies what is new.

        Args:
            url: of the directory.
            cache: of shard files; None: the user's.

        Raises:
            ValueError: it cannot be read, or holds no shards.
        """
        self._store, self._cache = Store(url), cache or FileCache()
        self._digests: dict[str, str] = {}
        self.url = self._store.url
        name = hashlib.blake2b(self.url.encode(), digest_size=16).hexdigest()
        self.local = self._cache.root / "places" / name
        try:
            with locked(self.local.with_suffix(".lock")):
                self._objects = copy_small(self._store, self.local)
        except OSError as error:
            raise ValueError(
                f"data.shard_cache={self._cache.root}: {error.strerror or error}; give a folder "
                f"with room for the indexes of {self.url}"
            ) from None
        if not any(_SMALL.fullmatch(name) for name in self._objects):
            raise ValueError(
                f"data.shards={self.url!r}: nothing there; run evr1 preprocess --out, or leave "
                "data.shards empty"
            )

    def __fspath__(self) -> str:
        return str(self.local)

    def __str__(self) -> str:
        return self.url

    def fetch(self, path: pathlib.Path, *, is_fresh: bool = False) -> pathlib.Path:
        """Returns a file with the bytes of the shard whose file in the copy is `path`.

        Args:
            path: of the copy.
            is_fresh: fetch it from the bucket in any case.

        Raises:
            ValueError: it cannot be had, see `FileCache.fetch`.
        """
        if path.name not in self._digests:
            index = shard_files.index_path(self.local, int(path.name.rpartition("-")[2]))
            self._digests[path.name] = shard_index.digest(index)
        each, digest = self._objects[path.name], self._digests[path.name]
        return self._cache.fetch(self._store, each, digest, is_fresh=is_fresh)

    def named(self, text: str) -> str:
        """Returns a message that names the bucket where it names the copy."""
        return text.replace(str(self.local), self.url)


def place_of(shards: str, cache: FileCache | None = None) -> "str | Place":
    """Returns the directory of shards that a path or address names.

    >>> place_of("data/shards")
    'data/shards'

    Args:
        shards: path or address.
        cache: of shard files; None: the user's.

    Raises:
        ValueError: see `Place`.
    """
    return Place(shards, cache) if urls.is_bucket(shards) else shards


def named(root: str | pathlib.Path | Place, text: str) -> str:
    """Returns a message that names a bucket where it names its copy."""
    return root.named(text) if isinstance(root, Place) else text


def copy_small(store: Store, local: pathlib.Path) -> Mapping[str, Object]:
    """Makes a folder hold what a bucket does, shards but as empty files; returns what is there.

    Files that have the size and time of their object are taken to be it.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the bucket cannot be read.
    """
    local.mkdir(parents=True, exist_ok=True)
    objects = {name: each for name, each in store.list().items() if not is_lease(name)}
    small = {name: each for name, each in objects.items() if _SMALL.fullmatch(name)}
    names = {shard_files.shard_path(local, n).name for n in _indexed(small)}
    shards = {name: each for name, each in objects.items() if name in names}
    for path in local.iterdir():
        if not path.name.startswith(".") and path.name not in small | shards:
            path.unlink()
    stale = [name for name, each in small.items() if not _is_same(local / name, each)]
    for name, data in store.read_many(stale).items():
        temporary = local / f".copying-{name}"
        temporary.write_bytes(data)
        stamp(temporary, small[name])
        temporary.replace(local / name)
    for name, each in shards.items():
        if not _is_same(local / name, each):
            hollow_out(local / name, each.size)
            stamp(local / name, each)
    return objects


def hollow_out(path: pathlib.Path, size: int) -> None:
    """Makes a file one of so many bytes that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


def stamp(path: pathlib.Path, each: Object) -> None:
    """Gives a file the time of its object."""
    os.utime(path, (each.modified, each.modified))


def _is_same(path: pathlib.Path, each: Object) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    return stat.st_size == each.size and abs(stat.st_mtime - each.modified) < 1e-3


def _indexed(names: Mapping[str, Object]) -> list[int]:
    found = (re.fullmatch(r"index-(\d+)\.npz", name) for name in names)
    return [int(each[1]) for each in found if each]
