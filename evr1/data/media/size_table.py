"""The sizes of source media in a directory of shards, by content."""

import os
import pathlib
import threading

from evr1.data import jsonl
from evr1.formats.part import WHOLE, Part

FILE = "sizes.jsonl"


class SizeTable:
    """Width and height of files, upright, by `content.file_identity`; an object a line."""

    def __init__(self, root: str | os.PathLike[str], part: Part = WHOLE):
        """Reads the lists in `root`, those of all parts; a part appends to its own."""
        self._path = jsonl.path_of(pathlib.Path(root) / FILE, part)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int]] = {}
        for where, entry in jsonl.read_parts(pathlib.Path(root) / FILE):
            try:
                width, height = entry["size"]
                self._known[entry["identity"]] = int(width), int(height)
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{where}: not a size; delete the line") from None

    def of(self, identity: str) -> tuple[int, int] | None:
        """Returns width and height; None where they are not known."""
        return self._known.get(identity)

    def add(self, identity: str, path: str, shape: tuple[int, int]) -> None:
        """Appends a size that is new; `shape` is (height, width), and `path` for people."""
        size = shape[1], shape[0]
        with self._lock:
            if self._known.get(identity) == size:
                return
            self._known[identity] = size
            jsonl.append(self._path, {"identity": identity, "path": path, "size": size})
