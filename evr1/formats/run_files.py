"""Checkpoints of runs, which users give as models.

RUN/checkpoints/10 is the model after step 10, RUN/checkpoints/best the one that was best on the
held-out rows, and RUN, a workdir, the newest one.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER, BEST = "checkpoints", "best"
STATE = "state"  # of a checkpoint: its arrays


class RunCheckpoint(NamedTuple):
    """A checkpoint of a run.

    Attributes:
        directory: RUN/checkpoints/STEP.
        config: config.json of the run.
    """

    directory: Path
    config: dict[str, Any]

    @property
    def step(self) -> int:
        """RL steps behind it."""
        return int(self.directory.name)

    @property
    def start(self) -> Path:
        """Directory that the run started from: of its config, tokenizer and processor."""
        start = Path(self.config["model"])
        if not start.is_dir():
            raise ValueError(
                f"{self.directory}: the run started from {start}, which is not there; go to the "
                "folder that it was started in, or put the model's path into config.json"
            )
        return start


def find(path: str | Path) -> RunCheckpoint | None:
    """Returns the checkpoint that a path names; None: it names no run.

    Raises:
        ValueError: the run has no such checkpoint; says which it has.
    """
    root = Path(path)
    name = root.name if root.parent.name == FOLDER else ""
    run = root.parent.parent if name else root
    config = _config(run)
    return None if config is None else _checkpoint(run, config, name)


def is_run(path: str | Path) -> bool:
    """Returns whether a directory is the workdir of a run."""
    return _config(Path(path)) is not None


def start_dir(path: str | Path) -> Path:
    """Returns where a model's config and tokenizer lie: where a run started, else the path."""
    run = find(path)
    return Path(path) if run is None else start_dir(run.start)


def steps(run: Path) -> list[int]:
    """Returns the steps that have a whole checkpoint, ascending."""
    names = [p.name for p in (run / FOLDER).glob("*") if (p / STATE).is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def best(run: Path) -> int | None:
    """Returns the step that was best on the held-out rows, as the newest checkpoint knows it."""
    for step in reversed(steps(run)):
        record = run / FOLDER / str(step) / "extra" / "metadata"
        try:
            known = json.loads(record.read_text("utf-8"))["best"]
        except (OSError, ValueError, KeyError):
            continue  # damaged, or written before there was a best one
        return known[0] if known else None
    return None


def _checkpoint(run: Path, config: dict[str, Any], name: str) -> RunCheckpoint:
    have = steps(run)
    step = best(run) if name == BEST else have[-1] if have and not name else name
    if not have or step is None or str(step) not in map(str, have):
        which = f"it has steps {', '.join(map(str, have))}" if have else "it has no checkpoint yet"
        if have and name == BEST:
            start = f"what it started from ({config['model']}) was best on the held-out rows"
            which += f"; {start if step == 0 else 'none of them knows a best one'}"
        raise ValueError(f"{run}: no checkpoint{f' {name}' if name else ''}; {which}")
    return RunCheckpoint(run / FOLDER / str(step), config)


def _config(run: Path) -> dict[str, Any] | None:
    """Returns the config.json of a run; None: this is none."""
    try:
        config = json.loads((run / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    fields = {"rollout", "checkpoint", "model"}
    return config if isinstance(config, dict) and fields <= config.keys() else None
