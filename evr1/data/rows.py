"""Validated rows from data files: JSON, JSONL and Parquet in the schema of EasyVideoR1 and others.

A bad row is refused with its file, its line, the field, what was found there and what to do about
it.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evr1.data import dialects, entries, misspelt
from evr1.data.entries import short as _short
from evr1.data.media.cache import MediaCache
from evr1.data.readers import BadLine, read_fields, read_lines
from evr1.data.records import Medium, Row, Turn
from evr1.formats import problem_types, words

__all__ = ["load_rows", "media_refs", "offline_texts", "parse_row", "read_fields"]

MARKERS = {"image": "<image>", "video": "<video>"}
REQUIRED = ("problem", "answer", "problem_type")
DATA_TYPES = ("video", "image", "text", "mixed")
_MARKER = re.compile("<(image|video)>")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell one alone, UTF-8 cannot
_NOT_SPACE = re.compile(r"\S")
_OWN_FIELDS = frozenset(
    ("problem", "answer", "problem_type", "data_type", "images", "videos", "options")
    + ("problem_id", "video_start", "video_end", "system", "turns")
)
_SHOWN_BAD = 10
_CAPTIONS = ("caption", "captioning", "video description")


@dataclasses.dataclass(frozen=True)
class Schema:
    """How the rows of a file are read.

    Attributes:
        required: fields that may not be missing. A missing `answer` becomes None.
        canonical: the problem type that a row's spelling stands for.
        columns: our field -> theirs; see `dialects.adapt`.
        problem_type: of a row that states none and has no options; "": it must state one.
        max_bad_share: of a file's rows that may be bad, and are passed over.
        media_dir: put in front of relative paths, to see which of them are folders.
        media_cache: where media that stand in a file as bytes are written; "": the default.
        check: raises ValueError for a row that is bad for another reason; None: no other.
        complete: returns the rows of a file with what their media tell, or why one is bad; None: as
            they are. See `sizes.Sizes`.
    """

    required: Sequence[str] = REQUIRED
    canonical: Callable[[object], str] = problem_types.canonical
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    problem_type: str = "open-ended"
    max_bad_share: float = 0.0
    media_dir: str = ""
    media_cache: str = ""
    check: Callable[[Row], None] | None = None
    complete: Callable[[Sequence[Row], Callable[[str], None]], list[Row | ValueError]] | None = None


def load_rows(
    path: str | pathlib.Path,
    schema: Schema | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Returns every row of a data file, in file order.

    Args:
        path: a .json (list of objects), .jsonl or .parquet file.
        schema: how to read it.
        note: gets a line about what rows say that is read otherwise or not at all.

    Raises:
        ValueError: the first bad row, as `file:line: field: got ...; fix`, and how many more there
            are; or more bad rows than may be passed over.
        FileNotFoundError: no such file.
    """
    schema = schema or Schema()
    parsed: list[tuple[Row, dialects.Notes]] = []
    bad: dict[int, str] = {}
    names: dict[str, None] = {}
    notes = dialects.Notes()
    index = -1
    for index, (line, fields) in enumerate(read_lines(path, MediaCache(schema.media_cache))):
        source = f"{path}:{line}"
        if isinstance(fields, BadLine) and not schema.max_bad_share:
            raise fields
        try:
            if isinstance(fields, BadLine):
                raise ValueError(fields.reason)
            if isinstance(fields, Mapping):
                names.update(dict.fromkeys(map(str, fields)))
            of_row = dialects.Notes()
            parsed.append((parse_row(fields, index, source, schema, of_row), of_row))
        except ValueError as error:
            bad[index] = f"{source}: {error}"
    if index < 0:
        raise ValueError(f"{path}: holds no rows; give a file with at least one")
    dialects.check_columns(schema.columns, list(names), str(path))
    if schema.complete is not None and bad:  # before media are looked at
        _refuse(bad, index + 1, schema)
    found: Sequence[Row | ValueError] = [row for row, _ in parsed]
    if schema.complete is not None:
        found = schema.complete([row for row, _ in parsed], note)
    rows: list[Row] = []
    for row, (read, of_row) in zip(found, parsed, strict=True):
        try:
            if isinstance(row, ValueError):
                raise row
            if schema.check is not None:
                schema.check(row)
            rows.append(row)
            notes.update(of_row, read.source)
        except ValueError as error:
            bad[read.index] = f"{read.source}: {error}"
    _refuse(bad, index + 1, schema)
    for line in notes.lines():
        note(line)
    if bad:
        note(f"{path}: passed over as bad: {len(bad)} of {words.counted(index + 1, 'row')}")
        for each in sorted(bad)[:_SHOWN_BAD]:
            note(f"  passed over {bad[each]}")
    return rows


