"""Proves that a refactor changes no run: two trees, the same commands, outputs equal bit by bit.

    python tests/rigs/compare_runs.py --work DIR              # every case, against commit 09603eb
    python tests/rigs/compare_runs.py --work DIR demo lora    # two of them
    python tests/rigs/compare_runs.py --work DIR --twin       # is a change of one number told?

The commit before the refactor is unpacked under DIR, and its results are kept there for the next
time (--fresh makes them anew); the other tree's cases run every time. Both read the same rows and
clips, which the base wrote once; the case `demo` makes its own, and they are compared, too.
Programs are kept in DIR/compiled: what is the same program in both trees is compiled once, without
most of LLVM's optimizations.

Compared are metrics (but for clocks and memory), rollouts, what the canaries say, exported tensors,
and the files of the tools. Exit status: 1 where something differs or a command fails.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from compare_cases import CASES
from compare_outputs import difference, load, perturbed

ROOT = Path(__file__).resolve().parents[2]


class Side(NamedTuple):
    """A tree, the folder of its cases, and what both trees share: the rows and the programs."""

    tree: Path
    runs: Path
    data: Path
    compiled: Path

    def python(self, command: str, devices: int = 1, out: Path | str = "") -> str:
        """Runs an interpreter in the root of the tree; returns what it prints.

        Raises:
            RuntimeError: it failed.
        """
        unset = ("JAX_", "XLA_", "PYTHON", "EVR1_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
        env |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(self.compiled)}
        env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        # Quick to compile: what differs at any level is told at this one.
        env["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
        env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        for name, path in {"data": self.data, "runs": self.runs, "out": out}.items():
            command = command.replace(f"{{{name}}}", str(path))
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=self.tree,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            last = "\n    ".join(done.stdout.splitlines()[-12:])
            raise RuntimeError(f"status {done.returncode}: {command}\n    {last}")
        return done.stdout

    def check(self) -> None:
        """Raises RuntimeError where the evr1 that runs is not that of the tree."""
        for name in ("evr1", "configs"):
            found = self.python(f"-c print(__import__('{name}').__file__)").splitlines()[-1]
            if Path(found).resolve().parent != self.tree.resolve() / name:
                raise RuntimeError(f"in {self.tree}, {name} is {found}, of another tree")

    def run(self, name: str, reuse: bool) -> float:
        """Runs a case; returns its seconds.

        Args:
            name: of the case.
            reuse: take what lies there, where it was made by the same commands.

        Raises:
            RuntimeError: a command failed, or did not do what the case is for.
        """
        case, out = CASES[name], self.runs / name
        versions = [metadata.version(p) for p in ("jax", "jaxlib", "flax", "optax", "numpy")]
        made_by = [*case.commands, sys.version, *versions, len(os.sched_getaffinity(0))]
        record = out / "done.json"
        if reuse and record.is_file():
            done = json.loads(record.read_text())
            if done["made_by"] == made_by:
                return done["seconds"]
        shutil.rmtree(out, ignore_errors=True)
        if case.start:
            shutil.copytree(self.runs / case.start, out)
        out.mkdir(parents=True, exist_ok=True)
        start, log = time.monotonic(), ""
        for command in case.commands:
            log += self.python(command, case.devices, out)
        seconds = time.monotonic() - start
        (out / "log.txt").write_text(log, "utf-8")
        for metric in case.shows:
            lines = load(out / "metrics.jsonl").values()
            if not max(line.get(metric) or 0 for line in lines) > 0:
                raise RuntimeError(f"{metric} is never above 0: the case does not test it")
        record.write_text(json.dumps({"made_by": made_by, "seconds": seconds}))
        return seconds


def files(side: Side, name: str) -> dict[str, Path]:
    """The files of a case that are compared.

    Raises:
        RuntimeError: there are none for a pattern.
    """
    out, found = side.runs / name, dict[str, Path]()
    for pattern in CASES[name].compared:
        here = sorted(path for path in out.glob(pattern) if path.is_file())
        if not here:
            raise RuntimeError(f"no {pattern} in {out}")
        found |= {str(path.relative_to(out)): path for path in here}
    return found


def compare(base: Side, tree: Side, name: str) -> list[str]:
    """The first difference of each file of a case that is not the same in both trees."""
    ours, theirs = files(base, name), files(tree, name)
    told = [f"{file}: in one tree alone" for file in sorted(ours.keys() ^ theirs.keys())]
    for file in (f for f in ours if f in theirs):
        if ours[file].read_bytes() != theirs[file].read_bytes():
            found = difference(load(ours[file]), load(theirs[file]))
            if not found and file not in ("metrics.jsonl", "log.txt"):
                found = "other bytes, which read the same"
            told += [f"{file}: {found}"] if found else []
    if CASES[name].copy:
        copy, original = CASES[name].copy
        found = difference(load(tree.runs / original), load(tree.runs / name / copy))
        told += [f"{copy} is no copy of {original}: {found}"] if found else []
    return told


def twin(base: Side, name: str) -> list[str]:
    """The files of a case in which a change of one number is not told; prints what is."""
    missed = []
    for file, path in files(base, name).items():
        said = load(path)
        is_itself, told = not difference(said, load(path)), difference(said, perturbed(said))
        print(f"  told: {file}: {told}" if is_itself and told else f"  not told: {file}")
        missed += [] if is_itself and told else [f"{file}: a changed number is not told"]
    return missed


def unpack(commit: str, work: Path) -> Side:
    """The commit's tree and what was made with it before, under `work`."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.check_output([*git, "rev-parse", f"{commit}^{{commit}}"], text=True).strip()
    home = work / f"base-{commit[:12]}"
    if not (home / "tree").is_dir():
        archive = subprocess.check_output([*git, "archive", commit])
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(home / "part", filter="data")
        (home / "part").rename(home / "tree")
    return Side(home / "tree", home / "runs", home / "data", work / "compiled")


