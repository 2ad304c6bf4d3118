"""What the shards save: `python benchmarks/bench_cache.py [--preset cpu|gpu] [--json OUT]`.

Two comparisons, each side by side in one run on generated H.264 clips:
  load   a medium from its shard against decoding, sampling and resizing it from the mp4 file; and
         the same from a float32 tensor file, as the reference caches it
  step   a whole RL step (data, rollout, score, update) with the shards and without them
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import av
import numpy as np
from PIL import Image

from benchmarks import common
from configs import demo
from evr1.config import Settings, resolve
from evr1.data import rows
from evr1.data.media.decode import DecodePool
from evr1.data.media.preprocess import preprocess
from evr1.data.media.source import MediaSource, media_requests
from evr1.data.records import Budgets, Geometry
from evr1.learner.advantages import with_advantages
from evr1.train import open_run

# clips, seconds, frames per second, width, height, pixel budget per frame
PRESETS = {"cpu": (4, 10, 30, 640, 360, 65536), "gpu": (32, 60, 30, 1280, 720, 262144)}
GEOMETRY = Geometry(patch_size=16, temporal_patch_size=2, merge_size=2)


def write_clip(path: Path, seconds: int, fps: int, width: int, height: int, seed: int) -> None:
    """Writes an H.264 clip of a smooth moving texture, which costs about what real video costs."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 16, width // 8, 3), np.uint8)
    scene = np.asarray(Image.fromarray(noise).resize((width * 2, height), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * fps):
            left = (i * 3) % width
            view = np.ascontiguousarray(scene[:, left : left + width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        file.mux(stream.encode())


def write_rows(work: Path, preset: str) -> Path:
    """Clips and one row for each; returns the rows' file."""
    clips, seconds, fps, width, height, _ = PRESETS[preset]
    with (work / "rows.jsonl").open("w") as file:
        for i in range(clips):
            write_clip(work / f"{i}.mp4", seconds, fps, width, height, i)
            row = {"problem": "<video>How many?", "answer": "1", "problem_type": "numerical"}
            file.write(json.dumps({**row, "videos": [f"{i}.mp4"], "problem_id": str(i)}) + "\n")
    return work / "rows.jsonl"


def bench_load(work: Path, preset: str, workers: int, repeats: int) -> list[dict]:
    """Rows of the table: seconds for one pass over all clips, three ways."""
    clips, budgets = PRESETS[preset][0], Budgets(video_max_pixels=PRESETS[preset][-1])
    every_row = rows.load_rows(work / "rows.jsonl")
    requests = [r for row in every_row for r in media_requests(row)]
    shards = str(work / "shards")
    preprocess(
        every_row, shards, budgets=budgets, geometry=GEOMETRY, media_dir=str(work), workers=workers
    )
    with DecodePool(workers, 600) as pool:
        common_arguments = {
            "budgets": budgets,
            "geometry": GEOMETRY,
            "pool": pool,
            "media_dir": str(work),
        }
        cached = MediaSource(shards=shards, mode="preprocessed_only", **common_arguments)
        decoded = MediaSource(mode="realtime_only", **common_arguments)
        frames = [cached.load(r).frames for r in requests]
        for i, f in enumerate(frames):
            np.save(work / f"{i}.npy", f.astype(np.float32))
        times = common.time_side_by_side(
            {
                "shard": lambda: [cached.load(r) for r in requests],
                "decode": lambda: [decoded.load(r) for r in requests],
                "float32 file": lambda: [np.load(work / f"{i}.npy") for i in range(clips)],
            },
            repeats,
        )
    total = sum(f.shape[0] for f in frames)
    sizes = {
        "shard": sum(p.stat().st_size for p in Path(shards).glob("*.array_record*")),
        "decode": sum(p.stat().st_size for p in work.glob("*.mp4")),
        "float32 file": sum(p.stat().st_size for p in work.glob("*.npy")),
    }
    return [
        {
            "what": name,
            "clips": clips,
            "frames": total,
            "ms a clip": 1000 * float(np.median(t)) / clips,
            "frames/s": total / float(np.median(t)),
            "MB on disk": sizes[name] / 1e6,
            "times slower than a shard": common.ratio(t, times["shard"]),
        }
        for name, t in times.items()
    ]


def bench_step(work: Path, preset: str, workers: int, repeats: int) -> list[dict]:
    """Rows of the table: seconds of a whole RL step of the demo's model, with and without shards.

    Nothing is read ahead, so that a step pays for its own data, as the reference's figure does.
    """
    with contextlib.ExitStack() as stack:
        steps = {}
        for name, source in (("shard", "preprocessed_only"), ("decode", "realtime_only")):
            config: Any = demo.get_config()
            config.workdir = str(work / name)
            config.data.update(
                generate=False,
                preprocess=source == "preprocessed_only",
                train=str(work / "rows.jsonl"),
                eval="",
                media_dir=str(work),
                shards=str(work / "shards") if source == "preprocessed_only" else "",
                source=source,
                video_fps=2.0,
                video_max_frames=16,
                max_prompt_tokens=512,
                workers=workers,
                prefetch_batches=0,
            )
            config.shapes.update(prompt_tokens=(512,), vision_rows=(), row_patches=0)
            config.rollout.update(prompts=PRESETS[preset][0], slots=PRESETS[preset][0])
            config.rewards.workers = 1
            config.compile_cache = "off"
            steps[name] = _step_function(resolve(config), stack)
        times = common.time_side_by_side(steps, repeats)
    return [
        {
            "what": f"step, {name}",
            "prompts": PRESETS[preset][0],
            "s a step": float(np.median(t)),
            "times slower than with shards": common.ratio(t, times["shard"]),
        }
        for name, t in times.items()
    ]


def _step_function(settings: Settings, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Returns a function that makes one RL step and waits for it."""
    run = open_run(settings, stack)
    learner, state = run.learner, run.learner.init()

    def step() -> None:
        nonlocal state
        rollouts, _ = run.collector.collect(learner.publish(state))
        prepared, _ = learner.prepare(state, rollouts)
        # random advantages: the demo's model knows nothing of these clips
        shape = rollouts.rollouts.lengths.shape
        noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        batch = with_advantages(prepared.batch, noise)
        state, _ = learner.update(
            state, prepared._replace(batch=batch, parts=learner.cutter.cut(batch))
        )

    return step


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="decoders")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="stem of the two files for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        write_rows(work, args.preset)
        for title, bench in (("Loading a clip", bench_load), ("A whole RL step", bench_step)):
            table = bench(work, args.preset, args.workers, args.repeats)
            common.show(title, table, args.json and f"{args.json}-{bench.__name__}.json")


if __name__ == "__main__":
    main()
