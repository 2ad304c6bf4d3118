"""Requests for media: what a row shows, where it lies, and how much of it is looked at."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from evr1.config import urls
from evr1.data import entries, rows
from evr1.data.errors import MediaError
from evr1.data.media.content import FileTable, content_key
from evr1.data.media.decode import Job
from evr1.data.media.frames import images_of
from evr1.data.media.storage import RAW
from evr1.data.records import Budgets, Geometry, Medium, Row

_ALL_FRAMES_FPS = 1e6  # a rate at which every frame is taken, up to the limit
_FIELDS = {  # of Budgets, by a row's word and the kind of medium
    ("video", "fps"): "video_fps",
    ("video", "max_frames"): "video_max_frames",
    ("video", "min_pixels"): "video_min_pixels",
    ("video", "max_pixels"): "video_max_pixels",
    ("video", "total_pixels"): "video_total_pixels",
    ("image", "min_pixels"): "image_min_pixels",
    ("image", "max_pixels"): "image_max_pixels",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """One medium of a row; `name` is its path as the row writes it, of frames that of the first."""

    kind: str  # image or video
    name: str
    start: float | None = None
    end: float | None = None
    frames_per_s: float | None = None  # of a folder or list of pictures; None: a file, or `times`
    frames: tuple[str, ...] = ()  # pictures that are one video, as the row writes them
    times: tuple[float, ...] = ()  # seconds of these pictures
    limits: tuple[tuple[str, float], ...] = ()  # see MediaItem


def media_requests(row: Row) -> tuple[Request, ...]:
    """Returns the row's media in the order of their markers."""
    return tuple(_request(row, kind, medium) for kind, medium in rows.media_refs(row))


def _request(row: Row, kind: str, medium: Medium) -> Request:
    clip = (row.video_start, row.video_end) if kind == "video" else (None, None)
    if isinstance(medium, str):
        return Request(kind, medium, *clip)
    start = clip[0] if medium.start is None else medium.start
    end = clip[1] if medium.end is None else medium.end
    if medium.frames:
        return Request(
            kind, medium.frames[0], start, end, medium.fps, medium.frames, medium.times,
            medium.limits,
        )  # fmt: skip
    return Request(kind, medium.path, start, end, times=medium.times, limits=medium.limits)


