"""Where metrics go besides the workdir's own files and the console: W&B, and `tensorboard`."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from evr1.formats import extras


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

    def close(self) -> None:
        """Ends the W&B run."""
        self._run.finish()
