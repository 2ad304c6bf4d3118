"""Fields of rows that nobody reads and that are one letter away from one that is read."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from rapidfuzz.distance import OSA

from evr1.config.columns import FIELDS, IGNORE
from evr1.data import dialects, entries

_SHORTEST = 5  # letters; of shorter names too many are one letter apart
_OWNERS = {  # every name that is read: the field of ours that it is
    **{name: name for name in FIELDS if name != IGNORE},
    **{name: ours for ours, turns in dialects.ALIASES.items() for turn in turns for name in turn},
    **dict.fromkeys((*dialects.VIDEO_COLUMNS, *dialects.FRAME_COLUMNS), "videos"),
    **dict.fromkeys(dialects.IMAGE_COLUMNS, "images"),
    **dict.fromkeys(dialects.CHATS, "problem"),
    **dict.fromkeys(dialects.HISTORY, "turns"),
    **dict.fromkeys(entries.TIMES, "times"),
}
_OTHERS = frozenset((*entries.UNREAD, *entries.SPANS, *dialects.OTHER_MEDIA))


def fields_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (field, what it was probably meant to be) where the row lacks the latter.

    >>> list(fields_of({"problem": "?", "Problem_typ": "ocr", "weight": 3, "answers": [1]}))
    [('Problem_typ', 'problem_type'), ('answers', 'answer')]

    Args:
        row: in our own words, see `dialects.adapt`; nothing filled in yet.
    """
    for name in row:
        near = _near(name) if isinstance(name, str) else ""
        if near and row.get(_OWNERS[near]) is None:
            yield name, near


@functools.lru_cache(4096)
def _near(name: str) -> str:
    """Returns the name that is read and that another one is nearly; "": none is near, or it is one.

    Near is a letter left out, added, changed or swapped with the next, behind the first.

    >>> [_near(name) for name in ("optoins", "problem-type", "anwser", "height", "weight", "time")]
    ['options', 'problem_type', 'answer', '', '', '']
    """
    key = name.lower().replace("-", "_").replace(" ", "_")
    if name in _OWNERS or name in _OTHERS or len(name) < _SHORTEST:
        return ""
    near = (known for known in _OWNERS if known[0] == key[0])
    return next((known for known in near if OSA.distance(key, known) <= 1), "")
