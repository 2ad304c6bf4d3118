"""From messages to a row, with its media in their order."""

from collections.abc import Sequence
from typing import NamedTuple

from evr1.data import entries, prompts
from evr1.data.media.requests import Request
from evr1.data.records import MediaItem, Row, Turn
from evr1.serve.errors import Refusal
from evr1.serve.media import Medium
from evr1.serve.schema import Asked, ChatRequest, ImagePart, Said, TextPart, Url, VideoPart


class Shown(NamedTuple):
    """A medium that a request shows."""

    kind: str  # image or video
    url: str
    param: str  # where it stands
    said: dict[str, float]  # limits and bounds of its own, in the words of rows


def shown(request: ChatRequest) -> list[Shown]:
    """Returns the media of a request in the order in which they stand."""
    found = []
    for i, message in enumerate(request.messages):
        if isinstance(message, Said) or isinstance(message.content, str):
            continue
        for j, part in enumerate(message.content):
            if isinstance(part, TextPart):
                continue
            at, kind = (
                (part.video_url, "video")
                if isinstance(part, VideoPart)
                else (part.image_url, "image")
            )
            said = {**_of_kind(kind, request.said()), **_of_part(part), **_bounds(at)}
            if "nframes" in _of_part(part):  # what is said of one medium goes before what of all
                said.pop("fps", None)
            elif "fps" in _of_part(part):
                said.pop("nframes", None)
            found.append(Shown(kind, at.url, f"messages.{i}.content.{j}", said))
    return found


def _of_part(part: ImagePart | VideoPart) -> dict[str, float]:
    at = part.video_url if isinstance(part, VideoPart) else part.image_url
    said = {**part.said(), **at.said()}
    if {"fps", "nframes"} <= said.keys():
        raise Refusal(400, "nframes: got it beside fps; give one of them", param="nframes")
    return said


def _of_kind(kind: str, said: dict[str, float]) -> dict[str, float]:
    words = entries.VIDEO_LIMITS if kind == "video" else entries.IMAGE_LIMITS
    return {word: value for word, value in said.items() if word in words}


def _bounds(at: Url) -> dict[str, float]:
    said = {"video_start": at.video_start, "video_end": at.video_end}
    return {word: value for word, value in said.items() if value is not None}


def request_of(medium: Medium, each: Shown) -> Request:
    """Returns how a medium is read.

    Raises:
        Refusal: its limits are none.
    """
    allowed = (*entries.VIDEO_LIMITS, "video_start", "video_end")
    if each.kind == "image":
        allowed = entries.IMAGE_LIMITS
    for word in each.said:
        if word not in allowed:
            raise Refusal(400, f"{each.param}: an image has no {word}", param=each.param)
    try:
        [item] = entries.media(each.kind, [{each.kind: medium.path, **each.said}], {})
    except ValueError as error:
        raise Refusal(400, f"{each.param}: {_without(error, medium)}", param=each.param) from None
    if isinstance(item, MediaItem):
        return Request(each.kind, item.path, item.start, item.end, limits=item.limits)
    return Request(each.kind, item)


def _without(error: ValueError, medium: Medium) -> str:
    """Returns an error's words without where the medium lies here."""
    return str(error).replace(medium.path, "it")


def row_of(request: ChatRequest, media: Sequence[Shown]) -> Row:
    """Returns the row that asks what the messages do.

    Raises:
        Refusal: a system turn stands elsewhere than in front.
    """
    system, turns = None, []
    for i, message in enumerate(request.messages):
        text = _text(message.content)
        if message.role in ("system", "developer"):
            if i:
                raise Refusal(400, f"messages.{i}: a system turn stands first, once",
                              param=f"messages.{i}")  # fmt: skip
            system = text or None
        else:
            turns.append(Turn(message.role, text))
    *before, last = turns
    if not last.content.strip():
        raise Refusal(400, "messages: the last turn is empty", param="messages")
    kinds = {each.kind for each in media}
    return Row(
        index=0,
        problem=last.content,
        answer=None,
        problem_type="open-ended",
        data_type="mixed" if len(kinds) == 2 else next(iter(kinds), "text"),
        images=tuple(each.param for each in media if each.kind == "image"),
        videos=tuple(each.param for each in media if each.kind == "video"),
        options=(),
        problem_id="request",
        video_start=None,
        video_end=None,
        source="request",
        extra={},
        system=system,
        turns=tuple(before),
    )


def characters(message: Said | Asked) -> int:
    """Returns how many characters the texts of a turn have."""
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _text(content: str | Sequence[TextPart | ImagePart | VideoPart]) -> str:
    """Returns a turn's text with a marker for each medium; those that a client writes are text."""
    parts = [TextPart(type="text", text=content)] if isinstance(content, str) else content
    texts = []
    for part in parts:
        if isinstance(part, TextPart):
            texts.append(prompts.MARKER.sub(r"< \1>", part.text))
        else:
            texts.append("<video>" if isinstance(part, VideoPart) else "<image>")
    return "".join(texts)
