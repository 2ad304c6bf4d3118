"""A few of the frames that a model saw, decoded again, as small pictures inside a page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from evr1.data.errors import MediaError
from evr1.data.media.decode import DecodePool, Job
from evr1.data.records import Budgets, Geometry
from evr1.evals.samples import Answer
from evr1.report.frames import encode
from evr1.report.spread import spread

MOST_FRAMES = 16  # a medium
MOST_CLIPS = 400  # a page
SIDE = 160  # pixels of the longer side
MAX_BYTES = 12_000_000  # of all pictures of a page
_TIMEOUT_S = 60.0  # of a clip
_MOST_WORKERS = 4
_PIXELS = SIDE * SIDE * 3 // 4
_BUDGETS = Budgets(video_max_pixels=_PIXELS, image_max_pixels=_PIXELS)
_GEOMETRY = Geometry(patch_size=4, temporal_patch_size=2, merge_size=2)

Picture = tuple[str, float | None]  # data URI, seconds in the file; None: an image


class Clip(NamedTuple):
    """Frames of a video, or an image.

    Attributes:
        path: of the file or of the folder of images.
        kind: "video" or "image".
        times: seconds of the frames, ascending; () for an image.
        frames_per_s: rate of the images of a folder; None: a file.
    """

    path: str
    kind: str
    times: tuple[float, ...]
    frames_per_s: float | None = None


def clips(folder: Path, answer: Answer, count: int) -> list[Clip | None]:
    """Returns what to show of each medium of a sample; None: nothing can be shown.

    Args:
        folder: of the benchmark's files.
        answer: to the sample.
        count: frames of a video at most.
    """
    listed = []
    for place, medium in enumerate(answer.sample.media):
        shown = answer.frames[place] if place < len(answer.frames) else None
        path = folder / medium.path
        is_outside = PurePath(medium.path).is_absolute() or ".." in PurePath(medium.path).parts
        is_there = path.is_file() if medium.frames_per_s is None else path.is_dir()
        if shown is None or is_outside or not is_there:
            listed.append(None)
        elif medium.kind == "image":
            listed.append(Clip(str(path), medium.kind, ()))
        else:
            times = _pick(sorted(set(shown.times)), count)
            clip = Clip(str(path), medium.kind, times, medium.frames_per_s)
            listed.append(clip if times else None)
    return listed


def _pick(times: Sequence[float], count: int) -> tuple[float, ...]:
    """Returns some times, spread evenly.

    >>> _pick([0.0, 1.0, 2.0, 3.0, 4.0], 3), _pick([0.0, 1.0, 2.0], 1)
    ((0.0, 2.0, 4.0), (1.0,))
    """
    if len(times) <= count:
        return tuple(times)
    if count == 1:
        return (times[len(times) // 2],)
    return tuple(times[i] for i in np.linspace(0, len(times) - 1, count).round().astype(int))


def pictures(
    asked: Sequence[Clip], most: int = MOST_CLIPS, max_bytes: int = MAX_BYTES
) -> Mapping[Clip, list[Picture]]:
    """Returns pictures of as many clips as the limits let, spread evenly over them.

    A clip that cannot be decoded has none.

    Args:
        asked: different clips.
        most: clips to decode.
        max_bytes: of all pictures together.
    """
    chosen = [asked[i] for i in spread(len(asked))[:most]]
    found: dict[Clip, list[Picture]] = {}
    for clip, listed in _decode(chosen):
        max_bytes -= sum(len(uri) for uri, _ in listed)
        if max_bytes < 0:
            break
        if listed:
            found[clip] = listed
    return found


def _decode(chosen: Sequence[Clip]) -> Iterator[tuple[Clip, list[Picture]]]:
    """Yields clips with their pictures; decodes no further than it is asked, a few aside."""
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    with DecodePool(workers, _TIMEOUT_S) as pool, ThreadPoolExecutor(workers) as threads:

        def take(clip: Clip) -> list[Picture]:
            how = {"times": clip.times, "frames_per_s": clip.frames_per_s}
            job = Job(clip.kind, clip.path, _BUDGETS, _GEOMETRY, **how)
            try:
                media = pool.decode(job)
            except MediaError:
                return []
            uris = encode(list(media.frames), len(media.frames), SIDE)
            return list(zip(uris, media.timestamps.tolist() or [None], strict=True))

        for start in range(0, len(chosen), 2 * workers):
            part = chosen[start : start + 2 * workers]
            yield from zip(part, threads.map(take, part), strict=True)
