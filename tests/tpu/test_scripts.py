"""tpu/*.sh and the life of a Cloud TPU run, with a fake cloud: gcloud, git, uv and Slurm's commands
are small scripts that note how they were called; ssh is a shell in a folder for each host."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repo import ROOT

ARGUMENTS = ["--config=c.py", "--config.workdir=/shared/one two"]
HOSTS = 2  # of a v5p-16

GCLOUD = """
case "$3 $4" in
  "queued-resources describe")
    [[ -f $FAKE/state ]] || { echo "ERROR: NOT_FOUND: Resource 'one' was not found" >&2; exit 1; }
    cat "$FAKE/state" ;;
  "queued-resources create")
    [[ ! -f $FAKE/refused ]] || { echo "ERROR: quota" >&2; exit 1; }
    echo ACTIVE >"$FAKE/state"; mkdir -p "$FAKE/host0" "$FAKE/host1" ;;
  "queued-resources delete") rm -rf "$FAKE/state" "$FAKE/host0" "$FAKE/host1" ;;
  "tpu-vm scp") for host in host0 host1; do cp "$5" "$FAKE/$host/evr1.tar.gz"; done ;;
  "tpu-vm ssh")
    hosts="host0 host1"
    for x in "$@"; do
      case $x in
        --worker=0) hosts=host0 ;;
        --command=*) command=${x#--command=} ;;
      esac
    done
    status=0
    for host in $hosts; do (cd "$FAKE/$host" && HOME=$PWD bash -c "$command") || status=$?; done
    exit $status ;;
esac
"""
GIT = 'tar -czf "${5#--output=}" -C "$2" tpu constraints.txt'
UV = 'if [[ $1 == venv ]]; then mkdir -p "${@: -1}/bin"; cp "$FAKE/evr1" "${@: -1}/bin/python"; fi'
# What `python -m evr1.main` does on a host: the next word of the plan, for each start.
EVR1 = """
echo "$*" >>"$FAKE/starts-$(basename "$HOME")"
case $(sed -n "$(wc -l <"$FAKE/starts-$(basename "$HOME")")p" "$FAKE/plan") in
  finish) echo "log of $(basename "$HOME")" ;;
  error) echo "error: bad row"; exit 1 ;;
  killed) exit 137 ;;
  taken) echo SUSPENDED >"$FAKE/state"; exit 143 ;;
  taken_as_error) echo SUSPENDED >"$FAKE/state"; exit 1 ;;
  save) trap 'sleep 0.3; echo saved; exit 143' TERM; while :; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder of fake commands, in front of the PATH."""
    for name, body in (("gcloud", GCLOUD), ("git", GIT), ("uv", UV), ("evr1", EVR1)):
        write(tmp_path, name, body)
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def write(folder, name, body):
    text = f'#!/usr/bin/env bash\necho "{name} $*" >>"$FAKE/calls"\n{body}\n'
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def calls(fake, begins=""):
    lines = (fake / "calls").read_text().splitlines()
    return [line for line in lines if line.startswith(begins)]


def launch(fake, plan, *flags):
    (fake / "plan").write_text("\n".join(plan) + "\n")
    command = [sys.executable, "tpu/launch.py", "queued", "--name=one", "--project=p", "--zone=z"]
    command += ["--accelerator=v5p-16", "--poll_s=0.1", "--settle_s=0.1", *flags, "--", *ARGUMENTS]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def requests(fake):
    return len(calls(fake, "gcloud compute tpus queued-resources create"))


def test_a_run_on_every_host_to_its_end(fake):
    done = launch(fake, ["finish"])
    assert done.returncode == 0, done.stderr
    assert "log of host0" in done.stdout
    assert "finished on 2 hosts" in done.stderr
    for host in ("host0", "host1"):
        (start,) = (fake / f"starts-{host}").read_text().splitlines()
        assert start == f"-m evr1.main {' '.join(ARGUMENTS)}"
    assert len(calls(fake, "uv pip install")) == HOSTS


@pytest.mark.parametrize("taken", ["taken", "taken_as_error"])
def test_a_slice_that_is_taken_is_asked_for_again(fake, taken):
    done = launch(fake, [taken, "finish"])
    assert done.returncode == 0, done.stderr
    assert requests(fake) == 2
    assert len(calls(fake, "gcloud compute tpus queued-resources delete")) == 1
    assert "SUSPENDED; deleted" in done.stderr


def test_a_lost_process_is_started_again_on_the_same_slice(fake):
    done = launch(fake, ["killed", "finish"])
    assert done.returncode == 0, done.stderr
    assert requests(fake) == 1
    assert (fake / "starts-host1").read_text().count("\n") == 2


def test_an_error_is_not_tried_again(fake):
    done = launch(fake, ["error", "finish"])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: one: exit 1; the log: --action=logs"
    assert (fake / "starts-host0").read_text().count("\n") == 1


def test_restarts_come_to_an_end(fake):
    done = launch(fake, ["killed"] * 3, "--max_restarts=1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: started 2 times; --max_restarts allows more"


def test_a_refused_request_is_one_line(fake):
    (fake / "refused").touch()
    done = launch(fake, ["finish"])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "error: one: the request was refused; see the lines above"


class Host:
    """tpu/host.sh in a home of its own."""

    def __init__(self, fake, plan):
        self.run, self.home = fake / "home" / "evr1-run", fake / "home"
        (self.home / "evr1-venv" / "bin").mkdir(parents=True)
        (self.home / "evr1-venv" / "bin" / "python").symlink_to(fake / "evr1")
        (fake / "plan").write_text(plan + "\n")

    def __call__(self, *words):
        env = os.environ | {"HOME": str(self.home)}
        command = ["bash", "tpu/host.sh", *words]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30
        )

    def state(self):
        return self("state").stdout.split(maxsplit=2)[2].strip()


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_host_is_stopped_after_it_has_saved(fake):
    host = Host(fake, "save")
    assert host.state() == "none"
    assert host("start", *ARGUMENTS).returncode == 0
    assert host.state() == "running"
    assert "already running" in host("start").stdout
    assert host("stop").stdout.endswith("exit 143\n")
    assert "saved" in (host.run / "log").read_text()


def test_what_keeps_the_status_outlives_the_end_of_the_machine(fake):
    """A machine that is taken sends SIGTERM to every process, in no order."""
    host = Host(fake, "save")
    host("start")
    pid = int((host.run / "pid").read_text())
    status = Path(f"/proc/{pid}/status").read_text()
    parent = int(status.split("PPid:")[1].split()[0])
    wait_for(lambda: (fake / "starts-home").exists())
    os.kill(parent, signal.SIGTERM)
    time.sleep(0.2)
    assert host.state() == "running"
    os.kill(pid, signal.SIGTERM)
    wait_for((host.run / "status").exists)
    assert host.state() == "exit 143"


def test_a_machine_that_was_restarted_beneath_the_run(fake):
    host = Host(fake, "finish")
    host.run.mkdir()
    (host.run / "pid").write_text("4194303\n")  # above the largest process id
    assert host.state() == "gone"


def test_an_unknown_word_is_one_line(fake):
    done = Host(fake, "finish")("begin")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("install, start, follow, state or stop, and not 'begin'")


SRUN = """
echo $$ >"$FAKE/srun_pid"
[[ $(cat "$FAKE/plan") == save ]] || exit "$(cat "$FAKE/plan")"
trap 'sleep 0.2; exit 143' TERM
while :; do sleep 0.05; done
"""


@pytest.fixture
def batch(fake, monkeypatch):
    """Starts tpu/slurm.sh as Slurm does."""
    write(fake, "srun", SRUN)
    write(fake, "scancel", 'kill -TERM "$(cat "$FAKE/srun_pid")"')
    write(fake, "scontrol", "")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(ROOT))

    def start(plan):
        (fake / "plan").write_text(plan)
        return subprocess.Popen(
            ["bash", "tpu/slurm.sh", *ARGUMENTS], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    return start


@pytest.mark.parametrize(("status", "requeued"), [(0, []), (1, []), (137, ["scontrol requeue 7"])])
def test_only_what_ended_from_outside_goes_into_the_queue_again(fake, batch, status, requeued):
    job = batch(str(status))
    job.communicate(timeout=30)
    assert job.returncode == (0 if requeued else status)
    (srun,) = calls(fake, "srun")
    assert srun.endswith(f"--ntasks-per-node=1 python -m evr1.main {' '.join(ARGUMENTS)}")
    assert calls(fake, "scontrol") == requeued


def test_time_is_up(fake, batch):
    """The steps are signalled and waited for, then the job goes into the queue again."""
    job = batch("save")
    wait_for((fake / "srun_pid").exists)
    time.sleep(0.2)
    job.send_signal(signal.SIGUSR1)
    out, _ = job.communicate(timeout=30)
    assert calls(fake, "sc") == ["scancel --signal=TERM 7", "scontrol requeue 7"]
    assert "ended from outside (status 143)" in out


def test_a_job_that_is_cancelled_is_not_put_back(fake, batch):
    job = batch("save")
    wait_for((fake / "srun_pid").exists)
    job.terminate()
    job.wait(timeout=30)
    os.kill(int((fake / "srun_pid").read_text()), signal.SIGTERM)  # as Slurm does
    job.communicate(timeout=30)
    assert job.returncode == -signal.SIGTERM
    assert calls(fake, "sc") == []


def test_requeues_come_to_an_end(fake, batch, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "50")
    job = batch("137")
    job.communicate(timeout=30)
    assert job.returncode == 137
    assert calls(fake, "scontrol") == []
