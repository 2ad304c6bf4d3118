"""Questions that share what stands before them: the pack is the unit that is prefilled.

A prompt is cut behind its last visual token. Questions whose prompts are equal up to there, and
whose media are the same, differ in a few hundred tokens of text: they are rows of one group, whose
video is encoded and prefilled once. A prompt that puts its text first shares the vision tower's
work alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from evr1.batch.shapes import round_up
from evr1.data import heads, positions, prompts
from evr1.data.media import patches
from evr1.data.media.source import Request
from evr1.data.processor import Processor
from evr1.data.records import Example, Media, MediaSize, Row
from evr1.evals import subtitles
from evr1.evals.tasks import base
from evr1.evals.tasks.base import Prompt, Sample, Show

M = TypeVar("M", Media, MediaSize)


class Key(NamedTuple):
    """The shapes that a bundle runs in: those of its own prompts, whatever else is answered."""

    prompt_tokens: int
    row_patches: int
    rows: int
    question_tokens: int


class Pack(NamedTuple):
    """Questions whose prompts begin alike.

    Attributes:
        samples: of the rows, in order.
        head_tokens: that they share.
        tails: the other tokens of each.
    """

    samples: tuple[Sample, ...]
    head_tokens: int
    tails: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Samples that show the same media, which are decoded once for all of them."""

    media: tuple[Request, ...]
    samples: tuple[Sample, ...]


@dataclasses.dataclass(frozen=True)
class Asker:
    """How the questions of a benchmark are put to a model.

    Attributes:
        folder: of the benchmark.
        prompt: profile that is used.
        processor: of the model.
        rows: questions that a pack holds at most.
        begin: token ids that every reply begins with.
    """

    folder: Path
    prompt: Prompt
    processor: Processor
    rows: int
    begin: tuple[int, ...] = ()

    def row(self, sample: Sample, media: Sequence[M]) -> tuple[Row, list[M], tuple[Show, ...]]:
        """Returns a sample as a row with markers, its media in their order, and their places.

        Args:
            sample: the question.
            media: sizes or pixels of its media.

        Raises:
            ValueError: its subtitles cannot be read, or the prompt shows what is not there.
        """
        pair = self.processor.geometry.temporal_patch_size
        times: list[float] = []
        if media and media[0].is_video:
            times = positions.patch_seconds(np.asarray(media[0].timestamps), pair).tolist()
        parts = subtitles.fill(self.prompt(sample), sample, self.folder, times)
        text, shown, shows = [], [], []
        for part in parts:
            if isinstance(part, Show):
                if not 0 <= part.medium < len(media):
                    raise ValueError(
                        f"{sample.id}: its prompt shows medium {part.medium}, counted from 0, of "
                        f"{len(media)}; correct the prompt"
                    )
                medium = media[part.medium]
                if part.frames is not None:
                    medium = _frames(medium, part.frames, pair)
                shown.append(medium)
                shows.append(part)
                text.append("<video>" if medium.is_video else "<image>")
            else:  # a marker in a question's own text stands for no medium
                text.append(prompts.MARKER.sub(r"< \1>", part))
        return _row(sample, "".join(text)), shown, tuple(shows)

    def packs(self, samples: Sequence[Sample], media: Sequence[MediaSize]) -> list[Pack]:
        """Returns the samples of a bundle in packs, as even as may be.

        Args:
            samples: in any order.
            media: sizes of their media.

        Raises:
            ValueError: see `row`.
        """
        by_head: dict[tuple, list[tuple[Sample, int, tuple[int, ...]]]] = {}
        for sample in sorted(samples, key=lambda each: each.id):
            row, shown, shows = self.row(sample, media)
            head, tail = heads.split(self.processor.pieces(row, shown, raw=True))
            if not head:  # no medium: a prompt of one token is shared, so that there is a prompt
                head, tail = ((tail[:1], None),), tail[1:]
            # Placeholders are the same for other frames or another order of media alike in size.
            place = sample, heads.length(head), tail + self.begin
            by_head.setdefault((shows, head), []).append(place)
        return [
            Pack(tuple(s for s, _, _ in part), part[0][1], tuple(tail for _, _, tail in part))
            for alike in by_head.values()
            for part in _evenly(alike, self.rows)
        ]

    def key(self, packs: Sequence[Pack], media: Sequence[MediaSize], samples: int) -> Key:
        """Returns the shapes of a bundle.

        Args:
            packs: of it.
            media: sizes of its media.
            samples: responses to a question, each of which is a row.
        """
        merged = self.processor.geometry.merge_size**2
        longest = max(len(tail) for pack in packs for tail in pack.tails)
        frames = [h * w for _, h, w in (size.grid_thw for size in media)]
        return Key(
            prompt_tokens=round_up(max(pack.head_tokens for pack in packs), 128, steps=4),
            row_patches=round_up(max(frames, default=1), merged, steps=8),
            rows=min(round_up(max(len(p.samples) for p in packs), 1), self.rows) * samples,
            question_tokens=round_up(longest, 32),
        )

    def examples(self, packs: Sequence[Pack], media: Sequence[Media]) -> list[Example]:
        """Returns the shared part of the prompt of each pack.

        Those that show the media in the same order hold the same array of patches.

        Args:
            packs: of a bundle, made from the sizes of these media.
            media: their pixels.
        """
        made: dict[tuple[Show, ...], Example] = {}
        out = []
        for pack in packs:
            row, shown, shows = self.row(pack.samples[0], media)
            example = self.processor.encode(row, shown, raw=True, like=made.get(shows))
            made.setdefault(shows, example)
            out.append(heads.cut(example, pack.head_tokens))
        return out


