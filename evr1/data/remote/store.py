"""Objects in a bucket: what evr1 asks of S3 and Google Cloud Storage, and their errors in a line.

Everything goes through fsspec, whose s3fs and gcsfs are extras. Credentials and endpoints are found
as their own tools find them (AWS_PROFILE, AWS_ENDPOINT_URL, application default credentials).
"""

import importlib
import os
import pathlib
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from evr1.formats import extras

TRIES = 4
WAIT_S = 0.5  # before the second try, and twice as long before each further one
BLOCK_BYTES = 8 * 2**20
_WIDTH = 4  # blocks of one object that are fetched at a time
_MANY = 256  # small objects, likewise
_FAULTS = {  # what their libraries raise beside OSError
    "s3": (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
    ),
    "gs": (
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("aiohttp", "ClientError"),
    ),
}

T = TypeVar("T")


class Object(NamedTuple):
    """An object of a bucket; `modified` is in seconds since 1970, by the server's clock."""

    name: str
    size: int
    modified: float
    etag: str


class Store:
    """The objects right under an address such as `s3://bucket/folder`; safe to use from threads."""

    def __init__(self, url: str):
        """Loads what speaks to it; nothing is asked yet.

        Raises:
            ValueError: the extra is not installed, or there is no bucket in the address.
        """
        import fsspec  # a tenth of a second, which local files need not wait for

        self.url = url.rstrip("/")
        scheme, _, self._base = self.url.partition("://")
        if not self._base.partition("/")[0]:
            raise ValueError(f"{url}: no bucket in it; give {scheme}://BUCKET/FOLDER")
        try:
            self._fs: Any = fsspec.filesystem(scheme, use_listings_cache=False)
            modules = [(importlib.import_module(m), name) for m, name in _FAULTS[scheme]]
        except ImportError:
            raise ValueError(
                f"{url}: needs the extra {scheme_extra(scheme)}: "
                f"{extras.install(scheme_extra(scheme))}"
            ) from None
        self._faults = (OSError, *(getattr(module, name) for module, name in modules))

    def address(self, name: str) -> str:
        """Returns the address of an object."""
        return f"{self.url}/{name}"

    def list(self) -> dict[str, Object]:
        """Returns the objects by name, those in folders under it left out.

        Raises:
            ValueError: no such bucket, no rights, or no connection.
        """

        def ask() -> list[dict[str, Any]]:
            try:
                return self._fs.ls(self._base, detail=True, refresh=True)
            except FileNotFoundError as error:
                if "bucket" in str(error).removeprefix(self._base):
                    raise  # and not only nothing under this name
                return []

        found = [_object(entry) for entry in self._ask("", ask) if entry["type"] == "file"]
        return {each.name: each for each in found if each.name}

    def info(self, name: str = "") -> Object:
        """Returns what is known of an object.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be asked.
        """
        path = self._path(name)
        return _object(self._ask(name, lambda: self._fs.info(path, refresh=True), missing=True))

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Returns an object, or its bytes from `start` up to `end`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read.
        """
        path = self._path(name)
        return self._ask(name, lambda: self._fs.cat_file(path, start=start, end=end), missing=True)

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Returns small objects by name, many at a time.

        Raises:
            ValueError: one cannot be read.
        """
        left, found = list(names), dict[str, bytes]()
        while left:
            some, left = left[:_MANY], left[_MANY:]
            with futures.ThreadPoolExecutor(16) as threads:
                found |= dict(zip(some, threads.map(self.read, some), strict=True))
        return found

    def download(self, name: str, size: int, path: pathlib.Path) -> None:
        """Writes an object of so many bytes to a file, some blocks at a time.

        Raises:
            FileNotFoundError: there is none.
            OSError: the file cannot be written.
            ValueError: it cannot be read, or is shorter.
        """
        with path.open("wb") as file:
            os.truncate(file.fileno(), size)

            def fetch(start: int) -> None:
                end = min(start + BLOCK_BYTES, size)
                data = self.read(name, start, end)
                if len(data) != end - start:
                    raise ValueError(f"{self.address(name)}: shorter than {size} bytes; run again")
                while data:
                    written = os.pwrite(file.fileno(), data, start)
                    data, start = data[written:], start + written

            with futures.ThreadPoolExecutor(_WIDTH) as threads:
                for done in [threads.submit(fetch, i) for i in range(0, size, BLOCK_BYTES)]:
                    done.result()
            os.fsync(file.fileno())

    def upload(self, path: pathlib.Path, name: str) -> None:
        """Writes a file to an object, which appears, or is replaced, whole.

        Raises:
            ValueError: it cannot be written.
        """
        self._ask(name, lambda: self._fs.put_file(str(path), self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Writes an object, likewise.

        Raises:
            ValueError: it cannot be written.
        """
        self._ask(name, lambda: self._fs.pipe_file(self._path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object that is not there; returns whether it was not, or had these bytes.

        Of processes that do it at the same time one is told True: the server decides.

        Raises:
            ValueError: it cannot be written.
        """
        try:
            self._ask(
                name,
                lambda: self._fs.pipe_file(self._path(name), data, mode="create"),
                existing=True,
            )
        except FileExistsError:
            try:
                return self.read(name) == data  # the answer to a try before got lost
            except FileNotFoundError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Removes an object, if it is there.

        Raises:
            ValueError: it cannot be removed.
        """
        try:
            self._ask(name, lambda: self._fs.rm_file(self._path(name)), missing=True)
        except FileNotFoundError:
            return

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _ask(
        self, name: str, action: Callable[[], T], *, missing: bool = False, existing: bool = False
    ) -> T:
        """Returns what `action` does; tries again what may pass, and tells errors in a line."""
        for attempt in range(TRIES):
            try:
                return action()
            except FileNotFoundError as error:
                if missing and "bucket" not in str(error).removeprefix(self._path(name)):
                    raise FileNotFoundError(f"{self.address(name)}: not there") from None
                raise self._told(name, error, "look at the address") from None
            except FileExistsError as error:
                if existing:
                    raise
                raise self._told(name, error, "run again") from None
            except PermissionError as error:
                raise self._told(name, error, "look at the credentials and their rights") from None
            except self._faults as error:
                if type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError"):
                    raise self._told(name, error, "give credentials") from None
                if attempt == TRIES - 1:
                    fix = f"{TRIES} tries; look at the connection, and run again"
                    raise self._told(name, error, fix) from None
                time.sleep(WAIT_S * 2**attempt)
        raise AssertionError("the last try returns or raises")

    def _told(self, name: str, error: Exception, fix: str) -> ValueError:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        return ValueError(f"{self.address(name).rstrip('/')}: {reason}; {fix}")


def scheme_extra(scheme: str) -> str:
    """Returns the extra of setup.py that an address needs."""
    return {"s3": "s3", "gs": "gcs"}[scheme]


def _object(entry: dict[str, Any]) -> Object:
    stamp = entry.get("LastModified") or entry.get("mtime") or entry.get("updated")
    modified = 0.0 if stamp is None or isinstance(stamp, str) else stamp.timestamp()
    etag = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    return Object(entry["name"].rpartition("/")[2], int(entry["size"]), modified, etag)
