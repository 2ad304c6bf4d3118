"""Chats of rows: OpenAI's messages with content parts, ShareGPT's conversations, pairs of texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evr1.data import entries
from evr1.data.records import Turn

ROLES = {
    "user": "user",
    "human": "user",
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
}
_IMAGES = ("image", "image_url", "input_image")
_VIDEOS = ("video", "video_url", "input_video")
_TEXTS = ("text", "input_text", "output_text")
_LENGTH_FIX = "put the question into the last user turn"


class Chat(NamedTuple):
    """What a row's chat holds.

    Attributes:
        system: text of the system turn; None: there is none.
        turns: those before the question.
        problem: the last user turn.
        answer: the assistant's turn after it; None: there is none.
        images: entries of images that stand in the turns, in order; None for one that does not say
            which, so that the row's own list has it.
        videos: likewise.
    """

    system: str | None
    turns: tuple[Turn, ...]
    problem: str
    answer: str | None
    images: tuple[Any, ...]
    videos: tuple[Any, ...]


def read(field: str, value: Sequence[Any]) -> Chat:
    """Returns the chat of a row.

    >>> read(
    ...     "messages", [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes"}]
    ... ).answer
    'Yes'

    Args:
        field: its name, for errors.
        value: a list of turns.

    Raises:
        ValueError: `field: got ...; fix`.
    """
    if isinstance(value, Mapping):
        columns = [v for v in value.values() if isinstance(v, list)]
        is_turned = len(columns) == len(value) > 1 and len({len(v) for v in columns}) == 1
        # Older versions of datasets keep a list of objects as an object of lists.
        rows = zip(*columns, strict=True) if is_turned else [value.values()]
        value = [dict(zip(value, row, strict=True)) for row in rows]
    media: dict[str, list[Any]] = {"image": [], "video": []}
    system, turns = None, []
    for entry in value:
        for role, content in _turns(field, entry):
            text = _text(field, role, content, media)
            if role == "system":
                if system is not None or turns:
                    raise ValueError(
                        f"{field}: got a system turn after another turn; put it first, once"
                    )
                system = text or None
            else:
                turns.append(Turn(role, text))
    answer = turns.pop().content if turns and turns[-1].role == "assistant" else None
    if not turns or turns[-1].role != "user":
        raise ValueError(f"{field}: got {entries.short(value)} without a question; {_LENGTH_FIX}")
    *before, last = turns
    return Chat(
        system, tuple(before), last.content, answer or None,
        tuple(media["image"]), tuple(media["video"]),
    )  # fmt: skip


def pairs(field: str, value: Sequence[Any]) -> tuple[Turn, ...]:
    """Returns the earlier turns that a history of (question, answer) holds, or a list of turns.

    Raises:
        ValueError: it is neither.
    """
    turns: list[Turn] = []
    for entry in value:
        if isinstance(entry, Mapping):
            media: dict[str, list[Any]] = {"image": [], "video": []}
            for role, content in _turns(field, entry):
                turns.append(Turn(role, _text(field, role, content, media)))
                if role == "system" or any(media.values()):
                    raise ValueError(
                        f"{field}: got {entries.short(entry)}; put a system turn into system and "
                        "media into images and videos, with <image> or <video> in the text"
                    )
        elif isinstance(entry, list | tuple) and len(entry) == 2 and _are_texts(entry):
            turns += [Turn("user", entry[0]), Turn("assistant", entry[1])]
        else:
            raise ValueError(
                f"{field}: got {entries.short(entry)}; give pairs of question and answer"
            )
    return tuple(turns)


def _are_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(v, str) for v in values)


def _turns(field: str, entry: Any) -> list[tuple[str, Any]]:
    """Returns the (role, content) of an entry: one, or two of {"human": ..., "assistant": ...}."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{field}: got {entries.short(entry)}; every turn has a role and content")
    said = {k: v for k, v in entry.items() if v is not None}
    for who, what in (("role", "content"), ("from", "value"), ("role", "value")):
        if who in said and (what in said or said[who] == "assistant"):
            role = ROLES.get(str(said[who]).strip().lower())
            if role is None or said.get("tool_calls"):
                raise ValueError(
                    f"{field}: got a turn of {entries.short(said[who])} or a call of a tool; only "
                    "system, user and assistant can be shown: leave the others out"
                )
            return [(role, said.get(what, ""))]
    named = [(ROLES[k], v) for k, v in said.items() if k in ROLES]
    if not named or len(named) != len(said):
        raise ValueError(f"{field}: got {entries.short(entry)}; every turn has a role and content")
    return named


def _text(field: str, role: str, content: Any, media: dict[str, list[Any]]) -> str:
    """Returns the text of a turn with a marker for each medium, whose entry goes to `media`."""
    if isinstance(content, str):
        if role == "user":
            for kind in media:
                media[kind] += [None] * content.count(f"<{kind}>")
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        raise ValueError(f"{field}: got {entries.short(content)} as content; give a text or parts")
    return "".join(_part(field, role, part, media) for part in content)


def _part(field: str, role: str, part: Any, media: dict[str, list[Any]]) -> str:
    if isinstance(part, str):
        return _text(field, role, part, media)
    said = {k: v for k, v in part.items() if v is not None} if isinstance(part, Mapping) else {}
    kind = said.get("type") or next((k for k in (*_IMAGES, *_VIDEOS, "text") if k in said), "")
    if kind in _TEXTS:
        return _text(field, role, str(said.get("text", "")), media)
    medium = "image" if kind in _IMAGES else "video" if kind in _VIDEOS else ""
    if not medium or role != "user":
        raise ValueError(
            f"{field}: got {entries.short(part)} in the turn of the {role}; parts are text, and a "
            "user's are image and video, too"
        )
    if kind in said and kind != medium:  # {"type": "input_image", "input_image": ...}
        said.setdefault(medium, said[kind])
    keys = set(said) - {"type", "text"}
    media[medium].append({k: v for k, v in said.items() if k != "type"} if keys else None)
    return f"<{medium}>"
