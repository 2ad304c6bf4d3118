"""Validated rows from data files: JSON, JSONL and Parquet in the schema of EasyVideoR1.

A bad row is refused with its file, its line, the field, what was found there and what to do about
it.
"""

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evr1.data.records import Row
from evr1.formats import problem_types

MARKERS = {"image": "<image>", "video": "<video>"}
REQUIRED = ("problem", "answer", "problem_type")
DATA_TYPES = ("video", "image", "text", "mixed")
_MARKER = re.compile("<(image|video)>")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell one alone, UTF-8 cannot
_NOT_SPACE = re.compile(r"\S")
_OWN_FIELDS = frozenset(
    ("problem", "answer", "problem_type", "data_type", "images", "videos", "options")
    + ("problem_id", "video_start", "video_end", "system")
)
# Turns that others write beside or instead of a problem; nobody would show them to the model.
_TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "history", "turns")
_MAYBE_TURNS = ("prompt", "chat")  # only where they are lists


def load_rows(
    path: str | pathlib.Path,
    *,
    required: Sequence[str] = REQUIRED,
    canonical: Callable[[object], str] = problem_types.canonical,
) -> list[Row]:
    """Returns every row of a data file, in file order.

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
    """Yields the (line, fields as they stand there) of every row of a data file.

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
    canonical: Callable[[object], str] = problem_types.canonical,
) -> Row:
    """Returns one validated row; markers that are missing are put in front, images before videos.

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
    _refuse_turns(fields)
    for name in required:
        if fields.get(name) is None:
            raise ValueError(f"{name}: got nothing; every row needs {', '.join(required)}")
    images, videos = _paths(fields, "images"), _paths(fields, "videos")
    start, end = _clip(fields, videos)
    try:
        problem_type = canonical(_text(fields, "problem_type", "open-ended"))
    except ValueError as error:
        raise ValueError(f"problem_type: {error}") from None
    if fields.get("has_offline_trajectory"):
        offline_texts(fields)
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
        system=None if fields.get("system") in (None, "") else _text(fields, "system"),
    )


def media_refs(row: Row) -> tuple[tuple[str, str], ...]:
    """Returns the row's media as ("image" or "video", path), in the order of their markers."""
    paths = {"image": iter(row.images), "video": iter(row.videos)}
    return tuple((kind, next(paths[kind])) for kind in _MARKER.findall(row.problem))


def _with_markers(problem: str, media: Mapping[str, Sequence[str]]) -> str:
    markers = _MARKER.findall(problem)
    front = ""
    for kind, paths in media.items():
        count = markers.count(kind)
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


def _refuse_turns(fields: Mapping[str, Any]) -> None:
    """Raises ValueError for turns that the model would not be shown."""
    for name in (*_TURNS, *_MAYBE_TURNS):
        value = fields.get(name)
        if value and (name in _TURNS or isinstance(value, list | tuple | dict)):
            raise ValueError(
                f"{name}: got {_short(value)}; the model is shown one question alone: put its text "
                f"into problem and a system turn's into system, and drop {name}"
            )
    if fields.get("system_prompt"):
        raise ValueError(
            f"system_prompt: got {_short(fields['system_prompt'])}; call the field system"
        )


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
    data_types = {(True, True): "mixed", (True, False): "image", (False, True): "video"}
    actual = data_types.get((bool(images), bool(videos)), "text")
    stated = fields.get("data_type")
    if stated is None or stated == actual:
        return actual
    if stated not in DATA_TYPES:
        raise ValueError(
            f"data_type: got {_short(stated)}; give one of {', '.join(DATA_TYPES)} or leave it out"
        )
    if actual == "mixed" and stated != "text":
        return actual
    raise ValueError(
        f"data_type: got {stated!r} for a row with {len(images)} images and {len(videos)} videos; "
        f"write {actual!r} or leave it out"
    )


def offline_texts(fields: Mapping[str, Any]) -> list[str]:
    """Returns the offline trajectories of a row: none, one or several.

    Args:
        fields: of the row, `offline_output` and `has_offline_trajectory` among them.

    Raises:
        ValueError: `offline_output` is no text or list of texts, or one of them is blank.
    """
    output, flag = fields.get("offline_output"), fields.get("has_offline_trajectory")
    if flag is False or (not flag and (output is None or output == "" or output == [])):
        return []
    outputs = [output] if isinstance(output, str) else output
    if isinstance(outputs, list) and outputs:
        usable = [text for text in outputs if isinstance(text, str) and text.strip()]
        if len(usable) == len(outputs):
            return usable
    raise ValueError(
        f"offline_output: got {_short(output)}; give a text or a list of texts, none of them "
        "blank, or has_offline_trajectory false"
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
