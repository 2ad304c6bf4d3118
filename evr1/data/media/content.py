"""The identity of a media file's content, and the key under which its decoded frames are stored."""

import dataclasses
import hashlib
import json
import os
import pathlib
import threading
from typing import Any

from evr1.data import jsonl
from evr1.data.errors import MediaError
from evr1.data.media import files
from evr1.data.media.storage import JPEG, RAW
from evr1.data.records import Budgets, Geometry
from evr1.formats.part import WHOLE, Part

# raise the number whenever what is stored of a medium of that kind changes
DECODERS = {"image": "pyav-3", "video": "pyav-4"}
FILES = "files.jsonl"
_SAMPLE_BYTES = 65536


def file_identity(path: str | os.PathLike[str]) -> str:
    """Returns a name for a file's content, which a copy of the file shares.

    It is a hash of the file's size and of its first, middle and last 64 KiB.

    Not of all of it, because planning asks this of every clip and a corpus has terabytes; any
    other cut or encoding of a video changes its size or its header. Not of path and time, so that
    a copied corpus keeps its cache.

    Raises:
        OSError: no such file, or not a regular one: to open a pipe would wait for its writer.
    """
    with files.open_file(path, _SAMPLE_BYTES) as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
            file.seek(max(start, 0))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def content_key(
    identity: str,
    kind: str,
    budgets: Budgets,
    geometry: Geometry,
    start: float | None = None,
    end: float | None = None,
    storage: str = RAW,
) -> str:
    """Returns a hash of everything that a medium's decoded frames depend on, 32 hexadecimal digits.

    Args:
        identity: of the file, see `file_identity`.
        kind: image or video; a key holds only the budgets of its kind.
        budgets: how much is looked at.
        geometry: of the model.
        start: seconds, or None.
        end: seconds, or None.
        storage: how its pixels are kept; of account where that loses something.
    """
    limits, sizes = budgets.of(kind), dataclasses.asdict(geometry)
    parts: list[Any] = [DECODERS[kind], identity, kind, start, end, limits, sizes]
    parts += [JPEG] * (storage == JPEG)
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class FileTable:
    """The known contents of files by name, so that a file is hashed once and may be gone later.

    Names are paths as rows write them; a known size and time stand for the content.
    """

    def __init__(self, root: str | os.PathLike[str] | None, part: Part = WHOLE):
        """Reads the lists in `root`, those of all parts; a part appends to its own."""
        self._path = jsonl.path_of(pathlib.Path(root) / FILES, part) if root else None
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int], str] = {}
        self._by_name: dict[str, set[str]] = {}
        for where, e in jsonl.read_parts(pathlib.Path(root) / FILES) if root else ():
            try:
                self._remember((e["name"], e["size"], e["mtime_ns"]), e["identity"])
            except (KeyError, TypeError):
                raise ValueError(f"{where}: not a file entry; delete the line") from None

    def identity(self, name: str, path: str, *, is_written: bool = False) -> str:
        """Returns the identity of the file `name` at `path`; one that is gone is known by its name.

        Args:
            name: the path as the row writes it.
            path: the path resolved.
            is_written: append what is new to the list on disk.

        Raises:
            MediaError: no such file, and no (or no single) content known for its name.
        """
        try:
            with files.reached(path):
                size, modified_ns = files.stamp(path)
                key = name, size, modified_ns
                if key in self._known:
                    return self._known[key]
                identity = file_identity(path)
        except OSError as error:
            identities = self._by_name.get(name, set())
            if len(identities) == 1:
                return next(iter(identities))
            reason = (
                f"not there, and {len(identities)} files of that name are in the shards"
                if identities
                else (f"cannot be opened ({error.strerror or error})")
            )
            raise MediaError("missing", path, reason) from None
        with self._lock:
            self._remember(key, identity)
            if is_written and self._path:
                entry = dict(zip(("name", "size", "mtime_ns"), key, strict=True), identity=identity)
                jsonl.append(self._path, entry)
        return identity

    def _remember(self, key: tuple[str, int, int], identity: str) -> None:
        self._known[key] = identity
        self._by_name.setdefault(key[0], set()).add(identity)
