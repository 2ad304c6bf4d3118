"""What a row shows: its frames with their seconds, for people to look at."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from evr1.data.errors import MediaError
from evr1.data.media.container import open_video
from evr1.data.media.requests import Request
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.records import Media, Row
from evr1.formats import box_frames


class Frame(NamedTuple):
    """A sampled frame.

    Attributes:
        pixels: uint8[H, W, 3].
        second: in the source; None: an image.
    """

    pixels: np.ndarray
    second: float | None


class Shown(NamedTuple):
    """The frames of a row's media.

    Attributes:
        frames: of all media, in order.
        media: how many there are.
        size: width and height in pixels of the only source medium; None: not known, or several.
        box_scale: what the answer's boxes count; empty: what the prompt asks for.
    """

    frames: Sequence[Frame]
    media: int = 1
    size: tuple[float, float] | None = None
    box_scale: str = ""


@dataclasses.dataclass(frozen=True)
class ShownRows:
    """Gives what rows show, by split and problem_id; media that fail have no frames."""

    train: Sequence[Row]
    heldout: Sequence[Row]
    source: MediaSource

    @functools.cached_property
    def _by_id(self) -> Mapping[tuple[str, str], Row]:
        splits = {"train": self.train, "eval": self.heldout}
        named = [((split, row.problem_id), row) for split in splits for row in splits[split]]
        return dict(reversed(named))  # of rows with one id the first

    def __call__(self, split: str, problem_id: str) -> Shown | None:
        """Returns what a row shows; None: there is no such row, or its media fail.

        Args:
            split: train or eval.
            problem_id: of the row.
        """
        row = self._by_id.get((split, problem_id))
        return None if row is None else self.of_row(row)

    def of_row(self, row: Row) -> Shown | None:
        """Returns what a row shows; None: its media fail."""
        requests = media_requests(row)
        try:
            loaded = [self.source.load(request) for request in requests]
        except MediaError:
            return None
        frames = [frame for medium in loaded for frame in frames_of(medium)]
        size = None
        if len(requests) == 1:
            size = box_frames.size_of(row.extra) or self._size(requests[0], frames[0].pixels)
        return Shown(frames, len(requests), size, box_frames.frame_of(row.extra))

    def _size(self, request: Request, frame: np.ndarray) -> tuple[float, float] | None:
        """Width and height of a file as it is shown: upright, as the frame is."""
        path = self.source.path(request)
        try:
            if request.kind == "image" or request.frames:
                with Image.open(path) as image:
                    width, height = image.size
            else:
                with open_video(path) as (_, stream):
                    width, height = stream.width, stream.height
        except (MediaError, OSError, ValueError):
            return None  # only the shards are left, or a folder of pictures
        is_turned = (width - height) * (frame.shape[1] - frame.shape[0]) < 0
        return (height, width) if is_turned else (width, height)


def frames_of(medium: Media) -> list[Frame]:
    """Returns the frames of a medium with their seconds."""
    seconds = [float(t) for t in medium.timestamps] or [None] * len(medium.frames)
    return [Frame(pixels, t) for pixels, t in zip(medium.frames, seconds, strict=True)]
