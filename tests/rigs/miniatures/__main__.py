"""Writes miniatures of benchmarks: `python -m tests.rigs.miniatures OUT [TASK ...]`."""

import argparse
from pathlib import Path

from . import TASKS, write

parser = argparse.ArgumentParser(prog="python -m tests.rigs.miniatures")
parser.add_argument("out", type=Path, help="folder that gets a folder a task")
parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"default: all of {', '.join(TASKS)}")
flags = parser.parse_args()
for name in flags.tasks or TASKS:
    if name not in TASKS:
        parser.error(f"no task {name!r}; there is {', '.join(TASKS)}")
    print(f"{name}: {write(name, flags.out / name).n} samples")
