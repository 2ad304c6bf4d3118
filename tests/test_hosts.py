"""Several processes as one run: the numbers of one, and an end of all where one ends."""

import math
import signal
import time

import pytest
from hosts_rig import Processes, metrics, rollouts, run

from evr1.data.demo.files import make_demo

LOST = 143


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Demo clips and rows, few of them, and a cache of the compiled programs."""
    out = tmp_path_factory.mktemp("data")
    make_demo(out, seed=0, train=24, heldout=7)
    return out


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run(data, workdir, 1, data__preprocess=True)
    return workdir


def assert_same(got, expected):
    """The same tokens, rewards and order of rows; losses and norms but for rounding."""
    for a, b in zip(rollouts(got), rollouts(expected), strict=True):
        assert a | {"advantage": 0} == b | {"advantage": 0}
    for a, b in zip(metrics(got), metrics(expected), strict=True):
        assert_close(a, b)


def assert_close(got, expected):
    """Metrics of a step, equal but for rounding."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert math.isclose(got[name], value, rel_tol=1e-5, abs_tol=1e-6), (got["step"], name)


def test_two_hosts_are_one_run_and_one_goes_on_alone(data, alone, tmp_path):
    """Two processes for half of the steps, then one, then two: what one does alone."""
    workdir = tmp_path / "run"
    for count, steps in ((2, 2), (1, 3), (2, 4)):
        run(data, workdir, count, num_steps=steps, eval__every_steps=0)
    got, expected = (
        [r | {"advantage": 0} for r in rollouts(x) if r["split"] == "train"]
        for x in (workdir, alone)
    )
    assert got == expected
    lines = {m["step"]: m for m in metrics(workdir) if "reward/overall" in m}
    for line in metrics(alone):
        if "reward/overall" in line:
            assert_close(lines[line["step"]], line)


def test_hosts_that_disagree_end_in_one_line(data, tmp_path):
    begun = Processes(data, tmp_path / "run", 2, own={1: {"seed": 2}})
    statuses = begun.wait()
    assert statuses == [1, 1], begun.printed()
    for log in begun.logs:
        (line,) = [x for x in log.read_text().splitlines() if x.startswith("error:")]
        assert "host 1 has another config or version: seed is '2' there and '0' on" in line


def test_sigterm_to_any_host_saves_on_all_and_the_same_command_goes_on(data, alone, tmp_path):
    workdir = tmp_path / "run"
    begun = Processes(data, workdir, 2)
    begun.wait_for("step 1/4")
    begun.processes[1].send_signal(signal.SIGTERM)
    statuses = begun.wait()
    assert statuses == [LOST, LOST], begun.printed()
    assert "the same command goes on" in begun.printed()
    run(data, workdir, 2)
    assert_same(workdir, alone)


def test_an_error_on_one_host_ends_all(data, tmp_path):
    """A workdir that host 1 cannot see the same of."""
    begun = Processes(data, tmp_path / "run", 2, own={1: {"data.train": str(tmp_path / "none")}})
    statuses = begun.wait()
    assert statuses == [1, 1], begun.printed()
    assert any("error:" in log.read_text() for log in begun.logs)


def test_a_killed_host_ends_the_others(data, tmp_path):
    begun = Processes(data, tmp_path / "run", 2)
    begun.wait_for("step 0/4")
    begun.processes[1].kill()
    killed = time.monotonic()
    statuses = begun.wait(90)
    assert time.monotonic() - killed < 60
    assert statuses[1] == -signal.SIGKILL
    assert statuses[0] not in (0, 1), begun.printed()
