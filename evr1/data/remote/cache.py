"""Whole files of buckets, kept on this machine: bounded in bytes, the least recently used go first.

A file lies under a hash of its address, size and content, so what was replaced in the bucket is
another file here. It appears by one rename, once its size and hash are right. All processes of a
machine share the folder: one fetches a file while the others wait for it, and a file that is
removed while somebody reads it lasts as long as that.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from evr1.data.media.cache import default_directory
from evr1.data.remote.store import Object, Store

_SHARE = 0.9  # of the free disk, where no bound is given
_READ_BYTES = 2**20


class Differs(ValueError):
    """An object that is not what its index says."""


class FileCache:
    """A folder of files of buckets; safe to use from threads and processes."""

    def __init__(self, directory: str = "", gib: float = 0.0):
        """Takes the folder; it is made when the first file comes.

        Args:
            directory: empty: evr1/buckets in the user's cache directory.
            gib: bound on what it holds; 0: nine tenths of what the disk has free for it.
        """
        place = pathlib.Path(directory) if directory else default_directory().with_name("buckets")
        self.root = place.absolute()
        self._bytes = int(gib * 2**30)

    def fetch(
        self, store: Store, each: Object, digest: str = "", *, is_fresh: bool = False
    ) -> pathlib.Path:
        """Returns the file of an object; fetches it where it is not there.

        Args:
            store: of the object.
            each: as it was listed.
            digest: blake2b of 16 bytes that it has to have; empty: only its size is known.
            is_fresh: fetch it in any case.

        Raises:
            Differs: the object is another one.
            ValueError: it cannot be fetched, or does not fit.
        """
        text = repr((store.address(each.name), each.size, digest or each.etag, each.modified))
        name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        path = self.root / "files" / f"{name}-{each.name}"
        if not is_fresh and _is_there(path, each.size):
            return path
        try:
            with locked(self.root / "locks" / name[:2]):
                if not is_fresh and _is_there(path, each.size):
                    return path
                self._make_room(each)
                self._fetch(store, each, digest, path)
        except FileNotFoundError as error:
            raise ValueError(f"{error}; it was there before: start again") from None
        except OSError as error:
            raise ValueError(
                f"data.shard_cache={self.root}: {error.strerror or error}; give a folder with room "
                f"for {store.address(each.name)} ({each.size / 1e6:.1f} MB), or a smaller bound in "
                "data.shard_cache_gib"
            ) from None
        return path

    def _fetch(self, store: Store, each: Object, digest: str, path: pathlib.Path) -> None:
        partial = path.with_suffix(".partial")
        try:
            store.download(each.name, each.size, partial)
            if digest and digest_of(partial) != digest:
                raise Differs(
                    f"{store.address(each.name)}: its bytes are not those of its index; if nobody "
                    "replaces it now, delete it and run evr1 preprocess again"
                )
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, each: Object) -> None:
        folder = self.root / "files"
        folder.mkdir(parents=True, exist_ok=True)
        with locked(self.root / "locks" / "room"):
            files = []
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # of a process that is faster
                    stat = path.stat()
                    files.append((stat.st_mtime_ns, stat.st_size, path))
            held = sum(size for _, size, _ in files)
            limit = self._bytes or int(_SHARE * (shutil.disk_usage(folder).free + held))
            if each.size > limit:
                raise ValueError(
                    f"data.shard_cache={self.root}: a bound of {limit / 2**30:.3g} GiB does not "
                    f"hold {each.name} ({each.size / 1e6:.1f} MB); raise data.shard_cache_gib, or "
                    "free the disk"
                )
            for _, size, path in sorted(files):
                if held + each.size <= limit:
                    break
                path.unlink(missing_ok=True)
                held -= size


def digest_of(path: pathlib.Path) -> str:
    """Returns the blake2b of a file, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock that is a file at `path`; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_there(path: pathlib.Path, size: int) -> bool:
    """Returns whether a file is there, which counts as a use of it."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
