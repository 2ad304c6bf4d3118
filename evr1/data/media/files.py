"""Media files, on this machine or in a bucket."""

import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

from evr1.config import urls
from evr1.data.errors import MediaError
from evr1.data.remote.file import BLOCK_BYTES, BucketFile, Unreachable

AnyPath = str | os.PathLike[str]


class Stamp(NamedTuple):
    """Size and time of a file."""

    size: int
    modified_ns: int


@contextlib.contextmanager
def source(path: AnyPath) -> Iterator[Any]:
    """Yields what decoders open: the path itself, or an open file of a bucket.

    Raises:
        FileNotFoundError: there is none, in a bucket.
        Unreachable: the bucket does not answer.
    """
    if not urls.is_bucket(str(path)):
        yield str(path)
        return
    with BucketFile(str(path)) as file:
        yield file


def open_file(path: AnyPath, block_bytes: int = BLOCK_BYTES) -> BinaryIO:
    """Returns a regular file, opened for reading.

    Args:
        path: or address.
        block_bytes: of what is fetched from a bucket.

    Raises:
        OSError: no such file, or not a regular one: to open a pipe would wait for its writer.
    """
    if urls.is_bucket(str(path)):
        return cast(BinaryIO, BucketFile(str(path), block_bytes))
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return open(path, "rb")


def stamp(path: AnyPath) -> Stamp:
    """Returns size and time of a file.

    Raises:
        OSError: there is none, or nobody says.
    """
    if urls.is_bucket(str(path)):
        file = BucketFile(str(path))
        return Stamp(file.size, file.modified_ns)
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)


def is_file(path: AnyPath) -> bool:
    """Returns whether a file is there."""
    if not urls.is_bucket(str(path)):
        return os.path.isfile(path)
    with contextlib.suppress(OSError):
        return stamp(path).size >= 0
    return False


@contextlib.contextmanager
def reached(path: AnyPath) -> Iterator[None]:
    """Gives the error of a bucket that does not answer its type.

    Raises:
        MediaError: it does not.
    """
    try:
        yield
    except Unreachable as error:
        raise MediaError("unreachable", str(path), str(error)) from None


def place(path: AnyPath) -> str:
    """Returns the absolute path of a file, or its address."""
    return str(path) if urls.is_bucket(str(path)) else os.path.abspath(path)


def paths(names: Sequence[str]) -> list[str | pathlib.Path]:
    """Returns paths; addresses stay texts, which a Path would fold."""
    return [name if urls.is_bucket(name) else pathlib.Path(name) for name in names]
