"""Data files → validated rows. JSON, JSONL and Parquet in the schema of EasyVideoR1.

A bad row is refused with its file, its line, the field, what was found there and what to do about
it.
"""

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evr1 import problems
from evr1.data.records import Row

MARKERS = {"image": "<image>", "video": "<video>"}
REQUIRED = ("problem", "answer", "problem_type")
DATA_TYPES = ("video", "image", "text", "mixed")
_MARKER = re.compile("<(image|video)>")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell one alone, UTF-8 cannot
_NOT_SPACE = re.compile(r"\S")
_OWN_FIELDS = frozenset(
    ("problem", "answer", "problem_type", "data_type", "images", "videos", "options")
    + ("problem_id", "video_start", "video_end")
)


def load_rows(
    path: str | pathlib.Path,
    *,
    required: Sequence[str] = REQUIRED,
    canonical: Callable[[object], str] = problems.canonical,
) -> list[Row]:
    """Every row of a data file, in file order.

    Args:
        path: a .json (list of objects), .jsonl or .parquet file.
        required: fields that may not be missing. A missing `answer` becomes None, a missing
            `problem_type` "open-ended".
        canonical: the problem type that a row's spelling stands for.

    Raises:
        ValueError: the first bad row, as `file:line: field: got ...; fix`, and how many more there
            are.
        FileNotFoundError: no such file.
    """
    rows, bad = [], []
    for index, (line, fields) in enumerate(read_fields(path)):
        source = f"{path}:{line}"
        try:
            rows.append(parse_row(fields, index, source, required=required, canonical=canonical))
        except ValueError as error:
            bad.append(f"{source}: {error}")
    if bad:
        more = f" ({len(bad) - 1} more bad rows in this file)" if len(bad) > 1 else ""
        raise ValueError(bad[0] + more)
    if not rows:
        raise ValueError(f"{path}: holds no rows; give a file with at least one")
    return rows


def read_fields(path: str | pathlib.Path) -> Iterator[tuple[int, Any]]:
    """(line, row as it stands there) for every row of a data file.

    Args:
        path: a .json (list of objects), .jsonl or .parquet file.

    Raises:
        ValueError: the file cannot be read; names the line.
        FileNotFoundError: no such file.
    """
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
    return readers[path.suffix](path)


