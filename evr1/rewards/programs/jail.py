"""The inside of the sandbox: forks one confined process per program. Run by path, not imported.

Started as `python -S -s -P jail.py SOCKET PARENT_PID FILTER_HEX`, SOCKET an open file. It holds no
row: a program reaches its process through a file of its own, so that nothing of one score,
and no expected output, lies in the memory of the process that another one is forked from.

A message is JSON, {"start": limits} with the files of the program, or {"wait": pid, "seconds": s}.
"""

import ctypes
import gc
import importlib
import importlib.util
import json
import math
import os
import resource
import signal
import socket
import sys
import time

CONTROL = 3  # the socket to the host
# What programs import: no file can be opened later. One that a Python version lacks is left out.
MODULES = """
__future__ abc argparse array ast atexit base64 binascii bisect builtins calendar cmath codecs
collections collections.abc colorsys concurrent.futures concurrent.futures.thread contextlib copy
csv dataclasses datetime decimal difflib doctest enum errno fileinput fractions functools gc
graphlib hashlib heapq html inspect io ipaddress itertools json keyword linecache locale logging
math numbers operator os os.path pathlib pickle platform pprint queue random re reprlib resource
secrets select shutil signal statistics string struct sys tempfile textwrap threading time timeit
traceback types typing unicodedata unittest uuid warnings weakref zlib zoneinfo _strptime
_pydatetime _pydecimal encodings.ascii encodings.cp1252 encodings.hex_codec encodings.idna
encodings.latin_1 encodings.raw_unicode_escape encodings.rot_13 encodings.unicode_escape
encodings.utf_16 encodings.utf_32 encodings.utf_8 encodings.utf_8_sig
"""
_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38  # prctl
_FILTER = 2


class _Program(ctypes.Structure):
    """struct sock_fprog of <linux/filter.h>."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main(parent: int, instructions: bytes) -> None:
    """Serves the host until its end of the socket closes or it dies."""
    libc = ctypes.CDLL(None)
    roles = _load_roles()
    for name in MODULES.split():
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    roles.prepare()
    # What is not loaded by now is "no module named" so, not a file that fails to open.
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.argv[:] = ["program.py"]
    # No network even in name. Where the machine forbids namespaces, the filter stands alone.
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC) != 0:
        libc.unshare(_NEW_NET | _NEW_IPC)
    _die_with(parent, libc)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    host = socket.socket(fileno=CONTROL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # from here on, it is the programs' stream
    gc.freeze()
    host.send(b"ready" if _can_confine(libc, instructions) else b"no filter")
    while True:
        message, files, _, _ = socket.recv_fds(host, 4096, 8)
        if not message:
            return
        request = json.loads(message)
        if "wait" in request:
            answer = _wait(request["wait"], request["seconds"])
        else:
            launcher = os.getpid()
            answer = os.fork()
            if answer == 0:
                _child(files, request["start"], launcher, libc, instructions, roles)
            for file in files:
                os.close(file)
        host.send(json.dumps(answer).encode())


def _load_roles():
    """Returns the module beside this file: what a program's process does once it is confined."""
    package = "evr1.rewards.programs"
    peer, roles = f"{package}.peer", f"{package}.roles"  # the second imports the first
    for name in (peer, roles):
        file = f"{name.rpartition('.')[2]}.py"
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), file)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    del sys.modules[peer]
    return sys.modules.pop(roles)


def _can_confine(libc, instructions) -> bool:
    """Returns whether the kernel takes the limits and the filter; tried once, in a child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _confine({"seconds": 1, "memory_bytes": 1 << 30, "output_bytes": 0}, libc, instructions)
            code = 0
        finally:
            os._exit(code)
    return _wait(pid, 10.0) == 0


def _wait(pid: int, seconds: float) -> int | None:
    """Returns the exit code of a child; None if it had to be killed at its deadline."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        signal.sigtimedwait([signal.SIGCHLD], left)


def _child(files, limits, launcher, libc, instructions, roles) -> None:
    """Becomes the program: reads it, gives up every right, runs it. Never returns."""
    code = 1
    try:
        role = _take(files)
        os.setsid()
        _die_with(launcher, libc)
        _confine(limits, libc, instructions)
        code = roles.run(role)
    finally:
        os._exit(code)


def _take(files) -> dict:
    """Returns the role, read from the first file; makes the other files streams 0, 1 and 3."""
    with open(files[0], "rb") as file:
        role = json.loads(file.read())
    os.close(CONTROL)
    for stream, file in zip((0, 1, 3), files[1:], strict=False):
        os.dup2(file, stream)
    os.closerange(len(files), 256)  # the line to the other process is the last, where there is one
    return role


def _confine(limits, libc, instructions) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.chdir("/")
    cpu_s = math.ceil(limits["seconds"]) + 1
    for name, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["output_bytes"]),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))
    program = _Program(len(instructions) // 8, instructions)
    for arguments in (
        (_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError("this kernel takes no filter")


def _die_with(parent: int, libc) -> None:
    """Asks the kernel for death when the parent dies, which it may have done already."""
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    if int(sys.argv[1]) != CONTROL:
        os.dup2(int(sys.argv[1]), CONTROL)
        os.close(int(sys.argv[1]))
    main(int(sys.argv[2]), bytes.fromhex(sys.argv[3]))
