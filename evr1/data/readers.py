"""Rows as they stand in JSON, JSONL and Parquet files, with their lines; values are JSON's.

Parquet of Hugging Face's datasets says which columns are labels, JSON in texts, or media; what it
holds as bytes is written to the media cache, batch by batch.
"""

import datetime
import decimal
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from evr1.config import urls
from evr1.data.media.cache import MediaCache
from evr1.data.remote.cache import FileCache
from evr1.data.remote.store import Store
from evr1.formats.media_bytes import kind_of

_BATCH_ROWS, _BATCH_BYTES, _BUFFER_BYTES = 1024, 2**25, 2**20
_NOT_SPACE = re.compile(r"\S")


class BadLine(ValueError):
    """A row that cannot be read though those after it can.

    Attributes:
        line: of the file.
        reason: what is wrong.
    """

    def __init__(self, path: str | pathlib.Path, line: int, reason: str):
        super().__init__(f"{path}:{line}: {reason}")
        self.line, self.reason = line, reason


def read_fields(
    path: str | pathlib.Path, cache: MediaCache | None = None
) -> Iterator[tuple[int, Any]]:
    """Yields the (line, fields as they stand there) of every row of a data file.

    Args:
        path: a .json (list of objects), .jsonl or .parquet file.
        cache: where media that stand there as bytes are written; None: the default one.

    Raises:
        ValueError: the file cannot be read; names the line.
        FileNotFoundError: no such file.
    """
    for line, fields in read_lines(path, cache):
        if isinstance(fields, BadLine):
            raise fields
        yield line, fields


def read_lines(
    path: str | pathlib.Path, cache: MediaCache | None = None
) -> Iterator[tuple[int, Any | BadLine]]:
    """Does what `read_fields` does, but yields a BadLine in the place of a row that is none."""
    if urls.is_bucket(str(path)):
        return _of_bucket(str(path), cache)
    path = pathlib.Path(path)
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(
            f"{path}: got a {path.suffix or 'suffixless'} file; give one of {', '.join(readers)}"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such data file; correct the path (data.train, data.eval or --data)"
        )
    return readers[path.suffix](path, cache or MediaCache())


def _of_bucket(url: str, cache: MediaCache | None) -> Iterator[tuple[int, Any | BadLine]]:
    """Yields what `read_lines` does of a file in a bucket, from a copy of it."""
    folder, _, name = url.rpartition("/")
    store = Store(folder)
    try:
        copy = FileCache().fetch(store, store.info(name))
    except FileNotFoundError:
        raise FileNotFoundError(f"{url}: no such data file; correct the path") from None
    try:
        for line, fields in read_lines(copy, cache):
            is_bad = isinstance(fields, BadLine)
            yield line, BadLine(url, line, fields.reason) if is_bad else fields
    except ValueError as error:
        raise ValueError(str(error).replace(str(copy), url)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"got {name}; JSON has no such number, write null")


