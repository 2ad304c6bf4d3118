"""Fenced blocks of pages, and a shell that runs them in a folder: its `evr1` and `python` ask this
process what to run, so that a table can make a command smaller or leave it out.
"""

import json
import os
import re
import socketserver
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from repo import ROOT
from runs_rig import environment

RIGS = ROOT / "tests" / "rigs"
FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
CLIENT = """#!{python} -IS
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
link.sendall(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]).encode() + b"\\n")
status, *out = link.makefile(encoding="utf-8")
sys.stdout.write("".join(out))
sys.exit(int(status))
"""


class Block(NamedTuple):
    """A fenced block: its language, its text, its line on the page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text("utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


class Ran(NamedTuple):
    """A command that a page has run."""

    argv: list[str]  # as the page has it
    run: list[str] | None  # as it was run; None: it was not
    status: int
    out: str
    cpu_s: float = 0.0


# What is run in the place of a command: other arguments, or None.
Decide = Callable[[list[str]], list[str] | None]


class Shell:
    """A shell in a folder. A context manager."""

    def __init__(self, folder: Path, decide: Decide, commands: tuple[str, ...]) -> None:
        self.folder, self.decide = folder, decide
        self.ran: list[Ran] = []
        self._bin = folder.parent / "bin"
        self._out = folder.parent / "out.txt"
        self._bin.mkdir()
        self._sockets = tempfile.TemporaryDirectory()  # a short path: they may have 107 characters
        address = f"{self._sockets.name}/socket"
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    status, out = outer._command(json.loads(self.rfile.readline()))
                except ValueError as error:  # of `decide`
                    status, out = 1, str(error)
                    outer.ran.append(Ran([], None, status, out))
                self.wfile.write(f"{status}\n{out}".encode())

        self._server = socketserver.ThreadingUnixStreamServer(address, Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        for name in commands:
            file = self._bin / name
            file.write_text(CLIENT.format(python=sys.executable, address=address))
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        self.env = {**environment(), "PYTHONPATH": str(ROOT), "COLUMNS": "100", "VARIABLE": "key"}
        self._children = subprocess.Popen(
            [sys.executable, str(RIGS / "forked.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env,
        )
        self.env = {**self.env, "PATH": path}

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        assert self._children.stdin
        assert self._children.stdout
        self._children.stdin.close()
        self._children.wait()
        self._children.stdout.close()
        self._sockets.cleanup()

    def script(self, text: str) -> list[Ran]:
        """Runs a script; what it has run.

        Raises:
            AssertionError: a command failed, or is not there.
        """
        before = len(self.ran)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        ran = self.ran[before:]
        last = f"{ran[-1].run or ran[-1].argv}\n{ran[-1].out[-3000:]}" if ran else ""
        assert done.returncode == 0, f"{done.stderr[-1500:]}\n{last}"
        return ran

    def _command(self, argv: list[str]) -> tuple[int, str]:
        if argv[:2] == ["python", "-c"]:  # a line whose output the page uses
            done = subprocess.run(
                [sys.executable, *argv[1:]],
                cwd=self.folder,
                env=self.env,
                capture_output=True,
                text=True,
                check=False,
            )
            self.ran.append(Ran(argv, argv, done.returncode, done.stdout + done.stderr))
            return done.returncode, done.stdout
        made = self.decide(argv)
        if made is None:
            self.ran.append(Ran(argv, None, 0, ""))
            return 0, ""
        self._out.write_text("")
        request = {"argv": made, "cwd": str(self.folder), "out": str(self._out)}
        assert self._children.stdin
        assert self._children.stdout
        self._children.stdin.write(json.dumps(request) + "\n")
        self._children.stdin.flush()
        status, cpu_s = self._children.stdout.readline().split()
        out = self._out.read_text("utf-8", "replace")
        self.ran.append(Ran(argv, made, int(status), out, float(cpu_s)))
        return int(status), out
