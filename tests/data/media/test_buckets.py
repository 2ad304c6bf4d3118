"""Shards in a bucket, against a server that speaks S3 over HTTP."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from evr1.cli import preprocess_videos
from evr1.data.media import shard_files, stage
from evr1.data.media.place import Place
from evr1.data.media.shards import ShardStore, ShardWriter
from evr1.data.records import Media
from evr1.data.remote.cache import FileCache
from evr1.data.remote.lease import Lease
from evr1.data.remote.store import Store
from evr1.formats.part import WHOLE, Part
from tests.rigs import buckets

URL = "s3://bucket/shards"
FRAMES = 4 * 64 * 96 * 3


def key(n):
    return f"{n:032x}"


def media(n):
    return Media(np.full((4, 64, 96, 3), n, np.uint8), np.arange(4.0), True)


@pytest.fixture(scope="module")
def server():
    with buckets.s3() as wire:
        yield wire


@pytest.fixture
def wire(server, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    server.clear()
    return server


def write(numbers, url=URL, shard_bytes=2 * FRAMES, part=WHOLE):
    """Writes media of these numbers, two a shard."""
    with (
        stage.staged(url, part) as bucket,
        ShardWriter(bucket.root, shard_bytes=shard_bytes, target=bucket) as writer,
    ):
        for n in numbers:
            if key(n) not in writer:
                writer.add(key(n), media(n), f"{n}.mp4")
        return bucket.repairs


def objects(url=URL):
    return Store(url).list()


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures and the rows that ask about them."""
    rows = []
    for n in range(8):
        pixels = np.random.default_rng(n).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        rows.append({"problem": "?", "answer": "1", "images": [f"{n}.png"]})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--data", str(path), "--media_dir", str(tmp_path), "--workers", "1"]


def test_what_is_read_is_what_a_directory_has_and_is_fetched_once(wire, tmp_path):
    write(range(6))
    with ShardWriter(tmp_path / "here", shard_bytes=2 * FRAMES) as writer:
        for n in range(6):
            writer.add(key(n), media(n), f"{n}.mp4")
    names = {p.name for p in (tmp_path / "here").iterdir() if not p.name.startswith(".")}
    assert objects().keys() == names
    for name in names - {"dataset_info.json"}:  # it has the time in it
        assert Store(URL).read(name) == (tmp_path / "here" / name).read_bytes()

    wire.received = 0
    cache = FileCache(str(tmp_path / "cache"))
    store = ShardStore(Place(URL, cache))
    store.check()
    for _ in range(2):
        for n in range(6):
            np.testing.assert_array_equal(store.read(key(n)).frames, media(n).frames)
    asked = sum(each.size for each in objects().values())
    assert wire.received < 1.2 * asked + 20_000, "the headers of some 20 answers"
    before = wire.received
    again = ShardStore(Place(URL, cache))
    for n in range(6):
        again.read(key(n))
    assert wire.received - before < 10_000, "the list of objects alone"


def test_the_cache_stays_under_its_bound(wire, tmp_path):
    write(range(6))
    size = objects()["media-train.array_record-00000"].size
    cache = FileCache(str(tmp_path / "cache"), 2.5 * size / 2**30)
    store = ShardStore(Place(URL, cache))
    for n in (0, 2, 0, 4):  # the shard of 2 was not used for longest
        store.read(key(n))
        files = sorted(p.name[-5:] for p in (cache.root / "files").iterdir())
        assert len(files) <= 2
    assert files == ["00000", "00002"]
    tiny = ShardStore(Place(URL, FileCache(str(tmp_path / "tiny"), 0.5 * size / 2**30)))
    with pytest.raises(ValueError, match="^data.shard_cache=.*/tiny: a bound of .* does not hold"):
        tiny.read(key(0))


