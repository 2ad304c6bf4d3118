"""The outermost boxes of an mp4, by which to tell what FFmpeg does not."""

import os
import pathlib
from collections.abc import Iterator


def fault(path: str | pathlib.Path) -> str:
    """Returns in words why a file that FFmpeg cannot open is no video; empty: that is not told."""
    if not os.path.isfile(path):
        return ""
    if not os.path.getsize(path):
        return "the file is empty (0 bytes)"
    names = [name for name, _ in _boxes(path)]
    if names[:1] == [b"ftyp"] and b"moov" not in names:
        return "cut off before its index (no moov box); copy it again"
    return ""


def has_fragments(path: str | pathlib.Path) -> bool:
    """Returns whether an mp4 has frames that its header does not count: a box `moof`."""
    return any(name == b"moof" for name, _ in _boxes(path))


def _boxes(path: str | pathlib.Path) -> Iterator[tuple[bytes, int]]:
    """Yields the (name, bytes) of an mp4's outermost boxes; 0 bytes: it goes up to the end."""
    with open(path, "rb") as file:
        while len(head := file.read(16)) >= 8:
            size, name = int.from_bytes(head[:4]), head[4:8]
            if size == 1:  # a size of 64 bits follows the name
                size = int.from_bytes(head[8:])
            yield name, size
            if size < 8:  # the last one, up to the end, or no box at all
                return
            file.seek(size - len(head), os.SEEK_CUR)
