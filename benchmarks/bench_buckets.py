"""Shards and videos in a bucket against the same on a disk; the server is moto, on this machine.

    python benchmarks/bench_buckets.py --dir /tmp/bench --minutes 60

Reading: CPU seconds for all media of a directory of shards, on a disk and from a cache that has
them, in turn; and the bytes that filling the cache took. Sparse decoding: the bytes that 16 and 64
frames of a long video take, against those that its demuxer asks for.
"""

import argparse
import os
import pathlib
import statistics
import time

import av
import fsspec
import numpy as np

from evr1.data.media import stage, video
from evr1.data.media.place import Place
from evr1.data.media.shards import ShardStore, ShardWriter
from evr1.data.records import Budgets, Geometry, Media
from evr1.data.remote import file as remote_file
from evr1.data.remote.cache import FileCache
from evr1.data.remote.store import Store

URL = "s3://bucket/shards"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", required=True, help="for files; some GB")
    parser.add_argument("--minutes", type=int, default=60, help="of the video")
    parser.add_argument("--media", type=int, default=64, help="in the shards, 12 MB each")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    root = pathlib.Path(flags.dir)
    root.mkdir(parents=True, exist_ok=True)
    import moto.server  # see .ci/run for how it is installed

    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
    read_shards(root, flags.media, flags.rounds)
    decode_sparsely(root, flags.minutes)
    server.stop()


def read_shards(root: pathlib.Path, media: int, rounds: int) -> None:
    """Reads all media from a disk and from a warm cache, in turn."""
    frames = np.random.default_rng(0).integers(0, 256, (16, 384, 672, 3), np.uint8)
    keys = [f"{n:032x}" for n in range(media)]
    with stage.staged(URL, cache=FileCache(str(root / "cache"))) as bucket:
        assert bucket is not None
        for writer in (
            ShardWriter(bucket.root, target=bucket),
            ShardWriter(root / "shards"),
        ):
            with writer:
                for n, key in enumerate(keys):
                    if key not in writer:
                        writer.add(key, Media(frames, np.arange(16.0), True), f"{n}.mp4")
    fetched = count_fetched()
    here = ShardStore(root / "shards")
    there = ShardStore(Place(URL, FileCache(str(root / "cache"))))
    asked = sum(len(there.read(key).frames.reshape(-1)) for key in keys)
    print(f"cold: {sum(fetched) / asked:.3f} of the bytes that were read were fetched")
    seconds: dict[str, list[float]] = {"disk": [], "warm cache": []}
    for _ in range(rounds):
        for name, store in (("disk", here), ("warm cache", there)):
            begin = time.process_time()
            for key in keys:
                store.read(key).frames.sum(dtype=np.int64)
            seconds[name].append(time.process_time() - begin)
    ratios = [d / w for d, w in zip(*seconds.values(), strict=True)]
    for name, values in seconds.items():
        print(f"{name}: {asked / statistics.median(values) / 1e6:.0f} MB a CPU second")
    print(f"warm cache / disk: {statistics.median(ratios):.3f}, {min(ratios):.3f} at least")


def count_fetched() -> list[int]:
    """Returns a list that grows by the bytes of each answer from now on."""
    fetched: list[int] = []
    read = Store.read

    def counted(self: Store, *args: object) -> bytes:
        data = read(self, *args)  # type: ignore[arg-type]
        fetched.append(len(data))
        return data

    Store.read = counted  # type: ignore[assignment,method-assign]
    return fetched


def decode_sparsely(root: pathlib.Path, minutes: int) -> None:
    """Decodes few frames of a long video in the bucket."""
    path = root / f"{minutes}.mp4"
    if not path.is_file():
        write_video(path, minutes)
    store = Store("s3://bucket/media")
    store.upload(path, path.name)
    size = path.stat().st_size
    fetched = count_fetched()
    asked: list[int] = []
    read = remote_file.BucketFile.read

    def counted(self: remote_file.BucketFile, count: int = -1) -> bytes:
        data = read(self, count)
        asked.append(len(data))
        return data

    remote_file.BucketFile.read = counted  # type: ignore[method-assign]
    for frames in (16, 64):
        fetched.clear(), asked.clear()
        remote_file._LAST.clear()
        budgets = Budgets(video_fps=2.0, video_max_frames=frames, video_max_pixels=64 * 784)
        there = video.decode(store.address(path.name), budgets, Geometry(14, 2, 2))
        here = video.decode(path, budgets, Geometry(14, 2, 2))
        assert (there.frames == here.frames).all()
        print(
            f"{frames} frames of {minutes} min ({size / 1e6:.0f} MB): asked "
            f"{sum(asked) / 1e6:.1f} MB, fetched {sum(fetched) / 1e6:.1f} MB: "
            f"{sum(fetched) / sum(asked):.2f} of what was asked, {sum(fetched) / size:.1%} of it, "
            f"in {len(fetched)} requests"
        )


def write_video(path: pathlib.Path, minutes: int) -> None:
    """Writes H.264, 25 frames a second, a key frame every 250, 0.1 Mbit to 1 Mbit a second."""
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (16, 180, 320, 3), np.uint8) // 4 + 64
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 320, 180, "yuv420p", 250
        for n in range(minutes * 60 * 25):
            frame = np.roll(tiles[n // 25 % 16], n, axis=1)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        out.mux(stream.encode())


if __name__ == "__main__":
    main()
