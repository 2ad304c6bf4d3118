"""Rows and media in a bucket, against a server that speaks S3 over HTTP."""

import json

import av
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from evr1.cli import data_report, preprocess_videos
from evr1.data import rows
from evr1.data.errors import MediaError
from evr1.data.media import content, patches, video
from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.quarantine import Quarantine
from evr1.data.records import Budgets, Geometry
from evr1.data.remote.file import BLOCK_BYTES, BucketFile
from evr1.data.remote.store import Store
from tests.rigs import buckets, clips

URL = "s3://bucket/media"
GEOMETRY = Geometry(patch_size=16, temporal_patch_size=2, merge_size=2)


@pytest.fixture(scope="module")
def server():
    with buckets.s3() as wire:
        yield wire


@pytest.fixture
def wire(server, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    server.clear()
    return server


def upload(path):
    Store(URL).upload(path, path.name)
    return f"{URL}/{path.name}"


def write_noise(path, frames=600, gop=50):
    """A video of as many bytes as noise has, some 4 KB a frame."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.gop_size, stream.bit_rate = gop, 10**7
        for _ in range(frames):
            noise = rng.integers(0, 256, (96, 128, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise)))
        out.mux(stream.encode())
    return path


def test_blocks(wire):
    data = np.random.default_rng(0).bytes(5 * BLOCK_BYTES + 100)
    Store(URL).write("blocks", data)
    with BucketFile(f"{URL}/blocks") as file:
        assert (file.size, file.read(10), file.fetched) == (len(data), data[:10], BLOCK_BYTES)
        assert file.seek(-50, 2) == len(data) - 50
        assert file.read() == data[-50:]
        assert file.fetched == BLOCK_BYTES + 100
        file.seek(0)
        assert file.read() == data
        assert file.fetched < 2 * len(data)
    with BucketFile(f"{URL}/blocks") as file:
        file.read(10)
        assert file.fetched == 0, "who closed it a moment ago left its blocks"
    with pytest.raises(FileNotFoundError):
        BucketFile(f"{URL}/none")


def test_a_video_is_read_where_it_is_looked_at(wire, tmp_path):
    path = write_noise(tmp_path / "a.mp4")
    url = upload(path)
    budgets = Budgets(video_max_frames=4, video_fps=0.2)
    wire.received = 0
    there = video.decode(url, budgets, GEOMETRY)
    here = video.decode(path, budgets, GEOMETRY)
    np.testing.assert_array_equal(there.frames, here.frames)
    np.testing.assert_array_equal(there.timestamps, here.timestamps)
    assert len(here.frames) == 4
    size = path.stat().st_size
    assert size > 3e6
    assert wire.received < 0.6 * size, (wire.received, size)
    assert content.file_identity(url) == content.file_identity(path)
    assert video.measure(url, budgets, GEOMETRY).frames == 4


def test_pictures(wire, tmp_path):
    path = clips.write_image(tmp_path / "a.png", (64, 96))
    assert patches.read_size(upload(path)) == (64, 96)
    np.testing.assert_array_equal(patches.read_image(f"{URL}/a.png"), patches.read_image(path))
    with pytest.raises(MediaError, match=f"^{URL}/b.png: no such image; correct the path"):
        patches.read_size(f"{URL}/b.png")
    Store(URL).write("c.png", b"no picture")
    with pytest.raises(MediaError, match=f"^{URL}/c.png: not a usable image"):
        patches.read_size(f"{URL}/c.png")


def test_a_bucket_that_does_not_answer_is_no_fault_of_the_file(wire, tmp_path, monkeypatch):
    url = upload(clips.write_image(tmp_path / "a.png", (64, 96)))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    with (
        DecodePool(1, 60.0, quarantine=quarantine) as pool,
        pytest.raises(MediaError, match="look at the connection.*nothing is known of the file"),
    ):
        pool.decode(Job("image", url, Budgets(), GEOMETRY))
    assert len(quarantine) == 0


def test_rows(wire, tmp_path):
    fields = [{"problem": f"{n}?", "answer": "1", "images": [f"{n}.png"]} for n in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in fields)
    Store(URL).write("rows.jsonl", text.encode())
    read = rows.load_rows(f"{URL}/rows.jsonl")
    assert [row.source for row in read] == [f"{URL}/rows.jsonl:{n}" for n in (1, 2, 3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(fields), tmp_path / "rows.parquet")
    upload(tmp_path / "rows.parquet")
    assert [row.problem for row in rows.load_rows(f"{URL}/rows.parquet")] == [
        row.problem for row in read
    ]
    Store(URL).write("bad.jsonl", (text + "{\n").encode())
    with pytest.raises(ValueError, match=f"^{URL}/bad.jsonl:4: JSON: "):
        rows.load_rows(f"{URL}/bad.jsonl")
    with pytest.raises(FileNotFoundError, match=f"^{URL}/none.jsonl: no such data file"):
        rows.load_rows(f"{URL}/none.jsonl")


def test_all_of_a_job_in_a_bucket_is_as_on_a_disk(wire, tmp_path, capsys):
    """Rows, media and shards: the same shards, byte for byte but for the paths in the lists."""
    fields = []
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        upload(tmp_path / f"{n}.png")
        fields.append({"problem": "?", "answer": "1", "images": [f"{n}.png"]})
    upload(write_noise(tmp_path / "clip.mp4", frames=50))
    fields.append({"problem": "?", "answer": "1", "videos": [f"{URL}/clip.mp4"]})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in fields))
    there = ["--data", upload(path), "--media_dir", URL, "--workers", "1"]
    assert preprocess_videos.main([*there, "--out", "s3://bucket/shards"]) == 0, capsys.readouterr()
    assert preprocess_videos.main([*there, "--out", "s3://bucket/shards"]) == 0
    assert "4 there before, 0 failed" in " ".join(capsys.readouterr().out.split())
    fields[3]["videos"] = ["clip.mp4"]
    path.write_text("".join(json.dumps(row) + "\n" for row in fields))
    here = ["--data", str(path), "--media_dir", str(tmp_path), "--out", str(tmp_path / "shards")]
    assert preprocess_videos.main([*here, "--workers", "1"]) == 0
    with np.load(tmp_path / "shards" / "index-00000.npz") as index:
        keys = set(index["keys"].tolist())
    (tmp_path / "index.npz").write_bytes(Store("s3://bucket/shards").read("index-00000.npz"))
    with np.load(tmp_path / "index.npz") as index:
        assert set(index["keys"].tolist()) == keys
    report = ["--data", f"{URL}/rows.jsonl", "--media_dir", URL, "--shards", "s3://bucket/shards"]
    assert data_report.main([*report, "--workers", "1"]) == 0, capsys.readouterr().err