def test_processes_of_a_machine_fetch_a_shard_once(wire):
    write(range(40), shard_bytes=40 * FRAMES)
    size = objects()["media-train.array_record-00000"].size
    wire.received = 0
    code = f"""
from evr1.data.media.place import Place
from evr1.data.media.shards import ShardStore
store = ShardStore(Place({URL!r}))
assert (store.read({key(7)!r}).frames == 7).all()
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert size < wire.received < 1.5 * size


def test_a_wire_that_breaks_in_the_middle_of_a_shard(wire, tmp_path, monkeypatch):
    write(range(2))
    wire.cuts, wire.after = 2, 50_000
    store = ShardStore(Place(URL))
    np.testing.assert_array_equal(store.read(key(0)).frames, media(0).frames)
    assert wire.cuts == 0
    monkeypatch.setattr("evr1.data.remote.store.WAIT_S", 0.01)
    wire.cuts = 10**6
    bad = ShardStore(Place(URL, FileCache(str(tmp_path / "other"))))
    with pytest.raises(ValueError, match=f"^{URL}/media-train.*; 4 tries; look at the connection"):
        bad.read(key(0))
    assert not list((tmp_path / "other" / "files").iterdir()), "nothing half-fetched is left"


def test_bytes_that_are_not_those_of_the_index(wire, tmp_path, capsys):
    write(range(4))
    name = "media-train.array_record-00001"
    data = bytearray(Store(URL).read(name))
    data[len(data) // 4] ^= 1
    Store(URL).write(name, bytes(data))
    store = ShardStore(Place(URL))
    store.read(key(0))
    with pytest.raises(ValueError, match=f"^{URL}/{name}: its bytes are not those of its index"):
        store.read(key(2))
    assert preprocess_videos.main(["--out", URL, "--verify"]) == 1
    assert "2 records in 2 shards, " in capsys.readouterr().out


def test_buckets_that_are_not_there(wire, monkeypatch):
    monkeypatch.setattr("evr1.data.remote.store.WAIT_S", 0.01)
    with pytest.raises(ValueError, match="^s3://nowhere/a: The specified bucket does not exist; "):
        Place("s3://nowhere/a")
    with pytest.raises(ValueError, match="^data.shards='s3://bucket/a': nothing there; "):
        Place("s3://bucket/a")
    with (
        pytest.raises(ValueError, match="^s3://nowhere/a.*: The specified bucket does not exist"),
        stage.staged("s3://nowhere/a"),
    ):
        pass
    with pytest.raises(ValueError, match="^s3://: no bucket in it"):
        Place("s3://")


def test_no_rights(wire, capsys, pictures):
    write(range(2))
    wire.ask("reset-auth", b"0")  # from now on it looks at keys
    try:
        says = "look at the credentials and their rights"
        with pytest.raises(ValueError, match=f"^{URL}: The AWS Access Key Id .*; {says}$"):
            Place(URL)
        assert preprocess_videos.main([*pictures, "--out", URL]) == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"preprocess_videos: {URL}: ")
        assert line.endswith(says)
    finally:
        wire.ask("reset-auth", b"inf")


def test_a_full_disk(wire, tmp_path):
    write(range(2))
    code = f"""
