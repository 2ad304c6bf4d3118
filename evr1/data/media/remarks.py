"""Remarks about media that decode without an error and yet may not show what they should.

They are counted and named, and never an error: a slide that stays is a video, too.
"""

import math
import os
import pathlib
import threading
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from evr1.data import jsonl
from evr1.formats.part import WHOLE, Part

SIZES = "frame size changes"  # the other sizes are fitted into the first
DAMAGED = "damaged frames"  # the decoder filled in what it could not read
CLIPPED = "levels cut off at 8 bits"  # as Pillow and the Qwen readers show deeper images
PLAIN = "one plain color"
STILL = "every frame the same"
CUT = "cut off"

PLAIN_SPAN = 16  # levels from the darkest to the brightest value, at most; a codec's noise is less
STILL_SPAN = 3  # levels by which a pixel of a frame may differ from the first frame's
FILE = "remarks.jsonl"
_NAMED = 5  # media in a line
_DETAIL = ": "  # between a kind and what is said of one medium alone
_CUT_S, _CUT_SHARE = 1.0, 0.05  # nothing is said where no more than either is lost


def of_frames(frames: np.ndarray, is_video: bool) -> tuple[str, ...]:
    """Returns what there is to say about decoded frames, uint8[T, H, W, 3].

    >>> of_frames(np.zeros((4, 32, 32, 3), np.uint8), is_video=True)
    ('one plain color',)
    """
    if int(frames.max()) - int(frames.min()) <= PLAIN_SPAN:
        return (PLAIN,)
    first = frames[0].astype(np.int16)
    if is_video and all(np.abs(frame - first).max() <= STILL_SPAN for frame in frames[1:]):
        return (STILL,)
    return ()


def of_end(end_s: float, stated_s: float) -> tuple[str, ...]:
    """Returns what there is to say about a file that was cut off.

    >>> of_end(1.1, 3.0), of_end(1.1, 2.0)
    (('cut off: ends at 1.1 s of 3.0 s',), ())
    >>> of_end(1.1, float("inf"))
    ('cut off: ends at 1.1 s, amid a fragment',)

    Args:
        end_s: when its last frame ends.
        stated_s: when it would, as the container states; 0: it does not, or all of it is there;
            infinity: it does not, and not all is there.
    """
    if stated_s == math.inf:
        return (f"{CUT}{_DETAIL}ends at {end_s:.1f} s, amid a fragment",)
    if stated_s - end_s <= max(_CUT_S, _CUT_SHARE * stated_s):
        return ()
    return (f"{CUT}{_DETAIL}ends at {end_s:.1f} s of {stated_s:.1f} s",)


def lines(remarked: Mapping[str, Collection[str]], total: int) -> list[str]:
    """Returns a line for every kind of remark, which counts and names its media.

    >>> lines({"one plain color": ["a.mp4 (rows.jsonl:3)"]}, 20)
    ['warning: one plain color: 1 of 20 media: a.mp4 (rows.jsonl:3)']

    Args:
        remarked: the media of each kind.
        total: media looked at.
    """
    out = []
    for remark, names in sorted(remarked.items()):
        shown = ", ".join(sorted(names)[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        out.append(f"warning: {remark}: {len(names)} of {total} media: {shown}{more}")
    return out


def by_kind(remarks: Iterable[tuple[str, Iterable[str]]]) -> dict[str, list[str]]:
    """Returns the names for each kind of remark, from (name, its remarks).

    >>> by_kind([("a", ["x", "y"]), ("b", ["y"])])
    {'x': ['a'], 'y': ['a', 'b']}
    >>> by_kind([("a", ["cut off: ends at 1.1 s of 3.0 s"])])
    {'cut off': ['a ends at 1.1 s of 3.0 s']}
    """
    names: dict[str, list[str]] = {}
    for name, kinds in remarks:
        for remark in kinds:
            kind, _, detail = remark.partition(_DETAIL)
            names.setdefault(kind, []).append(f"{name} {detail}" if detail else name)
    return names


class Told:
    """What was told, so that each medium is named once for each remark.

    Attributes:
        is_silent: nothing is to be told.
    """

    def __init__(self) -> None:
        self.is_silent = False
        self._told: set[tuple[str, str]] = set()

    def lines(self, found: Iterable[tuple[str, str, Iterable[str]]], total: int) -> list[str]:
        """Returns lines about what was not told before.

        >>> told = Told()
        >>> told.lines([("a.mp4", "rows.jsonl:3", ["one plain color"])], 20)
        ['warning: one plain color: 1 of 20 media: a.mp4 (rows.jsonl:3)']
        >>> told.lines([("a.mp4", "rows.jsonl:5", ["one plain color"])], 20)
        []

        Args:
            found: (name of a medium, its row, its remarks).
            total: media looked at, or to look at.
        """
        if self.is_silent:
            return []
        named = []
        for name, row, kinds in found:
            new = [kind for kind in kinds if (name, kind) not in self._told]
            self._told.update((name, kind) for kind in new)
            named.append((f"{name} ({row})", new))
        return lines(by_kind(named), total)


class RemarkTable:
    """The remarks about the media in a directory of shards, by key; an object a line."""

    def __init__(self, root: str | os.PathLike[str], part: Part = WHOLE):
        """Reads the lists in `root`, those of all parts; a part appends to its own."""
        self._path = jsonl.path_of(pathlib.Path(root) / FILE, part)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, ...]] = {}
        for where, entry in jsonl.read_parts(pathlib.Path(root) / FILE):
            try:
                self._known[entry["key"]] = tuple(entry["remarks"])
            except (KeyError, TypeError):
                raise ValueError(f"{where}: not a remark; delete the line") from None

    def of(self, key: str) -> tuple[str, ...]:
        """Returns the remarks about a medium; none where nothing is known."""
        return self._known.get(key, ())

    def add(self, key: str, path: str, remarks: tuple[str, ...]) -> None:
        """Appends the remarks about a medium, if there are any; `path` is for people."""
        if not remarks or self.of(key) == remarks:
            return
        with self._lock:
            self._known[key] = remarks
            jsonl.append(self._path, {"key": key, "path": path, "remarks": remarks})
