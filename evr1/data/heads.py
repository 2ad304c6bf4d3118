"""The part of a prompt that questions on the same media share: up to its last visual token."""

import dataclasses
from collections.abc import Iterable, Sequence

from evr1.data.processor import Piece
from evr1.data.records import Example

Head = tuple[tuple[tuple[int, ...], int | None], ...]  # pieces of a prompt, see `Piece`


def split(pieces: Iterable[Piece]) -> tuple[Head, tuple[int, ...]]:
    """Returns a prompt's pieces up to its last run of placeholders, and the tokens behind it.

    >>> split([([1, 2], None), ([9], 3), ([4, 5], None)])
    ((((1, 2), None), ((9,), 3)), (4, 5))
    """
    listed = list(pieces)
    last = max((i for i, (_, count) in enumerate(listed) if count is not None), default=-1)
    head = tuple((tuple(ids), count) for ids, count in listed[: last + 1])
    return head, tuple(token for ids, _ in listed[last + 1 :] for token in ids)


def length(head: Iterable[tuple[Sequence[int], int | None]]) -> int:
    """Returns the number of tokens of pieces.

    >>> length([([1, 2], None), ([9], 3)])
    5
    """
    return sum(len(ids) if count is None else count for ids, count in head)


def cut(example: Example, end: int) -> Example:
    """Returns the first `end` tokens of a prompt, which hold all of its media."""
    return dataclasses.replace(
        example,
        tokens=example.tokens[:end],
        is_visual=example.is_visual[:end],
        positions=example.positions[:, :end],
        next_position=int(example.positions[:, end].max()),
    )