import resource
from evr1.data.media.place import Place
from evr1.data.media.shards import ShardStore
store = ShardStore(Place({URL!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # no file may be larger
store.read({key(0)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: data.shard_cache={tmp_path}/user/evr1/buckets: File too ")
    assert "give a folder with room for s3://bucket/shards/media-train" in last
    assert not list((tmp_path / "user/evr1/buckets/files").iterdir())


@pytest.mark.parametrize("out", [URL, "here"])
@pytest.mark.parametrize("cut", [(), ("--num_shards", "2")], ids=["by size", "by key"])
def test_a_disk_that_is_full_of_what_is_written(wire, tmp_path, pictures, out, cut):
    code = f"""
import resource, sys
from evr1.cli import preprocess_videos
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # no file may be larger
sys.exit(preprocess_videos.main({[*pictures, "--out", out, *cut]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    [line] = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert "/.writing-0000" in line
    assert "cannot be written (" in line
    assert line.endswith("give it a disk with room, and run again, which goes on")
    root = "user/evr1/buckets/writing" if out == URL else "here"
    assert not list((tmp_path / root).glob("**/media-train*"))
    if out == URL:
        assert not [name for name in objects() if name.startswith(("media", "index", "."))]


def test_two_jobs_on_one_output(wire, monkeypatch):
    with stage.staged(URL):
        says = f"^{URL}: another process writes here .*; wait for it, or, if it was killed, [56]"
        with pytest.raises(ValueError, match=says), stage.staged(URL):
            pass
        with pytest.raises(ValueError, match="another process"), stage.staged(URL, Part(1, 2)):
            pass
    with stage.staged(URL, Part(0, 2)), stage.staged(URL, Part(1, 2)):
        with pytest.raises(ValueError, match="another process"), stage.staged(URL, Part(1, 2)):
            pass
        with pytest.raises(ValueError, match="another process"), stage.staged(URL, Part(2, 3)):
            pass
    assert not objects()


def test_of_many_that_ask_at_once_one_is_told_yes(wire):
    store = Store(URL)
    assert [store.create("lease", f"{n}".encode()) for n in range(4)] == [True] + 3 * [False]
    assert store.create("lease", b"0"), "the answer to the first try got lost"


def test_a_lease_that_is_not_renewed_is_taken_over(wire, monkeypatch):
    monkeypatch.setattr("evr1.data.remote.lease.BEAT_S", 0.2)
    first = Lease(Store(URL))
    with pytest.raises(ValueError, match="another process"):
        Lease(Store(URL))
    monkeypatch.setattr("evr1.data.remote.lease.LEASE_S", 0.0)
    second = Lease(Store(URL))
    monkeypatch.undo()
    deadline = time.monotonic() + 30
    while not first._lost and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ValueError, match="lost the right to write here .another process has taken"):
        first.check()
    second.check()
    second.close()
    first.close()
    assert not objects()


def test_preprocess_twice_and_read(wire, tmp_path, pictures, capsys):
    assert preprocess_videos.main([*pictures, "--out", URL]) == 0, capsys.readouterr().err
    assert "8 images written" in " ".join(capsys.readouterr().out.split())
    assert preprocess_videos.main([*pictures, "--out", URL]) == 0
    assert f"{URL}: 0 videos and 0 images written" in capsys.readouterr().out
    assert preprocess_videos.main([*pictures, "--out", URL, "--verify"]) == 0
    here = str(tmp_path / "here")
    assert preprocess_videos.main([*pictures, "--out", here]) == 0
    assert objects().keys() == {n for n in os.listdir(here) if not n.startswith(".")}
    for name in ("media-train.array_record-00000", "index-00000.npz", "files.jsonl"):
        assert Store(URL).read(name) == pathlib.Path(here, name).read_bytes()


def test_parts_are_those_of_a_directory(wire, tmp_path, pictures):
    whole = str(tmp_path / "here")
    assert preprocess_videos.main([*pictures, "--num_shards", "3", "--out", whole]) == 0
    for part in ("1/2", "2/2", "1/2"):
        args = [*pictures, "--num_shards", "3", "--part", part, "--out", URL]
        assert preprocess_videos.main(args) == 0
    for n in range(3):
        for path in (shard_files.shard_path, shard_files.index_path):
            name = path(pathlib.Path(whole), n).name
            assert Store(URL).read(name) == pathlib.Path(whole, name).read_bytes()
    info = json.loads(Store(URL).read("dataset_info.json"))
    assert len(info["splits"][0]["shardLengths"]) == 3


def test_what_a_kill_left_is_mended(wire, pictures, capsys):
    """A shard without its index, which comes last; and an index of another one."""
    write(range(4))
    store = Store(URL)
    store.remove("index-00001.npz")
    write(range(2))
    assert "media-train.array_record-00001" not in objects()
    write(range(6))
    store.write("media-train.array_record-00000", b"torn")
    repairs = write(range(6))
    assert repairs == [
        f"{URL}/media-train.array_record-00000: not whole; its media are decoded again"
    ]
    assert preprocess_videos.main(["--out", URL, "--verify"]) == 0
    assert "6 records in 3 shards" in capsys.readouterr().out


def test_kill_9_in_the_middle(wire, tmp_path, pictures, capsys):
    args = [*pictures, "--out", URL, "--num_shards", "8"]
    code = (
        "import os, signal\nfrom evr1.data.media import stage\nfrom evr1.cli import "
        "preprocess_videos\nwhole = stage.Stage.publish\ndef publish(self, number):\n"
        "    whole(self, number)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"stage.Stage.publish = publish\npreprocess_videos.main({args!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    left = objects()
    assert ".lease-0-of-1-000001" in left
    assert sum(name.startswith("index-") for name in left) == 1
    assert preprocess_videos.main(args) == 0, capsys.readouterr().err
    assert preprocess_videos.main(["--out", URL, "--verify"]) == 0
    assert "8 records in 8 shards" in capsys.readouterr().out
    assert not [name for name in objects() if name.startswith(".")]
    assert not list((tmp_path / "user/evr1/buckets/writing").iterdir())
