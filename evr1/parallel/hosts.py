"""Several processes as one run; the only file that knows of them.

Small host state is the same on every host: rows chosen, tokens, scores, advantages, cuts. Pixels,
drawing and scoring belong to the host that owns a group; hosts meet in `gather` and in the
learner's programs. With one process everything here is the identity, and `leaving` ends it.
"""

import atexit
import contextlib
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from evr1.formats import words
from evr1.parallel import launchers, leaving
from evr1.parallel.leaving import Leave

T = TypeVar("T")

HEARTBEAT_S = 30  # after so long without a sign of life a host is lost, and with it the run
POLL_S = 0.3  # how often a host looks whether another one has failed or is to leave
# What the process that all others report to leaves them at most to end before it:
GRACE_S = 3.0  # where one has failed
LEAVE_S = 20.0  # where all were asked to
DAY_S = 86400
LOST = 143  # exit status where something outside ended the run: the same command goes on
_BUCKET = 1 << 16  # gathered bytes are padded to powers of two from here on: few programs


def index() -> int:
    """Returns which process this is."""
    return jax.process_index()


def count() -> int:
    """Returns the number of processes."""
    return jax.process_count()


def is_primary() -> bool:
    """Returns whether this process writes what there is once."""
    return index() == 0


def name() -> str:
    """Returns what messages call this process; empty where it is alone."""
    return f"host {index()}/{count()}" if count() > 1 else ""


_said: list[str] = []  # while nobody hears
_hear: Callable[[str], None] = _said.append


def say(text: str) -> None:
    """Prints a line, once for all hosts."""
    if is_primary():
        print(text, flush=True)
        _hear(text)


def listen(hear: Callable[[str], None] | None) -> None:
    """Gives somebody every line that `say` says, first those of before; None: nobody any more."""
    global _hear
    _hear = hear or _said.append
    if hear is not None:
        for text in _said:
            hear(text)
        _said.clear()


# Start


def start(coordinator: str, number: int, own: int) -> None:
    """Joins the processes of a run, before anything else asks JAX for devices.

    Slurm, Open MPI, Cloud TPU and GKE tell JAX by themselves; given values come before theirs.

    Args:
        coordinator: address and port of process 0; empty: found out, or there is one process.
        number: of processes.
        own: which one this is.

    Raises:
        ValueError: the other processes could not be reached.
    """
    options: dict[str, Any] = {"heartbeat_timeout_seconds": HEARTBEAT_S}
    if coordinator:
        options |= {"coordinator_address": coordinator, "num_processes": number, "process_id": own}
    elif not launchers.is_launched():
        return
    else:
        options["local_device_ids"] = launchers.gpus_of_a_node()
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError) as error:
        if not coordinator and "coordinator_address should be defined" in str(error):
            return  # of a launcher, but a process by itself
        where = coordinator or "the launcher's coordinator"
        raise ValueError(
            f"hosts: {where} could not be reached ({' '.join(str(error).split())[:160]}); start "
            "all processes, with the same hosts.coordinator and hosts.count and each its own "
            "hosts.index"
        ) from None
    if count() > 1:
        _Watch.begin()


# What hosts tell each other