def make_rows(base: Side) -> None:
    """Writes clips and rows: train.jsonl, heldout.jsonl, and few.jsonl.

    That has the first 24 rows with a pass_rate, every second one with an answer of somebody else.
    """
    few = base.data / "few.jsonl"
    if few.is_file():
        return
    base.python("tools/make_demo.py --out {data} --train 96 --heldout 16")
    rows = [json.loads(x) for x in (base.data / "train.jsonl").read_text().splitlines()[:24]]
    for i, row in enumerate(rows):
        row["pass_rate"] = (7 * i % 24) / 24
        if i % 2:
            row["offline_output"] = [f"<answer>{row['answer']}</answer>", "<answer>0</answer>"]
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))


def chosen(names: list[str]) -> list[str]:
    """The cases of these names and those that they need, in order."""
    wanted = set(names or CASES)
    wanted |= {need for name in wanted for need in CASES[name][3:5] if need}
    return [name for name in CASES if name in wanted]


def main() -> int:
    """Runs and compares; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    add("--work", type=Path, required=True, help="folder for trees, data and results")
    add("--base", default="09603eb", help="commit before the refactor (default 09603eb)")
    add("--tree", type=Path, default=ROOT, help="tree after it (default: that of this file)")
    add("--fresh", action="store_true", help="make the base's results anew")
    add("--twin", action="store_true", help="compare the base with itself, a number changed a file")
    add("--base_only", action="store_true", help="make the base's results and compare nothing")
    flags = parser.parse_args()
    unknown = [name for name in flags.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]}; choose of {', '.join(CASES)}")
    work = flags.work.resolve()
    base = unpack(flags.base, work)
    root = flags.tree.resolve()
    tree = base._replace(tree=root, runs=work / f"tree-{root.name}" / "runs")
    try:
        base.check()
        tree.check()
        make_rows(base)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    failed = []
    for name in chosen(flags.cases):
        times, told = [], []
        try:
            times.append(f"base {base.run(name, reuse=not flags.fresh):.0f} s")
            if flags.twin:
                told = twin(base, name)
            elif not flags.base_only:
                times.append(f"tree {tree.run(name, reuse=False):.0f} s")
                told = compare(base, tree, name)
        except RuntimeError as error:
            told = [str(error)]
        print(f"{name}: {'DIFFERENT' if told else 'ok'} ({', '.join(times)})", flush=True)
        print("".join(f"  {line}\n" for line in told), end="", flush=True)
        failed += [name] if told else []
    print(f"{len(failed)} cases differ or fail: {', '.join(failed)}" if failed else "all equal")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