def _refuse(bad: Mapping[int, str], total: int, schema: Schema) -> None:
    """Raises ValueError where more rows than may be are bad, or all of them."""
    first = bad[min(bad)] if bad else ""
    if len(bad) > schema.max_bad_share * total:
        more = f" ({len(bad) - 1} more bad rows in this file)" if len(bad) > 1 else ""
        limit = f", over data.max_bad_rows_share={schema.max_bad_share:g}"
        raise ValueError(first + more + (limit if schema.max_bad_share else ""))
    if len(bad) == total:
        raise ValueError(f"{first} ({len(bad) - 1} more bad rows in this file, and no good one)")


def parse_row(
    fields: Mapping[str, Any],
    index: int,
    source: str,
    schema: Schema | None = None,
    notes: dialects.Notes | None = None,
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
        schema: how to read it.
        notes: counts what is read otherwise than it stands there.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    schema, notes = schema or Schema(), notes or dialects.Notes()
    if not isinstance(fields, Mapping):
        raise ValueError(f"row: got {_short(fields)}; a row is an object with fields")
    said = [str(name) for name, value in fields.items() if value is not None]
    fields = dialects.adapt(fields, schema.columns)
    near = dict(misspelt.fields_of(fields))
    _fill_type(fields, schema, notes)
    _fill_question(fields, notes)
    for name in schema.required:
        if fields.get(name) is None:
            raise ValueError(
                f"{name}: got nothing; every row needs {', '.join(schema.required)}; the row has "
                f"{', '.join(said[:12]) or 'no fields'}: {_meant(near)}what is called otherwise is "
                "named in data.columns"
            )
    for field, meant in near.items():
        notes.add(f"{field!r}, which is not read; did you mean {meant!r}?")
    images = entries.media("image", fields.get("images"), fields)
    videos = entries.media("video", fields.get("videos"), fields)
    entries.check_folders("image", images, schema.media_dir)
    entries.check_folders("video", videos, schema.media_dir)
    _note_media(fields, [*images, *videos], notes)
    start, end = _clip(fields, videos)
    try:
        problem_type = schema.canonical(_text(fields, "problem_type", "open-ended"))
    except ValueError as error:
        raise ValueError(f"problem_type: {error}") from None
    if problem_type == "multiple choice" and not fields.get("options"):
        notes.add("no options, of multiple choice: what the question spells is all it shows")
    if fields.get("has_offline_trajectory"):
        offline_texts(fields)
    turns = fields.get("turns", ())
    if any(_SURROGATE.search(turn.content) for turn in turns):
        raise ValueError("turns: got half a surrogate pair; write whole ones")
    return Row(
        index=index,
        problem=_with_markers(_text(fields, "problem"), turns, {"image": images, "video": videos}),
        answer=_without_nulls(fields.get("answer")),
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
        turns=turns,
    )


def _meant(near: Mapping[str, str]) -> str:
    """Returns a question about each field that is nearly one of ours."""
    return "".join(f"{name!r}: did you mean {meant!r}? " for name, meant in near.items())


def _fill_type(fields: dict[str, Any], schema: Schema, notes: dialects.Notes) -> None:
    if fields.get("problem_type") not in (None, ""):
        return
    has_options = bool(fields.get("options"))
    chosen = "multiple choice" if has_options else schema.problem_type
    if chosen:
        fields["problem_type"] = chosen
        why = "there are options" if has_options else "data.problem_type"
        notes.add(f"no problem_type; it is {chosen} ({why})")


def _fill_question(fields: dict[str, Any], notes: dialects.Notes) -> None:
    """Asks for the caption of a medium where a row holds one and no question."""
    kind = next((k for k in ("video", "image") if fields.get(f"{k}s")), "")
    is_caption = problem_types.plain_name(str(fields.get("problem_type"))) in _CAPTIONS
    if kind and is_caption and fields.get("problem") in (None, ""):
        fields["problem"] = f"Describe what the {kind} shows."
        notes.add(f"a caption and no question, which is {fields['problem']!r}")


def _note_media(fields: Mapping[str, Any], media: Sequence[Medium], notes: dialects.Notes) -> None:
    """Counts limits that a row has for its own media, and those that nobody reads."""
    limits = {
        name
        for item in media
        if not isinstance(item, str)
        for name, _ in item.limits
        if name != "fps" or entries.suffix(item.path)  # a folder's is the rate of its pictures
    }
    if limits:
        said = ", ".join(n for n in entries.VIDEO_LIMITS if n in limits)
        notes.add(f"{said} of their own, which goes before the run's budgets")
    listed = [*_listed(fields.get("images")), *_listed(fields.get("videos"))]
    said = [fields, *(entry for entry in listed if isinstance(entry, Mapping))]
    unread = [n for n in entries.UNREAD if any(each.get(n) not in (None, "", []) for each in said)]
    if fields.get("videos"):
        unread += [n for n in entries.SPANS if isinstance(fields.get(n), int | float)]
    if unread:
        notes.add(f"{', '.join(unread)}, which is not read")


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _without_nulls(value: Any) -> Any:
    """Returns an answer without the keys that Arrow fills in: an object's keys that hold null."""
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def user_texts(problem: str, turns: Sequence[Turn]) -> list[str]:
    """Returns the texts of the user's turns in order, the question last."""
    return [*(turn.content for turn in turns if turn.role == "user"), problem]


def media_refs(row: Row) -> tuple[tuple[str, Medium], ...]:
    """Returns the row's media as ("image" or "video", medium), in the order of their markers."""
    media = {"image": iter(row.images), "video": iter(row.videos)}
    markers = (
        kind for text in user_texts(row.problem, row.turns) for kind in _MARKER.findall(text)
    )
    return tuple((kind, next(media[kind])) for kind in markers)


def _with_markers(
    problem: str, turns: Sequence[Turn], media: Mapping[str, Sequence[Medium]]
) -> str:
    markers = [kind for text in user_texts(problem, turns) for kind in _MARKER.findall(text)]
    front = ""
    for kind, items in media.items():
        count = markers.count(kind)
        if count == 0 and not (turns and items):
            front += MARKERS[kind] * len(items)
        elif count != len(items):
            other = "video" if kind == "image" else "image"
            is_other = not items and count == len(media[other]) and not markers.count(other)
            fix = f"one marker per {kind}"
            fix = f"{MARKERS[other]} for each {other}" if is_other else fix
            raise ValueError(
                f"problem: got {words.counted(count, f'{MARKERS[kind]} marker')} for "
                + words.counted(len(items), kind)
                + (f" and {words.counted(count, other)}" if is_other else "")
                + f"; write {fix}"
                + ("" if turns else ", or none at all to have them put in front")
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
    if isinstance(value, float) and value.is_integer():  # pandas' whole numbers beside missing ones
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"problem_id: got {_short(value)}; give a string or a whole number")
    return str(value)


def _clip(fields: Mapping[str, Any], videos: Sequence[Medium]) -> tuple[float | None, float | None]:
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
                    f"{name}: got {value} with {words.counted(len(videos), 'video')}; it needs "
                    "exactly one"
                )
        bounds.append(value)
    start, end = bounds
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"video_end: got {end} with video_start {start or 0.0}; it must be later")
    return start, end


def _data_type(
    fields: Mapping[str, Any], images: Sequence[Medium], videos: Sequence[Medium]
) -> str:
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
        f"data_type: got {stated!r} for a row with {words.counted(len(images), 'image')} and "
        f"{words.counted(len(videos), 'video')}; write {actual!r} or leave it out"
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
