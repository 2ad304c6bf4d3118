"""What the model saw, as small pictures inside the page, which the next page takes from it."""

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from evr1.data.shown import Shown
from evr1.report import html
from evr1.report.spread import spread

Frames = Callable[[str, str], Shown | None]  # (split, problem_id) -> what the row shows

# (frames a prompt, pixels of the longer side): the first that fits the budget is taken
SIZES = ((16, 224), (8, 192), (8, 128), (4, 112), (3, 96))
_SAMPLE = 12  # prompts whose frames are tried at every size
_QUALITY = 75
_HEAD = "data:image/jpeg;base64,"


class Pictures(NamedTuple):
    """Small pictures of what a row shows.

    Attributes:
        frames: (JPEG data URI, second in the source or None: an image) of each, in order.
        media: how many media they are of.
        size: width and height of the only source medium in pixels; None: not known, or several.
        box_scale: see `Shown`.
    """

    frames: Sequence[tuple[str, float | None]]
    media: int = 1
    size: Sequence[float] | None = None
    box_scale: str = ""

    @property
    def bytes(self) -> int:
        """Of all data URIs together."""
        return sum(len(uri) for uri, _ in self.frames)


def embed_frames(
    frames: Frames | None,
    prompts: Sequence[tuple[str, str]],
    max_bytes: int,
    kept: Mapping[str, Pictures] | None = None,
) -> dict[str, Pictures]:
    """Returns each prompt's pictures, as many and as large as the budget lets.

    The size is settled on a few prompts. Where even the smallest is too much, prompts spread evenly
    over the sequence get frames and the others none: frames may have to be decoded from video, so
    no more are asked for than fit.

    Args:
        frames: gives what a prompt shows; None: only what is kept.
        prompts: (split, problem_id) of each.
        max_bytes: of all data URIs together.
        kept: of an earlier page, by "split/problem_id"; they are not asked for again.

    Returns:
        By "split/problem_id"; prompts without frames are left out.
    """
    if not prompts:
        return {}
    at_hand = dict(kept or {})

    def find(prompt: tuple[str, str], count: int, side: int) -> Pictures | None:
        if (name := "/".join(prompt)) in at_hand:
            return shrunk(at_hand[name], count, side)
        shown = frames(*prompt) if frames is not None else None
        return encode_shown(shown, count, side) if shown is not None and shown.frames else None

    order = spread(len(prompts))
    sample = {"/".join(prompts[i]): find(prompts[i], *SIZES[0]) for i in order[:_SAMPLE]}
    tried = {name: pictures for name, pictures in sample.items() if pictures is not None}
    at_hand |= tried
    count, side = SIZES[-1]
    for count, side in SIZES:
        used = sum(shrunk(pictures, count, side).bytes for pictures in tried.values())
        if used / len(sample) * len(prompts) <= max_bytes:
            break
    out: dict[str, Pictures] = {}
    for i in order:
        pictures = find(prompts[i], count, side)
        if pictures is None:
            continue
        max_bytes -= pictures.bytes
        if max_bytes < 0:
            break
        out["/".join(prompts[i])] = pictures
    return out


def within(frames: Frames, limit_s: float) -> Frames:
    """Returns what gives frames for so many seconds from now, and none from then on."""
    end = time.monotonic() + limit_s
    return lambda split, name: frames(split, name) if time.monotonic() < end else None


def encode_shown(shown: Shown, count: int, side: int) -> Pictures:
    """Returns at most `count` pictures, of at most `side` pixels along the longer side."""
    frames = [shown.frames[i] for i in _evenly(len(shown.frames), count)]
    uris = encode([frame.pixels for frame in frames], count, side)
    seconds = [None if f.second is None else round(f.second, 3) for f in frames]
    return Pictures(list(zip(uris, seconds, strict=True)), shown.media, shown.size, shown.box_scale)


def shrunk(pictures: Pictures, count: int, side: int) -> Pictures:
    """Returns at most `count` of them, of at most `side` pixels along the longer side."""
    frames = [pictures.frames[i] for i in _evenly(len(pictures.frames), count)]
    return pictures._replace(frames=[(_smaller(uri, side), second) for uri, second in frames])


def encode(frames: Sequence[np.ndarray], count: int, side: int) -> list[str]:
    """Returns JPEG data URIs of at most `count` frames, spread evenly.

    Args:
        frames: each uint8[H, W, 3].
        count: of them at most.
        side: pixels of the longer side at most.
    """
    chosen = (frames[i] for i in _evenly(len(frames), count))
    return [_jpeg(Image.fromarray(frame), side) for frame in chosen]


def to_json(pictures: Mapping[str, Pictures]) -> dict[str, Any]:
    """Returns pictures as the data of a page holds them."""
    return {name: p._asdict() for name, p in pictures.items()}


def pictures_of(data: Any) -> dict[str, Pictures]:
    """Returns the pictures in the data of a page; none where they are of another form."""
    try:
        return {
            name: Pictures(**{**fields, "frames": [(uri, s) for uri, s in fields["frames"]]})
            for name, fields in data["frames"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def read_kept(page: Path) -> dict[str, Pictures]:
    """Returns the pictures of an earlier page; none where there is no page, or a damaged one."""
    try:
        return pictures_of(html.data_of(page.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _evenly(length: int, count: int) -> list[int]:
    """Returns at most `count` places of a sequence, spread evenly."""
    if length <= count:
        return list(range(length))
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def _smaller(uri: str, side: int) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(_HEAD))))
    return uri if max(image.size) <= side else _jpeg(image, side)


def _jpeg(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return _HEAD + base64.b64encode(buffer.getvalue()).decode()
