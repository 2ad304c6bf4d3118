"""Files of scored rows: JSONL, JSON and Parquet in, JSONL out."""

import contextlib
import datetime
import decimal
import json
import math
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from evr1.formats import media_bytes

Row = dict[str, Any]
MAX_DEPTH = 64  # of a row: what can be read as JSON cannot always be written again


class Source(NamedTuple):
    """Rows to come, and how many, if known."""

    rows: Iterator[Row]
    total: int | None  # how many there are; None where that is not known


@contextlib.contextmanager
def reading(path: str) -> Iterator[Source]:
    """Opens the rows of a .json (a list), .parquet or JSONL file; "-" reads JSONL from stdin.

    Raises:
        ValueError: the file cannot be read as rows; names the line.
    """
    suffix = Path(path).suffix
    if path == "-":
        yield Source(_lines(sys.stdin, path), None)
    elif suffix == ".json":
        rows = _list(path)
        yield Source(iter(rows), len(rows))
    elif suffix == ".parquet":
        import pyarrow  # 0.2 s to import, and few files need it
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                yield Source(_batches(file), file.metadata.num_rows)
        except pyarrow.ArrowInvalid as e:
            raise ValueError(f"{path}: Parquet: {e}; write the file again") from e
    else:
        with open(path, encoding="utf-8-sig") as file:
            yield Source(_lines(file, path), _count_lines(path))


@contextlib.contextmanager
def writing(path: str) -> Iterator[IO[str]]:
    """Opens a file for rows, which appears, also over an old one, only when it is complete."""
    if path == "-":
        yield sys.stdout
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe cannot be replaced
        with target.open("w", encoding="utf-8", errors="replace") as file:
            yield file
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Parts of a job may end, and write their scores, at the same time.
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        # half a surrogate pair is no text, yet JSON can spell it
        with part.open("w", encoding="utf-8", errors="replace") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _lines(lines: IO[str], name: str) -> Iterator[Row]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _decode(line, f"{name}:{number}")
    except UnicodeDecodeError:
        raise ValueError(f"{name}: not UTF-8 after line {number}; convert it first") from None


def _decode(text: str, place: str) -> Row:
    try:
        row = json.loads(text)
    except RecursionError:
        raise ValueError(f"{place}: nested too deeply; correct the row") from None
    except ValueError as e:
        raise ValueError(f"{place}: {e}") from e
    return _object(row, place)


def _list(path: str) -> list[Row]:
    try:
        rows = json.loads(Path(path).read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8; convert it first") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; correct the file") from None
    except ValueError as e:
        raise ValueError(f"{path}: {e}; a .json file is a list of objects") from e
    if not isinstance(rows, list):
        raise ValueError(f"{path}: got no list; a .json file is a list of objects")
    return [_object(row, f"{path}, row {i}") for i, row in enumerate(rows, 1)]


def _batches(file: Any) -> Iterator[Row]:
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            yield {k: _plain(v) for k, v in row.items()}


def _plain(value: Any) -> Any:
    """Returns a value of Arrow as JSON would hold it.

    Nulls that Arrow fills into objects are left out; numbers that are none are null. Media that
    stand there as bytes are data: URLs, as evr1's rows may have them.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list) and value and all(isinstance(v, tuple) for v in value):  # a map
        value = dict(value)
    if isinstance(value, dict):
        data, name = value.get("bytes"), value.get("path")
        if isinstance(data, bytes) and (name is None or isinstance(name, str)):
            url = media_bytes.url_of(data, name or "")
            value = {k: v for k, v in value.items() if k != "bytes"} | {"path": url}
        plain = {str(k): _plain(v) for k, v in value.items()}
        return {k: v for k, v in plain.items() if v is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return media_bytes.url_of(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: got {repr(row)[:60]}; a row is a JSON object")
    level: list[Any] = [row]
    for _ in range(MAX_DEPTH):
        inner = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for values in inner for v in values if isinstance(v, dict | list)]
        if not level:
            return row
    raise ValueError(f"{place}: nested too deeply; correct the row")


def _count_lines(path: str) -> int | None:
    """Returns how many lines a file has; None for a pipe, which can be read only once."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
