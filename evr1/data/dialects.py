"""Rows as other tools write them, put into the words of ours; docs/data.md has the table.

`adapt` renames, `rows.parse_row` checks. What could be read two ways is refused with the fix.
"""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from evr1.config.columns import IGNORE as IGNORED
from evr1.data import chats, entries
from evr1.data.records import Turn
from evr1.formats.words import counted

ALIASES: dict[str, tuple[tuple[str, ...], ...]] = {  # of each field, in the order they are tried
    "problem": (("question", "query", "prompt", "instruction"),),
    "answer": (
        ("solution", "ground_truth"),
        ("gt", "gt_answer", "correct_answer", "target", "label"),
    ),
    "options": (("choices", "candidates"),),
    "problem_id": (("id",), ("qid",), ("question_id",), ("uid",), ("idx",)),
    "system": (("system_prompt",),),
}
VIDEO_COLUMNS = ("video_path", "video_paths", "video_file", "video_files", "video")
IMAGE_COLUMNS = (
    "image_path",
    "image_paths",
    "image_file",
    "image_files",
    "img",
    "image",
    "img_path",
)
FRAME_COLUMNS = ("frames", "frame_paths", "video_frames")
CHATS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "prompt")
HISTORY = ("turns", "history")
OTHER_MEDIA = frozenset(  # that name media of other uses: the answer's, or files of other tools
    ("preprocessed_video", "mask", "masks", "mask_path", "mask_paths", "gt_mask", "mask_rle")
)
_FILLED_IN = re.compile("<(ref-object|bbox)>")
_ANSWER_TAGS = re.compile("</?answer>")
_DECODED = ("images", "videos", "options", "reward_model", "extra_info", *CHATS, *HISTORY)


