"""Programs that are compiled before they are called, several at a time.

Code that calls jitted functions is run with `Compiler.call` in their place, on arguments of the
shapes to come: each function is traced and lowered, given to a thread that compiles it, and returns
arrays without contents. JAX keeps what was compiled: the call proper finds it.

Nothing runs here, so programs in which devices wait for each other do not meet.
"""

import collections
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from evr1.parallel.progress import Progress

MOST_THREADS = 8  # each compilation uses several by itself, and takes memory of the host
_POLL_S = 0.25


@dataclasses.dataclass(eq=False)
class Job:
    """A program on its way.

    Attributes:
        name: of the function.
        lowered: what is compiled; None once it is.
        size: characters of its text, about what compiling takes.
        begun: when a thread took it; None: not yet.
        seconds: that it took; None: it is not done.
        compiled: what came of it.
        error: or this.
    """

    name: str
    lowered: Any
    size: int
    begun: float | None = None
    seconds: float | None = None
    compiled: Any = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether it is compiled, or failed."""
        return self.seconds is not None


class Compiler:
    """Compiles what is called, in threads.

    Args:
        tell: takes how far it is, now and then.
        threads: at the same time; 0: one for each core, at most MOST_THREADS.
        is_in_order: one at a time, in the order of the calls: hosts may exchange what they find
            out while they compile the same program, and wait for each other.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        tell: Callable[[Progress], None] = lambda _: None,
        threads: int = 0,
        *,
        is_in_order: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        cores = os.cpu_count() or 1
        self._tell, self._clock, self._begun = tell, clock, clock()
        self._threads = 1 if is_in_order else threads or min(cores, MOST_THREADS)
        self._is_in_order = is_in_order
        self._jobs: dict[Any, Job] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()  # of a lock that its holder may take again
        self._running = 0

    def __enter__(self) -> Self:
        """Returns the compiler itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Begins nothing more; after an error it waits for what was begun, since a process that
        ends amid a compilation crashes. Not where it is asked to end: `leaving` sees to that."""
        with self._changed:
            self._waiting.clear()
            while kind is not None and issubclass(kind, Exception) and self._running:
                self._changed.wait(_POLL_S)

    @property
    def programs(self) -> list[tuple[str, float]]:
        """The name of the function and the seconds of each program, in the order of the calls."""
        return [(job.name, job.seconds or 0.0) for job in self._jobs.values()]

    def call(self, function: Any, *args: Any, **statics: Any) -> Any:
        """Returns what the jitted function would, as ShapeDtypeStructs.

        On a mesh they say where they will lie, and the compilation is waited for.
        """
        job, shapes = self._add(function, args, statics)
        places = [x.sharding for x in jax.tree.leaves(args) if _is_committed(x)]
        if all(isinstance(place, jax.sharding.SingleDeviceSharding) for place in places):
            place = places[0] if places else None
            return jax.tree.map(lambda x: _struct(x, place), shapes)
        with self._changed:
            if (
                job in self._waiting and not self._is_in_order
            ):  # nothing else goes on until it is done
                self._waiting.remove(job)
                self._waiting.appendleft(job)
        self._wait(lambda: job.is_done)
        if job.error is not None:
            raise job.error
        return jax.tree.map(_struct, shapes, job.compiled.output_shardings)

    def add(self, function: Any, *args: Any, **statics: Any) -> None:
        """Has the program compiled that this call would run."""
        self._add(function, args, statics)

    def ones(self, function: Any, *args: Any, **statics: Any) -> Any:
        """Returns host arrays of ones, as many as the function returns numbers; see `add`."""
        _, shapes = self._add(function, args, statics)
        return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)

    def wait(self) -> None:
        """Waits until all is compiled.

        Raises:
            Exception: the first that a compilation ended with.
        """
        self._wait(lambda: all(job.is_done for job in self._jobs.values()), is_all=True)
        for job in self._jobs.values():
            if job.error is not None:
                raise job.error

    def _add(self, function: Any, args: tuple, statics: dict[str, Any]) -> tuple[Job, Any]:
        """Returns the program of a call, and the shapes of what it returns."""
        traced = function.trace(*args, **statics)
        key = (function, _key(args), _key(statics), jax.sharding.get_abstract_mesh())
        job = self._jobs.get(key)
        if job is None:
            lowered = traced.lower()
            job = Job(traced.fun_name, lowered, len(lowered.as_text()))
            with self._changed:
                self._jobs[key] = job
                self._waiting.append(job)
                if self._running < self._threads:
                    self._running += 1
                    # A daemon: an interrupt need not wait for it.
                    threading.Thread(target=self._run, name="compiling", daemon=True).start()
            self._tell(self._progress(is_all=False))
        return job, traced.out_info

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._running -= 1
                    self._changed.notify_all()
                    return
                job = self._waiting.popleft()
                job.begun = begun = self._clock()
            try:
                job.compiled = job.lowered.compile()
            except BaseException as error:  # noqa: BLE001  the thread that waits raises it
                job.error = error
            with self._changed:
                job.lowered, job.seconds = None, self._clock() - begun
                self._changed.notify_all()

    def _wait(self, is_over: Callable[[], bool], *, is_all: bool = False) -> None:
        with self._changed:
            while not is_over():
                self._tell(self._progress(is_all=is_all))
                self._changed.wait(_POLL_S)
        self._tell(self._progress(is_all=is_all))

    def _progress(self, *, is_all: bool) -> Progress:
        with self._changed:
            jobs, now = list(self._jobs.values()), self._clock()
            left = time_left(jobs, now, self._threads) if is_all else None
        done = sum(job.is_done for job in jobs)
        return Progress(done, len(jobs), now - self._begun, left, is_all)


def time_left(jobs: list[Job], now: float, threads: int) -> float | None:
    """Returns the seconds that jobs still take, by how long those of their size took; None: none is
    done.

    >>> done, begun, waiting = (Job("f", None, 100) for _ in range(3))
    >>> done.seconds, begun.begun = 10.0, 0.0
    >>> time_left([done, begun, waiting], 4.0, threads=2)
    10.0
    """
    finished = [job for job in jobs if job.seconds is not None]
    size = sum(job.size for job in finished)
    if not size:
        return None
    rate = sum(job.seconds or 0 for job in finished) / size
    free = [0.0] * threads  # when each thread is free, from now
    open_jobs = [job for job in jobs if not job.is_done]
    for job in sorted(open_jobs, key=lambda job: job.begun is None):  # those under way first
        spent = 0.0 if job.begun is None else now - job.begun
        first = free.index(min(free))
        free[first] += max(job.size * rate - spent, spent / 10)
    return max(free)


def _struct(x: Any, place: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def _is_committed(x: Any) -> bool:
    """Whether an argument says which device a program runs on."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.sharding is not None
    return isinstance(x, jax.Array) and x.committed


def _key(tree: Any) -> Any:
    """Returns what calls have alike that run the same program."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(_leaf_key(x) for x in leaves)


def _leaf_key(x: Any) -> Any:
    if not isinstance(x, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic):
        return x  # static
    is_host = isinstance(x, np.ndarray | np.generic)
    place = x.sharding if not is_host and _is_committed(x) else None
    return x.shape, str(x.dtype), bool(getattr(x, "weak_type", False)), place
