"""What is in a data set: counts, spreads, answers, what stands twice."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.data.errors import KINDS, MISSING, MediaError
from evr1.data.media.source import Request
from evr1.data.records import MediaSize, Row
from evr1.formats import words

_NAMED = 3  # examples in a line
_COMMON = 5  # answers that are named
_SPACES = re.compile(r"\s+")


class Spread(NamedTuple):
    """Where the values of a quantity lie; all 0 where there is none."""

    n: int
    least: float
    median: float
    mean: float
    high: float  # 95 % are at most this
    most: float


class Answers(NamedTuple):
    """The answers of a problem type.

    Attributes:
        problem_type: of the rows.
        rows: of that type.
        distinct: different answers.
        common: the most common ones, (answer, rows); always giving the first is right so often.
        characters: of an answer.
    """

    problem_type: str
    rows: int
    distinct: int
    common: list[tuple[str, int]]
    characters: Spread


def spread(values: Iterable[float]) -> Spread:
    """Returns where values lie.

    >>> spread([1, 2, 3, 10])
    Spread(n=4, least=1.0, median=2.5, mean=4.0, high=8.95, most=10.0)
    """
    array = np.asarray(list(values), np.float64)
    if not array.size:
        return Spread(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    low, middle, high, most = np.quantile(array, [0, 0.5, 0.95, 1]).tolist()
    return Spread(len(array), low, middle, float(array.mean()), round(high, 6), most)


def by_type(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Returns the number of rows of each problem type in each file, the largest type first."""
    counts: dict[str, collections.Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.problem_type, collections.Counter())[file_of(row)] += 1
    return {t: dict(counts[t]) for t in sorted(counts, key=lambda t: -counts[t].total())}


def file_of(row: Row) -> str:
    """Returns the data file of a row."""
    return row.source.rpartition(":")[0]


def answers(rows: Sequence[Row]) -> list[Answers]:
    """Returns the answers of each problem type, the largest type first."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row.problem_type, []).append(_spelled(row.answer))
    found = []
    for kind, spelled in sorted(texts.items(), key=lambda item: -len(item[1])):
        counts = collections.Counter(spelled)
        common = counts.most_common(_COMMON)
        found.append(Answers(kind, len(spelled), len(counts), common, spread(map(len, spelled))))
    return found


def media_spreads(sizes: Mapping[Request, MediaSize | MediaError], patch: int) -> dict[str, Spread]:
    """Returns frames, seconds and pixels of the media that can be used, as they will be looked at.

    Args:
        sizes: of distinct media.
        patch: pixels on a side of a patch.
    """
    usable = [size for size in sizes.values() if not isinstance(size, MediaError)]
    videos = [size for size in usable if size.is_video]
    sides = [(size.grid_thw[1] * patch, size.grid_thw[2] * patch) for size in usable]
    return {
        "frames of a video": spread(len(size.timestamps) for size in videos),
        "last frame of a video, s": spread(
            size.timestamps[-1] for size in videos if len(size.timestamps)
        ),
        # Which is which is known once a frame is decoded: a display matrix may turn it.
        "shorter side of a frame": spread(map(min, sides)),
        "longer side of a frame": spread(map(max, sides)),
    }


def failures(sizes: Mapping[Request, MediaSize | MediaError], folder: str) -> list[str]:
    """Returns a line for each reason why media cannot be used.

    Args:
        sizes: of distinct media.
        folder: where they were looked for.
    """
    kinds: dict[str, list[str]] = {}
    for size in sizes.values():
        if isinstance(size, MediaError):
            kinds.setdefault(size.kind, []).append(f"{size.path}: {size.reason}")
    return [
        f"media that cannot be used, {kind}{f' in {folder}' * (kind == MISSING)}: "
        f"{len(found)} of {len(sizes)} ({_some(found)}); {KINDS[kind]}"
        for kind, found in sorted(kinds.items())
    ]


def check_any(sizes: Mapping[Request, MediaSize | MediaError], folder: str) -> None:
    """Checks that there is a medium which can be used, unless rows have none.

    Args:
        sizes: of distinct media.
        folder: where they were looked for.

    Raises:
        ValueError: there is none; names the folder and the first of them.
    """
    errors = [size for size in sizes.values() if isinstance(size, MediaError)]
    if not errors or len(errors) < len(sizes):
        return
    count, first = words.counted(len(errors), "medium", "media"), errors[0]
    if any(error.kind != MISSING for error in errors):
        raise ValueError(f"none of {count} can be used; first: {first}")
    raise ValueError(
        f"none of {count} was found in {folder}; first: {first.path}: {first.reason}; "
        "correct the paths or data.media_dir"
    )


def doubles(
    rows: Sequence[Row],
    requests: Sequence[Sequence[Request]],
    contents: Mapping[Request, str],
) -> list[str]:
    """Returns lines about what stands twice.

    Files of one content under several names; rows that ask the same of the same content, with one
    answer or with several; and content that is in more than one data file, as a video is that is
    trained on and held out.

    Args:
        rows: of all data files.
        requests: the media of each row.
        contents: a name for the content of each medium, where it is known.
    """
    names: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    asked: dict[Any, list[Row]] = {}
    for row, media in zip(rows, requests, strict=True):
        for request in media:
            if content := contents.get(request):
                names.setdefault(content, set()).add(request.name)
                files.setdefault(content, set()).add(file_of(row))
        shown = tuple((contents.get(r, r.name), r.start, r.end) for r in media)
        question = _SPACES.sub(" ", row.problem).strip().lower()
        asked.setdefault((question, shown, row.options), []).append(row)
    copies = [sorted(found) for found in names.values() if len(found) > 1]
    same, other = [], []
    for found in asked.values():
        if len(found) > 1:
            is_same = len({_spelled(row.answer) for row in found}) == 1
            (same if is_same else other).append(" and ".join(row.source for row in found[:2]))
    shared = [
        f"{min(names[content])} ({' and '.join(sorted(found)[:2])})"
        for content, found in files.items()
        if len(found) > 1
    ]
    told = [
        ("files of one content under several names", [" = ".join(found[:2]) for found in copies]),
        ("questions that stand more than once, with one answer", same),
        ("questions that stand more than once, with different answers", other),
        ("media in several data files, though what is trained on is not held out", shared),
    ]
    return [f"{what}: {len(found)} ({_some(found)})" for what, found in told if found]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _spelled(answer: Any) -> str:
    return _SPACES.sub(" ", str(answer)).strip()
