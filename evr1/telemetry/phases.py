"""Where the time of a step goes, by phase."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax


class PhaseTimer:
    """Adds up wall-clock seconds by phase; a phase inside another stops the outer one's clock.

    Attributes:
        on_enter: called with the name of each phase that begins, and of the outer one that goes on.
        on_count: called with the arguments of `count`.

    >>> ticks = iter([0.0, 1.0, 3.0, 4.0, 9.0, 10.0])
    >>> timer = PhaseTimer(lambda: next(ticks))  # 0: made
    >>> with timer("rollout"):  # from 1 to 9
    ...     with timer("score"):  # from 3 to 4
    ...         pass
    >>> timer.pop()  # at 10
    {'time/rollout_s': 7.0, 'time/score_s': 1.0, 'time/step_s': 10.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the step's clock.

        Args:
            clock: seconds, monotonic.
        """
        self.on_enter: Callable[[str], None] = lambda _: None
        self.on_count: Callable[[int, int, str], None] = lambda done, total, unit: None
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = self._step_start = clock()

    @property
    def phase(self) -> str:
        """The innermost phase that is open; "": none."""
        return self._open[-1] if self._open else ""

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Counts the block's seconds as time/<phase>_s, and names it in a trace of the profiler.

        The same phase may come again.
        """
        self._charge()
        self._open.append(phase)
        self._seconds.setdefault(phase, 0.0)
        self.on_enter(phase)
        try:
            with jax.profiler.TraceAnnotation(phase):
                yield
        finally:
            self._charge()
            self._open.pop()
            if self._open:
                self.on_enter(self._open[-1])

    def seconds(self, phase: str) -> float:
        """Returns the seconds of a phase since the last pop."""
        self._charge()
        return self._seconds.get(phase, 0.0)

    def count(self, done: int, total: int, unit: str) -> None:
        """Says how far the phase is that is open: so many units of so many are done."""
        self.on_count(done, total, unit)

    def pop(self) -> dict[str, float]:
        """Returns time/<phase>_s and time/step_s since the last pop, and starts them at 0 again."""
        self._charge()
        metrics = {f"time/{phase}_s": seconds for phase, seconds in self._seconds.items()}
        metrics["time/step_s"] = self._since - self._step_start
        self._seconds = dict.fromkeys(self._open, 0.0)
        self._step_start = self._since
        return metrics

    def _charge(self) -> None:
        """Adds the seconds since the last charge to the innermost phase."""
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now