def _read_jsonl(path: pathlib.Path, cache: MediaCache) -> Iterator[tuple[int, Any | BadLine]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\n")
                if not line.strip():
                    continue
                yield number, _stored(json.loads(line, parse_constant=_refuse_constant), cache)
            except UnicodeDecodeError:
                reason = "text: not UTF-8; convert the file with iconv -t utf-8"
                yield number, BadLine(path, number, reason)
            except json.JSONDecodeError as error:
                reason = f"JSON: {error.msg} at column {error.colno}; write one object a line"
                yield number, BadLine(path, number, reason)
            except RecursionError:
                reason = "JSON: nested too deeply; correct the row"
                yield number, BadLine(path, number, reason)
            except ValueError as error:
                yield number, BadLine(path, number, f"JSON: {error}")


def _read_json(path: pathlib.Path, cache: MediaCache) -> Iterator[tuple[int, Any]]:
    """Yields the list's elements, decoded one by one, so that every row knows its line."""
    text = _read_text(path)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def skip_space(position: int) -> int:
        match = _NOT_SPACE.search(text, position)
        return match.start() if match else len(text)

    def wrong(position: int, reason: str) -> ValueError:
        line = text.count("\n", 0, position) + 1
        return ValueError(f"{path}:{line}: JSON: {reason}")

    position = skip_space(0)
    if text[position : position + 1] != "[":
        raise wrong(position, "got no list; a .json file is a list of objects")
    position = skip_space(position + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            reason = f"{error.msg} at column {error.colno}; correct the file"
            raise wrong(error.pos, reason) from None
        except RecursionError:
            raise wrong(position, "nested too deeply; correct the row") from None
        except ValueError as error:
            raise wrong(position, str(error)) from None
        yield line, _stored(value, cache)
        position = skip_space(end)
        if text[position : position + 1] == ",":
            position = skip_space(position + 1)
        elif text[position : position + 1] != "]":
            raise wrong(position, "expected ',' or ']' after a row; correct the file")
    if (end := skip_space(position + 1)) < len(text):
        raise wrong(end, "got more text after the list; keep all rows in one list")


def _read_parquet(path: pathlib.Path, cache: MediaCache) -> Iterator[tuple[int, Any]]:
    import pyarrow  # 0.2 s to import, and few files need it
    import pyarrow.parquet

    try:
        # Read as it goes, a row at a time where rows are large: they may hold whole videos.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            features = {
                field.name: {"_type": "Json"}
                for field in file.schema_arrow
                if getattr(field.type, "extension_name", "") == "arrow.json"
            }
            features |= _features(file.schema_arrow.metadata)
            number = 0
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for row in batch.to_pylist():
                    number += 1
                    row = {k: _featured(v, features.get(k)) for k, v in row.items()}
                    yield number, plain(row, cache)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: Parquet: {reason}; write the file again") from None


def _batch_rows(metadata: Any) -> int:
    """Returns how many rows of a Parquet file are read at a time."""
    groups = range(metadata.num_row_groups)
    total = sum(metadata.row_group(i).total_byte_size for i in groups)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * max(metadata.num_rows, 1) // max(total, 1)))


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """Returns what Hugging Face's datasets noted of each column."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _featured(value: Any, feature: Any) -> Any:
    """Returns a value with its labels as names and its JSON decoded."""
    if value is None or feature is None:
        return value
    if isinstance(feature, list):  # [feature]: a list of them, in older versions
        feature = {"_type": "List", "feature": feature[0]} if feature else None
        return _featured(value, feature)
    if not isinstance(feature, Mapping):
        return value
    kind = feature.get("_type")
    if not isinstance(kind, str):  # the fields of an object
        if isinstance(value, Mapping):
            return {k: _featured(v, feature.get(k)) for k, v in value.items()}
        return value
    if kind == "ClassLabel" and isinstance(value, int):
        names = feature.get("names") or []
        return names[value] if 0 <= value < len(names) else None
    if kind == "Json" and isinstance(value, str | bytes):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if kind in ("List", "LargeList", "Sequence"):
        inner = feature.get("feature")
        if isinstance(value, list):
            return [_featured(v, inner) for v in value]
        if isinstance(value, Mapping) and isinstance(inner, Mapping):  # a Sequence of objects
            return _in_rows({k: _featured(v, [inner.get(k)]) for k, v in value.items()})
    return value


def _in_rows(columns: Mapping[str, Any]) -> Any:
    """Returns the list of objects that older versions of datasets kept as an object of lists.

    >>> _in_rows({"from": ["human", "gpt"], "value": ["Why?", "So."]})
    [{'from': 'human', 'value': 'Why?'}, {'from': 'gpt', 'value': 'So.'}]
    """
    if len({len(v) if isinstance(v, list) else -1 for v in columns.values()} - {-1}) != 1:
        return dict(columns)
    full = {k: v for k, v in columns.items() if isinstance(v, list)}
    return [dict(zip(full, row, strict=True)) for row in zip(*full.values(), strict=True)]


def plain(value: Any, cache: MediaCache) -> Any:
    """Returns a value of Arrow as JSON would hold it.

    Arrow gives every object of a column all keys that one of them has: those without a value are
    left out, as is a number that is none (pandas' missing value).
    """
    if isinstance(value, str):
        return cache.put_url(value) if value[:5] == "data:" else value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return _of_bytes(value, "", cache)
    if isinstance(value, Mapping):
        return _object(value, cache)
    if isinstance(value, list | tuple):
        is_map = bool(value) and all(isinstance(v, tuple) for v in value)  # of (key, value)
        return _object(dict(value), cache) if is_map else [plain(v, cache) for v in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _object(value: Mapping[Any, Any], cache: MediaCache) -> dict[str, Any]:
    data, name = value.get("bytes"), value.get("path")
    if isinstance(data, bytes) and (name is None or isinstance(name, str)):
        path = _of_bytes(data, name or "", cache)
        value = {k: v for k, v in value.items() if k != "bytes"} | {"path": path}
    fields = {str(k): plain(v, cache) for k, v in value.items()}
    return {k: v for k, v in fields.items() if v is not None}


def _of_bytes(data: bytes, name: str, cache: MediaCache) -> str:
    """Returns the path of a medium, or the text that the bytes spell."""
    if not kind_of(data) and not name:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return cache.put(data, name)


def _stored(value: Any, cache: MediaCache) -> Any:
    """Returns a value of JSON whose data: URLs are files."""
    if isinstance(value, str):
        return cache.put_url(value) if value[:5] == "data:" else value
    if isinstance(value, dict):
        return {k: _stored(v, cache) for k, v in value.items()}
    if isinstance(value, list):
        return [_stored(v, cache) for v in value]
    return value


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: text: not UTF-8; convert the file with iconv -t utf-8"
        ) from None
