"""Kills, stops and ends processes of a run at random; the same command must end with the same run.

    python tests/rigs/chaos.py --work DIR [--count 2] [--times 18] [--seed 0] [--table FILE]

Each time a run of `count` processes is started; when it is in a phase (rollout, score, update,
save, preprocessing, evaluation) one of the processes gets SIGKILL, SIGTERM or SIGSTOP: 18 times are
each of these once, in an order of the seed's. All must end within the heartbeat. The same command
is then given again, until it ends by itself; its metrics, tokens and rewards must be those of an
undisturbed run, to the bit. Exit status 1 where that is not so. Takes some minutes a time on two
cores.
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from hosts_rig import Processes, run
from runs_rig import metrics, rollouts

from evr1.data.demo.files import make_demo

LIMIT_S = 75  # the heartbeat of 30 s, twice for a frozen host, and a busy machine
LOST = 143
# How often a run of 4 steps comes to each phase, at most.
PHASES = {"preprocess": 1, "rollout": 4, "score": 4, "update": 4, "save": 2, "eval": 3}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)


class Blow(NamedTuple):
    """What is done to a run: a signal to one process, so long after a phase began the nth time."""

    signal: signal.Signals
    victim: int
    phase: str
    nth: int
    delay_s: float


def blows(count: int, times: int, seed: int) -> list[Blow]:
    """Returns what is done to the runs, one after the other."""
    rng = random.Random(seed)
    listed: list[tuple[str, signal.Signals]] = []
    while len(listed) < times:
        every = [(phase, number) for phase in PHASES for number in SIGNALS]
        rng.shuffle(every)
        listed += every
    return [
        Blow(
            number, rng.randrange(count), phase, rng.randint(1, PHASES[phase]), rng.uniform(0, 0.8)
        )
        for phase, number in listed[:times]
    ]


def disturbed(started: Processes, blow: Blow) -> str:
    """Strikes; returns how the other processes ended."""
    started.wait_for_phase(blow.phase, blow.nth)
    time.sleep(blow.delay_s)
    started.processes[blow.victim].send_signal(blow.signal)
    at = time.monotonic()
    others = [p for i, p in enumerate(started.processes) if i != blow.victim]
    while any(p.poll() is None for p in others) and time.monotonic() - at < LIMIT_S:
        time.sleep(0.1)
    took = time.monotonic() - at
    ended = [p.poll() for p in others]
    if blow.signal == signal.SIGTERM:
        ended.append(started.processes[blow.victim].poll())
    if None in ended and blow.signal != signal.SIGSTOP:
        for p in started.processes:  # those that hang print where
            p.send_signal(signal.SIGABRT)
        time.sleep(5)
    started.processes[blow.victim].kill()
    started.processes[blow.victim].wait()
    if None in ended:
        for p in others:
            p.kill()
        raise AssertionError(f"{blow}: some went on for {LIMIT_S} s\n{started.printed()}")
    is_term = blow.signal == signal.SIGTERM
    if any(status not in (0, LOST) for status in ended) if is_term else 1 in ended:
        raise AssertionError(f"{blow}: ended with {ended}\n{started.printed()}")
    return f"{', '.join(map(str, ended))} after {took:.1f} s"


def once(work: Path, count: int, blow: Blow, name: str) -> str:
    """Disturbs a run and gives its command again; returns how the first one ended."""
    workdir, data, whole = work / name, work / "data", work / f"whole{count}"
    fields: dict[str, Any] = {"data__preprocess": True}
    if blow.phase == "preprocess":
        fields["data__shards"] = work / f"{name}-shards"
    ended = disturbed(Processes(data, workdir, count, is_phased=True, **fields), blow)
    run(data, workdir, count, timeout_s=1200, **fields)
    assert metrics(workdir) == metrics(whole), f"{workdir}: other metrics"
    assert rollouts(workdir) == rollouts(whole), f"{workdir}: other rollouts"
    left = [path for path in (workdir / "checkpoints").iterdir() if not path.name.isdecimal()]
    assert not left, f"{left}: left over"
    return ended


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--times", type=int, default=len(PHASES) * len(SIGNALS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="gets a line a time")
    args = parser.parse_args()
    data, whole = args.work / "data", args.work / f"whole{args.count}"
    if not (data / "train.jsonl").exists():
        make_demo(data, seed=0, train=24, heldout=7)
    if not (whole / "export").exists():
        run(data, whole, args.count, timeout_s=1200, data__preprocess=True)
    failed = 0
    for n, blow in enumerate(blows(args.count, args.times, args.seed)):
        what = (
            f"{blow.signal.name} | {blow.victim} | {blow.phase} {blow.nth} + {blow.delay_s:.1f} s"
        )
        try:
            ended = once(args.work, args.count, blow, f"run{args.count}-{args.seed}-{n}")
            line = f"| {args.count} | {what} | {ended} | to the bit |"
        except AssertionError as error:
            failed += 1
            line = f"| {args.count} | {what} | ✗ {str(error).splitlines()[0][:120]} | |"
            print(error, flush=True)
        print(line, flush=True)
        if args.table:
            with args.table.open("a") as table:
                table.write(line + "\n")
    print(f"{args.times} times, {failed} failed")
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
