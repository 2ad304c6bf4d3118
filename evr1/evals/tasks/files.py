"""Reading the official files of benchmarks; what is missing or broken is told in one line."""

import contextlib
import contextvars
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"  # what `prepare` writes beside the official files

_read: contextvars.ContextVar[list[Path] | None] = contextvars.ContextVar("_read", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[Path]]:
    """Yields a list that gets the path of every file that is read inside, each time anew."""
    paths: list[Path] = []
    token = _read.set(paths)
    try:
        yield paths
    finally:
        _read.reset(token)


def _record(path: Path) -> None:
    if (paths := _read.get()) is not None:
        paths.append(path)


def find(folder: Path, *names: str) -> Path:
    """Returns the first of some paths under a folder that exists.

    Raises:
        ValueError: none does.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder} holds no {' or '.join(names)}; download it there")


def first(folder: Path, *names: str) -> str:
    """Returns the first of some names that exists under a folder; the very first if none does."""
    return next((name for name in names if (folder / name).exists()), names[0])


def optional(folder: Path, name: str) -> str:
    """Returns a name, or "" where its folder is there and holds no such file.

    Where the folder is not there, the name is returned: then all are missing, and that is told.
    """
    path = folder / name
    return "" if path.parent.exists() and not path.exists() else name


def rows(folder: Path, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where it stands, row) of the files under the first of some names that is there.

    Args:
        folder: of the benchmark.
        *names: paths under it of Parquet, JSON or JSONL files; "*" stands for any characters, and
            all files of such a name are read, in order.

    Raises:
        ValueError: there is none, or a file is broken.
    """
    globs = (sorted(path for path in folder.glob(n) if path.name != MANIFEST) for n in names)
    found = next(filter(None, globs), None)
    if found is None:
        raise ValueError(f"{folder} holds no {' or '.join(names)}; download it there")
    for path in found:
        read = {".parquet": read_parquet, ".jsonl": read_jsonl}.get(path.suffix, _read_list)
        for number, row in enumerate(read(path), 1):
            yield f"{path}: row {number}", row


def _read_list(path: Path) -> list[dict[str, Any]]:
    listed = read_json(path)
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise ValueError(f"{path}: it holds no list of objects; download it again")
    return listed


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        ValueError: it is no JSON.
    """
    _record(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; download it again") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSONL file.

    Raises:
        ValueError: a line is no JSON object.
    """
    _record(path)
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}; download it again") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: got {line[:40]!r}; a row is a JSON object")
            yield row


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file.

    Raises:
        ValueError: it is no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    _record(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: {error}; download it again") from None


def field(row: dict[str, Any], name: str, where: str) -> Any:
    """Returns a field of a row.

    Raises:
        ValueError: the row has none of this name.
    """
    if name not in row:
        raise ValueError(f"{where}: no field {name}; it has {', '.join(map(str, row))}")
    return row[name]


def check_letter(answer: Any, options: int, where: str) -> None:
    """Checks that an answer is the letter of an option.

    Raises:
        ValueError: it is not.
    """
    letters = string.ascii_uppercase[:options]
    if not (isinstance(answer, str) and len(answer) == 1 and answer in letters):
        raise ValueError(f"{where}: answer {answer!r} is none of {', '.join(letters) or 'nothing'}")


def without_letter(option: str) -> str:
    """Returns an option without the letter before it.

    >>> without_letter("A. Mr. Bean"), without_letter("(B) red"), without_letter("blue")
    ('Mr. Bean', 'red', 'blue')
    """
    return re.sub(r"^\s*\(?[A-Z][.):]\s*", "", option).strip()
