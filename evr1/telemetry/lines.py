"""JSONL files that grow by whole lines and are exact under resume."""

import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evr1.telemetry.workdir import replace_file


class LineFile:
    """An append-only JSONL file whose lines carry `step`.

    Args:
        path: made if it does not exist; lines at or after the start step are dropped, and a half
            last line of a killed run.
        start_step: the first step that will be appended.

    Raises:
        ValueError: another line than the last is not a JSON object with a step.
    """

    def __init__(self, path: Path, start_step: int) -> None:
        _drop_lines(path, start_step)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Writes a line a record; numbers that are not finite become null."""
        text = "".join(
            json.dumps(_finite(r), ensure_ascii=False, separators=(", ", ": ")) + "\n"
            for r in records
        )
        # whole lines in one write: a reader or a kill -9 meets no half line
        data = memoryview(text.encode("utf-8", errors="replace"))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:  # a full disk: say of which file
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def sync(self) -> None:
        """Waits until all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _finite(value: Any) -> Any:
    """The value with NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _drop_lines(path: Path, start_step: int) -> None:
    """Rewrites a JSONL file without the lines at or after a step, and without a half last line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        replace_file(path, _lines_before(file, path, start_step))


def _lines_before(lines: Iterable[bytes], path: Path, start_step: int) -> Iterator[bytes]:
    """Yields the whole lines whose step is below the start step."""
    for number, line in zip(itertools.count(1), lines):  # noqa: B905  one side never ends
        if not line.endswith(b"\n"):
            return  # killed in mid-line
        try:
            step = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}:{number}: not a JSON object with a step; repair or remove the line"
            ) from error
        if step < start_step:
            yield line
