"""What compiling takes of a run on data of one's own, in several checkouts of evr1:
`python benchmarks/bench_compile.py --trees OLD NEW [--warm] [--steps 6] [--json OUT]`.

28 clips of eight sizes and five lengths, images and questions without media, one epoch with the
demo's model and derived shapes. All trees run at the same time, each in a process of its own, so
that what else the machine does hits them alike. Compared are the processor's seconds and the wall's
while anything is compiled (with the tracing, where all is compiled ahead), and the programs that
there are after each step. With --warm the last tree starts once more, with the programs that it
kept.
"""

import argparse
import json
import os
import random
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((64, 64), (96, 64), (64, 96), (128, 96), (96, 128), (160, 90), (90, 160), (128, 128))
SECONDS, RATES = (1.0, 1.5, 2.5, 4.0, 6.0), (10, 15, 24, 30)
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
FIELDS = {
    "data.generate": False,
    "data.video_max_pixels": 16384,
    "data.image_max_pixels": 16384,
    "data.max_prompt_tokens": 640,
    "shapes.prompt_tokens": (),
    "shapes.vision_rows": (),
    "shapes.row_patches": 0,
    "rollout.prompts": 16,
    "rollout.max_completion_tokens": 32,
    "train.microbatch_tokens": 6144,
    "eval.every_steps": 3,
    "checkpoint.every_steps": 3,
    "log.tensorboard": False,
}
PHASE, STEP = "compile", "step"


