"""The files of a workdir as the report reads them, whether the run has ended or not."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_SERIES_LIMIT = 2_000  # steps in the curves


class Metrics(NamedTuple):
    """The metrics of a run."""

    steps: list[int]  # ascending
    values: dict[str, list[float | None]]  # name -> value at each step; None: not measured

    def measured(self, name: str) -> list[tuple[int, float]]:
        """(step, value) wherever the metric was measured; [] of an unknown one."""
        values = self.values.get(name)
        if values is None:
            return []
        return [(s, v) for s, v in zip(self.steps, values, strict=True) if v is not None]


def read_metrics(path: Path) -> Metrics:
    """Reads metrics.jsonl.

    Lines of one step are merged, and their times added. Of very many steps only every second
    (third, ...) is taken, and all that have an evaluation.

    Raises:
        ValueError: no such file, or a line that is not a JSON object with a step.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; give the workdir of a run")
    by_step: dict[int, dict[str, float | None]] = {}
    for _, _, record in read_lines(path):
        merged = by_step.setdefault(record["step"], {})
        for name, value in record.items():
            # an evaluation is timed apart from the step that it follows
            adds_up = name.startswith("time/") and merged.get(name) is not None
            merged[name] = merged[name] + value if adds_up else value
    steps = sorted(by_step)
    stride = max(1, math.ceil(len(steps) / _SERIES_LIMIT))
    kept = set(steps[::stride]) | set(steps[-1:])
    kept |= {s for s in steps if any(name.startswith("eval/") for name in by_step[s])}
    steps = sorted(kept)
    names = sorted({name for s in steps for name in by_step[s]} - {"step"})
    return Metrics(steps, {name: [by_step[s].get(name) for s in steps] for name in names})


def read_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields (first byte, end, record) of every line of a JSONL file.

    A half last line of a running or killed run is left out.

    Raises:
        ValueError: a line that is not a JSON object with a step.
    """
    position = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            start, position = position, position + len(line)
            try:
                record = json.loads(line)
                record["step"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}:{number}: not a JSON object with a step") from error
            yield start, position, record