def bundles(samples: Sequence[Sample]) -> list[Bundle]:
    """Returns the samples by what they show, in an order that does not depend on theirs."""
    by_media: dict[tuple[Request, ...], list[Sample]] = {}
    for sample in sorted(samples, key=lambda each: each.id):
        media = tuple(map(_request, sample.media))
        by_media.setdefault(media, []).append(sample)
    return [Bundle(media, tuple(listed)) for media, listed in by_media.items()]


def _request(medium: base.Media) -> Request:
    return Request(medium.kind, medium.path, medium.start_s, medium.end_s, medium.frames_per_s)


def sizes_of(media: Sequence[Media], processor: Processor) -> list[MediaSize]:
    """Returns the sizes of decoded media."""
    sizes = []
    for medium in media:
        t, h, w, _ = medium.frames.shape
        grid = patches.grid_of(t, h, w, processor.geometry)
        sizes.append(MediaSize(grid, medium.timestamps.tolist(), medium.is_video))
    return sizes


def _frames(medium: M, shown: tuple[int, int], pair: int) -> M:
    """Returns some frames of a video.

    Args:
        medium: the video.
        shown: (first, last + 1) of its temporal patches; the last may lack frames.
        pair: frames of a temporal patch.

    Raises:
        ValueError: it has no such frames.
    """
    frames = slice(shown[0] * pair, shown[1] * pair)
    times = medium.timestamps[frames]
    if shown[0] < 0 or not len(times):
        raise ValueError(
            f"a prompt shows the temporal patches {shown[0]} to {shown[1]} of a medium of "
            f"{len(medium.timestamps)} frames; correct the prompt"
        )
    if isinstance(medium, MediaSize):
        _, h, w = medium.grid_thw
        return medium._replace(grid_thw=(-(-len(times) // pair), h, w), timestamps=times)
    return dataclasses.replace(medium, frames=medium.frames[frames], timestamps=times)


def _row(sample: Sample, text: str) -> Row:
    return Row(
        index=0,
        problem=text,
        answer=None,
        problem_type="open-ended",
        data_type="mixed",
        images=(),
        videos=(),
        options=(),
        problem_id=sample.id,
        video_start=None,
        video_end=None,
        source="benchmark",
        extra={},
    )


T = TypeVar("T")


def _evenly(items: Sequence[T], limit: int) -> list[Sequence[T]]:
    """Returns the items in as few parts as the limit allows, of about the same size.

    >>> _evenly([1, 2, 3, 4, 5], 3)
    [[1, 2, 3], [4, 5]]
    """
    count = -(-len(items) // limit)
    size = -(-len(items) // count)
    return [items[at : at + size] for at in range(0, len(items), size)]
