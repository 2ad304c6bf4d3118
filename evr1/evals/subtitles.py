"""Fills the subtitles of a prompt in, once it is known which frames are shown."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from evr1.evals.tasks import lines
from evr1.evals.tasks.base import Part, Sample, Show, Subtitles


class SubtitlesError(ValueError):
    """A file of subtitles that gives no lines."""


def fill(
    parts: Iterable[Part], sample: Sample, folder: Path, times: Sequence[float]
) -> tuple[str | Show, ...]:
    """Returns a prompt whose places of subtitles are filled.

    Such a place becomes one text; none where the sample has no subtitles, or no line of them is
    shown. Where lines stand between frames, the video before that place is cut: runs of its frames
    (`Show.frames`) and texts take turns.

    Args:
        parts: what the prompt of the task returns.
        sample: that it was made for.
        folder: of the benchmark.
        times: seconds in the file of the first medium, ascending; of each frame that is shown, or
            of whatever `Show.frames` is to count (temporal patches of two frames, say).

    Raises:
        SubtitlesError: the subtitle file is not there, or is broken; in one line.

    >>> fill([Show(), Subtitles("Said: "), "Who?"], Sample("1", {}, ()), Path(), [0.0, 0.5])
    (Show(medium=0, frames=None), 'Who?')
    """
    filled: list[str | Show] = []
    for part in parts:
        if not isinstance(part, Subtitles):
            filled.append(part)
        elif sample.subtitles:
            listed = [line for line in _read(folder / sample.subtitles) if line.text]
            if part.between_frames:
                filled += _between(part, listed, times, filled.pop())
            else:
                filled += _listed(part, listed, times)
    return tuple(filled)


def _read(path: Path) -> list[lines.Line]:
    try:
        return lines.read(path)
    except (ValueError, OSError) as error:
        raise SubtitlesError(str(error)) from error


def _listed(part: Subtitles, listed: Sequence[lines.Line], times: Sequence[float]) -> Iterator[str]:
    """Yields the text of a place, if there are lines for it."""
    if part.shown_only:
        listed = lines.shown(listed, times, part.offset_s)
    if listed:
        yield _text(part, (line.text for line in listed))


def _between(
    part: Subtitles, listed: Sequence[lines.Line], times: Sequence[float], video: str | Show
) -> Iterator[str | Show]:
    """Yields runs of frames, and texts of the lines between them."""
    assert isinstance(video, Show), "lines between frames stand behind their video"
    mixed = lines.interleave(listed, times, part.offset_s, part.duration_s)
    for is_text, run in itertools.groupby(mixed, key=lambda each: isinstance(each, str)):
        if is_text:
            yield _text(part, map(str, run))
        else:
            places = [int(place) for place in run]
            yield video._replace(frames=(places[0], places[-1] + 1))


def _text(part: Subtitles, texts: Iterable[str]) -> str:
    return f"{part.start}{part.joiner.join(texts)}{part.end}"
