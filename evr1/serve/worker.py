"""The thread that owns the model: a bounded queue before the slots, and rows out of them."""

import collections
import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from evr1.sampler.actor import Actor
from evr1.sampler.live import Ask, Drawn, Live, Room
from evr1.sampler.prefixes import Prefixes
from evr1.serve import weights
from evr1.serve.errors import Refusal
from evr1.serve.settings import ServeSettings
from evr1.serve.weights import Version
from evr1.types import Params

IDLE_S = 0.5  # between two looks at a run that is followed
RETRY_S = 15.0  # after one that failed: to read a damaged checkpoint takes as long as a whole one
FAULTS = 3  # of the engine, one after the other, until the server gives up


@dataclasses.dataclass(eq=False)
class Job:
    """A request's rows in the worker.

    Attributes:
        asks: of its answers.
        on_drawn: called with the number of the answer and what it has drawn, by the thread.
        on_end: called once where there is no answer to come, with why: cancelled, timeout, error.
        deadline: on the clock of `time.monotonic`.
        version: of the weights; "" before the first token.
    """

    asks: tuple[Ask, ...]
    on_drawn: Callable[[int, Drawn], None]
    on_end: Callable[[str], None]
    deadline: float
    version: str = ""
    left: set[int] = dataclasses.field(default_factory=set)
    is_cancelled: bool = False

    def __post_init__(self):
        self.left = set(range(len(self.asks)))


