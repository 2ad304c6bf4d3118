"""The list of media that cannot be decoded, so that a later run does not try them again."""

import datetime
import os
import pathlib
import threading
from typing import Any

from evr1.config import urls
from evr1.data import jsonl
from evr1.data.errors import KINDS, MediaError
from evr1.data.media import files
from evr1.formats.part import WHOLE, Part

QUARANTINED = ("undecodable", "empty", "timeout", "crashed")  # faults of the file, not of the row


class Quarantine:
    """The list of files that could not be decoded; one that changes may be tried again.

    A file has changed when its size or time has, a folder when those of a file in it have. One JSON
    object a line: path, kind, reason, size, mtime_ns, time.
    """

    def __init__(self, path: str | os.PathLike[str], part: Part = WHOLE):
        """Reads the list at `path` and those of all parts; a part appends to its own."""
        self.path = jsonl.path_of(pathlib.Path(path), part)
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        for where, entry in jsonl.read_parts(pathlib.Path(path)):
            try:
                fields = ("path", "kind", "reason", "size", "mtime_ns", "limit_s")
                self._entries[entry["path"]] = {name: entry[name] for name in fields}
                float(entry["limit_s"])
                KINDS[entry["kind"]]  # one that exists
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ValueError(f"{where}: not a quarantine entry; delete the line") from None

    def __len__(self) -> int:
        return len(self._entries)

    def check(self, path: str, limit_s: float = 0.0) -> None:
        """Raises MediaError if the file failed before and has not changed since.

        Args:
            path: of the file.
            limit_s: under which it would be tried; one that took too long is under a larger limit.

        Raises:
            MediaError: it failed before and has not changed since.
        """
        entry = self._entries.get(files.place(path))
        if entry is None or (entry["kind"] == "timeout" and entry["limit_s"] < limit_s):
            return
        if (entry["size"], entry["mtime_ns"]) == _stamp(path):
            raise MediaError(entry["kind"], path, f"{entry['reason']} (in {self.path})")

    def add(self, error: MediaError, limit_s: float = 0.0) -> None:
        """Appends the file of an error, if the fault is the file's own.

        Args:
            error: what is wrong with it.
            limit_s: under which it was tried.
        """
        if error.kind in QUARANTINED:
            self._append(error, limit_s)

    def add_missing(self, error: MediaError) -> None:
        """Appends a file that is missing, once; it is tried again as soon as it is there."""
        if error.kind == "missing" and files.place(error.path) not in self._entries:
            self._append(error, 0.0)

    def _append(self, error: MediaError, limit_s: float) -> None:
        size, mtime_ns = _stamp(error.path)
        entry = {
            "path": files.place(error.path),
            "kind": error.kind,
            "reason": error.reason,
            "size": size,
            "mtime_ns": mtime_ns,
            "limit_s": limit_s,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        with self._lock:
            self._entries[entry["path"]] = entry
            self.path.parent.mkdir(parents=True, exist_ok=True)
            jsonl.append(self.path, entry)


def _stamp(path: str) -> tuple[int, int]:
    """Returns size and time of a file; of a folder, the sum and the latest of all in it."""
    try:
        if urls.is_bucket(path):
            return files.stamp(path)
        stats = [os.stat(path)]
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                stats += [entry.stat() for entry in entries]
    except OSError:
        return -1, -1
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
