"""The outermost parts of mp4, Matroska and AVI files, by which to tell what FFmpeg does not."""

import os
import pathlib
from collections.abc import Iterator

from evr1.data.media import files

_SEGMENT = b"\x18\x53\x80\x67"  # of Matroska: all but a short header


def fault(path: str | pathlib.Path) -> str:
    """Returns in words why a file that FFmpeg cannot open is no video; empty: that is not told."""
    if not files.is_file(path):
        return ""
    if not files.stamp(path).size:
        return "the file is empty (0 bytes)"
    names = [name for name, _ in _boxes(path)]
    if names[:1] == [b"ftyp"] and b"moov" not in names:
        return "cut off before its index (no moov box); copy it again"
    return ""


def has_fragments(path: str | pathlib.Path) -> bool:
    """Returns whether an mp4 has frames that its header does not count: a box `moof`."""
    return any(name == b"moof" for name, _ in _boxes(path))


def is_cut_fragmented(path: str | pathlib.Path) -> bool:
    """Returns whether an mp4 ends before its last outermost box does."""
    at, total = 0, files.stamp(path).size
    for _, size in _boxes(path):
        at += size if size >= 8 else 0
    return at > total


def is_cut_avi(path: str | pathlib.Path) -> bool:
    """Returns whether an AVI ends before one of its RIFF parts does, by its stated bytes."""
    at, total = 0, files.stamp(path).size
    with files.open_file(path) as file:
        while (head := file.read(8))[:4] == b"RIFF":
            size = int.from_bytes(head[4:], "little")
            if not size:  # a recording that nobody closed
                return False
            at += 8 + size + size % 2
            file.seek(at)
    return at > total + 1  # a last byte of padding may be missing


def is_cut_matroska(path: str | pathlib.Path) -> bool:
    """Returns whether a Matroska or WebM file ends before its segment does, by its stated bytes."""
    total = files.stamp(path).size
    at = 0
    with files.open_file(path) as file:
        while len(head := file.read(12)) == 12:  # an id of up to 4 bytes, a size of up to 8
            name, size, begin = _element(head)
            if size < 0 or name == _SEGMENT:
                return size >= 0 and at + begin + size > total
            at += begin + size
            file.seek(at)
    return False


def _element(head: bytes) -> tuple[bytes, int, int]:
    """Returns an EBML element's id, bytes (-1: not stated) and where they begin.

    >>> _element(bytes.fromhex("1a45dfa3 a3 42868101 000000"))
    (b'\\x1aE\\xdf\\xa3', 35, 5)

    Args:
        head: its first 12 bytes. An id is as long as the zero bits in front of it tell, and so is a
            size, of which the first one bit is no part.
    """
    id_bytes = 9 - head[0].bit_length()
    size_bytes = 9 - head[min(id_bytes, 4)].bit_length()
    if id_bytes > 4 or size_bytes > 8:  # no element
        return b"", -1, 0
    begin, largest = id_bytes + size_bytes, (1 << 7 * size_bytes) - 1
    size = int.from_bytes(head[id_bytes:begin]) & largest
    return head[:id_bytes], -1 if size == largest else size, begin


def _boxes(path: str | pathlib.Path) -> Iterator[tuple[bytes, int]]:
    """Yields the (name, bytes) of an mp4's outermost boxes; 0 bytes: it goes up to the end."""
    with files.open_file(path) as file:
        while len(head := file.read(16)) >= 8:
            size, name = int.from_bytes(head[:4]), head[4:8]
            if size == 1:  # a size of 64 bits follows the name
                size = int.from_bytes(head[8:])
            yield name, size
            if size < 8:  # the last one, up to the end, or no box at all
                return
            file.seek(size - len(head), os.SEEK_CUR)
