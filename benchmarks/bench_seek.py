"""A few frames of a long video: `python benchmarks/bench_seek.py [--hours 3] [--trees A B]`.

A video of 640x360 (x264 veryfast, CRF 26, 3 B-frames) is encoded for ten seconds and repeated by
stream copy. Every checkout named by --trees then samples it in a process of its own, in turns: CPU
seconds (user + sys) of decoding and resizing, frames decoded, bytes read, and a hash of the frames.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

FPS, SECONDS, SIZE = 25, 10, (360, 640)
MAX_PIXELS = 2**16  # of a frame taken: a quarter of what it has, as 720p at the default budget


def write_base(path: Path, gop: int, b_frames: int) -> None:
    """Writes the ten seconds: a smooth texture that moves, and grain."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    noise = rng.integers(0, 255, (height // 16, width // 8, 3), np.uint8)
    scene = np.asarray(Image.fromarray(noise).resize((width * 2, height), Image.Resampling.BICUBIC))
    grain = rng.integers(0, 32, (8, height, width, 1), np.uint8)
    with av.open(str(path), "w") as file:
        coding = f"scenecut=0:bframes={b_frames}"
        options = {"preset": "veryfast", "crf": "26", "x264-params": coding}
        stream = file.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", gop
        for i in range(SECONDS * FPS):
            left = (i * 3) % width
            view = scene[:, left : left + width] // 2 + grain[i % len(grain)]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        file.mux(stream.encode())


def repeat(base: Path, path: Path, hours: float) -> None:
    """Writes the video of so many hours by copying the packets of the base."""
    with av.open(str(base)) as source, av.open(str(path), "w") as file:
        packets: list[Any] = [packet for packet in source.demux(video=0) if packet.size]
        stream = file.add_stream_from_template(source.streams.video[0])
        time_base = packets[0].time_base
        stamps = [(packet.pts, packet.dts) for packet in packets]
        for turn in range(round(hours * 3600 / SECONDS)):
            shift = round(turn * SECONDS / time_base)
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.stream, packet.time_base = stream, time_base
                packet.pts, packet.dts = pts + shift, dts + shift
                file.mux(packet)


def sample(path: str, n_frames: int) -> dict:
    """Returns the figures of one decode in this process."""
    from evr1.data.media import video
    from evr1.data.records import Budgets, Geometry

    count = {"decoded": 0}

    def counted(generate):
        def frames(*args):
            for frame in generate(*args):
                count["decoded"] += 1
                yield frame

        return frames

    modules = [video]
    if "seeking" in vars(video):
        modules.append(video.seeking)
    for module in modules:
        for name in ("_frames", "decoded_frames"):
            if name in vars(module):
                setattr(module, name, counted(vars(module)[name]))
    begin, read = resource.getrusage(resource.RUSAGE_SELF), _bytes_read()
    budgets = Budgets(video_max_frames=n_frames, video_max_pixels=MAX_PIXELS)
    media = video.decode(path, budgets, Geometry(16, 2, 2))
    end = resource.getrusage(resource.RUSAGE_SELF)
    digest = hashlib.sha256(media.frames.tobytes() + media.timestamps.tobytes()).hexdigest()
    return {
        "CPU s": round(end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime, 2),
        "decoded": count["decoded"],
        "MB read": round((_bytes_read() - read) / 1e6, 1),
        "frames": len(media.frames),
        "hash": digest[:12],
    }


def _bytes_read() -> int:
    text = Path("/proc/self/io").read_text()
    return int(text.split("rchar:")[1].split()[0])


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--hours", type=float, default=3.0)
    add("--gop", type=int, default=250)
    add("--b_frames", type=int, default=3)
    add("--frames", type=int, nargs="+", default=[64])
    add("--suffixes", nargs="+", default=["mp4"], help="containers: mp4, mkv, ts")
    add("--trees", nargs="+", default=[str(Path(__file__).parents[1])], help="checkouts")
    add("--repeats", type=int, default=3)
    add("--keep", default="", help="folder in which the videos stay")
    add("--child", nargs=2, metavar=("VIDEO", "FRAMES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(sample(args.child[0], int(args.child[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        work = Path(args.keep or directory)
        work.mkdir(parents=True, exist_ok=True)
        rows = []
        for suffix in args.suffixes:
            name = f"{args.hours:g}h-{args.gop}-{args.b_frames}"
            base, path = work / f"base-{args.gop}-{args.b_frames}.mp4", work / f"{name}.{suffix}"
            if not base.is_file():
                write_base(base, args.gop, args.b_frames)
            if not path.is_file():
                repeat(base, path, args.hours)
            for n_frames in args.frames:
                for _ in range(args.repeats):
                    for tree in args.trees:
                        command = [sys.executable, __file__, "--child", str(path), str(n_frames)]
                        done = subprocess.run(
                            command,
                            env={**os.environ, "PYTHONPATH": tree},
                            stdout=subprocess.PIPE,
                            check=True,
                        )
                        rows.append({"video": path.name, "tree": tree, **json.loads(done.stdout)})
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
