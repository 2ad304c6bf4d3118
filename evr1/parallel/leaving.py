"""How one process leaves that is asked to end, by Ctrl-C (SIGINT) or SIGTERM.

An exception amid native code, a compilation say, is a crash: none is raised. A thread answers at
once and says what comes next. The main thread leaves at its next sync point, where nothing is half
done; where it comes to none within GRACE_S, it is amid what is lost anyway, and the thread ends the
process. Not while something is to be saved first: then it waits, and says for what. A second Ctrl-C
ends the process in any case. Several processes leave together: `hosts`.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

STOPS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 3.0  # that the main thread has to come to a sync point, and to close what is open
TELL_S = 5.0  # what is waited for is said so often
TWICE_S = 0.5  # two Ctrl-C within are one: a launcher passes on what the terminal sent to all
_POLL_S = 0.1
_TRY_S = 1.0
_SHOW_CURSOR = b"\x1b[?25h\n"  # a live display hides it


class Next(NamedTuple):
    """What happens to a process that is asked to end now.

    Attributes:
        text: for the user.
        unsaved: what ending at once would lose though it is done, "step 3"; it is saved first. "":
            nothing.
    """

    text: str
    unsaved: str = ""


class Leave(KeyboardInterrupt):
    """The process, or all hosts together, were asked to end; raised where nothing is half done.

    Its argument is the number of the signal. Whoever catches it need not tell the user.
    """

    def __init__(self) -> None:
        super().__init__((Watch.current and Watch.current.number) or signal.SIGTERM)


def status(stop: KeyboardInterrupt, line: str) -> int:
    """Returns the exit status of a command that was interrupted.

    Args:
        stop: what it ended with.
        line: to be printed, unless a watch has answered.
    """
    if not stop.args:
        _print(line)
    return 128 + (stop.args[0] if stop.args else signal.SIGINT)


@contextlib.contextmanager
def watching(plan: Callable[[], Next]) -> Iterator[None]:
    """Takes SIGINT and SIGTERM inside, for one process; see the module. Of a main thread only.

    Args:
        plan: says what happens next; called by another thread, at any time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = Watch(plan)
    watch.begin()
    try:
        yield
    finally:
        if watch.number is None:  # else it sees to it that the process ends
            watch.end()


def plan(says: Callable[[], Next]) -> None:
    """Gives the watch, where there is one, another plan."""
    if Watch.current is not None:
        Watch.current.plan = says


def sync_point() -> None:
    """A place where one process may leave.

    Raises:
        Leave: it was asked to.
    """
    if Watch.current is not None:
        Watch.current.sync_point()


class Watch:
    """The thread that answers.

    Attributes:
        plan: see `watching`.
        number: of the signal; None: nobody asked.
        is_staying: sync points do not leave.
    """

    current: "Watch | None" = None

    def __init__(self, says: Callable[[], Next]) -> None:
        self.plan = says
        self.number: int | None = None
        self.is_staying = False
        self._next = Next("")
        self._since = self._told = self._free = 0.0  # asked, said last, nothing to save: when
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    def begin(self) -> None:
        """Takes the signals that are not ignored."""
        self._asked, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        for number in STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._run, name="leaving", daemon=True).start()
        Watch.current = self

    def end(self) -> None:
        """Gives the signals back."""
        Watch.current = None
        for number, action in self._before.items():
            signal.signal(number, action)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._written)  # and with it the thread ends

    @property
    def is_next(self) -> bool:
        """Whether the next sync point of this thread leaves, unless it is staying."""
        is_main = threading.current_thread() is threading.main_thread()
        return self.number is not None and is_main

    def sync_point(self) -> None:
        """Does what `sync_point` says."""
        if self.is_next and not self.is_staying:
            raise Leave

    def _run(self) -> None:
        while True:
            if select.select([self._asked], [], [], _POLL_S)[0]:
                signals = os.read(self._asked, 64)
                if not signals:
                    os.close(self._asked)
                    return
                for number in filter(STOPS.__contains__, signals):
                    self._answer(number)
            if self.number is not None:
                self._see_to_the_end(time.monotonic())

    def _answer(self, number: int) -> None:
        now = time.monotonic()
        if self.number is None:
            self._look()
            self._since = self._free = now
            self._say(number, now)
            self.number = number
        elif number == signal.SIGINT and now - self._since > TWICE_S:
            self._look()
            lost = f"; {self._next.unsaved} is lost" if self._next.unsaved else ""
            _attempt(lambda: _print(f"interrupted again: it ends at once{lost}"))
            _exit(number)

    def _see_to_the_end(self, now: float) -> None:
        """Ends the process where nothing is to be saved and the main thread does not leave."""
        was = self._next.unsaved
        self._look()
        if self._next.unsaved:
            self._free = now
            if now - self._told > TELL_S or not was:
                self._say(self.number or 0, now)
        elif now - self._free > GRACE_S:
            _exit(self.number or 0)

    def _say(self, number: int, now: float) -> None:
        asked = "interrupted" if number == signal.SIGINT else "asked to end"
        waited = f" ({now - self._since:.0f} s)" if self._told else ""
        again = "; Ctrl-C once more ends at once, without it" if self._next.unsaved else ""
        line = f"{asked}{waited}: {self._next.text}{again}"
        self._told = now
        _attempt(lambda: _print(line))

    def _look(self) -> None:
        """Asks the plan; what it said last counts where a file is gone as it looks."""
        with contextlib.suppress(OSError):
            self._next = self.plan()


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _attempt(action: Callable[[], object]) -> None:
    """Does something that may wait for the main thread, a lock of the display say; not for long."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(_TRY_S)


def _exit(number: int) -> None:
    """Ends the process as it is; its children end with their pipes."""
    _attempt(sys.stdout.flush)
    if os.isatty(1):
        os.write(1, _SHOW_CURSOR)
    os._exit(128 + number)