def adapt(fields: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row in our own words: problem, answer, images, videos, system, turns and the rest.

    Args:
        fields: as they stand in the file.
        columns: `data.columns`: our field -> theirs, or a dotted path into it; "ignore" -> theirs,
            one or several.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    row, found = _worded(fields, columns)
    _media(row, found)
    _unread(row)
    return row


def words(fields: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `adapt` does, but leaves media as they are: to score a row, they are not read.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    return _worded(fields, columns)[0]


def _worded(
    fields: Mapping[str, Any], columns: Mapping[str, Any]
) -> tuple[dict[str, Any], chats.Chat | None]:
    row = {k: v for k, v in fields.items() if v is not None}
    _rename(row, columns)
    for name in _DECODED:
        if isinstance(row.get(name), str):
            value = entries.decoded(row[name])
            is_turns = isinstance(value, list) and all(isinstance(v, list | dict) for v in value)
            if is_turns or name not in (*CHATS, *HISTORY):
                row[name] = value
    _unwrap(row)
    found = _chat(row)
    _texts(row, found)
    return row, found


def check_columns(columns: Mapping[str, Any], names: Sequence[str], path: str) -> None:
    """Raises ValueError for a column of `data.columns` that no row has.

    Args:
        columns: as `adapt` takes them.
        names: the fields of all rows.
        path: of the file.
    """
    known = set(names)
    for ours, theirs in columns.items():
        for name in [theirs] if isinstance(theirs, str) else theirs:
            if name not in known and name.split(".")[0] not in known and ours != IGNORED:
                raise ValueError(
                    f"{path}: data.columns: no row has the field {name!r} that {ours} is to be "
                    f"read from; they have {', '.join(sorted(known)[:20])}"
                )


def _rename(row: dict[str, Any], columns: Mapping[str, Any]) -> None:
    values = {}
    for ours, theirs in columns.items():
        names = [theirs] if isinstance(theirs, str) else list(theirs)
        if ours == IGNORED:
            for name in names:
                row.pop(name, None)
            continue
        value = next((v for v in (_lookup(row, name) for name in names) if v is not None), None)
        if value is not None:
            values[ours] = value
    for ours, theirs in columns.items():
        if ours in values:
            for name in [theirs] if isinstance(theirs, str) else theirs:
                row.pop(name, None)
    row |= values


def _lookup(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = entries.decoded(value) if isinstance(value, str) else value
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _unwrap(row: dict[str, Any]) -> None:
    """Takes the answer out of verl's reward_model, and the id out of its extra_info."""
    model, extra = row.get("reward_model"), row.get("extra_info")
    if isinstance(model, Mapping) and row.get("answer") is None:
        row["answer"] = model.get("ground_truth")
    if isinstance(extra, Mapping) and isinstance(extra.get("index"), int | str):
        row.setdefault("problem_id", extra["index"])
    if row.get("answer") is None:
        row.pop("answer", None)


def _chat(row: dict[str, Any]) -> chats.Chat | None:
    """Takes the chat out of a row; puts what it holds into problem, answer, system and turns."""
    names = [n for n in CHATS if isinstance(row.get(n), list | dict) and row[n]]
    for name in [n for n in (*CHATS, *HISTORY) if row.get(n) in ([], {})]:
        del row[name]
    for name in CHATS:
        if isinstance(row.get(name), str) and name not in ("prompt", "chat"):
            raise ValueError(f"{name}: got {entries.short(row[name])}; give a list of turns")
    for name in names:
        if row.get("problem") is not None:
            raise ValueError(
                f"{name}: got {entries.short(row[name])} beside problem; one of them is the "
                f"question: drop the other, or name it in data.columns as {IGNORED}"
            )
    if len(names) > 1:
        raise ValueError(
            f"{names[1]}: got it beside {names[0]}; drop one, or name it in data.columns as "
            f"{IGNORED}"
        )
    chat = chats.read(names[0], row.pop(names[0])) if names else None
    if chat is not None:
        row["problem"] = chat.problem
        if chat.system is not None:
            if row.get("system") not in (None, "", chat.system):
                raise ValueError(
                    f"system: got {entries.short(row['system'])} beside another in the chat; drop "
                    "one"
                )
            row["system"] = chat.system
    turns: tuple[Turn, ...] = chat.turns if chat else ()
    for name in HISTORY:
        if row.get(name):
            if not isinstance(row[name], list | tuple) or turns:
                raise ValueError(
                    f"{name}: got {entries.short(row[name])}; give earlier turns once, as pairs of "
                    "question and answer"
                )
            turns = chats.pairs(name, row.pop(name))
    row.pop("turns", None)
    if turns:
        row["turns"] = turns
    return chat


def _texts(row: dict[str, Any], chat: chats.Chat | None) -> None:
    """Fills problem, answer, options, problem_id and system from what others call them."""
    if row.get("problem") is None:
        if "query" in row and "response" in row:  # ms-swift, without messages
            row.setdefault("answer", row["response"])
        words = row.get("instruction"), row.get("input") or ""
        if all(isinstance(w, str) for w in words):  # Alpaca
            row["problem"] = "\n".join(filter(None, words))
            if row.get("output") is not None:
                row.setdefault("answer", row["output"])
    for ours, tiers in ALIASES.items():
        if row.get(ours) in (None, "", []):
            value = _first(row, ours, tiers)
            if value is not None:
                row[ours] = value
    if row.get("answer") is None and chat is not None and chat.answer is not None:
        row["answer"] = chat.answer
    sentence, span = row.get("sentence"), row.get("timestamp")
    if row.get("problem") is None and isinstance(sentence, str) and isinstance(span, list):
        row["problem"] = f'When in the video does this happen: "{sentence}"'  # Time-R1
        row.setdefault("answer", span)
        row.setdefault("problem_type", "temporal grounding")
    told = (row.get("problem"), row.get("answer"))
    if row.get("objects") and any(isinstance(t, str) and _FILLED_IN.search(t) for t in told):
        raise ValueError(
            f"objects: got {entries.short(row['objects'])}, which ms-swift writes into "
            "<ref-object> and <bbox>; write the names and boxes out there"
        )
    if isinstance(row.get("options"), Mapping):  # {"A": "a dog", ...}
        row["options"] = [f"{k}. {v}" for k, v in row["options"].items() if v is not None]


def _first(row: Mapping[str, Any], ours: str, tiers: Sequence[Sequence[str]]) -> Any:
    for tier in tiers:
        named = {n: row[n] for n in tier if row.get(n) not in (None, "", [])}
        if ours in ("problem", "system"):
            named = {n: v for n, v in named.items() if isinstance(v, str)}
        values = list(named.values())
        if any(_bare(v) != _bare(values[0]) for v in values):
            names = list(named)
            example = json.dumps({ours: names[0]})
            raise ValueError(
                f"{ours}: got nothing, and {' and '.join(names)} differ; name the one in "
                f"data.columns, e.g. {example}"
            )
        if values:
            return values[0]
    return None


def _bare(value: Any) -> Any:
    """Returns what two spellings of an answer have in common: "<answer>3</answer>", "3" and 3."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    return _ANSWER_TAGS.sub("", str(value)).strip()


def _media(row: dict[str, Any], chat: chats.Chat | None) -> None:
    """Fills images and videos with the entries of all columns that hold them."""
    columns = {"image": IMAGE_COLUMNS, "video": VIDEO_COLUMNS}
    kind = _kind_of_path(row)
    if kind:
        columns[kind] = ("path", *columns[kind])
    frames = [n for n in FRAME_COLUMNS if entries.looks_like_media(row.get(n))]
    for kind in ("image", "video"):
        value = _column(row, kind, columns[kind])
        if kind == "video" and frames and value is None:
            value = [list(row.pop(frames[0]))]
        shown = (chat.images if kind == "image" else chat.videos) if chat else ()
        if any(e is not None for e in shown):
            value = _in_chat(kind, shown, value)
        if value is not None:
            row[f"{kind}s"] = value


def _kind_of_path(row: Mapping[str, Any]) -> str:
    """Returns what the field path names, image or video; empty where it names neither."""
    path, kind = row.get("path"), row.get("data_type")
    if isinstance(path, str) and entries.looks_like_media(path):
        is_video = entries.suffix(path) in entries.VIDEOS
        return kind if kind in ("image", "video") else "video" if is_video else "image"
    is_folder = isinstance(path, str) and bool(path) and not entries.suffix(path)
    alone = not row.get("images") and not row.get("videos")
    return kind if kind in ("image", "video") and is_folder and alone else ""


def _column(row: dict[str, Any], kind: str, aliases: Sequence[str]) -> Any:
    """Returns the value of the column that holds the media of a kind; drops its other names."""
    ours = f"{kind}s"
    values = {n: row[n] for n in (ours, *aliases) if row.get(n) not in (None, "", [])}
    if any(map(entries.looks_like_media, values.values())):  # others may be ids
        values = {n: v for n, v in values.items() if n == ours or entries.looks_like_media(v)}
    if not values:
        return None
    name, value = next(iter(values.items()))
    stems = _stems(kind, value)
    for other, same in values.items():
        if other != name and _stems(kind, same) != stems:
            raise ValueError(
                f"{other}: got {entries.short(same)} beside {name} {entries.short(value)}; name "
                f"the one to read in data.columns, e.g. {json.dumps({ours: other})}, or drop it"
            )
        row.pop(other)
    return value


def _stems(kind: str, value: Any) -> list[str]:
    value = entries.decoded(value) if isinstance(value, str) else value
    values = value if isinstance(value, list | tuple) else [value]
    stems = []
    for entry in values:
        if isinstance(entry, Mapping):
            entry = next((v for v in entry.values() if isinstance(v, str)), "")
        stems.append(entries.stem(entry) if isinstance(entry, str) else repr(entry))
    return stems


def _in_chat(kind: str, shown: Sequence[Any], value: Any) -> list[Any]:
    """Returns the media of a chat in order: those that stand in it, and the column's between."""
    listed = [value] if isinstance(value, str | Mapping) else list(value or ())
    open_places = sum(e is None for e in shown)
    if len(listed) != open_places:
        raise ValueError(
            f"{kind}s: got {len(listed)} for {open_places} places of the chat that do not say "
            f"which; give one for each, or the {kind} in each place"
        )
    rest = iter(listed)
    return [next(rest) if e is None else e for e in shown]


def _unread(row: Mapping[str, Any]) -> None:
    """Raises ValueError for a field that names media and is not read: it would train blind."""
    read = {entries.stem(p) for name in ("images", "videos") for p in _paths(row.get(name))}
    is_blind = not read and row.get("data_type") != "text"
    for name, value in row.items():
        if name in ("images", "videos", "problem", "answer", "options", "turns", "system"):
            continue
        seems_so = is_blind and entries.is_named_so(name) and not _is_none(value)
        if name in OTHER_MEDIA or not (seems_so or entries.looks_like_media(value)):
            continue
        paths = _paths(value)
        if paths and read.issuperset(map(entries.stem, paths)):
            continue  # another name of what is shown
        is_picture = any(entries.suffix(p) in entries.PICTURES for p in paths)
        kind = "images" if is_picture else "videos"
        raise ValueError(
            f"{name}: got {entries.short(value)}, which looks like media and is not read; set "
            f"data.columns to {json.dumps({kind: name})}, or to {json.dumps({IGNORED: [name]})}"
        )


def _is_none(value: Any) -> bool:
    """Returns whether a value cannot name a medium: a number, or nothing."""
    return not isinstance(value, str | list | dict) or not value or _paths(value) == []


def _paths(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [p for v in value for p in _paths(v)]
    return []


class Notes:
    """What rows say that a run does otherwise, or does without: told once, with how many."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: dict[str, str] = {}

    def add(self, text: str) -> None:
        """Counts a row that has what the text says."""
        self.counts[text] += 1

    def update(self, row: "Notes", source: str) -> None:
        """Counts what a row has.

        >>> notes, row = Notes(), Notes()
        >>> row.add("no options")
        >>> notes.update(row, "a.jsonl:3")
        >>> notes.update(row, "a.jsonl:5")
        >>> notes.lines()
        ['a.jsonl:3: 2 rows have no options']

        Args:
            row: its notes.
            source: where it stands.
        """
        for text in row.counts:
            self.first.setdefault(text, source)
        self.counts.update(row.counts)

    def lines(self) -> list[str]:
        """Returns a line for each kind, with where its first row stands."""
        return [
            f"{self.first[text]}: {counted(n, 'row')} {'has' if n == 1 else 'have'} {text}"
            for text, n in self.counts.items()
        ]
