"""Numbers with their nouns, as messages have them."""

from collections.abc import Mapping
from typing import Any


def counted(n: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun.

    >>> counted(1, "row"), counted(2000, "row"), counted(0, "medium", "media")
    ('1 row', '2,000 rows', '0 media')

    Args:
        n: how many.
        noun: of one.
        plural: of others; empty: the noun with an s.
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def apart(name: str, there: Any, here: Any) -> str:
    """Returns what a value is on another host and on the first; of hashes by name, which differ.

    >>> apart("seed", 1, 0)
    "seed is '1' there and '0' on host 0"
    >>> apart("fields", {"problem": "a1", "answer": "b2"}, {"problem": "a1", "answer": "c3"})
    'fields differ in answer'

    Args:
        name: of the value.
        there: the other host's.
        here: the first host's.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = dict.fromkeys((*here, *there))
        return f"{name} differ in {', '.join(n for n in names if there.get(n) != here.get(n))}"
    return f"{name} is {str(there)[:80]!r} there and {str(here)[:80]!r} on host 0"
