"""The benchmarks start; those of models run, on the smallest shapes, with both sides alike."""

import subprocess
import sys

import pytest
from repo import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import bench_decode  # noqa: E402  scripts, not a package
import bench_frozen  # noqa: E402
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