def parse_row(
    fields: Mapping[str, Any],
    index: int,
    source: str,
    *,
    required: Sequence[str] = REQUIRED,
    canonical: Callable[[object], str] = problems.canonical,
) -> Row:
    """One validated row; markers that are missing are put in front, images before videos.

    >>> parse_row(
    ...     {"problem": "How many?", "videos": "a.mp4", "answer": 3, "problem_type": "number"},
    ...     0,
    ...     "f:1",
    ... ).problem
    '<video>How many?'

    Args:
        fields: the row as read.
        index: its number in the file.
        source: "file:line".
        required: fields that may not be missing.
        canonical: the problem type that a row's spelling stands for.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"row: got {_short(fields)}; a row is an object with fields")
    for name in required:
        if fields.get(name) is None:
            raise ValueError(f"{name}: got nothing; every row needs {', '.join(required)}")
    images, videos = _paths(fields, "images"), _paths(fields, "videos")
    start, end = _clip(fields, videos)
    try:
        problem_type = canonical(_text(fields, "problem_type", "open-ended"))
    except ValueError as error:
        raise ValueError(f"problem_type: {error}") from None
    _check_offline(fields)
    return Row(
        index=index,
        problem=_with_markers(_text(fields, "problem"), {"image": images, "video": videos}),
        answer=fields.get("answer"),
        problem_type=problem_type,
        data_type=_data_type(fields, images, videos),
        images=images,
        videos=videos,
        options=_options(fields),
        problem_id=_problem_id(fields, index),
        video_start=start,
        video_end=end,
        source=source,
        extra={name: value for name, value in fields.items() if name not in _OWN_FIELDS},
    )


def media_refs(row: Row) -> tuple[tuple[str, str], ...]:
    """The row's media as ("image" or "video", path), in the order in which their markers stand in
    the problem."""
    paths = {"image": iter(row.images), "video": iter(row.videos)}
    return tuple((kind, next(paths[kind])) for kind in _MARKER.findall(row.problem))


def _with_markers(problem: str, media: Mapping[str, Sequence[str]]) -> str:
    found = _MARKER.findall(problem)
    front = ""
    for kind, paths in media.items():
        count = found.count(kind)
        if count == 0:
            front += MARKERS[kind] * len(paths)
        elif count != len(paths):
            raise ValueError(
                f"problem: got {count} {MARKERS[kind]} markers for {len(paths)} {kind}s; write one "
                f"marker per {kind}, or none at all to have them put in front"
            )
    return front + problem


def _text(fields: Mapping[str, Any], name: str, default: str = "") -> str:
    value = fields.get(name, default)
    value = default if value is None else value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: got {_short(value)}; give a non-empty string")
    if _SURROGATE.search(value):
        raise ValueError(f"{name}: got half a surrogate pair in {_short(value)}; write whole ones")
    return value


def _paths(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    if value is None or value == "":
        return ()
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, Sequence):
        raise ValueError(f"{name}: got {_short(value)}; give a path or a list of paths")
    for path in paths:
        if not isinstance(path, str) or not path.strip() or "\0" in path:
            raise ValueError(f"{name}: got {_short(path)}; every entry is the path of a file")
    return tuple(paths)


def _options(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("options")
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"options: got {_short(value)}; give a list of strings")
    for option in value:
        if not isinstance(option, str):
            raise ValueError(f"options: got {_short(option)}; every option is a string")
    return tuple(value)


def _problem_id(fields: Mapping[str, Any], index: int) -> str:
    value = fields.get("problem_id")
    if value is None:
        return str(index)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"problem_id: got {_short(value)}; give a string or a whole number")
    return str(value)


def _clip(fields: Mapping[str, Any], videos: Sequence[str]) -> tuple[float | None, float | None]:
    bounds = []
    for name in ("video_start", "video_end"):
        value = fields.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name}: got {_short(value)}; give seconds as a number")
            try:
                value = float(value)
            except OverflowError:  # JSON has whole numbers that no float holds
                value = math.inf
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name}: got {value}; give seconds from 0 upwards")
            if len(videos) != 1:
                raise ValueError(
                    f"{name}: got {value} with {len(videos)} videos; it needs exactly one video"
                )
        bounds.append(value)
    start, end = bounds
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"video_end: got {end} with video_start {start or 0.0}; it must be later")
    return start, end


def _data_type(fields: Mapping[str, Any], images: Sequence[str], videos: Sequence[str]) -> str:
    held = {(True, True): "mixed", (True, False): "image", (False, True): "video"}
    actual = held.get((bool(images), bool(videos)), "text")
    said = fields.get("data_type")
    if said is None or said == actual:
        return actual
    if said not in DATA_TYPES:
        raise ValueError(
            f"data_type: got {_short(said)}; give one of {', '.join(DATA_TYPES)} or leave it out"
        )
    if actual == "mixed" and said != "text":
        return actual
    raise ValueError(
        f"data_type: got {said!r} for a row with {len(images)} images and {len(videos)} videos; "
        f"write {actual!r} or leave it out"
    )


def _check_offline(fields: Mapping[str, Any]) -> None:
    if not fields.get("has_offline_trajectory"):
        return
    output = fields.get("offline_output")
    if not isinstance(output, str | list) or not output:
        raise ValueError(
            f"offline_output: got {_short(output)} where has_offline_trajectory is true; "
            "give the completion"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"got {name}; JSON has no such number, write null")


def _read_jsonl(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}:{number}: JSON: {error.msg} at column {error.colno}; "
                "write one object a line"
            ) from None
        except RecursionError:
            raise ValueError(f"{path}:{number}: JSON: nested too deeply; correct the row") from None
        except ValueError as error:
            raise ValueError(f"{path}:{number}: JSON: {error}") from None


def _read_json(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    """Decodes the list element by element, so that every row knows its line."""
    text = _read_text(path)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def skip_space(position: int) -> int:
        found = _NOT_SPACE.search(text, position)
        return found.start() if found else len(text)

    def wrong(position: int, what: str) -> ValueError:
        line = text.count("\n", 0, position) + 1
        return ValueError(f"{path}:{line}: JSON: {what}")

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
            what = f"{error.msg} at column {error.colno}; correct the file"
            raise wrong(error.pos, what) from None
        except RecursionError:
            raise wrong(position, "nested too deeply; correct the row") from None
        except ValueError as error:
            raise wrong(position, str(error)) from None
        yield line, value
        position = skip_space(end)
        if text[position : position + 1] == ",":
            position = skip_space(position + 1)
        elif text[position : position + 1] != "]":
            raise wrong(position, "expected ',' or ']' after a row; correct the file")
    if (end := skip_space(position + 1)) < len(text):
        raise wrong(end, "got more text after the list; keep all rows in one list")


def _read_parquet(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
    import pyarrow  # 0.2 s to import, and few files need it
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: Parquet: {error}; write the file again") from None
    yield from enumerate(table.to_pylist(), start=1)


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes().count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: text: not UTF-8; convert the file with iconv -t utf-8"
        ) from None
