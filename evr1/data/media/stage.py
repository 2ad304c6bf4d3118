"""Directories of shards in buckets, written: shards are made on this machine and then uploaded.

A writer works in a folder of its own, which holds what `evr1.data.media.place` copies. A complete
shard is uploaded, then the lists that grew, then its index: without that nobody sees the shard. The
file here is then emptied. A kill loses what was not uploaded yet; the next writer removes a shard
without its index, and the folder of a process that is gone.
"""

import contextlib
import fcntl
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Protocol

from evr1.config import urls
from evr1.data.media import place, shard_files, shard_index
from evr1.data.media import storage as storage_of
from evr1.data.remote.cache import FileCache
from evr1.data.remote.lease import Lease
from evr1.data.remote.store import Store
from evr1.formats.part import WHOLE, Part

_ALIVE = ".alive"


class Target(Protocol):
    """Where complete shards go."""

    is_remote: bool

    def publish(self, number: int) -> None:
        """Takes over a complete shard and its index."""

    def refresh(self) -> None:
        """Sees what other processes have written."""

    def fetch(self, path: pathlib.Path) -> None:
        """Makes a shard that was written before readable."""


class Here:
    """The directory itself."""

    is_remote = False

    def publish(self, number: int) -> None:
        """The shard is where it belongs."""

    def refresh(self) -> None:
        """All is seen."""

    def fetch(self, path: pathlib.Path) -> None:
        """It is readable."""


HERE = Here()


class Stage:
    """A folder on this machine whose shards go to a bucket; see `staged`.

    Attributes:
        root: the folder.
        repairs: what was mended in the bucket, a line each.
    """

    is_remote = True

    def __init__(self, store: Store, root: pathlib.Path, lease: Lease, part: Part):
        """Copies what is in the bucket, and removes what a killed process left there.

        Args:
            store: the directory in the bucket.
            root: an empty folder.
            lease: on the part.
            part: whose shards are written.
        """
        self._store, self.root, self._lease, self._part = store, root, lease, part
        self.repairs: list[str] = []
        self._sizes: dict[str, tuple[int, int]] = {}  # of lists as the bucket has them
        self.refresh()
        self._mend()

    def refresh(self) -> None:
        """Sees what other processes have written; lists that grew here are uploaded before."""
        self._push()
        self._objects = dict(place.copy_small(self._store, self.root))
        self._sizes = {path.name: _state(path) for path in self._lists()}

    def _mend(self) -> None:
        """Removes shards and indexes that do not fit together; their media are decoded again."""
        prefix = shard_files.shard_path(self.root, 0).name.removesuffix("00000")
        for name in [n for n in self._objects if n.startswith(prefix)]:
            number = name.removeprefix(prefix)
            if not number.isdecimal() or not self._is_mine(int(number)):
                continue
            index = shard_files.index_path(self.root, int(number))
            try:
                fits = shard_index.read_table(index)[1] == self._objects[name].size
            except ValueError:
                fits = False
            if not fits:
                self._drop(index, self._store.address(name))
                self._remove(name)
        for shard, index in list(shard_files.without_shard(self.root, self._is_mine)):
            self._drop(index, self._store.address(shard.name))

    def _drop(self, index: pathlib.Path, shard: str) -> None:
        self.repairs.append(f"{shard}: not whole; its media are decoded again")
        self._remove(index.name)

    def _remove(self, name: str) -> None:
        self._store.remove(name)
        self._objects.pop(name, None)
        (self.root / name).unlink(missing_ok=True)

    def _is_mine(self, number: int) -> bool:
        return number % self._part.count == self._part.index

    def publish(self, number: int) -> None:
        """Uploads a complete shard, the lists, and last its index.

        Raises:
            ValueError: it cannot be uploaded, or the lease is lost.
        """
        shard = shard_files.shard_path(self.root, number)
        index = shard_files.index_path(self.root, number)
        self._lease.check()
        if index.name in self._objects:  # a shard that is replaced is not there meanwhile
            self._store.remove(index.name)
        self._store.upload(shard, shard.name)
        self._push()
        self._lease.check()
        self._store.upload(index, index.name)
        for path in (shard, index):
            self._objects[path.name] = self._store.info(path.name)
            if path == shard:
                place.hollow_out(path, self._objects[path.name].size)
            place.stamp(path, self._objects[path.name])

    def fetch(self, path: pathlib.Path) -> None:
        """Downloads a shard that was written before."""
        self._store.download(path.name, self._objects[path.name].size, path)

    def settle(self, name: str) -> None:
        """Makes a file that all writers agree on the bucket's, or the bucket's this one."""
        path = self.root / name
        if path.is_file() and not self._store.create(name, path.read_bytes()):
            path.write_bytes(self._store.read(name))
        self._sizes[name] = _state(path)

    def settle_storage(self, storage: str) -> None:
        """Raises ValueError if the bucket's shards keep pixels otherwise than is written here."""
        self.settle(storage_of.MANIFEST)
        storage_of.agree(self.root, storage, is_new=False)

    def finish(self) -> None:
        """Uploads the lists and what TFDS reads."""
        self._lease.check()
        self._push()

    def named(self, text: str) -> str:
        """Returns a message that names the bucket where it names the folder."""
        return text.replace(str(self.root), self._store.url)

    def _push(self) -> None:
        for path in self._lists():
            if _state(path) != self._sizes.get(path.name):
                state = _state(path)
                self._store.write(path.name, path.read_bytes())
                self._sizes[path.name] = state

    def _lists(self) -> list[pathlib.Path]:
        return [*self.root.glob("[!.]*.json"), *self.root.glob("[!.]*.jsonl")]


@contextlib.contextmanager
def staged(out: str, part: Part = WHOLE, cache: FileCache | None = None) -> Iterator[Stage | None]:
    """Yields the folder in which to write the shards of a bucket; None where `out` is no address.

    Args:
        out: directory or address.
        part: whose shards are written.
        cache: beside which the folder lies; None: the user's.

    Raises:
        ValueError: another process writes there, or the bucket cannot be reached.
    """
    if not urls.is_bucket(out):
        yield None
        return
    store = Store(out)
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(_folder((cache or FileCache()).root / "writing"))
        lease = Lease(store, part)
        stack.callback(lease.close)
        try:
            stage = Stage(store, root, lease, part)
            yield stage
            stage.finish()
        except (ValueError, OSError) as error:
            text = str(error).replace(str(root), store.url)
            if text == str(error) or f"{root}/.writing-" in str(error):  # this machine's disk
                raise
            raise ValueError(text) from None


@contextlib.contextmanager
def _folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder, removed at the end; removes those of processes that were killed."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.iterdir():
        with contextlib.suppress(OSError), (path / _ALIVE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    root = pathlib.Path(tempfile.mkdtemp(dir=parent))
    try:
        with (root / _ALIVE).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _state(path: pathlib.Path) -> tuple[int, int]:
    """Returns size and time of a file; zeros: there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