def frame(size: tuple[int, int], colour: str, x: float) -> np.ndarray:
    """A square at x, 0 to 1, of the way."""
    w, h = size
    out, side = np.full((h, w, 3), 30, np.uint8), max(8, min(w, h) // 3)
    left, top = int(x * (w - side)), (h - side) // 2
    out[top : top + side, left : left + side] = COLOURS[colour]
    return out


def write_data(work: Path, clips: int) -> None:
    """Writes clips, images and rows of five kinds, a sixth of them held out."""
    import av
    from PIL import Image

    rng = random.Random(7)
    rows: list[dict[str, Any]] = []

    def add(kind: str, problem: str, answer: str, **fields: Any) -> None:
        answer = f"<answer>{answer}</answer>"
        rows.append({"problem": problem, "problem_type": kind, "answer": answer, **fields})

    for i in range(clips):
        size, colour, is_right = SIZES[i % len(SIZES)], list(COLOURS)[i % 3], bool(i % 2)
        rate, name = rng.choice(RATES), f"clip{i}.mp4"
        count = int(rng.choice(SECONDS) * rate)
        with av.open(str(work / name), "w") as file:
            stream = file.add_stream("libx264", rate=rate)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            for t in range(count):
                x = t / max(count - 1, 1)
                picture = frame(size, colour, x if is_right else 1 - x)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
        media: dict[str, Any] = {"data_type": "video", "videos": [name]}
        options = ["A. left", "B. right"]
        way = "Which way does the square move?"
        add("multiple choice", way, "B" if is_right else "A", options=options, **media)
        add(
            "open-ended",
            f"Which colour has the square? {'Say it in a word. ' * 6}",
            colour,
            **media,
        )
    for i in range(clips // 2):
        colour, name = list(COLOURS)[i % 3], f"image{i}.png"
        Image.fromarray(frame(SIZES[i % len(SIZES)], colour, 0.5)).save(work / name)
        add("open-ended", "Which colour?", colour, data_type="image", images=[name])
    for _ in range(clips):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
        words = "Think before you answer. " * rng.randint(0, 3)
        add("numerical", f"What is {a} plus {b}? {words}", str(a + b), data_type="text")
    rng.shuffle(rows)
    held = len(rows) // 6
    for file, part in (("eval", rows[:held]), ("train", rows[held:])):
        lines = (json.dumps(row | {"problem_id": i}) + "\n" for i, row in enumerate(part))
        (work / f"{file}.jsonl").write_text("".join(lines))


def worker(out: Path, flags: list[str]) -> None:
    """Trains in this process, with the checkout that stands first in the path; writes figures."""
    import jax

    begun, marks, figures = [0.0, 0.0], {"lowered": [0.0, 0.0]}, {"cpu_s": 0.0, "wall_s": 0.0}
    is_ahead = [False]

    def clocks() -> list[float]:
        return [time.process_time(), time.monotonic()]

    def on_event(event: str, duration_secs: float, **_: Any) -> None:
        if is_ahead[0]:
            return
        if event.endswith("jaxpr_to_mlir_module_duration"):
            marks["lowered"] = clocks()
            figures["cpu_s"] += duration_secs
            figures["wall_s"] += duration_secs
        elif event.endswith("backend_compile_duration"):
            cpu, wall = (b - a for a, b in zip(marks["lowered"], clocks(), strict=True))
            figures["cpu_s"] += cpu
            figures["wall_s"] += wall

    jax.monitoring.register_event_duration_secs_listener(on_event)
    from evr1.telemetry.phases import PhaseTimer

    phase = PhaseTimer.__call__

    class Watched:
        """A phase; all of one that compiles ahead counts."""

        def __init__(self, inner: Any, name: str) -> None:
            self.inner, self.is_compile = inner, name == PHASE

        def __enter__(self) -> Any:
            if self.is_compile:
                is_ahead[0], begun[:] = True, clocks()
            return self.inner.__enter__()

        def __exit__(self, *error: Any) -> Any:
            if self.is_compile:
                is_ahead[0] = False
                cpu, wall = (b - a for a, b in zip(begun, clocks(), strict=True))
                figures["cpu_s"] += cpu
                figures["wall_s"] += wall
                figures["ahead_cpu_s"], figures["ahead_wall_s"] = cpu, wall
            return self.inner.__exit__(*error)

    PhaseTimer.__call__ = lambda self, name: Watched(phase(self, name), name)  # type: ignore
    sys.argv = ["evr1.main", *flags]
    started = clocks()
    try:
        runpy.run_module("evr1.main", run_name="__main__")
    finally:
        total = [b - a for a, b in zip(started, clocks(), strict=True)]
        figures["run_cpu_s"], figures["run_wall_s"] = total
        out.write_text(json.dumps(figures))


def start(tree: Path, work: Path, name: str, steps: int, cache: Path) -> subprocess.Popen:
    """Starts a run of a checkout."""
    fields = FIELDS | {
        "workdir": work / name,
        "num_steps": steps,
        "data.train": work / "train.jsonl",
        "data.eval": work / "eval.jsonl",
        "data.media_dir": work,
        "data.shards": work / f"shards-{name}",
        "compile_cache": cache,
    }
    flags = ["--config=configs/demo.py", *(f"--config.{k}={v}" for k, v in fields.items())]
    environment = {**os.environ, "PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, __file__, "--worker", str(work / f"{name}.json"), *flags]
    log = (work / f"{name}.log").open("w")
    return subprocess.Popen(line, cwd=tree, env=environment, stdout=log, stderr=log)


def figures_of(work: Path, name: str, steps: int) -> dict[str, Any]:
    """Returns the figures of a run that is done."""
    lines = (work / name / "metrics.jsonl").read_text().splitlines()
    counts = {m["step"]: m["compile/count"] for m in map(json.loads, lines) if "compile/count" in m}
    figures = json.loads((work / f"{name}.json").read_text())
    figures["programs_after_step"] = [counts[step] for step in range(1, steps + 1)]
    return figures


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=Path, nargs="+", help="checkouts, the first one the oldest")
    parser.add_argument("--work", type=Path, help="kept; none: a temporary folder")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--clips", type=int, default=28)
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        write_data(work, args.clips)
        names = [f"{i}-{tree.name}" for i, tree in enumerate(args.trees)]
        trees = dict(zip(names, args.trees, strict=True))
        rounds = [names, [f"{names[-1]}-warm"]] if args.warm else [names]
        table = {}
        for names in rounds:
            runs = [
                start(
                    trees[name.removesuffix("-warm")].resolve(),
                    work,
                    name,
                    args.steps,
                    work / f"cache-{name.removesuffix('-warm')}",
                )
                for name in names
            ]
            for name, run in zip(names, runs, strict=True):
                assert run.wait() == 0, (work / f"{name}.log").read_text()[-2000:]
            for name in names:
                table[name] = figures_of(work, name, args.steps)
                print(name, json.dumps(table[name]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
