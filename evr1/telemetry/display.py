"""What the console shows: a live panel on a terminal, one plain line a step anywhere else."""

import collections
import threading
import time
from collections.abc import Callable, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from evr1.parallel.progress import Progress

_HELDOUT = "eval/accuracy"
# (metric, label, format): the few numbers that fit on a line
SHOWN = (
    ("reward/overall", "reward", "{:.3f}"),
    ("reward/accuracy", "accuracy", "{:.3f}"),
    (_HELDOUT, "held-out", "{:.3f}"),
    ("speed/tokens_per_s", "tokens/s", "{:,.0f}"),
)
_STEP_TIME = "time/step_s"
LONG_S = 3.0  # a compilation that takes longer is shown
EVERY_S = 15.0  # without a terminal, so long nothing is printed at most


class Display:
    """Shows where a run stands.

    Args:
        num_steps: where it ends.
        start_step: where this process began; the time left is estimated from its last steps.
        console: a terminal gets a live panel, anything else lines.
        clock: seconds, monotonic.
        long_s: seconds after which a compilation is shown.
        log: takes what is printed, line by line, a live panel aside; None: nobody.
    """

    def __init__(
        self,
        num_steps: int,
        start_step: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
        long_s: float = LONG_S,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self._num_steps, self._step = num_steps, start_step
        self._console, self._clock, self._start = console, clock, clock()
        self._log = log or (lambda text: None)
        # (step, time without compiling) of the last few steps: few, to follow a change of pace
        self._marks = collections.deque([(start_step, self._start)], maxlen=5)
        self._is_first_step_in = True  # the first step of a process also traces, reads and warms up
        self._compile_s = self._told_compile_s = 0.0
        self._compiling_since: float | None = None
        self._long_s, self._timer = long_s, threading.Timer(0, print)
        self._status = self._count = ""
        self._phase_since: float | None = None  # as far as `tick` has seen it
        self._is_told, self._told_at = True, 0.0  # something was printed since the last tick
        self._latest: dict[str, float] = {}
        self._latest_compile_s = 0.0
        self._spinner = Spinner("dots", text="")
        self._live: Live | None = None
        if console.is_terminal:
            live = Live(console=console, refresh_per_second=4, get_renderable=self._panel)
            live.start()
            self._live = live

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""
        self._mark(step)
        self._step = step
        if _STEP_TIME in values:  # phases of an earlier step are none of this one's time
            for name in [n for n in self._latest if n.startswith("time/")]:
                del self._latest[name]
        self._latest.update(values)
        if _STEP_TIME in values:
            self._latest_compile_s = self._compile_s - self._told_compile_s
            self._told_compile_s = self._compile_s
        text = self.describe(values)
        self._log(text)
        if self._live is None:
            self._is_told = True
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def status(self, text: str) -> None:
        """Says what is going on; the live panel shows it, and `tick` where there is none."""
        self._status, self._count, self._phase_since = text, "", None

    def count(self, done: int, total: int, unit: str) -> None:
        """Says how much of what is going on is done, "12 of 32 completions"."""
        self._count = f"{done:,} of {total:,} {unit}"

    def programs(self, progress: Progress) -> None:
        """Says how far compiling is, as `count` does; at its end in a line."""
        p = progress
        if p.is_all and p.done == p.known:
            self._count = ""
            self.line(f"compiled {p.known} programs in {_duration(p.seconds)}, for all of the run")
            return
        so_far = "" if p.is_all else " so far"
        left = "" if not p.left_s else f", about {_duration(p.left_s)} left"
        self._count = f"{p.done} of {p.known} programs{so_far}{left}"

    def tick(self) -> None:
        """Prints what is going on where nothing was printed for long; to be called every second."""
        now = self._clock()
        if self._phase_since is None:
            self._phase_since = now
        if self._is_told:
            self._is_told, self._told_at = False, now
        if self._live is None and self._status and now - self._told_at >= EVERY_S:
            count = f"{self._count}, " if self._count else ""
            self.line(f"{self._status}: {count}{_duration(now - self._phase_since)}")

    def compiling(self, seconds: float | None) -> None:
        """Takes the beginning of a compilation (None), or how many seconds it took.

        One that takes long is shown on the panel; where there is none, in a line of its own.
        """
        self._timer.cancel()
        if seconds is not None:
            self._compile_s += seconds
            self._compiling_since = None
            return
        self._compiling_since = self._clock()
        if self._live is None:
            text = f"{self._status or 'start'}: a program that was not foreseen is compiled"
            self._timer = threading.Timer(self._long_s, self.line, [text])
            self._timer.daemon = True
            self._timer.start()

    def line(self, text: str) -> None:
        """Prints a line (above the panel, where there is one)."""
        self._log(text)
        self._is_told = True
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Ends the live panel; what it showed last stays on the screen."""
        self._timer.cancel()
        self._status, self._compiling_since = "", None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def describe(self, values: Mapping[str, float]) -> str:
        """A line about a step: 'step 3/20  reward 0.512  2.1 s (rollout 1.5, update 0.4)'."""
        parts = [f"step {self._step}/{self._num_steps}"]
        parts += [f"{label} {text}" for label, text in _numbers(values)]
        if _STEP_TIME in values:
            phases = ", ".join(f"{name} {s:.1f}" for name, s in _phases(values))
            phases += self._compiled()
            parts.append(f"{values[_STEP_TIME]:.1f} s" + (f" ({phases})" if phases else ""))
        return "  ".join([*parts, *self._time_left()])

    def _compiled(self) -> str:
        """'; 58.0 of it compiling' of the latest step; empty where that is next to nothing."""
        seconds = self._latest_compile_s
        return f"; {seconds:.1f} of it compiling" if seconds >= 0.1 else ""

    def _mark(self, step: int) -> None:
        """Notes when a step ended, for the time left."""
        mark = step, self._clock() - self._compile_s
        if step > self._step:
            if len(self._marks) == 2 and self._is_first_step_in:
                self._marks.popleft()
                self._is_first_step_in = False
            self._marks.append(mark)
        elif len(self._marks) == 1:  # an evaluation before the first step
            self._marks[0] = mark

    def _time_left(self) -> list[str]:
        """['3m07s left'], estimated from the last steps of this process; [] before the first."""
        (first, begin), (last, now) = self._marks[0], self._marks[-1]
        left = self._num_steps - self._step
        if last == first or left <= 0:
            return []
        return [f"{_duration((now - begin) / (last - first) * left)} left"]

    def _panel(self) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"step {self._step}/{self._num_steps}", style="bold"),
            ProgressBar(total=max(self._num_steps, 1), completed=self._step, width=30),
            Text(f"{_duration(self._clock() - self._start)} gone", style="dim"),
            Text("".join(self._time_left()), style="dim"),
        )
        numbers = Text("  ").join(
            Text.from_markup(f"{label} [bold]{escape(text)}[/]")
            for label, text in _numbers(self._latest)
        )
        phases = "  ".join(f"{name} {s:.1f} s" for name, s in _phases(self._latest))
        phases = Text(phases + self._compiled(), style="dim")
        self._spinner.update(text=Text(self._doing()))
        return Group(head, numbers, phases, self._spinner)

    def _doing(self) -> str:
        """The status, and for how long a compilation has been running, if it is a long one."""
        since = self._compiling_since  # another thread may set it to None meanwhile
        status = f"{self._status}  {self._count}".strip()
        if since is None or self._clock() - since < self._long_s:
            return status
        return f"{status}  compiling for {_duration(self._clock() - since)}".strip()


def failed_rows(values: Mapping[str, float]) -> str:
    """What the held-out accuracy does not tell by itself, from eval/*; empty: all have answers.

    >>> failed_rows({"eval/rows": 40, "eval/failed_rows": 18, "eval/accuracy_answered": 0.4})
    '18 of 40 failed and count as wrong, 0.400 without them'
    """
    failed = values.get("eval/failed_rows", 0)
    if not failed:
        return ""
    name = "eval/accuracy_answered"
    rest = f", {values[name]:.3f} without them" if name in values else ""
    return f"{failed:.0f} of {values['eval/rows']:.0f} failed and count as wrong{rest}"


def _numbers(values: Mapping[str, float]) -> list[tuple[str, str]]:
    """(label, text) of the metrics in `SHOWN` that were measured."""
    texts = {name: form.format(values[name]) for name, _, form in SHOWN if name in values}
    if _HELDOUT in texts and (note := failed_rows(values)):
        texts[_HELDOUT] += f" ({note})"
    return [(label, texts[name]) for name, label, _ in SHOWN if name in texts]


def _phases(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """(phase, seconds), the longest first."""
    phases = {
        name.removeprefix("time/").removesuffix("_s"): seconds
        for name, seconds in values.items()
        if name.startswith("time/") and name != _STEP_TIME
    }
    return sorted(phases.items(), key=lambda item: -item[1])


def _duration(seconds: float) -> str:
    """Seconds as '45s', '3m07s', '2h05m'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
