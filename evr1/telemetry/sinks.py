"""Where metrics go besides the workdir's own files and the console: TensorBoard and W&B."""

import importlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from evr1.formats import extras


class Sink(Protocol):
    """Where metrics go."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""


class TensorBoard:
    """Event files through TensorBoard's protos and record format, which need no TensorFlow.

    Args:
        directory: made if it does not exist.
        start_step: the first step that this process records.
    """

    def __init__(self, directory: Path, start_step: int) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        event_pb2 = importlib.import_module("tensorboard.compat.proto.event_pb2")
        summary_pb2 = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        directory.mkdir(exist_ok=True)
        stem = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((directory / stem).open("wb"))
        self._add(file_version="brain.Event:2")
        # makes TensorBoard forget what an earlier process wrote at or after this step
        self._add(
            step=start_step,
            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
        )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one event that holds the metrics of a step."""
        value = self._summary.Value
        scalars = [value(tag=name, simple_value=v) for name, v in values.items()]
        self._add(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


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
