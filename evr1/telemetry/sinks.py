"""Where metrics go besides the workdir's own files and the console: W&B, and `tensorboard`."""

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evr1.formats import extras
from evr1.telemetry.records import RolloutRecord

SPLITS = {"train": "train", "eval": "held-out"}  # and what people read
ROWS = 32  # of a table of rollouts
_COLUMNS = ("problem_id", "problem_type", "prompt", "completion", "answer", "extracted", "status")
_COLUMNS += ("advantage", "length")


class Sink(Protocol):
    """Where metrics go."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""


class WandB:
    """One W&B run per workdir: its id is kept there, so a resumed run goes on in the same one.

    Args:
        project: W&B's.
        workdir: holds the id; its name is the run's.
        config: what W&B shows as the run's config.

    Raises:
        ValueError: W&B is not installed.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                f"log.wandb={project!r} needs the wandb package, which is not installed; "
                f"{extras.install('wandb')}, or leave log.wandb empty"
            ) from error
        id_file = workdir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(os.urandom(6).hex())
        self._table = wandb.Table
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            id=id_file.read_text().strip(),
            resume="allow",
            dir=str(workdir),
            config=dict(config),
        )
        # W&B's own step only counts up; a resumed run goes back to its checkpoint
        self._run.define_metric("*", step_metric="step")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the metrics of a step."""
        self._run.log({"step": step, **values})

    def rollouts(self, records: Sequence[RolloutRecord]) -> None:
        """Sends a table of some rollouts of a step, of as many prompts as it has rows."""
        for split, name in SPLITS.items():
            some = [r for r in records if r.split == split]
            if some:
                some = spread(some)[:ROWS]
                parts = sorted({part for r in some for part in r.score})
                columns = [*_COLUMNS, *parts]
                data = [[*map(_cell(r), _COLUMNS), *map(r.score.get, parts)] for r in some]
                table = self._table(columns=columns, data=data)
                self._run.log({"step": some[0].step, f"rollouts/{name}": table})

    def close(self) -> None:
        """Ends the W&B run."""
        self._run.finish()


def spread(records: Sequence[RolloutRecord]) -> list[RolloutRecord]:
    """Returns the records in another order: the first of each prompt, then the second ones ..."""
    seen: dict[str, int] = {}
    turns = []
    for record in records:
        turns.append(seen.get(record.problem_id, 0))
        seen[record.problem_id] = turns[-1] + 1
    order = sorted(range(len(records)), key=turns.__getitem__)
    return [records[i] for i in order]


def _cell(record: RolloutRecord) -> Callable[[str], str | float | None]:
    """Returns the value of a column; what is no text or number as JSON: a column has one type."""

    def of(name: str) -> str | float | None:
        value = getattr(record, name)
        if name == "answer" and not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False, default=str)
        return value

    return of
