"""Files of JSON lines that grow: one writer, any number of readers, no line lost by a kill.

A kill at any moment costs at most the line that was being written: a reader drops a torn last line,
and a writer that goes on cuts it off.
"""

import fcntl
import json
from pathlib import Path
from typing import IO, NamedTuple, Self

_BLOCK = 1 << 16


class Lines(NamedTuple):
    """The whole lines of a file.

    Attributes:
        listed: (where it stands, line), without empty ones.
        is_torn: a torn last line was dropped.
    """

    listed: list[tuple[str, bytes]]
    is_torn: bool


def read(path: Path) -> Lines:
    """Reads a file of lines."""
    listed = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and not _is_whole(line):
                return Lines(listed, True)
            if line.strip():
                listed.append((f"{path}:{number}", line))
    return Lines(listed, False)


class Appender:
    """Appends lines to a file, each of them at once; one writer a file."""

    def __init__(self, path: Path):
        """Opens the file, which goes on behind its last whole line.

        Args:
            path: of a new file or of one to go on with.

        Raises:
            ValueError: another writer has it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"{path}: another job writes it; wait for it, or end it") from None
        except OSError:
            pass  # a file system without locks
        _mend(self._file)

    def add(self, line: str) -> None:
        """Writes an ASCII line; it is on its way to the disk when this returns."""
        self._file.write(line.encode("ascii") + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mend(file: IO[bytes]) -> None:
    """Ends a last line that is whole, and cuts off one that is torn."""
    size = start = file.seek(0, 2)
    tail = b""
    while start and b"\n" not in tail:
        stop, start = start, max(0, start - _BLOCK)
        file.seek(start)
        tail = file.read(stop - start) + tail
    torn = tail.rpartition(b"\n")[2]
    if not torn:
        return
    if _is_whole(torn):
        file.write(b"\n")
    else:
        file.truncate(size - len(torn))
    file.flush()


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
