"""What a run leaves behind while it goes: metrics, rollouts, config, TensorBoard, W&B, the console.

`metrics.jsonl` and `rollouts.jsonl` are exact under resume: lines at or after the resumed step are
dropped first, so the files end up as an uninterrupted run writes them (wall-clock times aside).
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console

from evr1.display import Display

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_-]+)+")
_PACKAGES = ("evr1", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class RolloutRecord:
    """One line of rollouts.jsonl: a prompt, one completion of it and what it earned.

    Attributes:
        step: RL step that drew it.
        split: "train" or "eval" (held out).
        weight_version: how many updates the weights that drew it have seen.
        prompt: text with one placeholder a medium, not the expanded visual tokens.
        answer: the row's reference answer.
        score: parts of the score, e.g. overall, accuracy, format.
        status: the scorer's verdict on itself, e.g. "ok" or why it could not score.
        extracted: what the scorer read as the final answer.
        advantage: what the loss multiplied; None for held-out rollouts.
        length: completion tokens, the end token included.
        finished: false where the length limit cut the completion.
        media: paths of the row's images and videos, as in the row.
        origin: policy, offline (from the data) or replay (an earlier completion of the policy).
    """

    step: int
    split: str
    weight_version: int
    problem_id: str
    problem_type: str
    prompt: str
    completion: str
    answer: Any
    score: Mapping[str, float]
    status: str
    extracted: str
    advantage: float | None
    length: int
    finished: bool
    media: Sequence[str]
    origin: str = "policy"


class PhaseTimer:
    """Adds up wall-clock seconds by phase; a phase inside another stops the outer one's clock.

    >>> ticks = iter([0.0, 1.0, 3.0, 4.0, 9.0, 10.0])
    >>> timer = PhaseTimer(clock=lambda: next(ticks))  # 0: made
    >>> with timer("rollout"):  # from 1 to 9
    ...     with timer("score"):  # from 3 to 4
    ...         pass
    >>> timer.pop()  # at 10
    {'time/rollout_s': 7.0, 'time/score_s': 1.0, 'time/step_s': 10.0}
    """

    def __init__(
        self,
        on_enter: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts the step's clock.

        Args:
            on_enter: called with the name of each phase that begins.
            clock: seconds, monotonic.
        """
        self._on_enter, self._clock = on_enter, clock
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = self._step_start = clock()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Counts the block's seconds as time/<phase>_s; the same phase may come again."""
        self._charge()
        self._open.append(phase)
        self._seconds.setdefault(phase, 0.0)
        if self._on_enter is not None:
            self._on_enter(phase)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def pop(self) -> dict[str, float]:
        """The metrics time/<phase>_s and time/step_s since the last pop, which start at 0 again."""
        self._charge()
        metrics = {f"time/{phase}_s": seconds for phase, seconds in self._seconds.items()}
        metrics["time/step_s"] = self._since - self._step_start
        self._seconds = dict.fromkeys(self._open, 0.0)
        self._step_start = self._since
        return metrics

    def _charge(self) -> None:
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now


