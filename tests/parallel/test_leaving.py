"""How a process leaves that is asked to: what it says, when it ends, and with which status."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from repo import ROOT
from runs_rig import interruptible

from evr1.learner.unsaved import UPDATING, Unsaved
from evr1.parallel import hosts, leaving
from evr1.telemetry.phases import PhaseTimer

INT, TERM = signal.SIGINT, signal.SIGTERM
STUCK = "while True: time.sleep(0.05)"  # like native code: it reaches no sync point
AT_WORK = "while True: time.sleep(0.05); leaving.sync_point()"
PROGRAM = """
import sys, time
from evr1.parallel import leaving
leaving.GRACE_S, leaving.TELL_S, leaving.TWICE_S = 0.6, 0.4, 0.2
begun = time.monotonic()
def plan():
    if time.monotonic() < begun + {saved_s}:
        return leaving.Next("step 3 first", "step 3")
    return leaving.Next("all is saved")
try:
    with leaving.watching(plan):
        print("ready", flush=True)
        {work}
except leaving.Leave as stop:
    print("cleaned up")
    sys.exit(128 + stop.args[0])
"""


def leave(work, *signals, saved_s=0.0, before=()):
    """Runs the program, sends it signals half a second apart; returns its status, what it said and
    printed, and the seconds from the last signal to its end."""
    interruptible()
    program = PROGRAM.format(work=work, saved_s=saved_s)
    process = subprocess.Popen(
        [*before, sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for number in signals:
        time.sleep(0.5)
        process.send_signal(number)
    sent = time.monotonic()
    out, err = process.communicate(timeout=30)
    return process.returncode, err, out, time.monotonic() - sent


@pytest.mark.parametrize(("number", "asked"), [(INT, "interrupted"), (TERM, "asked to end")])
def test_at_its_next_sync_point_a_process_cleans_up_and_ends(number, asked):
    status, said, printed, _ = leave(AT_WORK, number)
    assert status == 128 + number
    assert said == f"{asked}: all is saved\n"
    assert printed == "cleaned up\n"


@pytest.mark.parametrize("number", [INT, TERM])
def test_amid_what_has_no_sync_point_it_ends_after_a_grace(number):
    status, said, printed, took = leave(STUCK, number)
    assert status == 128 + number
    assert said.count("\n") == 1
    assert printed == ""
    assert took > 0.5


def test_what_is_unsaved_is_waited_for_and_the_waiting_is_told():
    status, said, printed, took = leave(STUCK, INT, saved_s=2.5)
    assert status == 130
    first, *others = said.splitlines()
    assert first == "interrupted: step 3 first; Ctrl-C once more ends at once, without it"
    assert others
    assert all("interrupted (" in line and " s): step 3 first" in line for line in others)
    assert printed == ""
    assert took > 2.4


def test_a_second_interrupt_ends_it_at_once_and_says_what_is_lost():
    status, said, _, took = leave(STUCK, TERM, INT, saved_s=60)
    assert status == 130
    assert said.splitlines()[-1] == "interrupted again: it ends at once; step 3 is lost"
    assert took < 5


def test_a_second_request_to_end_changes_nothing():
    """The launcher's and the system's own."""
    status, said, _, took = leave(STUCK, TERM, TERM, saved_s=3)
    assert status == 143
    assert "at once;" not in said
    assert took > 1.5


def test_a_signal_that_is_ignored_stays_so():
    """As of a program that a shell started in the background."""
    shell = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    status, said, _, _ = leave(AT_WORK, INT, TERM, before=shell)
    assert status == 143
    assert said == "asked to end: all is saved\n"


@pytest.fixture
def asked(monkeypatch):
    """A watch that was asked to end, of a process that is not."""
    watch = leaving.Watch(lambda: leaving.Next(""))
    watch.number = TERM
    monkeypatch.setattr(leaving.Watch, "current", watch)
    return watch


def test_hosts_leave_by_it_where_there_is_one_process(asked):
    with hosts.staying():
        assert not hosts.is_leaving()
        hosts.sync_point()
    assert hosts.is_leaving()
    for meet in (hosts.sync_point, hosts.barrier, lambda: hosts.gather(b"")):
        with pytest.raises(hosts.Leave) as left:
            meet()
        assert left.value.args == (TERM,)


def test_the_status_of_a_command_is_that_of_the_signal(asked, capsys):
    assert leaving.status(hosts.Leave(), "interrupted") == 143
    assert capsys.readouterr().err == ""  # the watch has said it
    assert leaving.status(KeyboardInterrupt(), "interrupted") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_only_the_main_thread_leaves(asked):
    passed = []

    def work():
        hosts.sync_point()
        passed.append(not hosts.is_leaving())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert passed == [True]


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in leaving.STOPS]
    with leaving.watching(lambda: leaving.Next("")):
        assert [signal.getsignal(number) for number in leaving.STOPS] != before
        leaving.sync_point()
    assert [signal.getsignal(number) for number in leaving.STOPS] == before
    assert leaving.Watch.current is None
    time.sleep(0.2)
    assert "leaving" not in [thread.name for thread in threading.enumerate()]


def test_it_is_the_main_threads_alone_to_watch():
    seen = []

    def work():
        with leaving.watching(lambda: leaving.Next("")):
            seen.append(leaving.Watch.current)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_of_an_update_under_way_it_says_that_one_more_step_may_be_saved(tmp_path):
    """An update that has given arrays away is not left: said to be lost, its step was saved."""
    timer = PhaseTimer()
    unsaved = Unsaved(tmp_path, timer, 0)
    with timer(UPDATING):
        said = unsaved()
    assert said == (
        "no step waits to be saved; it ends within 3 s, and the same command begins with step 1; "
        "step 1, whose update is under way, is saved if it is done by then",
        "",
    )
    unsaved.step = 2
    with timer(UPDATING):
        said = unsaved()
    assert said == (
        "step 2 is saved first (or step 3, whose update is under way, if that is done before), "
        "and the same command goes on from it",
        "step 2",
    )
