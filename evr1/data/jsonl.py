"""JSON lines files that grow by a line at a time and survive a full disk or a killed process."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from evr1.formats.part import Part


def read(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Yields the (line number, value) of each line; the value of a line that is no JSON is None.

    A last line without its end was never finished, and is left out. No file: no lines.
    """
    if not path.is_file():
        return
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        yield number, value


def read_parts(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
    """Yields the (file:line, value) of each line of a file and of those of parts beside it."""
    for each in (path, *sorted(path.parent.glob(f"{path.stem}-part-*{path.suffix}"))):
        for number, value in read(each):
            yield f"{each}:{number}", value


def path_of(path: pathlib.Path, part: Part) -> pathlib.Path:
    """Returns the file that a part appends to; of a job that is not cut, the file itself.

    >>> str(path_of(pathlib.Path("out/files.jsonl"), Part(2, 8)))
    'out/files-part-2-of-8.jsonl'
    """
    if part.count == 1:
        return path
    return path.with_stem(f"{path.stem}-part-{part.number}-of-{part.count}")


def append(path: pathlib.Path, value: Any) -> None:
    """Appends a line; cuts off an unfinished one before it."""
    with path.open("ab+") as file:
        data = b""
        if size := file.tell():
            file.seek(size - 1)
            data = file.read()
        if data not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
        file.write(json.dumps(finite(value)).encode() + b"\n")


def finite(value: Any) -> Any:
    """Returns a value of JSON with null for numbers that are none, or infinite.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
