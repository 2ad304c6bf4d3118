"""The sizes of source media, which boxes in pixels count by: checked, and filled in where missing.

A size is that of the upright picture, by a display matrix or an EXIF tag. Shards keep it in
`sizes.jsonl`, so that it is known where the files are gone.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from concurrent import futures

from evr1.data.errors import MediaError
from evr1.data.media import patches
from evr1.data.media.cache import place_free
from evr1.data.media.content import FileTable
from evr1.data.media.decode import DecodePool
from evr1.data.media.place import Place
from evr1.data.media.requests import Opener, Request, media_requests
from evr1.data.media.size_table import SizeTable
from evr1.data.records import Row
from evr1.data.share import Share
from evr1.formats import box_frames, words

BOXED = ("spatial grounding", "spatial-temporal grounding", "tracking", "segmentation")
_ALIKE = 0.02  # share by which the aspect ratio of a scaled copy may differ, by rounding
_NAMED = 3  # rows in a line

Size = tuple[int, int]  # width, height


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Gives rows of boxes the sizes of their media.

    Attributes:
        opener: where media lie, and to what size they are brought.
        box_scale: the frame that the prompt asks for.
        shards: directory of shards that knows sizes; empty: none.
        workers: decoding processes.
        timeout_s: for one medium.
        share: which files this host opens.
    """

    opener: Opener
    box_scale: str
    shards: str | Place = ""
    workers: int = 2
    timeout_s: float = 120.0
    share: Share = Share()

    def complete(self, rows: Sequence[Row], note: Callable[[str], None]) -> list[Row | ValueError]:
        """Returns the rows with `width` and `height` where their boxes need them.

        A row that states a size of another shape than its file has is a ValueError instead; one
        that is larger or smaller alike is taken as what the boxes were drawn on, and told. A file
        that cannot be read says nothing here.

        Args:
            rows: of a file.
            note: gets a line.
        """
        asking = [i for i, row in enumerate(rows) if self._is_asking(row)]
        requests = {i: media_requests(rows[i]) for i in asking}
        known = self._measure(list(dict.fromkeys(r for each in requests.values() for r in each)))
        done: list[Row | ValueError] = list(rows)
        filled, scaled = 0, list[str]()
        for i in asking:
            row, found = rows[i], {r: known[r] for r in requests[i] if r in known}
            stated = _stated(row)
            if not found or len(found) < len(set(requests[i])):
                continue
            if stated is None:
                if len(set(found.values())) == 1 and self._is_needed(row, requests[i][0], found):
                    size = next(iter(found.values()))
                    extra = {**row.extra, "width": size[0], "height": size[1]}
                    done[i] = dataclasses.replace(row, extra=extra)
                    filled += 1
            elif stated not in found.values():
                request, size = next(iter(found.items()))
                text = f"{_spell(stated)}, and {self.opener.path(request)} is {_spell(size)}"
                if any(_is_alike(stated, other) for other in found.values()):
                    scaled.append(f"{row.source}: {text}")
                else:
                    done[i] = ValueError(
                        f"width and height: got {text}, upright; correct them, or leave them out: "
                        "the file's are taken"
                    )
        if filled:
            note(f"{words.counted(filled, 'row')} of boxes without a size: that of the file")
        if scaled:
            more = f"; and {len(scaled) - _NAMED} more" if len(scaled) > _NAMED else ""
            note(
                f"{words.counted(len(scaled), 'row')} of boxes of another size than the file, of "
                f"its shape; boxes in pixels count by the row's: {'; '.join(scaled[:_NAMED])}{more}"
            )
        return done

    def _is_asking(self, row: Row) -> bool:
        """Returns whether a row's size may matter to its boxes."""
        if row.problem_type not in BOXED or not (row.images or row.videos):
            return False
        try:
            stated, frame = box_frames.size_of(row.extra), box_frames.frame_of(row.extra)
        except ValueError:
            return False  # which is told where rows are checked
        return stated is not None or "pixels" in (self.box_scale, frame or self.box_scale)

    def _is_needed(self, row: Row, request: Request, found: dict[Request, Size]) -> bool:
        """Returns whether a box could not be read without the size, or asked for as well.

        A picture that the model sees as it is has its pixels; the prompt need not name them.
        """
        if (box_frames.frame_of(row.extra) or self.box_scale) != self.box_scale:
            return True
        width, height = found[request]
        try:
            limits = self.opener.limits(request)
            if request.kind == "image":
                size = patches.image_size(height, width, limits, self.opener.geometry)
            else:
                frames = limits.video_max_frames
                size = patches.video_size(frames, height, width, limits, self.opener.geometry)
        except (MediaError, ValueError):
            return False  # told where media are planned
        return size != (height, width)

    def _measure(self, requests: Sequence[Request]) -> dict[Request, Size]:
        """Returns the sizes that can be had; each file is opened by one host."""
        if not requests:
            return {}
        table = SizeTable(self.shards) if self.shards else None
        files = FileTable(self.shards or None)
        own = [i for i, r in enumerate(requests) if self.share.owns(place_free(r.name))]
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(DecodePool(self.workers, self.timeout_s))
            threads = stack.enter_context(futures.ThreadPoolExecutor(self.workers))

            def measure(i: int) -> Size | None:
                try:
                    name, path = self.opener.first_file(requests[i])
                    known = table.of(files.identity(name, path)) if table else None
                    if known is None:
                        height, width = pool.source_size(self.opener.job(requests[i]))
                        known = width, height
                    return known
                except MediaError:
                    return None

            found = [[i, size] for i, size in zip(own, threads.map(measure, own), strict=True)]
        told = self.share.gather(found)
        return {requests[i]: (size[0], size[1]) for one in told for i, size in one if size}


def _stated(row: Row) -> tuple[float, float] | None:
    return box_frames.size_of(row.extra)


def _is_alike(size: tuple[float, float], other: tuple[float, float]) -> bool:
    """Returns whether one is the other, larger or smaller.

    >>> _is_alike((1920, 1080), (854, 480)), _is_alike((1080, 1920), (1920, 1080))
    (True, False)
    """
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= _ALIKE


def _spell(size: tuple[float, float]) -> str:
    return " x ".join(f"{side:.10g}" for side in size)
