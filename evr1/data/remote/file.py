"""A file object on an object of a bucket, that fetches what is read and little more.

It fetches blocks of 128 KiB and keeps some of them, as demuxers seek to and fro. Where it is read
from front to back, half as many blocks as were read so are fetched at a time, so that a file is
read in few requests, and never much more of it than what was asked for.
"""

import collections
import io
import os

from evr1.data.remote.store import Store

BLOCK_BYTES = 128 * 2**10
_KEPT_BYTES = 32 * 2**20
_MOST_BLOCKS = 32  # at a time
# Blocks of the files that were closed last, as decoders open a file again and again.
_LAST: dict[tuple[str, int, int, int], collections.OrderedDict[int, bytes]] = {}
_LAST_FILES = 2


class Unreachable(OSError):
    """A bucket that does not answer, or not as it should: nothing is known of the file."""


class BucketFile(io.RawIOBase):
    """The object, opened for reading.

    Attributes:
        size: its bytes.
        modified_ns: nanoseconds since 1970.
        fetched: bytes that were fetched.
    """

    def __init__(self, url: str, block_bytes: int = BLOCK_BYTES):
        """Asks for its size.

        Raises:
            FileNotFoundError: there is none.
            Unreachable: nobody says.
        """
        folder, _, self._name = url.rpartition("/")
        self.url = url
        try:
            self._store = Store(folder)
            found = self._store.info(self._name)
        except ValueError as error:
            raise Unreachable(str(error)) from None
        self.size, self.modified_ns = found.size, int(found.modified * 1e9)
        self.fetched, self._at, self._block = 0, 0, block_bytes
        self._key = url, self.size, self.modified_ns, block_bytes
        self._blocks = _LAST.pop(self._key, None) or collections.OrderedDict[int, bytes]()
        self._next, self._streak = -1, 0  # after the last block, blocks fetched one after another

    def __repr__(self) -> str:
        return self.url

    def close(self) -> None:
        """Closes the file; its blocks are kept for who opens it next."""
        if not self.closed:
            _LAST[self._key] = self._blocks
            for key in list(_LAST)[:-_LAST_FILES]:
                _LAST.pop(key, None)
        super().close()

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position and returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Returns so many bytes, fewer at the end; all for -1."""
        end = self.size if size < 0 else min(self._at + size, self.size)
        parts = []
        while self._at < end:
            number, offset = divmod(self._at, self._block)
            data = self._get(number)[offset : offset + end - self._at]
            parts.append(data)
            self._at += len(data)
        return b"".join(parts)

    def readinto(self, buffer) -> int:
        """Reads into a buffer; returns how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _get(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._streak = self._streak if number == self._next else 0
        count = min(max(self._streak // 2, 1), _MOST_BLOCKS)
        start = number * self._block
        end = min(start + count * self._block, self.size)
        try:
            data = self._store.read(self._name, start, end)
        except ValueError as error:
            raise Unreachable(str(error)) from None
        if len(data) != end - start:
            raise Unreachable(f"{self.url}: shorter than {self.size} bytes")
        self.fetched += len(data)
        for i in range(0, len(data), self._block):
            self._blocks[number + i // self._block] = data[i : i + self._block]
        self._streak += count
        self._next = number + count
        while len(self._blocks) > max(_KEPT_BYTES // self._block, _MOST_BLOCKS):
            self._blocks.popitem(last=False)
        return self._blocks[number]
