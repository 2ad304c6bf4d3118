"""A run on a Cloud TPU slice, from the request for it to the end, over preemptions.

Everything goes through the `gcloud` command; the state of the request (a queued resource) says
whether there is a slice, `tpu/host.sh state` on every host says how the run there is.
"""

import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from slices import Slice

ROOT = pathlib.Path(__file__).resolve().parents[1]
ARCHIVE = "evr1.tar.gz"
FROM_OUTSIDE = 128  # exit statuses from here on: ended by a signal
PATIENT_LOOKS = 20  # at hosts of which some have ended, or do not answer
# States of a queued resource that never become ACTIVE again.
LOST = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING")


class Tpu(NamedTuple):
    """A slice to ask for, under one name for the request and its node."""

    name: str
    project: str
    zone: str
    slice: Slice
    capacity: str  # "", "spot" or "reserved"
    create_flags: tuple[str, ...]  # more for the request: --network=..., --internal-ips
    ssh_flags: tuple[str, ...]  # more for ssh and scp: --internal-ip
    setup: str  # what else every host runs before the start: mounts

    def _gcloud(self, group: str, verb: str, *more: str) -> list[str]:
        place = (f"--project={self.project}", f"--zone={self.zone}")
        return ["gcloud", "compute", "tpus", group, verb, *more, *place]

    def create(self) -> list[str]:
        """The request for the slice."""
        return [
            *self._gcloud("queued-resources", "create", self.name),
            f"--node-id={self.name}",
            f"--accelerator-type={self.slice.type}",
            f"--runtime-version={self.slice.runtime}",
            *([f"--{self.capacity}"] if self.capacity else []),
            *self.create_flags,
        ]

    def describe(self) -> list[str]:
        """Prints the state of the request; fails where there is none."""
        return self._gcloud("queued-resources", "describe", self.name) + [
            "--format=value(state.state)"
        ]

    def delete(self) -> list[str]:
        """Deletes the request and the slice, and waits for that."""
        return self._gcloud("queued-resources", "delete", self.name) + ["--force", "--quiet"]

    def copy(self, archive: str) -> list[str]:
        """Copies the archive of the checkout to every host."""
        copy = self._gcloud("tpu-vm", "scp", archive, f"{self.name}:{ARCHIVE}", "--worker=all")
        return [*copy, *self.ssh_flags]

    def ssh(self, command: str, worker: str = "all") -> list[str]:
        """Runs a shell command on one host or on all at once."""
        ssh = self._gcloud("tpu-vm", "ssh", self.name, f"--worker={worker}")
        return [*ssh, *self.ssh_flags, f"--command={command}"]

    def install(self) -> list[str]:
        """Unpacks the checkout on every host and installs its packages."""
        unpack = f"mkdir -p evr1 && tar -xzf {ARCHIVE} -C evr1 && evr1/tpu/host.sh install"
        return self.ssh(f"{unpack} && {self.setup}" if self.setup else unpack)

    def start(self, arguments: Sequence[str]) -> list[str]:
        """Starts the run on every host."""
        return self.ssh(f"evr1/tpu/host.sh start {shlex.join(arguments)}")

    def follow(self) -> list[str]:
        """Shows the log of the first host until the run there ends."""
        return self.ssh("evr1/tpu/host.sh follow", worker="0")

    def states(self) -> list[str]:
        """Prints a line for every host: how its run is."""
        return self.ssh("evr1/tpu/host.sh state")

    def stop(self) -> list[str]:
        """Asks the run on every host to save and leave."""
        return self.ssh("evr1/tpu/host.sh stop")


def archive_command(path: str) -> list[str]:
    """Packs the checkout as it is committed."""
    return ["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={path}", "HEAD"]


def script(tpu: Tpu, arguments: Sequence[str]) -> str:
    """Returns the commands of `run` in their order, as a person would type them."""
    steps = (
        ("ask for the slice", [tpu.create()]),
        ("wait until this prints ACTIVE", [tpu.describe()]),
        ("this checkout to every host", [archive_command(ARCHIVE), tpu.copy(ARCHIVE)]),
        ("its packages, on every host", [tpu.install()]),
        ("start on every host", [tpu.start(arguments)]),
        ("the log of the first host, until the run ends", [tpu.follow()]),
        ("how every host ended; 128 and above: from outside, start again", [tpu.states()]),
        ("no longer ACTIVE: the slice was taken; delete it, and from the top", [tpu.delete()]),
    )
    lines = []
    for title, commands in steps:
        lines += [f"# {title}", *(shlex.join(c) for c in commands)]
    return "\n".join(lines)


class Patience(NamedTuple):
    """How long and how often."""

    poll_s: float  # between two looks at the request
    settle_s: float  # until a preemption shows in the state of the request
    max_restarts: int


