"""What a run leaves while it goes: metrics, rollouts, config, TensorBoard, trackers, the console.

`metrics.jsonl` and `rollouts.jsonl` are exact under resume: lines at or after the resumed step are
dropped first, so the files end up as an uninterrupted run writes them (wall-clock times aside).
"""

import contextlib
import datetime
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from evr1.parallel import hosts
from evr1.parallel.progress import Progress
from evr1.telemetry.display import Display
from evr1.telemetry.lines import LineFile
from evr1.telemetry.phases import PhaseTimer
from evr1.telemetry.provenance import write_config
from evr1.telemetry.records import RolloutRecord
from evr1.telemetry.sinks import Sink, Trackio, WandB
from evr1.telemetry.tensorboard import Frames, TensorBoard

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_-]+(@[0-9]+)?)+")


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
        trackio: Trackio project name; empty: off.
        is_primary: false on every host but one.
        timer: of the run's phases; the writer shows each phase that begins, and starts the step's
            clock anew. None: a new one.
        frames: what rows show, for pictures in TensorBoard; None: none there.
        console: for tests; a terminal on stdout gets a live display, anything else a line a step.

    Attributes:
        timer: of the run's phases.

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
        trackio: str = "",
        is_primary: bool = True,
        timer: PhaseTimer | None = None,
        frames: Frames | None = None,
        console: Console | None = None,
    ) -> None:
        self.timer = timer or PhaseTimer()
        self.timer.on_enter, self.timer.on_count = self.status, self.count
        self._start: dict[str, float] = {}
        self._sinks: list[Sink] = []
        self._files: list[LineFile] = []
        self._rollouts: LineFile | None = None
        self._shown: list[TensorBoard | WandB | Trackio] = []
        self._display: Display | None = None
        with contextlib.ExitStack() as stack:
            if is_primary:
                workdir = Path(workdir)
                workdir.mkdir(parents=True, exist_ok=True)
                log = stack.enter_context(_Log(workdir / "console.log"))
                self._display = Display(num_steps, start_step, console or Console(), log=log.add)
                stack.callback(self._display.close)
                stack.enter_context(_ticking(self._display))
                for line in write_config(workdir / "config.json", config, resumed=start_step > 0):
                    self._display.line(line)
                metric_file = _MetricFile(workdir / "metrics.jsonl", start_step)
                stack.callback(metric_file.close)
                self._rollouts = LineFile(workdir / "rollouts.jsonl", start_step)
                stack.callback(self._rollouts.close)
                self._files = [metric_file, self._rollouts]
                self._sinks.append(metric_file)
                if tensorboard:
                    board = TensorBoard(workdir / "tensorboard", start_step, config, frames)
                    stack.callback(board.close)
                    self._shown.append(board)
                for tracker, project in ((WandB, wandb), (Trackio, trackio)):
                    if project:
                        run = tracker(project, workdir, config)
                        stack.callback(run.close)
                        self._shown.append(run)
                self._sinks += [*self._shown, self._display]
            self._stack = stack.pop_all()
        self._setup_s = self.timer.pop()["time/step_s"]  # what came before belongs to no step

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
                raise ValueError(
                    f"metric name {name!r}; write area/name in a-z, 0-9, _ and -, with a number "
                    "behind an @ where it is of so many samples"
                )
        values, self._start = {**values, **self._start}, {}
        plain = {k: v if isinstance(v, int) else float(v) for k, v in values.items()}
        for sink in self._sinks:
            sink.metrics(step, plain)

    def start(self, times: Mapping[str, float]) -> None:
        """Takes the phases before the first step of this process: they go to the next metrics as
        start/<phase>_s, with the seconds before the writer was made as start/setup_s."""
        phases = {k.replace("time/", "start/"): v for k, v in times.items() if k != "time/step_s"}
        self._start = {"start/setup_s": self._setup_s, **phases}

    def count(self, done: int, total: int, unit: str) -> None:
        """Shows how far a phase is: so many units of so many are done."""
        if self._display is not None:
            self._display.count(done, total, unit)

    def programs(self, progress: Progress) -> None:
        """Shows how far compiling is, before the first step."""
        if self._display is not None:
            self._display.programs(progress)

    def rollouts(self, records: Iterable[RolloutRecord]) -> None:
        """Appends rollouts to rollouts.jsonl; TensorBoard, W&B and Trackio show some."""
        if self._rollouts is None:
            return
        records = list(records)
        self._rollouts.append(r.to_json() for r in records)
        for sink in self._shown:
            sink.rollouts(records)

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
        for file in self._files:
            file.sync()

    def close(self) -> None:
        """Closes the files and ends the display."""
        self._stack.close()

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the writer, also after an error."""
        self.close()


class _Log:
    """console.log: what was printed, with the time, also before the writer was opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", errors="replace")

    def add(self, text: str) -> None:
        """Appends a line."""
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._file.write(f"{now} {text}\n")
        self._file.flush()

    def __enter__(self) -> Self:
        hosts.listen(self.add)
        return self

    def __exit__(self, *error: object) -> None:
        hosts.listen(None)
        self._file.close()


@contextlib.contextmanager
def _ticking(display: Display) -> Iterator[None]:
    """Lets the display look every second whether it has been silent for long."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            display.tick()

    thread = threading.Thread(target=tick, name="ticking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _MetricFile(LineFile):
    """metrics.jsonl, as one of the places where metrics go."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.append([{"step": step, **values}])