def gather(data: bytes) -> list[bytes]:
    """Returns what every host gave, in order; all hosts call it together.

    Raises:
        Leave: the run was asked to end.
    """
    sync_point()
    if count() == 1:
        return [data]
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).reshape(-1)
    room = _BUCKET
    while room < sizes.max():
        room *= 2
    padded = np.zeros(room, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    table = np.asarray(multihost_utils.process_allgather(padded)).reshape(count(), room)
    return [table[h, :size].tobytes() for h, size in enumerate(sizes.tolist())]


def gather_json(value: T) -> list[T]:
    """Returns the plain data of every host, in order; see `gather`."""
    if count() == 1:
        sync_point()
        return [value]
    return [json.loads(text) for text in gather(json.dumps(value).encode())]


def gather_arrays(arrays: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Returns the named arrays of every host, in order; see `gather`."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    out = []
    for data in gather(file.getvalue()):
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            out.append(dict(loaded))
    return out


def once(make: Callable[[], T]) -> T | None:
    """Calls a function on the primary, while the others wait; returns None on them."""
    made = make() if is_primary() else None
    barrier()
    return made


def barrier() -> None:
    """Waits until all hosts are here."""
    sync_point()
    if _Watch.current is not None:
        _Watch.current.meet()


def from_primary(make: Callable[[], T]) -> T:
    """Returns what a function gives on the primary, plain data, on every host; see `once`."""
    made: list[T] = once(lambda: [make()]) or []
    return gather_json(made)[0][0]


def agree(values: Mapping[str, Any], what: str) -> None:
    """Checks that all hosts have the same values.

    Args:
        values: by name; plain data.
        what: they are of, for the message.

    Raises:
        ValueError: on every host, with the first that differs.
    """
    theirs = gather_json(json.loads(json.dumps(dict(values), default=str)))
    for host, other in enumerate(theirs):
        for key in sorted(k for k in theirs[0] | other if theirs[0].get(k) != other.get(k)):
            said = words.apart(key, other.get(key), theirs[0].get(key))
            raise ValueError(f"host {host} has another {what}: {said}; start all hosts alike")


def check_shared(folder: str | Path) -> None:
    """Checks that the hosts see one and the same folder.

    Raises:
        ValueError: this host does not see what the primary wrote there.
    """
    if count() == 1:
        return
    mark = Path(folder) / ".hosts"
    once(lambda: mark.write_text(str(time.time())))
    seen = mark.read_text() if mark.exists() else ""
    told = gather_json(seen)
    if seen != told[0]:
        raise ValueError(f"{folder} is not the folder that host 0 sees; share it among the hosts")
    once(mark.unlink)


# Arrays


def local_mesh(mesh: Mesh | None) -> Mesh | None:
    """Returns this host's part of a mesh whose first axis goes over hosts; None: it is one device,
    since that an array lies there can be said in many ways, each a program of its own."""
    if mesh is None or count() == 1:
        return mesh
    own = [row for row in mesh.devices if row.flat[0].process_index == index()]
    if len(own) == own[0].size == 1:
        return None
    return Mesh(np.stack(own), mesh.axis_names, axis_types=mesh.axis_types)


def local_view(tree: Any, mesh: Mesh | None) -> Any:
    """Returns arrays that every host has whole as arrays of this host's mesh, without a copy."""
    if count() == 1:
        return tree

    def view(x: jax.Array) -> jax.Array:
        shards = [shard.data for shard in x.addressable_shards]
        if mesh is None:
            return shards[0]
        place = NamedSharding(mesh, x.sharding.spec)  # type: ignore[attr-defined]
        return jax.make_array_from_single_device_arrays(x.shape, place, shards)

    return jax.tree.map(view, tree)


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Returns this host's rows of a batch as parts of global arrays."""

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        shape = (x.shape[0] * count(), *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(put, tree)


def own_rows(tree: Any) -> Any:
    """Returns this host's rows of a batch that all hosts have: one part of as many as hosts."""
    if count() == 1:
        return tree

    def cut(x: Any) -> Any:
        rows = len(x) // count()
        return x[index() * rows : (index() + 1) * rows]

    return jax.tree.map(cut, tree)


def whole(tree: Any) -> Any:
    """Returns global arrays as host arrays, on every host."""
    if count() == 1:
        return jax.tree.map(np.asarray, tree)

    def fetch(x: Any) -> np.ndarray:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(fetch, tree)


# Ends


@contextlib.contextmanager
def as_one(explain: Callable[[BaseException], str | None]) -> Iterator[None]:
    """Ends all processes where one fails; without it the others would wait for it for minutes.

    Args:
        explain: an error in one line; None: it is none that a user can mend.
    """
    try:
        yield
    except BaseException as error:  # interrupts and exits, too: the others wait in any case
        if count() == 1:
            raise
        _fail(error, explain)


def leave_together() -> None:
    """Ends several hosts that have saved what they had; does nothing where there is one."""
    if count() > 1:
        with staying():
            barrier()
        say("asked to end; the same command goes on")
        raise SystemExit(LOST)


def _fail(error: BaseException, explain: Callable[[BaseException], str | None]) -> None:
    """Prints why, tells the others, and ends the process; waits for nobody."""
    if isinstance(error, Leave):
        say("asked to end before a step of this start; the same command goes on")
    if isinstance(error, Leave | SystemExit):
        status = error.code if isinstance(error, SystemExit) else LOST
        _end_last(LEAVE_S)
        _exit(int(status or 0), "")
    is_told = not _broken(error)
    if is_told and _Watch.current is not None:
        _Watch.current.is_ending = True  # this host says itself why
    time.sleep(2 * POLL_S)  # a broken collective is the trace of a failure that is being told
    line = explain(error)
    if line is None:
        traceback.print_exception(error)
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if not is_told:
        _exit(LOST, f"{name()}: another host is gone; the same command goes on")
    line = f"{name()}: {line}"
    _Watch.tell("failed", line)
    print(f"error: {line}", file=sys.stderr, flush=True)
    _end_last(GRACE_S)  # the others ask the primary why it ends
    _exit(1, "")


def _end_last(limit_s: float) -> None:
    """The primary ends last: the others abort where the process that they report to is gone."""
    if _Watch.current is None:
        return
    if not is_primary():
        _Watch.tell(f"gone/{index()}", "")
        return
    until = time.monotonic() + limit_s
    while time.monotonic() < until and _Watch.current.gone() < count() - 1:
        time.sleep(0.1)


def _broken(error: BaseException) -> bool:
    """Returns whether the error says no more than that another host is gone."""
    words = ("Gloo", "NCCL", "coordination", "heartbeat", "Connection", "DEADLINE_EXCEEDED")
    return isinstance(error, RuntimeError | ValueError) and any(w in str(error) for w in words)


def _exit(status: int, line: str) -> None:
    if line:
        print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)  # jax would wait for the others


def sync_point() -> None:
    """A place that all hosts pass equally often and in the same order.

    Raises:
        Leave: the run was asked to end, and this is where all hosts do.
    """
    watch = _watch()
    if watch is not None:
        watch.sync_point()


def is_leaving() -> bool:
    """Returns whether the next `sync_point` raises: what is done until then is in vain."""
    watch = _watch()
    return watch is not None and watch.is_next and not watch.is_staying


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """What must be done whole: sync points in it do not leave."""
    watch = _watch()
    if watch is None:
        yield
        return
    watch.is_staying = True
    try:
        yield
    finally:
        watch.is_staying = False


def _watch() -> "_Watch | leaving.Watch | None":
    """Returns who knows whether this process is to leave: alone, or with all."""
    return _Watch.current or leaving.Watch.current


class _Watch:
    """A thread that learns what other hosts tell, and tells them what this one is asked.

    SIGTERM to any host asks all to leave. Each says how many sync points it has passed and passes
    no further one until all have said so; they leave where the furthest is.
    """

    current: "_Watch | None" = None

    def __init__(self) -> None:
        import orbax.checkpoint as ocp  # seconds, and only several hosts need it

        self._client = ocp.multihost.get_jax_distributed_client()
        self._passed = self._met = 0
        self.is_staying = self.is_ending = False
        self._until: int | None = None
        self._is_held = False
        self._lock = threading.Condition()
        self._asked, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        # The handler proper would wait for the main thread, which waits in collectives.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self._ended, wake = os.pipe()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        # A thread that the interpreter's end finds within jax's client aborts the process.
        atexit.register(lambda: (os.write(wake, b"."), thread.join(GRACE_S)))

    @classmethod
    def begin(cls) -> None:
        """Starts the thread; jax took the signal over in `initialize`."""
        cls.current = cls()

    @classmethod
    def tell(cls, key: str, value: str) -> None:
        """Leaves a word for the other hosts."""
        if cls.current is not None:
            value = value.encode(
                "utf-8", "backslashreplace"
            ).decode()  # names of files may be bytes
            # The first word stays, and nobody may be there.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                cls.current._client.key_value_set(f"evr1/{key}", value)

    def gone(self) -> int:
        """Returns how many other hosts have said that they end."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            return len(dict(self._client.key_value_dir_get("evr1/gone/")))
        return 0

    @property
    def is_next(self) -> bool:
        """Whether the next sync point is where all leave."""
        return self._until is not None and self._passed >= self._until

    def sync_point(self) -> None:
        """Does what `sync_point` says."""
        with self._lock:
            while self._is_held and self._until is None:
                self._lock.wait()
            if self.is_next and not self.is_staying:
                raise Leave
            self._passed += 1

    def meet(self) -> None:
        """Waits for the others, as long as it takes; it fails where one of them is gone."""
        self._met += 1
        self._client.wait_at_barrier(f"evr1/{self._met}", 1000 * DAY_S)

    def _run(self) -> None:
        is_asked = False
        while True:
            ready = select.select([self._asked, self._ended], [], [], POLL_S)[0]
            if self._ended in ready:
                return
            signals = os.read(self._asked, 64) if ready else b""
            if signal.SIGTERM in signals and not is_asked:
                is_asked = True
                print(f"{name()}: asked to end; all hosts do together", file=sys.stderr, flush=True)
            try:
                words = dict(self._client.key_value_dir_get("evr1/"))
            except jax.errors.JaxRuntimeError:  # jax ends the process if nobody answers for long
                continue
            told = {key.removeprefix("evr1/"): value for key, value in words.items()}
            if "failed" in told and not self.is_ending:
                _end_last(GRACE_S)
                _exit(1, f"error: {name()} ends: {told['failed']}")
            if "leave" in told:
                self._hold(told)
            elif is_asked:  # and again until it is seen: a word may be lost on the way
                self.tell("leave", name())

    def _hold(self, told: Mapping[str, str]) -> None:
        """Stops the main thread at its next sync point until all hosts have said where they are."""
        with self._lock:
            self._is_held = True  # from here on the number passed stands still
            if f"passed/{index()}" not in told and self._until is None:
                self.tell(f"passed/{index()}", str(self._passed))
            places = [int(v) for k, v in told.items() if k.startswith("passed/")]
            if len(places) == count() and self._until is None:
                self._until = max(places)
                self._lock.notify_all()