def run(tpu: Tpu, arguments: Sequence[str], patience: Patience, say: Callable[[str], None]) -> int:
    """Runs to the end; starts again whenever the slice is taken or a host is lost.

    Returns:
        0: finished; 1: an error that would come again, or too many restarts.

    Raises:
        ValueError: a command failed that must not.
    """
    for restart in range(patience.max_restarts + 1):
        if restart:
            say(f"start {restart + 1} of at most {patience.max_restarts + 1}")
        acquire(tpu, patience, say)
        if not _prepare(tpu, arguments, say):
            time.sleep(patience.settle_s)
            if _state(tpu) == "ACTIVE":
                raise ValueError(f"{tpu.name}: the run could not be started; see the lines above")
            continue
        ends = _watch(tpu, patience, say)
        if ends and all(end == "exit 0" for end in ends):
            say(f"finished on {len(ends)} hosts; the slice is still there: --action=delete")
            return 0
        time.sleep(patience.settle_s)  # a preemption ends the run before the state shows it
        is_error = any(end.startswith("exit ") and 0 < int(end[5:]) < FROM_OUTSIDE for end in ends)
        if is_error and _state(tpu) == "ACTIVE":
            say(f"error: {tpu.name}: {', '.join(sorted(set(ends)))}; the log: --action=logs")
            return 1
        say(f"the run was ended from outside ({', '.join(sorted(set(ends))) or 'no host answers'})")
    say(f"error: started {patience.max_restarts + 1} times; --max_restarts allows more")
    return 1


def acquire(tpu: Tpu, patience: Patience, say: Callable[[str], None]) -> None:
    """Waits until the slice is there; asks for it where it was not, or was taken away."""
    last = ""
    while (state := _state(tpu)) != "ACTIVE":
        if state in LOST:
            say(f"{tpu.name}: {state}; deleted")
            # It may be gone by itself meanwhile; the next look tells.
            subprocess.run(tpu.delete(), check=False)
            state = _state(tpu)
        if not state:
            say(f"{tpu.name}: asking for {tpu.slice.type}, {tpu.slice.hosts} hosts")
            if subprocess.run(tpu.create(), check=False).returncode:
                raise ValueError(f"{tpu.name}: the request was refused; see the lines above")
        elif state != last:
            say(f"{tpu.name}: {state}")
        last = state
        time.sleep(patience.poll_s)


def _state(tpu: Tpu) -> str:
    """The state of the request; empty where there is none.

    Raises:
        ValueError: gcloud failed for another reason.
    """
    asked = subprocess.run(tpu.describe(), check=False, capture_output=True, text=True)
    if asked.returncode == 0:
        return asked.stdout.strip()
    if "NOT_FOUND" in asked.stderr:
        return ""
    reason = (asked.stderr.strip().splitlines() or ["no message"])[-1]
    raise ValueError(f"gcloud: {reason}")


def _prepare(tpu: Tpu, arguments: Sequence[str], say: Callable[[str], None]) -> bool:
    """Copies, installs and starts; false where a host did not take it."""
    with tempfile.TemporaryDirectory() as folder:
        archive = str(pathlib.Path(folder) / ARCHIVE)
        steps = (
            ("packing the checkout", archive_command(archive)),
            ("copying it to every host", tpu.copy(archive)),
            ("installing", tpu.install()),
            ("starting", tpu.start(arguments)),
        )
        for title, command in steps:
            say(f"{tpu.name}: {title}")
            if subprocess.run(command, check=False).returncode:
                return False
    return True


def _watch(tpu: Tpu, patience: Patience, say: Callable[[str], None]) -> list[str]:
    """Shows the log until no host runs any more; returns how each ended, as far as they answer.

    A host that hangs while others have ended is stopped; one that stays silent is given up.
    """
    looks = 0
    while True:
        subprocess.run(tpu.follow(), check=False)  # its connection may break
        asked = subprocess.run(tpu.states(), check=False, capture_output=True, text=True)
        lines = [x.split(maxsplit=2) for x in asked.stdout.splitlines()]
        ends = [x[2] for x in lines if len(x) == 3 and x[0] == "evr1-state"]
        running = ends.count("running")
        if not running and (len(ends) == tpu.slice.hosts or _state(tpu) != "ACTIVE"):
            return ends
        looks = 0 if running == tpu.slice.hosts else looks + 1
        if looks == PATIENT_LOOKS:
            if not running:
                return ends
            subprocess.run(tpu.stop(), check=False)
            looks = 0
        say(f"{tpu.name}: {running} hosts run, {len(ends)} answer")
        time.sleep(patience.poll_s)


def actions(tpu: Tpu, action: str) -> list[list[str]]:
    """Returns the commands of one thing to do with a slice that is there."""
    return {
        "status": [tpu.describe(), tpu.states()],
        "logs": [tpu.follow()],
        "stop": [tpu.stop()],
        "delete": [tpu.delete()],
    }[action]


def act(tpu: Tpu, action: str) -> int:
    """Does it; returns the highest exit status."""
    return max(subprocess.run(c, check=False).returncode for c in actions(tpu, action))


def say(text: str) -> None:
    """Prints a line at once, also into a pipe."""
    print(text, file=sys.stderr, flush=True)
