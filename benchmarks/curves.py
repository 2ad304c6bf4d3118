"""Training runs side by side: start them, read their metrics, draw their curves."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.data.demo.files import HELDOUT_ROWS, TRAIN_ROWS, make_demo

ROOT = Path(__file__).parents[1]
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
Points = Sequence[tuple[float, float]]


def demo_data(out: Path, seed: int) -> dict[str, Any]:
    """Returns the demo's clips and rows under `out`, and the fields that make a run use them."""
    make_demo(out, seed=seed, train=TRAIN_ROWS, heldout=HELDOUT_ROWS)
    return {
        "seed": seed,
        "data.generate": False,
        "data.train": out / "train.jsonl",
        "data.eval": out / "heldout.jsonl",
        "data.media_dir": out,
        "data.shards": out / "shards",
        "log.tensorboard": False,
        "log.report": False,
        "checkpoint.every_steps": 0,
        "checkpoint.export": False,
    }


def train(workdir: Path, fields: Mapping[str, Any]) -> list[dict[str, float]]:
    """Runs `configs/demo.py` with these fields, or reads what it left; its lines of metrics.

    Raises:
        RuntimeError: the run failed; with the end of what it printed.
    """
    flags = [f"--config.{name}={value}" for name, value in {"workdir": workdir, **fields}.items()]
    done = subprocess.run(
        [sys.executable, "-m", "evr1.main", "--config=configs/demo.py", *flags],
        cwd=ROOT,
        env={"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "jax"), **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{workdir.name}: {(done.stdout + done.stderr)[-2000:]}")
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def points(lines: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """(step, value) wherever the metric was measured."""
    return [(line["step"], line[name]) for line in lines if name in line]


def mean_of_last(values: Points, count: int) -> float:
    """Returns the mean of the last values."""
    last = [y for _, y in values[-count:]]
    return sum(last) / max(len(last), 1)


def plot(path: Path, title: str, unit: str, curves: Mapping[str, Sequence[Points]]) -> None:
    """Writes an SVG: a colour for each name, a line for each of its runs; y from 0.

    Args:
        path: .svg.
        title: above.
        unit: of y.
        curves: name → runs.
    """
    every = [p for runs in curves.values() for run in runs for p in run]
    right, highest = max(x for x, _ in every), max(y for _, y in every)
    tick = 0.1 if highest <= 0.5 else 0.2
    ticks = max(math.ceil(highest / tick), 1)
    top = ticks * tick
    left, width, upper, height = 52, 480, 36, 260

    def place(x: float, y: float) -> str:
        return f"{left + width * x / right:.1f},{upper + height * (1 - y / top):.1f}"

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 340" font-family="sans-serif" '
        'font-size="12"><rect width="720" height="340" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">{title}</text>',
    ]
    for i in range(ticks + 1):
        x0, y0 = place(0, i * tick).split(",")
        line = f"{x0},{y0} {place(right, i * tick)}"
        out.append(f'<polyline points="{line}" stroke="#ddd" fill="none"/>')
        out.append(f'<text x="{left - 6}" y="{y0}" text-anchor="end">{i * tick:.1f}</text>')
    for i in range(7):
        at = place(right * i / 6, 0).split(",")[0]
        label = f"{right * i / 6:g}"
        out.append(f'<text x="{at}" y="{upper + height + 18}" text-anchor="middle">{label}</text>')
    out.append(f'<text x="{left}" y="{upper + height + 34}">{unit} by step</text>')
    for i, (name, runs) in enumerate(curves.items()):
        color = COLORS[i % len(COLORS)]
        for run in runs:
            line = " ".join(place(x, y) for x, y in run)
            out.append(f'<polyline points="{line}" stroke="{color}" fill="none" stroke-width="2"/>')
        y = upper + 14 + 18 * i
        out.append(f'<rect x="{left + width + 16}" y="{y - 9}" width="12" height="4" ')
        out[-1] += f'fill="{color}"/><text x="{left + width + 34}" y="{y}">{name}</text>'
    path.write_text("\n".join([*out, "</svg>\n"]))
