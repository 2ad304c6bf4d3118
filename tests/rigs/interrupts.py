"""Interrupts a training at random moments, again and again; it must end as the same run.

    python tests/rigs/interrupts.py --work DIR [--times 20] [--seed 0] [--within 90] [--table FILE]

Each time the command is given it gets SIGINT or SIGTERM (all of its group, as a terminal sends it)
after so many seconds at most; every other start compiles all of its programs anew. It must answer
within 5 s, say nothing else (no traceback, no crash), and end with 130 or 143, within 5 s where
nothing was to be saved. When a run is done, its metrics, tokens and rewards must be those of an
undisturbed one, to the bit; then another one is begun. Exit status 1 where something is not so.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from repo import ROOT
from runs_rig import environment, interruptible, metrics, rollouts, small

from evr1.data.demo.files import make_demo

ANSWER_S, END_S, SAVE_S = 5.0, 5.0, 600.0
BUSY_S = 2.0  # more on a machine that others work on
KNOWN = ("interrupted", "asked to end")


class Ended(NamedTuple):
    """How a start ended.

    Attributes:
        status: of the process.
        at: the last line that was printed before the signal.
        said: lines of standard error.
        answer_s: from the signal to the first of them.
        end_s: from the signal to the end.
    """

    status: int
    at: str
    said: list[str]
    answer_s: float
    end_s: float


class Lines(threading.Thread):
    """Reads a pipe; each line with the moment that it came."""

    def __init__(self, pipe) -> None:
        super().__init__(daemon=True)
        self.pipe, self.lines = pipe, list[tuple[float, str]]()
        self.start()

    def run(self) -> None:
        for line in self.pipe:
            self.lines.append((time.monotonic(), line.rstrip()))


def start(data: Path, workdir: Path, is_cold: bool) -> subprocess.Popen:
    """Gives the command."""
    fields = small(
        data, workdir, log__report=False, compile_cache="off" if is_cold else data / "jax"
    )
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "evr1.main", "--config=configs/demo.py", *flags],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted(process: subprocess.Popen, number: int, after_s: float) -> Ended | None:
    """Sends the signal; returns how it ended. None: it was done before."""
    printed, said = Lines(process.stdout), Lines(process.stderr)
    try:
        status = process.wait(after_s)
        assert status == 0, said.lines
        return None
    except subprocess.TimeoutExpired:
        pass
    at = printed.lines[-1][1] if printed.lines else "(start)"
    os.killpg(process.pid, number)
    sent = time.monotonic()
    try:
        status = process.wait(SAVE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it went on for {SAVE_S:.0f} s: {said.lines}") from None
    end_s = time.monotonic() - sent
    said.join(10)
    first = said.lines[0][0] - sent if said.lines else end_s
    return Ended(status, at, [line for _, line in said.lines], first, end_s)


def problem(ended: Ended, number: int) -> str:
    """What is wrong with how it ended; "": nothing."""
    if ended.status != 128 + number:
        return f"status {ended.status}"
    strange = [line for line in ended.said if not line.startswith(KNOWN)]
    if strange or not ended.said:
        return f"said {strange}"
    if ended.answer_s > ANSWER_S:
        return "late answer"
    is_saved = any("is saved first" in line for line in ended.said)
    if not is_saved and ended.end_s > END_S + BUSY_S:
        return "late end"
    return ""


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=90, help="seconds after the start")
    parser.add_argument("--table", type=Path, help="gets a line a time")
    args = parser.parse_args()
    interruptible()
    data, whole = args.work / "data", args.work / "whole"
    if not (data / "train.jsonl").exists():
        make_demo(data, seed=0, train=24, heldout=8)
    if not (whole / "export").exists():
        assert interrupted(start(data, whole, False), signal.SIGTERM, 3600) is None
    rng, failed, runs, times = random.Random(args.seed), 0, 0, 0
    while times < args.times:
        workdir = args.work / f"run{args.seed}-{runs}"
        number, after_s = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.uniform(0, args.within)
        is_cold = times % 2 == 0
        ended = interrupted(start(data, workdir, is_cold), number, after_s)
        if ended is None:
            is_same = metrics(workdir) == metrics(whole) and rollouts(workdir) == rollouts(whole)
            failed += not is_same
            runs += 1
            line = f"{workdir.name} is done: {'to the bit' if is_same else '✗ another run'}"
        else:
            times += 1
            wrong = problem(ended, number)
            failed += bool(wrong)
            line = (
                f"| {times} | {number.name} | {'cold' if is_cold else 'warm'}, {after_s:.0f} s | "
                f"{ended.at[:50]} | {ended.answer_s:.1f} s | {ended.end_s:.1f} s | "
                f"{ended.status} | {f'✗ {wrong}' if wrong else ended.said[0]} |"
            )
        print(line, flush=True)
        if args.table:
            with args.table.open("a") as table:
                table.write(line + "\n")
    print(f"{times} times, {failed} failed")
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
