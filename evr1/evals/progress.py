"""Where a task of a job stands: a bar on a terminal; elsewhere a line every half a minute."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_S = 30.0  # between lines


class TaskProgress:
    """Samples of a task that are done, and how quickly they came.

    Attributes:
        failed: samples without an answer.
        tokens: of all completions.
    """

    def __init__(self, bar: Progress, line: TaskID):
        self._bar, self._line = bar, line
        self.failed = self.tokens = 0
        self._begun = self._told = time.perf_counter()

    def tell(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def advance(self) -> None:
        """Counts a sample."""
        now = time.perf_counter()
        speed = f"{self.tokens / (now - self._begun):.0f} tokens/s"
        failed = f"{self.failed} failed" if self.failed else ""
        self._bar.update(self._line, advance=1, failed=failed, speed=speed)
        console = self._bar.console
        if not console.is_terminal and now - self._told > _LINE_S:
            self._told, task = now, self._bar.tasks[self._line]
            said = f"{task.description}: {task.completed:.0f} of {task.total:.0f}, {speed} {failed}"
            console.print(said.strip(), highlight=False, markup=False)


@contextlib.contextmanager
def task_progress(console: Console, task: str, total: int) -> Iterator[TaskProgress]:
    """Yields what counts the samples of a task.

    Args:
        console: for the user.
        task: its name.
        total: samples to be counted.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speed]} {task.fields[failed]}"),
        console=console,
    )
    with bar:
        yield TaskProgress(bar, bar.add_task(task, total=total, failed="", speed=""))
