"""Rows to pass over, as `data.skip` names them."""

import difflib
import pathlib
from collections.abc import Iterator, Sequence

from evr1.data.records import Row


def find_rows(entries: Sequence[str], rows: Sequence[Row]) -> frozenset[int]:
    """Returns the numbers of the rows that are named.

    Args:
        entries: problem ids, places as messages write them (FILE:LINE; the end of the path will
            do), or files that list both, one a line (an empty one and one with # say nothing).
        rows: of training.

    Raises:
        ValueError: an entry names no row.
    """
    by_id: dict[str, list[int]] = {}
    by_line: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_id.setdefault(row.problem_id, []).append(i)
        by_line.setdefault(row.source.rpartition(":")[2], []).append(i)
    found: set[int] = set()
    for where, name in _names(entries, by_id):
        numbers = by_id.get(name, [])
        file, _, line = name.rpartition(":")
        if file and not numbers:
            numbers = [i for i in by_line.get(line, []) if _is_file(rows[i].source, file)]
        if not numbers:
            near = difflib.get_close_matches(name, by_id, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{where}: {name!r} is neither the problem_id nor the FILE:LINE of a training row"
                f"{hint}"
            )
        found.update(numbers)
    return frozenset(found)


def _names(entries: Sequence[str], ids: dict[str, list[int]]) -> Iterator[tuple[str, str]]:
    """Yields (where it stands, name); an entry that is a problem id is never taken for a file."""
    for entry in entries:
        path = pathlib.Path(entry)
        if entry in ids or not path.is_file():
            yield "data.skip", entry
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(
                f"data.skip: {entry} is no text; give a file with a problem_id or FILE:LINE a line"
            ) from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line and not line.startswith("#"):
                yield f"{entry}:{number}", line


def _is_file(source: str, file: str) -> bool:
    """Returns whether FILE:LINE is of this file, or of one whose path ends like it.

    >>> _is_file("data/rows.jsonl:3", "rows.jsonl"), _is_file("data/rows.jsonl:3", "ows.jsonl")
    (True, False)
    """
    ours, theirs = pathlib.Path(source.rpartition(":")[0]), pathlib.Path(file)
    if theirs.is_absolute():
        return ours.resolve() == theirs.resolve()
    return ours.parts[-len(theirs.parts) :] == theirs.parts
