"""A lease in a bucket: in the place of a lock, as buckets have none.

A writer creates an object that nobody may have created (`If-None-Match: *`, so the server decides
between two), then looks who else is there, and writes its own again every few seconds. One that is
not written for `LEASE_S` seconds, by the server's clock, belongs to a process that is gone, and may
be taken over: under the next number, which again only one can create.
"""

import json
import math
import os
import re
import threading
import time

from evr1.data.remote.store import Object, Store
from evr1.formats.part import WHOLE, Part

LEASE_S = 60.0
BEAT_S = 15.0
_NAME = re.compile(r"\.lease-(\d+)-of-(\d+)-(\d+)")


class Lease:
    """The right to write the shards of a part; `close` gives it back."""

    def __init__(self, store: Store, part: Part = WHOLE):
        """Takes it.

        Raises:
            ValueError: another process has it, or that of a part with the same shards.
        """
        self._store, self._lost = store, ""
        listing = store.list()
        numbers = [number for name in listing for p, number in [_parse(name)] if p == part]
        self._name = _name(part, max(numbers, default=0) + 1)
        self._body = json.dumps(_owner()).encode()
        if not store.create(self._name, self._body):
            raise ValueError(f"{store.url}: another process writes here; wait for it")
        try:
            self._look(store.list(), part)
        except BaseException:
            store.remove(self._name)
            raise
        self._beaten = time.monotonic()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def _look(self, listing: dict[str, Object], part: Part) -> None:
        """Removes the leases of processes that are gone.

        Raises:
            ValueError: one overlaps and is alive.
        """
        if self._name not in listing:
            raise ValueError(f"{self._store.url}: another process writes here; wait for it")
        now = listing[self._name].modified
        for name, each in listing.items():
            other, _ = _parse(name)
            if name == self._name or other is None or not _overlap(part, other):
                continue
            left = LEASE_S - (now - each.modified)
            if left > 0 and not self._is_gone(name):
                raise ValueError(
                    f"{self._store.url}: another process writes here ({name}); wait for it, or, "
                    f"if it was killed, {math.ceil(left)} s"
                )
            self._store.remove(name)

    def _is_gone(self, name: str) -> bool:
        """Returns whether a lease is of a process of this machine that has ended."""
        try:
            owner, own = json.loads(self._store.read(name)), _owner()
        except (FileNotFoundError, ValueError):
            return False
        if owner.get("machine") != own["machine"]:
            return False
        return not os.path.exists(f"/proc/{owner.get('process')}/stat")

    def _beat(self) -> None:
        while not self._is_closed.wait(BEAT_S):
            try:
                self._store.info(self._name)
                self._store.write(self._name, self._body)
                self._beaten = time.monotonic()
            except FileNotFoundError:
                self._lost = "another process has taken it over"
                return
            except ValueError as error:  # it may pass
                if time.monotonic() - self._beaten > LEASE_S:
                    self._lost = str(error)
                    return

    def check(self) -> None:
        """Raises ValueError if the lease is lost, or may be."""
        late = time.monotonic() - self._beaten
        if self._lost or late > LEASE_S:
            reason = self._lost or f"not renewed for {late:.0f} s"
            raise ValueError(f"{self._store.url}: lost the right to write here ({reason})")

    def close(self) -> None:
        """Gives it back."""
        self._is_closed.set()
        self._thread.join()
        self._store.remove(self._name)


def is_lease(name: str) -> bool:
    """Returns whether an object is a lease."""
    return _NAME.fullmatch(name) is not None


def _name(part: Part, number: int) -> str:
    return f".lease-{part.index}-of-{part.count}-{number:06d}"


def _parse(name: str) -> tuple[Part | None, int]:
    """Returns the part and the number of a lease; None: it is something else.

    >>> _parse(".lease-1-of-3-000002")
    (Part(index=1, count=3), 2)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None, 0
    index, count, number = map(int, found.groups())
    return Part(index, max(count, 1)), number


def _overlap(part: Part, other: Part) -> bool:
    """Returns whether two parts, maybe of different numbers, may share a shard.

    >>> _overlap(Part(0, 2), Part(1, 2)), _overlap(Part(0, 2), Part(3, 3)), _overlap(WHOLE, WHOLE)
    (False, True, True)
    """
    return (part.index - other.index) % math.gcd(part.count, other.count) == 0


def _owner() -> dict[str, str | int]:
    """Returns who this process is; processes of one machine and namespace see each other's end."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            machine = f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        machine = f"unknown {os.urandom(8).hex()}"
    start = time.monotonic_ns()  # two bodies are never equal
    return {"machine": machine, "process": os.getpid(), "host": os.uname().nodename, "at": start}
