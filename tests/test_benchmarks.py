"""The benchmarks start; those of models run, on the smallest shapes, with both sides alike."""

import dataclasses
import subprocess
import sys

import pytest
from repo import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench_decode  # noqa: E402  scripts, not a package
import bench_frozen  # noqa: E402
import bench_tail  # noqa: E402
import bench_update  # noqa: E402

TINY = bench_update.TINY
CLIP = bench_update.Shape(groups=2, n=2, frames=4, side=64, completion_tokens=4, text_tokens=16)


@pytest.mark.parametrize(
    "script", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem
)
def test_each_finds_its_modules_from_anywhere(script, tmp_path):
    command = [sys.executable, "-P", str(script), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script.name}")


@pytest.mark.slow
def test_update():
    line = bench_update.measure(CLIP, TINY, 1, 0)
    assert line["gradient difference"] < 1e-5
    assert line["prompt"] == 24
    assert line["passes"] == "2 / 4"


def test_decode():
    line = bench_decode.measure(bench_decode.Shape(2, 2, 64, 32), TINY, 1)
    assert line["same tokens"] == 1
    assert line["shared cache MiB"] < line["copied cache MiB"]


@pytest.mark.slow
def test_frozen():
    line = bench_frozen.measure(CLIP, TINY, next(iter(bench_frozen.KINDS)), 1, 2)
    assert line["same tokens"] == 1
    assert line["gradient norm off by"] == pytest.approx(0, abs=1e-6)
    assert 0 < line["tower's share"] < 1


def test_the_simulated_tail_is_that_of_the_event_loop():
    """One slot: a step's windows are those of its groups' longest rows, one after the other.
    Over-drawn, the same groups are trained on, and what the cut drops is what was drawn in vain."""
    case = bench_tail.Case(
        prompts=4, n=2, slots=1, median=40, limit=64, window=8, dispatch_ahead=False
    )
    lengths = [
        min(max(case.length(request, row) for row in range(2)), case.limit) for request in range(12)
    ]
    windows = sum(-(-(length - 1) // 8) for length in lengths[4:12])
    plain = bench_tail.simulate(case, steps=2, begun=1)
    assert plain["decode steps a step"] == 8 * windows / 2
    assert plain["waiting"] == 0
    over = bench_tail.simulate(dataclasses.replace(case, overdraw=0.5), steps=2, begun=1)
    assert over["decode steps a step"] == plain["decode steps a step"]
    assert over["waiting"] == over["groups carried"] == 0  # none has a slot before its turn


def test_enough_groups_wait_for_less_than_all():
    """The bar of the whole shape, at a quarter of it: 16 slots, 64 groups."""
    case = bench_tail.Case(prompts=64, n=8, slots=16, median=100, limit=512, window=8)
    plain = bench_tail.simulate(case, steps=3, begun=1)
    over = bench_tail.simulate(dataclasses.replace(case, overdraw=0.1), steps=3, begun=2)
    assert plain["waiting"] > 0.15
    assert over["waiting"] < 0.1
    assert over["groups carried"] > 0