class Sink(Protocol):
    """Where metrics go."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""


class Writer:
    """Everything a run records in its workdir; a context manager.

    A host that is not the primary one makes a Writer too, and it writes nothing.

    Args:
        workdir: made if it does not exist.
        config: the resolved config, as JSON can hold it.
        num_steps: where the run ends; for the display.
        start_step: the first step that this process records; lines at or after it are dropped.
        tensorboard: write event files to workdir/tensorboard.
        wandb: W&B project name; empty: off.
        is_primary: false on every host but one.
        console: for tests; a terminal on stdout gets a live display, anything else a line a step.

    Raises:
        ValueError: W&B is asked for and not installed, or a record file has an unreadable line.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        config: Mapping[str, Any],
        num_steps: int,
        start_step: int = 0,
        tensorboard: bool = True,
        wandb: str = "",
        is_primary: bool = True,
        console: Console | None = None,
    ) -> None:
        self._sinks: list[Sink] = []
        self._lines: list[_Lines] = []
        self._rollouts: _Lines | None = None
        self._display: Display | None = None
        self.timer = PhaseTimer(self.status)
        with contextlib.ExitStack() as stack:
            if is_primary:
                workdir = Path(workdir)
                workdir.mkdir(parents=True, exist_ok=True)
                self._display = Display(num_steps, start_step, console or Console())
                stack.callback(self._display.close)
                for line in write_config(workdir / "config.json", config, resumed=start_step > 0):
                    self._display.line(line)
                metric_lines = _MetricLines(workdir / "metrics.jsonl", start_step)
                stack.callback(metric_lines.close)
                self._rollouts = _Lines(workdir / "rollouts.jsonl", start_step)
                stack.callback(self._rollouts.close)
                self._lines = [metric_lines, self._rollouts]
                self._sinks.append(metric_lines)
                if tensorboard:
                    board = _TensorBoard(workdir / "tensorboard", start_step)
                    stack.callback(board.close)
                    self._sinks.append(board)
                if wandb:
                    run = _WandB(wandb, workdir, config)
                    stack.callback(run.close)
                    self._sinks.append(run)
                self._sinks.append(self._display)
            self._open = stack.pop_all()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records metrics under a step; may be called several times for one step.

        Args:
            step: not below the start step.
            values: by "area/name"; Python, NumPy or JAX scalars on the host.

        Raises:
            ValueError: a name that is not area/name in lower case.
        """
        for name in values:
            if not _NAME.fullmatch(name):
                raise ValueError(f"metric name {name!r}; write area/name in a-z, 0-9, _ and -")
        plain = {k: v if isinstance(v, int) else float(v) for k, v in values.items()}
        for sink in self._sinks:
            sink.metrics(step, plain)

    def rollouts(self, records: Iterable[RolloutRecord]) -> None:
        """Appends rollouts to rollouts.jsonl."""
        if self._rollouts is not None:
            self._rollouts.append(dataclasses.asdict(r) for r in records)

    def status(self, text: str) -> None:
        """Says what the run is doing now, on the live display only."""
        if self._display is not None:
            self._display.status(text)

    def compiling(self, seconds: float | None) -> None:
        """Shows that a program is being compiled (None), or that it took so many seconds."""
        if self._display is not None:
            self._display.compiling(seconds)

    def line(self, text: str) -> None:
        """Prints a line above the live display."""
        if self._display is not None:
            self._display.line(text)

    def sync(self) -> None:
        """Puts every line on disk; a checkpoint must not run ahead of them, so call this first."""
        for lines in self._lines:
            lines.sync()

    def close(self) -> None:
        """Closes the files and ends the display."""
        self._open.close()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the writer, also after an error."""
        self.close()


class _Lines:
    """An append-only JSONL file whose lines carry `step`."""

    def __init__(self, path: Path, start_step: int) -> None:
        _drop_lines(path, start_step)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
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
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class _MetricLines(_Lines):
    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.append([{"step": step, **values}])


class _TensorBoard:
    """Event files through TensorBoard's protos and record format, which need no TensorFlow."""

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
        value = self._summary.Value
        scalars = [value(tag=name, simple_value=v) for name, v in values.items()]
        self._add(step=step, summary=self._summary(value=scalars))

    def close(self) -> None:
        self._records.close()

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()


class _WandB:
    """One W&B run per workdir: its id is kept there, so a resumed run goes on in the same one."""

    def __init__(self, project: str, workdir: Path, config: Mapping[str, Any]) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                f"log.wandb={project!r} needs the wandb package, which is not installed; "
                "pip install 'evr1[wandb]', or leave log.wandb empty"
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
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


def write_config(path: Path, config: Mapping[str, Any], *, resumed: bool) -> list[str]:
    """Writes config.json: the config's fields, and under "run" the command, commit and versions.

    Args:
        path: replaced atomically.
        config: the resolved config.
        resumed: compare with the file that is there.

    Returns:
        One line for every field that differs from the run being resumed.
    """
    config = json.loads(json.dumps(config))
    changes = []
    if resumed and path.exists():
        before, now = _fields(_record(path)), _fields(config)
        changes = [
            f"config changed since the run began: {name} was {before.get(name)!r}, "
            f"is {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and not name.startswith("run.")
        ]
    run = {
        "command": sys.argv,
        "git_commit": git_commit(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "versions": _versions(),
    }
    _replace(path, [json.dumps({**config, "run": run}, indent=2).encode() + b"\n"])
    return changes


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")).items())
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: no JSON object; remove it, it is written again") from None


def git_commit(repository: Path) -> str:
    """The commit of a checkout, with "+changes" where files differ from it; empty: no checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository.resolve():
            return ""  # installed into the checkout of something else
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


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
    """Rewrites a JSONL file without the lines at or after a step, and without a half last line.

    Raises:
        ValueError: another line than the last is not a JSON object with a step.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        _replace(path, _kept(file, path, start_step))


def _kept(lines: Iterable[bytes], path: Path, start_step: int) -> Iterator[bytes]:
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


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file under another name, then moves it into place."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
