"""Writes out media that stand inside the annotation files of a benchmark."""

import os
from pathlib import Path, PurePath
from typing import NamedTuple

from evr1.evals.tasks.base import Task


class Unpacked(NamedTuple):
    """How many media were written, and how many were there before."""

    written: int
    kept: int

    def line(self) -> str:
        """Returns the numbers in words."""
        return f"unpacked: {self.written} media written, {self.kept} there before"


def unpack(task: Task, folder: Path) -> Unpacked:
    """Writes the media to where the samples look for them, each whole or not at all.

    A file that holds the same bytes is left alone.

    Args:
        task: the benchmark.
        folder: of its official files.

    Raises:
        ValueError: none stand inside its files, two of a name differ, or a name leads elsewhere.
    """
    if task.embedded is None:
        raise ValueError(
            f"--unpack: the media of {task.name} are files of their own; leave it out, and unpack "
            "archives where they lie"
        )
    written: set[str] = set()
    kept: set[str] = set()
    for name, content in task.embedded(folder):
        parts = PurePath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"{folder}: a medium is named {name}, outside of it; correct its row")
        path = folder / parts
        if path.is_file() and path.read_bytes() == content:
            kept.add(name)
        elif name in written | kept:
            raise ValueError(f"{folder}: two different media are named {name}; correct their rows")
        else:
            _write(path, content)
            written.add(name)
    return Unpacked(len(written), len(kept - written))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
