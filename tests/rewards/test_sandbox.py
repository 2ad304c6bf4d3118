"""The sandbox: what a program cannot do, what is left behind, and the filter call by call."""

import platform
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from programs import FIND

from evr1.rewards.programs import sandbox, seccomp

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in seccomp.ARCHITECTURES,
    reason="no sandbox on this platform",
)
SECRET = "SECRET-" + "7" * 9


# Each runs in the sandbox; what it prints last must be the name of an error.
FORBIDDEN = {
    "os.fork()": "PermissionError",
    "os.execv('/bin/sh', ['sh'])": "PermissionError",
    "os.posix_spawn('/bin/true', ['true'], {})": "PermissionError",
    "os.system('true') and 1 / 0": "ZeroDivisionError",
    "os.kill(os.getppid(), 0)": "PermissionError",
    "os.killpg(0, 9)": "PermissionError",
    "signal.pthread_kill(threading.get_ident(), 9)": "PermissionError",
    "open('/etc/passwd')": "FileNotFoundError",
    "open('/proc/self/mem')": "FileNotFoundError",
    "open('new', 'w')": "FileNotFoundError",
    "os.listdir('/')": "FileNotFoundError",
    "os.mkdir('new')": "PermissionError",
    "os.unlink('/tmp/x')": "PermissionError",
    "os.rename('/tmp/a', '/tmp/b')": "PermissionError",
    "os.symlink('/', 'x')": "PermissionError",
    "os.chmod('/tmp', 0)": "PermissionError",
    "os.truncate('/tmp/x', 0)": "PermissionError",
    "os.chdir('/tmp')": "PermissionError",
    "os.mkfifo('x')": "PermissionError",
    "os.memfd_create('x')": "PermissionError",
    "os.pipe()": "PermissionError",
    "os.setuid(0)": "PermissionError",
    "os.nice(-5)": "PermissionError",
    "os.sched_setaffinity(0, {0})": "PermissionError",
    "fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())": "PermissionError",
    "socket.socket()": "PermissionError",
    "socket.socketpair()": "PermissionError",
    "socket.create_connection(('127.0.0.1', 80))": "PermissionError",
    "call(101, 16, os.getppid(), 0, 0)": "PermissionError",  # ptrace attach
    "call(310, os.getppid(), 0, 0, 0, 0, 0)": "PermissionError",  # process_vm_readv
    "call(425, 8, 0)": "PermissionError",  # io_uring_setup
    "call(437, -100, 0, 0, 24)": "PermissionError",  # openat2
    "call(272, 0x10000000)": "PermissionError",  # unshare
    "call(157, 1, 0, 0, 0, 0)": "PermissionError",  # prctl: not to die with the parent
    "call(0x40000000 + 41, 2, 1, 0)": "OSError",  # socket by the x32 convention
    "print(ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)) or 1 / 0": "ZeroDivisionError",
    "call(56, 0x10000 | 0x10000000, 0, 0, 0, 0)": "PermissionError",  # clone, not as threads are
    "importlib.import_module('sqlite3')": "ModuleNotFoundError",
}
SETUP = """import os, socket, sys, signal, threading, importlib
ctypes = sys.modules['ctypes']
class fcntl:
    F_SETOWN = 8
    def fcntl(*a): return call(72, *a)
def call(*a):
    f = ctypes.CDLL(None, use_errno=True).syscall
    if f(*map(ctypes.c_long, a)) < 0:
        raise OSError(ctypes.get_errno(), '')
"""


@pytest.mark.parametrize("attempt", FORBIDDEN)
def test_forbidden_calls_fail(attempt):
    if "call(" in attempt + SETUP * attempt.startswith("fcntl") and platform.machine() != "x86_64":
        pytest.skip("numbers of x86_64")
    program = f"{SETUP}try:\n    {attempt}\nexcept Exception as e:\n    print(type(e).__name__)"
    exit_code, output = sandbox.run_main(program, "", 5.0)
    assert (exit_code, output.split()[-1:]) == (0, [FORBIDDEN[attempt]])


def test_the_environment_and_the_memory_of_others_are_out_of_sight(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "x")
    program = "import os\nprint(os.environ.get('MY_TOKEN'), os.getcwd(), len(os.environ))"
    assert sandbox.run_main(program, "", 5.0)[1].split()[:2] == ["None", "/"]
    find = f"{FIND}print(texts())"
    sandbox.run_main("x = 1 #" + SECRET, SECRET, 5.0)
    assert sandbox.run_main(find, "", 5.0)[1] == "None\n"


