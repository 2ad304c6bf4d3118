"""Output files of commands that grow by a row at a time and are gone on with."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evr1.data import jsonl
from evr1.data.records import Row


class Results:
    """The output file: rows of finished questions, a line each, written as they come."""

    def __init__(self, path: str, settings: dict[str, Any], per_row: int):
        """Opens the file and reads what an earlier run left there.

        Args:
            path: .jsonl; `path.settings.json` beside it says how the rows were made.
            settings: how they will be made.
            per_row: output rows for each input row; an incomplete set is made again.

        Raises:
            ValueError: the file was written with other settings, or by something else.
        """
        self._path, self._per_row = pathlib.Path(path), per_row
        if self._path.exists() and not self._path.is_file():
            raise ValueError(f"{path} is no regular file; give the name of a .jsonl file")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        record = self._path.with_name(self._path.name + ".settings.json")
        kept: dict[int, list[str]] = {}
        if self._path.exists() and self._path.stat().st_size:
            _check_settings(self._path, record, settings)
            kept = self._complete()
        write_atomic(self._path, "".join(line for lines in kept.values() for line in lines))
        write_atomic(record, json.dumps(settings, indent=1) + "\n")
        self.done = frozenset(kept)
        self._file = self._path.open("a", encoding="utf-8")

    def _complete(self) -> dict[int, list[str]]:
        """Returns the lines of each row that has all of its output; a torn last line is dropped."""
        lines: dict[int, list[str]] = {}
        with self._path.open("rb") as file:  # text would end lines at U+2028 and the like, too
            for raw in file:
                try:
                    line = raw.decode("utf-8")
                    index = json.loads(line)["index"]
                except (ValueError, KeyError, TypeError):
                    continue
                lines.setdefault(index, []).append(line)
        return {i: found for i, found in lines.items() if len(found) == self._per_row}

    def add(self, made: Sequence[dict[str, Any]]) -> None:
        """Appends the output of one input row."""
        self._file.write("".join(line(m) for m in made))
        self._file.flush()

    def sort(self) -> None:
        """Brings all lines into the order of the input rows; call it once everything is there."""
        self._file.close()
        kept = self._complete()
        lines = (line for index in sorted(kept) for line in kept[index])
        write_atomic(self._path, "".join(lines))

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def output_row(row: Row, think_open: bool, **made: Any) -> dict[str, Any]:
    """Returns the fields of the row as it was read, and what was made of it.

    Args:
        row: as it was read.
        think_open: the prompt left a think block open, which scoring must know.
        **made: further fields.
    """
    fields = dataclasses.asdict(row)
    fields = {**fields.pop("extra"), **fields}  # the row may be output itself, with an old index
    for name in ("images", "videos"):
        fields[name] = [m if isinstance(m, str) else m.entry() for m in getattr(row, name)]
    fields.pop("source")
    fields.pop("think_open", None)  # of another prompt
    made = {"think_open": True} | made if think_open else made
    return {k: v for k, v in fields.items() if v is not None and v not in ((), [])} | made


def line(fields: Any) -> str:
    """Returns a value as a line of JSON that our reader takes: numbers that are none are null."""
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(jsonl.finite(fields), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        text = json.dumps(json.loads(text))
    return text + "\n"


class Failures:
    """Rows that cannot be used: told, counted, and too many of them are an error."""

    def __init__(self, total: int, max_share: float, what: str = "have unusable media"):
        self._total, self._max_share, self._what = total, max_share, what
        self._errors: list[str] = []

    def add(self, row: Row, error: object) -> None:
        """Counts a row."""
        self._errors.append(f"{row.source} ({row.problem_id}): {error}")

    def check(self, say: Callable[[str], None] | None = None) -> None:
        """Tells what was skipped, where there is somebody to tell; an error names the first.

        Raises:
            ValueError: more than the allowed share failed.
        """
        is_over = len(self._errors) > self._max_share * self._total
        if say is not None:
            for error in self._errors[is_over:10]:
                say(f"  skipped {error}")
        if is_over:
            raise ValueError(
                f"{len(self._errors)} of {self._total} rows {self._what}, over"
                f" --max_failed_share={self._max_share:g}; first: {self._errors[0]}"
            )


def numbers(array: np.ndarray) -> list[float]:
    """Returns float32 values as the shortest decimals that read back as the same float32."""
    return [float(str(x)) for x in array]


def _check_settings(path: pathlib.Path, record: pathlib.Path, settings: dict[str, Any]) -> None:
    """Raises ValueError where a file is not output with these settings: it would be lost."""
    if not record.is_file():
        with path.open("rb") as file:
            if b'"logprobs": ' not in file.readline():
                raise ValueError(
                    f"{path} exists and is no output of this command; give another --out or delete"
                    " it"
                )
        return
    before = json.loads(record.read_text("utf-8"))
    for name, now in settings.items():
        was = before.get(name)
        if was != now:
            raise ValueError(
                f"{path} was written with {_unlike(name, was, now)}; give another --out or delete"
                " it"
            )


def with_digest(path: str, digest: str) -> str:
    """Returns a file with a digest of what it holds, as settings have it; see `_check_settings`."""
    return f"{path} (sha256 {digest})" if digest else path


_WITH_DIGEST = re.compile(r"(.*) \(sha256 \w+\)", re.DOTALL)


def _unlike(name: str, was: Any, now: Any) -> str:
    """Returns what a setting was and is; a file that was edited, in words.

    >>> _unlike("rows", "a.jsonl (sha256 12)", "a.jsonl (sha256 34)")
    '--rows a.jsonl, which holds something else now'
    >>> _unlike("seed", 3, 4)
    '--seed 3, now 4'
    """
    found = [_WITH_DIGEST.fullmatch(str(value)) for value in (was, now)]
    old, new = (m[1] if m else value for m, value in zip(found, (was, now), strict=True))
    if all(found) and old == new:
        return f"--{name} {old}, which holds something else now"
    return f"--{name} {_spell(old)}, now {_spell(new)}"


def _spell(value: Any) -> str:
    return "not given" if value in (None, "") else str(value)


def write_atomic(path: pathlib.Path, text: str) -> None:
    """Writes a file under another name, then moves it into place."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: pathlib.Path, data: bytes) -> None:
    """Writes a file under another name, then moves it into place."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
