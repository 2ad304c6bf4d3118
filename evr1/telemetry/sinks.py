"""Where metrics go besides the workdir's own files and the console: W&B, Trackio, `tensorboard`."""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        wandb = _package("wandb", project)
        self._table = wandb.Table
        self._run = wandb.init(
            project=project,
            name=workdir.name,
            id=_kept_id(workdir / "wandb_id"),
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
        for step, name, columns, data in _tables(records):
            table = self._table(columns=columns, data=data)
            self._run.log({"step": step, name: table})

    def close(self) -> None:
        """Ends the W&B run."""
        self._run.finish()


class Trackio:
    """One Trackio run per workdir, on this machine (`trackio show`), or where TRACKIO_SPACE_ID or
    TRACKIO_SERVER_URL of its own say.

    Trackio finds a run by its name: that is the workdir's, with an id that is kept there, so a
    resumed run goes on in the same one. Steps after its checkpoint then stand there twice.

    Args:
        project: Trackio's.
        workdir: holds the id.
        config: what Trackio shows as the run's config.

    Raises:
        ValueError: Trackio is not installed.
    """

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]) -> None:
        trackio = _package("trackio", project)
        self._table = trackio.Table
        name = f"{workdir.resolve().name}-{_kept_id(workdir / 'trackio_id')}"
        with contextlib.redirect_stdout(sys.stderr):  # it tells where it writes
            self._run = trackio.init(
                project=project, name=name, resume="allow", config=dict(config), embed=False
            )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the metrics of a step."""
        self._run.log(dict(values), step=step)

    def rollouts(self, records: Sequence[RolloutRecord]) -> None:
        """Sends a table of some rollouts of a step, as W&B's."""
        for step, name, columns, data in _tables(records):
            self._run.log({name: self._table(columns=columns, data=data)}, step=step)

    def close(self) -> None:
        """Ends the Trackio run, once all is written."""
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


def _package(name: str, project: str) -> Any:
    """Returns a tracker's package, of an extra of the same name.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"log.{name}={project!r} needs the {name} package, which is not installed; "
            f"{extras.install(name)}, or leave log.{name} empty"
        ) from error


def _kept_id(file: Path) -> str:
    """Returns the id that a file in the workdir holds; makes one the first time."""
    if not file.exists():
        file.write_text(os.urandom(6).hex())
    return file.read_text().strip()


def _tables(
    records: Sequence[RolloutRecord],
) -> Iterator[tuple[int, str, list[str], list[list[Any]]]]:
    """Yields (step, name, columns, data) of a table for each split that the records have."""
    for split, name in SPLITS.items():
        some = spread([r for r in records if r.split == split])[:ROWS]
        if some:
            parts = sorted({part for r in some for part in r.score})
            data = [[*map(_cell(r), _COLUMNS), *map(r.score.get, parts)] for r in some]
            yield some[0].step, f"rollouts/{name}", [*_COLUMNS, *parts], data


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
