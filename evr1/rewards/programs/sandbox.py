"""Runs programs that a model wrote: confined processes with a deadline. Linux only.

What a program cannot do, and what holds it back, is listed in docs/rewards.md. Every thread that
scores has a launcher of its own (jail.py), which the kernel ends with the thread.
"""

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.rewards.programs import seccomp

LIMIT_S = 1.5  # of all runs of one response together
MEMORY_BYTES = 1 << 30  # address space of a program
OUTPUT_BYTES = 1 << 20  # of a program's output
NOT_A_PROGRAM = 98  # a program's exit code where its text is none
END_S = 0.1  # that a program has after the last call to it
START_TIMEOUT_S = 30.0

_local = threading.local()


class Sandbox:
    """A launcher of confined processes, for one thread."""

    def __init__(self) -> None:
        """Starts the launcher.

        Raises:
            ValueError: this machine has no sandbox.
        """
        check_platform()
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        jail = str(Path(__file__).with_name("jail.py"))
        arguments = [str(os.getpid()), seccomp.program(platform.machine()).hex()]
        with other:
            process = subprocess.Popen(
                [sys.executable, "-S", "-s", "-P", "-B", jail, str(other.fileno()), *arguments],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONHASHSEED": "0"},  # one program, one score
                cwd="/",
                start_new_session=True,
            )
        self.process = process
        self.owner = os.getpid()
        weakref.finalize(self, _end, process, self._control, self.owner)
        self._control.settimeout(START_TIMEOUT_S)
        word = self._control.recv(100)
        if not word:
            raise OSError("the launcher of the sandbox does not start; see its message above")
        if word != b"ready":
            raise ValueError(
                "problem_type 'code' needs a sandbox, and this kernel takes no seccomp filter; "
                "run elsewhere or leave out these rows"
            )

    def start(self, role: Mapping[str, Any], streams: Sequence[int], seconds: float) -> int:
        """Starts a confined process and returns its number.

        Args:
            role: what it does, see roles.py.
            streams: open files: its input, its output and, for two that talk, a socket.
            seconds: what its processor time is limited by.
        """
        limits = {"seconds": seconds, "memory_bytes": MEMORY_BYTES, "output_bytes": OUTPUT_BYTES}
        with memory_file(json.dumps(role).encode()) as file:
            request = json.dumps({"start": limits}).encode()
            socket.send_fds(self._control, [request], [file, *streams])
            return self._answer(START_TIMEOUT_S)

    def wait(self, pid: int, seconds: float) -> int | None:
        """Returns a process's exit code; None if it was killed at its deadline."""
        self._control.send(json.dumps({"wait": pid, "seconds": max(0.0, seconds)}).encode())
        return self._answer(seconds + START_TIMEOUT_S)

    def _answer(self, seconds: float) -> Any:
        self._control.settimeout(seconds)
        try:
            message = self._control.recv(100)
            if not message:
                raise OSError("the launcher of the sandbox ended")
        except OSError:
            self.process.kill()  # what it might still answer is no answer to the next question
            raise
        return json.loads(message)


def check_platform() -> None:
    """Refuses platforms without a sandbox.

    Raises:
        ValueError: this is not Linux on x86_64 or aarch64.
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in seccomp.ARCHITECTURES:
        raise ValueError(
            f"problem_type 'code' needs a sandbox, and there is none on {sys.platform} {machine}, "
            "only on Linux x86_64 and aarch64; score these rows there or leave them out"
        )


def get() -> Sandbox:
    """Returns this thread's sandbox, started on first use or if its launcher has died.

    Raises:
        ValueError: this machine has no sandbox.
    """
    sandbox: Sandbox | None = getattr(_local, "sandbox", None)
    is_usable = sandbox and sandbox.owner == os.getpid() and sandbox.process.poll() is None
    if sandbox is None or not is_usable:
        sandbox = _local.sandbox = Sandbox()
    return sandbox


def run_main(code: str, stdin: str, seconds: float) -> tuple[int | None, str]:
    """Runs a program; returns its exit code (None: killed at its deadline) and its output."""
    sandbox = get()
    with memory_file(stdin.encode("utf-8", "replace")) as input_file, memory_file() as out:
        pid = sandbox.start({"do": "main", "code": code}, [input_file, out], seconds)
        exit_code = sandbox.wait(pid, seconds)
        output = os.pread(out, OUTPUT_BYTES, 0)
    return exit_code, output.decode("utf-8", "replace")


def run_judged(
    code: str, tests: Sequence[Mapping[str, Any]], is_partial: bool, seconds: float
) -> tuple[int | None, list[bool]]:
    """Runs a program's tests; returns its exit code (None: it did not end) and which passed.

    The program serves its functions in one process, the tests call them from another. Tests after
    the first that fails are left out, unless `is_partial`.
    """
    sandbox, deadline = get(), time.monotonic() + seconds
    ends = socket.socketpair()
    with open(os.devnull, "r+b", buffering=0) as null, memory_file() as out, ends[0], ends[1]:
        nothing = null.fileno()
        served = sandbox.start(
            {"do": "serve", "code": code, "shown": tests[0].get("shown", "")},
            [nothing, nothing, ends[0].fileno()],
            seconds,
        )
        role = {"do": "judge", "tests": list(tests), "is_partial": is_partial}
        judge = sandbox.start(role, [nothing, out, ends[1].fileno()], seconds)
        for end in ends:
            end.close()
        sandbox.wait(judge, deadline - time.monotonic())
        # It ends by itself once its tests have; one that does not is killed.
        exit_code = sandbox.wait(served, END_S)
        verdict = os.pread(out, OUTPUT_BYTES, 0)
    return exit_code, [mark == ord("1") for mark in verdict]


def is_same_program(code: str, truth: str, seconds: float) -> bool | None:
    """Returns whether programs differ in layout and comments alone; None if one is no program."""
    sandbox = get()
    with memory_file() as nothing, memory_file() as out:
        pid = sandbox.start(
            {"do": "compare", "code": code, "truth": truth}, [nothing, out], seconds
        )
        exit_code = sandbox.wait(pid, seconds)
    return None if exit_code == NOT_A_PROGRAM else exit_code == 0


@contextlib.contextmanager
def memory_file(content: bytes = b"") -> Iterator[int]:
    """Opens a file that has no name and takes no disk, at its start."""
    file = os.memfd_create("sandbox")
    try:
        with open(file, "wb", closefd=False) as writer:
            writer.write(content)
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def _end(process: "subprocess.Popen[bytes]", control: socket.socket, owner: int) -> None:
    control.close()
    if os.getpid() == owner:  # not in a fork of the process that it serves
        process.kill()
        process.wait()
