"""Lines of subtitles: read from the official files, and put beside the frames they belong to."""

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals.tasks import files

_CLOCK = r"(\d+:\d\d:\d\d[,.]\d+)"
_CUE = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}")
_TAG = re.compile(r"</?(?:font|[bisu])\b[^<>]*>|\{\\[^{}]*\}")
_LEAST_S = 1.0  # a line that is shorter is taken as this long when it is looked for between frames


class Line(NamedTuple):
    """A line of subtitles.

    Attributes:
        start_s: seconds.
        end_s: seconds; None: the file does not tell.
        text: without marks of style, in one line.
    """

    start_s: float
    end_s: float | None
    text: str


def read(path: Path) -> list[Line]:
    """Returns the lines of a SubRip file, or of a JSON or JSONL file as `of_rows` knows them.

    Raises:
        ValueError: the file is not there, or is broken; in one line.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such subtitle file; download it, or ask without subtitles")
    if path.suffix == ".srt":
        return _read_srt(path)
    rows = list(files.read_jsonl(path)) if path.suffix == ".jsonl" else files.read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: it holds no list of lines; download it again")
    return of_rows(rows, str(path))


def of_rows(rows: Iterable[Any], where: str) -> list[Line]:
    """Returns the lines of rows in one of three forms.

    LongVideoBench has {"start": "00:00:01.000", "end": ..., "line": ...} and
    {"timestamp": [1.0, 2.5 or None], "text": ...}; Video-MME-v2 has a word a row,
    {"start_time": 1.0, "end_time": 1.4, "text": ...}.

    Raises:
        ValueError: a row has another form; names it.
    """
    return [_of_row(row, f"{where}: line {number}") for number, row in enumerate(rows, 1)]


def _of_row(row: Any, where: str) -> Line:
    try:
        if "timestamp" in row:
            start, end = row["timestamp"]
            return Line(float(start), end if isinstance(end, float) else None, _plain(row["text"]))
        if "start_time" in row:
            return Line(float(row["start_time"]), float(row["end_time"]), _plain(row["text"]))
        return Line(_seconds(row["start"]), _seconds(row["end"]), _plain(row["line"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(
            f"{where}: {str(row)[:60]!r} has no start, end and text; download the file again"
        ) from None


def _read_srt(path: Path) -> list[Line]:
    try:
        rows = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}; download it again") from None
    cues = [(place, found) for place, row in enumerate(rows) if (found := _CUE.match(row))]
    if not cues:
        raise ValueError(f"{path}: no line like 00:00:01,000 --> 00:00:02,500; download it again")
    ends = [place for place, _ in cues[1:]] + [len(rows)]
    return [
        Line(_seconds(cue[1]), _seconds(cue[2]), _plain(" ".join(_texts(rows[place + 1 : end]))))
        for (place, cue), end in zip(cues, ends, strict=True)
    ]


def _texts(rows: Sequence[str]) -> Iterator[str]:
    """Yields the rows of a cue without the number of the next one, which a blank row precedes."""
    last = len(rows) - 1
    for place, row in enumerate(rows):
        is_number = place == last > 0 and row.strip().isdecimal() and not rows[place - 1].strip()
        if row.strip() and not is_number:
            yield row


def _seconds(clock: str) -> float:
    """Returns the seconds of "01:02:03,500" or "01:02:03.500"."""
    hours, minutes, seconds = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _plain(text: str) -> str:
    r"""Returns a text without marks of style and line breaks.

    >>> _plain('<font color="white" size=".72c">Look,\n<i>there</i></font>')
    'Look, there'
    """
    return " ".join(_TAG.sub("", text).split())


def shown(lines: Iterable[Line], times: Sequence[float], offset_s: float = 0.0) -> list[Line]:
    """Returns the lines that a frame falls inside, not on a bound.

    Args:
        lines: in any order, which is kept.
        times: of the frames in the video, seconds, ascending.
        offset_s: where the video starts in the time of the lines.

    >>> shown([Line(1.0, 2.0, "a"), Line(2.0, 3.0, "b")], [0.0, 1.5, 3.0])
    [Line(start_s=1.0, end_s=2.0, text='a')]
    """
    return [
        line
        for line in lines
        if line.end_s is not None
        and _holds_one(times, line.start_s - offset_s, line.end_s - offset_s)
    ]


def _holds_one(times: Sequence[float], start_s: float, end_s: float) -> bool:
    place = bisect.bisect_right(times, start_s)
    return place < len(times) and times[place] < end_s


def interleave(
    lines: Iterable[Line], times: Sequence[float], offset_s: float, duration_s: float
) -> list[int | str]:
    """Returns the places of frames and the texts of lines in the order of time.

    A line stands before the first frame later than its middle, and only if a frame falls inside
    it (a line under a second is taken as a second long).

    Args:
        lines: in the order of time.
        times: of the frames in the video, seconds, ascending.
        offset_s: where the video starts in the time of the lines.
        duration_s: end of a line that has none, in the time of the lines.

    >>> interleave([Line(1.0, 2.5, "hello"), Line(7.0, 7.2, "lost")], [0.0, 2.0, 4.0], 0.0, 9.0)
    [0, 'hello', 1, 2]
    """
    parts: list[int | str] = []
    done = 0
    for line in lines:
        end = duration_s if line.end_s is None else line.end_s
        start, end = line.start_s - offset_s, end - offset_s
        middle = (start + end) / 2
        while done < len(times) and times[done] <= middle:
            parts.append(done)
            done += 1
        if end - start < _LEAST_S:
            start, end = middle - _LEAST_S / 2, middle + _LEAST_S / 2
        if _holds_one(times, start, end):
            parts.append(line.text)
    return parts + list(range(done, len(times)))
