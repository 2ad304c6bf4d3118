"""Every benchmark in one command, killed and cut into parts: minutes, so not in the default run.

pytest -m slow tests/evals/test_job_all.py
"""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import evals_rig as rig
import pytest
from miniatures import write_all
from repo import ROOT

from evr1.evals.tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return root, write_all(root)


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """Starts the job over all tasks in a process of its own."""
    programs = tmp_path_factory.mktemp("programs")

    def start(workdir, *flags):
        fields = {
            "workdir": workdir,
            "model": rig.MODEL,
            "data_dir": data[0],
            "preset": "smoke",
            "max_tokens": 12,
            "dtype": "float32",
            "workers": 2,
            "limit": 1000,
        }
        command = [sys.executable, "-m", "evr1.evaluate", "--config=configs/eval_video.py"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(programs)}
        env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return subprocess.Popen(
            [*command, *flags], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return start


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    process = start(workdir)
    said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    return workdir, said


def test_all_tasks_are_answered_and_scored(whole, data):
    workdir, said = whole
    found = rig.answers(workdir)
    for task in TASKS:
        mine = [a for (name, _), a in found.items() if name == task]
        assert len(mine) == data[1][task].n
        assert not [a.detail for a in mine if a.reason]
        assert f"{task}@{len(mine)}" in said
    with (workdir / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    told = {row["task"] for row in rows if row["profile"] == "evr1" and row["value"]}
    waiting = {row["task"] for row in rows if row["profile"] == "evr1" and not row["value"]}
    assert told | waiting == set(TASKS)
    assert all(
        int(row["n_unjudged"]) for row in rows if row["task"] in waiting and not row["value"]
    )


def test_three_kills_lose_nothing(whole, start, tmp_path):
    rng = random.Random(0)
    kills = 0
    while kills < 3:
        process = start(tmp_path)
        goal = rng.randrange(5, 40)
        before = _lines(tmp_path)
        while process.poll() is None and _lines(tmp_path) < before + goal:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills == 3
    between = {key: a.responses for key, a in rig.answers(tmp_path).items()}
    process = start(tmp_path)
    said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    found = rig.answers(tmp_path)
    assert {key: found[key].responses for key in between} == between
    assert rig.timeless(found) == rig.timeless(rig.answers(whole[0]))


def test_three_parts_give_the_same(whole, start, tmp_path):
    for part in ("1/3", "2/3", "3/3"):
        process = start(tmp_path, f"--part={part}")
        said = process.communicate()[0].decode()
        assert process.returncode == 0, said
    assert rig.timeless(rig.answers(tmp_path)) == rig.timeless(rig.answers(whole[0]))


def _lines(workdir):
    return sum(path.read_bytes().count(b"\n") for path in workdir.glob("samples_*.jsonl"))