@dataclasses.dataclass(frozen=True)
class Opener:
    """Where media lie and how much of them is looked at.

    Attributes:
        media_dir: put in front of relative paths.
        budgets: of the run.
        geometry: of the model.
        storage: how the shards keep pixels, see `evr1.data.media.storage`.
    """

    media_dir: str
    budgets: Budgets
    geometry: Geometry
    storage: str = RAW

    def path(self, request: Request) -> str:
        """Returns the path of a file or folder; of a list of pictures, that of the first."""
        return urls.join(self.media_dir, request.name)

    def first_file(self, request: Request) -> tuple[str, str]:
        """Returns name and path of a file; of pictures, those of the first one.

        Raises:
            MediaError: a folder without pictures.
        """
        path = self.path(request)
        if request.frames or not os.path.isdir(path):
            return request.name, path
        first = str(images_of(path)[0])
        return os.path.join(request.name, os.path.basename(first)), first

    def job(self, request: Request) -> Job:
        """Returns how to decode a medium.

        Raises:
            MediaError: it is no regular file, or a folder where there is to be none.
        """
        path, how = self.path(request), self._folder(request)
        is_file = how.frames_per_s is None and not how.frames and not how.times
        if is_file and os.path.exists(path) and not os.path.isfile(path):
            if os.path.isdir(path):  # rows are checked for it where they are read
                raise MediaError("row", path, entries.folder_fault(request.kind))
            raise MediaError("undecodable", path, "not a regular file")  # decoders wait for a pipe
        return Job(
            request.kind,
            path,
            self.limits(how),
            self.geometry,
            request.start,
            request.end,
            frames_per_s=how.frames_per_s,
            frames=tuple(urls.join(self.media_dir, f) for f in how.frames),
            stamps=how.times,
        )

    def key(self, request: Request, files: FileTable, *, is_written: bool = False) -> str:
        """Returns the key of a medium's decoded frames in the shards.

        Args:
            request: the medium.
            files: known contents.
            is_written: new ones are appended to the list on disk.

        Raises:
            MediaError: a file is missing, and its content is not known.
        """
        how, identity = self._folder(request), functools.partial(_identity, files, is_written)
        if how.frames_per_s is None and not how.times:
            whole = identity(request.name, self.path(request))
        else:
            pictures = [(f, urls.join(self.media_dir, f)) for f in how.frames]
            if not pictures:
                folder = [str(path) for path in images_of(self.path(request))]
                pictures = [(os.path.join(request.name, os.path.basename(f)), f) for f in folder]
            whole = _of_pictures(
                [identity(*p) for p in pictures], how.frames_per_s, how.times, bool(how.frames)
            )
        window = request.start, request.end
        limits = self.limits(how)
        return content_key(whole, request.kind, limits, self.geometry, *window, self.storage)

    def limits(self, request: Request) -> Budgets:
        """Returns the run's budgets with what the row says instead.

        Raises:
            MediaError: the row's least pixels are more than its most.
        """
        changed: dict[str, Any] = {}
        for word, value in request.limits:
            if word == "nframes":
                changed["video_fps"] = _ALL_FRAMES_FPS
                changed["video_max_frames"] = max(2 * round(value / 2), 2)
            else:
                changed[_FIELDS[request.kind, word]] = value
        if "video_max_frames" in changed:
            changed["video_max_frames"] = max(int(changed["video_max_frames"]), 2)
        budgets = dataclasses.replace(self.budgets, **changed)
        if any(name.startswith("video") and name.endswith("pixels") for name in changed):
            # They are qwen-vl-utils' words, whoever has the other rows' budget.
            budgets = dataclasses.replace(budgets, video_budget="qwen_vl_utils", video_size=None)
        try:
            check_budgets(_crossed(budgets, changed))
        except ValueError as error:
            raise MediaError("row", self.path(request), str(error)) from None
        return _crossed(budgets, changed)

    def _folder(self, request: Request) -> Request:
        """Returns the request with its fps as the rate of the pictures, where it is of a folder."""
        fps = dict(request.limits).get("fps")
        is_folder = request.kind == "video" and not request.frames and request.frames_per_s is None
        if not is_folder or not (fps or request.times) or not os.path.isdir(self.path(request)):
            return request if request.frames or request.frames_per_s else _without_times(request)
        limits = tuple((k, v) for k, v in request.limits if k != "fps")
        rate = None if request.times else fps
        return dataclasses.replace(request, frames_per_s=rate, limits=limits)


def check_budgets(budgets: Budgets) -> None:
    """Raises ValueError if the least pixels exceed the most.

    Raises:
        ValueError: names the two fields, which of them is the default, and what to give.
    """
    limits, defaults = dataclasses.asdict(budgets), dataclasses.asdict(Budgets())
    for kind in ("video", "image"):
        low, high = f"{kind}_min_pixels", f"{kind}_max_pixels"
        least, most = limits[low], limits[high]
        if 0 < least <= most:
            continue
        said = {n: f"data.{n}={limits[n]}" for n in (low, high)}
        said |= {n: f"{said[n]} (the default)" for n in said if limits[n] == defaults[n]}
        if least <= 0:
            raise ValueError(f"{said[low]}; give more than 0")
        fix = f"give data.{low} of at most {most}, or a larger data.{high}"
        raise ValueError(f"{said[low]} is over {said[high]}; {fix}")


def _without_times(request: Request) -> Request:
    return dataclasses.replace(request, times=()) if request.times else request


def _crossed(budgets: Budgets, changed: dict[str, float]) -> Budgets:
    """Returns budgets whose run-wide bound gives way to the row's own one."""
    for kind in ("video", "image"):
        low, high = f"{kind}_min_pixels", f"{kind}_max_pixels"
        limits = dataclasses.asdict(budgets)
        if limits[low] > limits[high] and (low in changed) != (high in changed):
            given = low if low in changed else high
            budgets = dataclasses.replace(budgets, **{low: limits[given], high: limits[given]})
    return budgets


def _identity(files: FileTable, is_written: bool, name: str, path: str) -> str:
    return files.identity(name, path, is_written=is_written)


def _of_pictures(
    identities: Sequence[str], rate: float | None, times: Sequence[float], is_list: bool
) -> str:
    text = repr((list(identities), rate, list(times), is_list))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
