"""Kills, stops and ends processes of a run at random; the same command must end with the same run.

    python tests/rigs/chaos.py --work DIR [--count 2] [--times 20] [--seed 0]

Each time a run of `count` processes is started; at a random moment one of them gets SIGKILL,
SIGTERM or SIGSTOP. All must end within the heartbeat. The same command is then given again, until
it ends by itself; its tokens and rewards must be those of an undisturbed run, to the bit. Exit
status 1 where that is not so. Takes about a minute a time on two cores.
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from hosts_rig import Processes, metrics, rollouts, run

from evr1.data.demo.files import make_demo

LIMIT_S = 75  # the heartbeat of 30 s, twice for a frozen host, and a busy machine
MOMENTS = ("config:", "step 0/4", "step 1/4", "step 2/4", "step 3/4")


def disturbed(data: Path, workdir: Path, count: int, rng: random.Random) -> str:
    """Disturbs one run; returns what was done and how it ended."""
    number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
    victim, moment, delay = rng.randrange(count), rng.choice(MOMENTS), rng.uniform(0, 8)
    begun = Processes(data, workdir, count)
    begun.wait_for(moment)
    time.sleep(delay)
    what = f"{number.name} to {victim} {delay:.1f} s after {moment!r}"
    begun.processes[victim].send_signal(number)
    at = time.monotonic()
    others = [p for i, p in enumerate(begun.processes) if i != victim]
    while any(p.poll() is None for p in others) and time.monotonic() - at < LIMIT_S:
        time.sleep(0.1)
    took = time.monotonic() - at
    ended = [p.poll() for p in others]
    begun.processes[victim].kill()
    begun.processes[victim].wait()
    if None in ended:
        for p in others:
            p.kill()
        raise AssertionError(f"{what}: the others went on for {LIMIT_S} s\n{begun.printed()}")
    if number != signal.SIGTERM and 1 in ended:
        raise AssertionError(f"{what}: ended with {ended}, as if the input were bad")
    return f"{what}: the others ended with {ended} after {took:.1f} s"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, data = random.Random(args.seed), args.work / "data"
    if not (data / "train.jsonl").exists():
        make_demo(data, seed=0, train=24, heldout=7)
    whole = args.work / f"whole{args.count}"
    if not (whole / "report.html").exists() and not (whole / "export").exists():
        run(data, whole, args.count, data__preprocess=True)
    for n in range(args.times):
        workdir = args.work / f"run{args.count}-{args.seed}-{n}"
        print(disturbed(data, workdir, args.count, rng), flush=True)
        run(data, workdir, args.count)
        assert metrics(workdir) == metrics(whole), f"{workdir}: other metrics"
        assert rollouts(workdir) == rollouts(whole), f"{workdir}: other rollouts"
    print(f"{args.times} times: every run ended as the undisturbed one, to the bit")


if __name__ == "__main__":
    main()
