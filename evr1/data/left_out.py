"""What is said about rows that a run does without: how many of each problem type, and why."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from evr1.data.records import Row


def lines(rows: Sequence[Row], lengths: np.ndarray, limit: int, split: str) -> list[str]:
    """Returns a line for each reason why rows are left out; none where all are used.

    Args:
        rows: of a split.
        lengths: int[rows], their planned prompt tokens; below 0 where media cannot be used.
        limit: data.max_prompt_tokens.
        split: training or held-out, of which those that are left out count as wrong.
    """
    end = "; they count as wrong" if split == "held-out" else ""
    out = []
    if (lengths > limit).any():
        out.append(f"left out: {overlong(rows, lengths, limit, split + ' ')}{end}")
    failed = np.flatnonzero(lengths < 0).tolist()
    if failed:
        out.append(
            f"left out: {len(failed)} of {len(rows)} {split} rows, whose media cannot be used "
            f"({_by_type(rows, failed)}){end}"
        )
    return out


def overlong(rows: Sequence[Row], lengths: np.ndarray, limit: int, split: str = "") -> str:
    """Returns how many rows of each type are over the limit, and how far."""
    long = np.flatnonzero(lengths > limit).tolist()
    return (
        f"{len(long)} of {len(rows)} {split}rows are over data.max_prompt_tokens={limit}, up to "
        f"{lengths.max()} tokens ({_by_type(rows, long)})"
    )


def _by_type(rows: Sequence[Row], indices: Iterable[int]) -> str:
    """Returns '3 of 8 numerical, 1 of 2 ocr', the type that loses most first."""
    sizes = collections.Counter(row.problem_type for row in rows)
    counts = collections.Counter(rows[i].problem_type for i in indices)
    return ", ".join(f"{n} of {sizes[kind]} {kind}" for kind, n in counts.most_common())