def test_output_is_cut_at_its_limit():
    exit_code, output = sandbox.run_main("print('x' * (1 << 30))", "", 5.0)
    assert exit_code != 0
    assert len(output) <= sandbox.OUTPUT_BYTES


def test_a_deadline_holds():
    start = time.monotonic()
    assert sandbox.run_main("while True: pass", "", 0.3)[0] is None
    assert 0.3 <= time.monotonic() - start < 5


def test_nothing_is_left_behind_by_a_scorer_that_is_killed():
    script = (
        "from evr1.rewards.programs import sandbox\n"
        "print(sandbox.get().process.pid, flush=True)\n"
        "sandbox.run_main('while True: pass', '', 60.0)"
    )
    scorer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with scorer:
        assert scorer.stdout
        launcher = int(scorer.stdout.readline())
        deadline = time.monotonic() + 20
        while not (children := _children(launcher)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert children
        scorer.send_signal(signal.SIGALRM)  # as the pool's deadline does
    while _alive([launcher, *children]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _alive([launcher, *children]) == []


def test_a_thread_that_ends_takes_its_launcher_along():
    launchers = []
    thread = threading.Thread(target=lambda: launchers.append(sandbox.get().process.pid))
    thread.start()
    thread.join()
    deadline = time.monotonic() + 20
    while _alive(launchers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _alive(launchers) == []


def test_a_dead_launcher_is_replaced():
    old = sandbox.get().process
    old.kill()
    old.wait()
    assert sandbox.run_main("print(1)", "", 5.0) == (0, "1\n")
    assert sandbox.get().process.pid != old.pid


def _children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _alive(pids):
    """Those that still run; a dead one that nobody has waited for yet does not."""
    states = {}
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        states[pid] = stat.rpartition(")")[2].split()[0]
    return [pid for pid, state in states.items() if state != "Z"]


def run_filter(machine, number, arguments=(0,) * 6, arch=None):
    """What the filter returns for a call: its instructions worked by hand."""
    data = struct.pack("=iIQ6Q", number, arch or seccomp.ARCHITECTURES[machine], 0, *arguments)
    instructions = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    at = value = 0
    while True:
        operation, yes, no, constant = instructions[at]
        at += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            value = struct.unpack_from("=I", data, constant)[0]
        else:
            at += yes if (value == constant if operation == 0x15 else value >= constant) else no


ALLOW, ERROR = 0x7FFF0000, 0x50000


@pytest.mark.parametrize(
    ("call", "x86_64", "aarch64", "result"),
    [
        ("read", 0, 63, ALLOW),
        ("exit_group", 231, 94, ALLOW),
        ("openat", 257, 56, ERROR | 2),
        ("execve", 59, 221, ERROR | 1),
        ("kill", 62, 129, ERROR | 1),
        ("tgkill", 234, 131, ERROR | 1),
        ("socket", 41, 198, ERROR | 1),
        ("ptrace", 101, 117, ERROR | 1),
        ("unlinkat", 263, 35, ERROR | 1),
        ("prctl", 157, 167, ERROR | 1),
        ("clone3", 435, 435, ERROR | 38),
        ("io_uring_setup", 425, 425, ERROR | 1),
        ("pidfd_open", 434, 434, ERROR | 1),
    ],
)
def test_the_filter_by_hand(call, x86_64, aarch64, result):
    assert run_filter("x86_64", x86_64) == result
    assert run_filter("aarch64", aarch64) == result


def test_the_filter_looks_at_arguments():
    for machine, clone, fcntl, prlimit in (("x86_64", 56, 72, 302), ("aarch64", 220, 25, 261)):
        assert run_filter(machine, clone, (0x3D0F00, *[0] * 5)) == ALLOW
        for flags in (17, 0x3D0F00 | 0x10000000, 0x3D0F00 | 1 << 40):
            assert run_filter(machine, clone, (flags, *[0] * 5)) == ERROR | 1
        assert run_filter(machine, fcntl, (0, 3, *[0] * 4)) == ALLOW
        assert run_filter(machine, fcntl, (0, 8, *[0] * 4)) == ERROR | 1  # F_SETOWN
        assert run_filter(machine, prlimit, (0, 3, 0, 1, 0, 0)) == ALLOW
        assert run_filter(machine, prlimit, (0, 3, 1 << 40, 1, 0, 0)) == ERROR  # seems to work
        assert run_filter(machine, prlimit, (5, 3, 0, 1, 0, 0)) == ERROR | 1
        assert run_filter(machine, 0, arch=0x40000003) == 0x80000000  # another architecture: killed
    assert run_filter("x86_64", 0x40000000) == ERROR | 38