class Worker:
    """Draws for jobs, in the order in which they come; any thread may submit and cancel.

    Attributes:
        version: of the weights.
        is_sound: the thread runs and the engine works.
        fault: what was last wrong with the engine; "": nothing.
        follow_fault: with a checkpoint that could not be read; likewise.
        counts: since the start.
    """

    def __init__(self, settings: ServeSettings, actor: Actor, params: Params, version: Version):
        """Takes the model; the thread starts with `start`."""
        self.version, self.is_sound, self.fault = version, True, ""
        self._settings, self._actor, self._params = settings, actor, params
        self._prefixes = Prefixes(settings.prefix_bytes if settings.shares else 0)
        self._live: Live | None = None
        self._waiting: collections.deque[tuple[Job, int]] = collections.deque()
        self._running: dict[Ask, tuple[Job, int]] = {}
        self._stopped: set[Ask] = set()
        self._changed = threading.Condition()
        self._is_closing = False
        self._next: tuple[Version, Params] | None = None
        self._faults, self._looked, self.follow_fault = 0, 0.0, ""
        self.counts = collections.Counter(prefills=0, tokens=0, turns=0, rows=0, follow_faults=0)
        self._thread = threading.Thread(target=self._run, name="evr1-serve-model", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; jobs that are left end as cancelled."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Takes a job."""
        with self._changed:
            self._waiting.extend((job, number) for number in range(len(job.asks)))
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Frees what a job holds; nobody waits for it."""
        with self._changed:
            job.is_cancelled = True
            self._changed.notify_all()

    def stop(self, job: Job, number: int) -> None:
        """Ends one answer of a job, which has all that it needs."""
        with self._changed:
            self._stopped.add(job.asks[number])
            job.left.discard(number)

    def is_kept(self, key: bytes) -> bool:
        """Returns whether a head is prefilled and there."""
        return key in self._prefixes

    def gauges(self) -> dict[str, float]:
        """Returns what is held now."""
        live = self._live
        return {
            "rows_waiting": len(self._waiting),
            "rows_running": len(self._running),
            "slots_used": 0 if live is None else self._actor.slots - len(live.free),
            "prefix_bytes": self._prefixes.nbytes,
            "prefixes": len(self._prefixes),
            "prefix_hits": self._prefixes.hits,
            "prefix_misses": self._prefixes.misses,
            **self.counts,
        }

    def _run(self) -> None:
        try:
            while self._wait():
                try:
                    self._turn()
                    self._faults = 0
                except (RuntimeError, ValueError, TypeError) as error:  # of the device, of a medium
                    self._fail(f"{type(error).__name__}: {error}")
        finally:
            self.is_sound = False
            for job in self._jobs():
                self._end(job, "cancelled" if self._is_closing else "error")

    def _wait(self) -> bool:
        """Waits for work; returns whether to go on."""
        follow = self._settings.follow
        with self._changed:
            while not (self._is_closing or self._waiting or self._running or self._next):
                self._changed.wait(IDLE_S if follow else None)
                if follow and not self._waiting:
                    break
            return not self._is_closing and self._faults < FAULTS

    def _turn(self) -> None:
        """Lets go of whom nobody waits for, takes in who fits, and decodes a window."""
        self._sweep()
        if self._settings.follow:
            self._look()
        if self._next is None:
            self._admit()
        elif not self._running:
            self._swap()
        if self._running and self._live is not None:
            self.counts["turns"] += 1
            self._hand_out(self._live.turn())

    def _sweep(self) -> None:
        now, gone = time.monotonic(), []
        for job in self._jobs():
            if job.is_cancelled or now > job.deadline:
                gone.append(job)
        for job in gone:
            self._end(job, "cancelled" if job.is_cancelled else "timeout")
        with self._changed:
            stopped, self._stopped = self._stopped, set()
        ended = [ask for ask in stopped if ask in self._running]
        for ask in ended:
            del self._running[ask]
        if self._live is not None:
            self._live.end(ended)

    def _jobs(self) -> list[Job]:
        with self._changed:
            jobs = [job for job, _ in (*self._waiting, *self._running.values())]
        return list(dict.fromkeys(jobs))

    def _end(self, job: Job, why: str) -> None:
        """Forgets a job."""
        with self._changed:
            kept = [each for each in self._waiting if each[0] is not job]
            self._waiting = collections.deque(kept)
        asks = [ask for ask, (owner, _) in self._running.items() if owner is job]
        for ask in asks:
            del self._running[ask]
        if self._live is not None:
            self._live.end(asks)
        job.on_end(why)

    def _admit(self) -> None:
        """Fills free slots with those who wait longest, and others with the same head."""
        while self._waiting:
            self._open()
            assert self._live is not None
            if not self._live.free:
                return
            asks = self._take(self._live.room)
            if not asks:
                return
            if not self._can_load(asks):
                continue
            before = self._live.prefills
            drawn = self._live.admit(asks)
            self.counts["prefills"] += self._live.prefills - before
            self.counts["rows"] += len(asks)
            self._hand_out(drawn)

    def _open(self) -> None:
        """Makes slots with room for all who wait, where there are none that are in use."""
        with self._changed:
            rooms = [Room.of(job.asks[number]) for job, number in self._waiting]
        if self._live is not None and (self._running or self._live.room.holds(rooms[0])):
            return
        room = rooms[0]
        for other in rooms[1:]:
            room = room.with_(other)
        self._live = None  # its arrays go first
        self._live = Live(self._actor, self._params, room, self._prefixes, rows=self._settings.rows)

    def _take(self, room: Room) -> list[Ask]:
        """Takes rows for a slot; none where the first in the queue needs more room."""
        with self._changed:
            if not self._waiting:
                return []
            job, number = self._waiting[0]
            first = job.asks[number]
            if not room.holds(Room.of(first)):
                return []
            taken, left = [], collections.deque()
            for job, number in self._waiting:
                ask = job.asks[number]
                is_like = ask.head.key == first.head.key and room.holds(Room.of(ask))
                if is_like and len(taken) < self._settings.rows:
                    taken.append(ask)
                    self._running[ask] = (job, number)
                    job.version = self.version.name
                else:
                    left.append((job, number))
            self._waiting = left
            return taken

    def _can_load(self, asks: Sequence[Ask]) -> bool:
        """Returns whether the media of a head are there, if they are needed; else who asks for it
        has no answer."""
        head = asks[0].head
        try:
            if not self.is_kept(head.key):
                head.load()
        except (Refusal, ValueError, RuntimeError):
            for job in dict.fromkeys(self._running[ask][0] for ask in asks):
                self._end(job, "error")
            return False
        return True

    def _hand_out(self, drawn: Sequence[tuple[Ask, Drawn]]) -> None:
        for ask, part in drawn:
            job, number = self._running[ask]
            self.counts["tokens"] += len(part.tokens)
            if part.is_done:
                del self._running[ask]
                job.left.discard(number)
            job.on_drawn(number, part)

    def _fail(self, reason: str) -> None:
        """Ends those whose rows the engine has lost, and begins with empty slots."""
        self._faults += 1
        self._live = None
        self._prefixes.clear()
        self.fault = " ".join(reason.split())[:300]
        lost = list(dict.fromkeys(job for job, _ in self._running.values()))
        for job in lost:
            self._end(job, "error")

    def _look(self) -> None:
        """Reads the newest checkpoint of a run that is followed, once there is one."""
        now = time.monotonic()
        if self._next is not None or now < self._looked + IDLE_S:
            return
        self._looked = now
        try:
            found = weights.newer(self._settings.model, self.version)
            if found is not None:
                params = self._actor.load(found.path, self._settings.adapter)
                if weights.newest(self._settings.model) != found:
                    raise ValueError(f"{found.path}: replaced or removed while it was read")
                self._next, self.follow_fault = (found, params), ""
        except (ValueError, OSError) as error:  # removed meanwhile, or damaged: the next will do
            self.counts["follow_faults"] += 1
            self._looked = now + RETRY_S
            fault = " ".join(str(error).split())
            if fault != self.follow_fault:
                print(f"serve: {self.version.name} stays: {fault}", file=sys.stderr, flush=True)
            self.follow_fault = fault

    def _swap(self) -> None:
        assert self._next is not None
        self._live = None
        self._prefixes.clear()  # they are of other weights
        (self.version, self._params), self._next = self._next, None


def of_reason(why: str) -> tuple[int, str, Any]:
    """Returns status, message and code of a request that ended without an answer."""
    return {
        "timeout": (504, "the answer took longer than its time limit", "timeout"),
        "cancelled": (503, "the server ends", "server_shutdown"),
        "error": (500, "the model failed; others are not concerned", "engine_error"),
    }[why]
