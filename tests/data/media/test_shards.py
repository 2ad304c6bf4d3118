import dataclasses
import errno
import json
import shutil
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest
from repo import ROOT
from shards_rig import key, medium

from evr1.data.media import shard_files, shard_readers, tfds_format
from evr1.data.media.shards import ShardStore, ShardWriter


def fill(root, count=5, shard_bytes=2 * 4 * 64 * 96 * 3):
    media = {key(n): medium(n) for n in range(count)}
    media[key(99)] = medium(99, 1, (32, 32), is_video=False)
    with ShardWriter(root, shard_bytes=shard_bytes) as writer:
        for k, m in media.items():
            writer.add(k, m, f"{k}.mp4")
    return media


def assert_same(a, b):
    np.testing.assert_array_equal(a.frames, b.frames)
    np.testing.assert_array_equal(a.timestamps, b.timestamps)
    assert (a.frames.dtype, a.timestamps.dtype) == (np.uint8, np.float64)
    assert a.is_video == b.is_video


def test_what_is_written_is_read(tmp_path):
    media = fill(tmp_path)
    store = ShardStore(tmp_path)
    assert len(store) == 6
    assert len(list(tmp_path.glob("media-train.array_record-*"))) == 3
    for k, m in media.items():
        assert_same(store.read(k), m)
        shape = store.find(k).shape
        assert (shape.frames, shape.height, shape.width, 3) == m.frames.shape
        np.testing.assert_array_equal(shape.timestamps, m.timestamps)
        assert shape.is_video == m.is_video
    assert store.find(key(1234)) is None
    assert key(1234) not in store


def test_one_entry_however_often_it_is_added(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for _ in range(3):
            writer.add(key(1), medium(1), "a.mp4")
    with ShardWriter(tmp_path) as writer:
        assert key(1) in writer
        writer.add(key(1), medium(1), "a.mp4")
    assert len(list(tmp_path.glob("index-*.npz"))) == 1


def test_it_is_a_tfds_data_set_and_tensorflow_stays_out(tmp_path):
    package = tmp_path / "site" / "tensorflow"  # stands for an installed TensorFlow
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    root = tmp_path / "shards"
    media = fill(root)
    code = f"""
import sys
import weakref
sys.path.insert(0, {str(package.parent)!r})
from evr1.data.media import shards
store = shards.ShardStore({str(root)!r})
store.read({key(1)!r})
with shards.ShardWriter({str(root)!r}) as writer:
    writer.add({key(500)!r}, store.read({key(2)!r}), "b.mp4")
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(root)!r}).as_data_source(split="train")
print(len(source), source[0]["key"].decode(), source[0]["frames"].shape)
print([m for m in ("tensorflow", "torch") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"7 {key(0)} {media[key(0)].frames.shape}", "[]"]


def test_a_flipped_byte_is_named(tmp_path):
    media = fill(tmp_path)
    path = tmp_path / "media-train.array_record-00001"
    data = bytearray(path.read_bytes())
    where = data.index(media[key(3)].frames.tobytes()[:64])
    data[where + 1000] ^= 1
    path.write_bytes(data)
    store = ShardStore(tmp_path)
    for k, m in media.items():
        if k != key(3):
            assert_same(store.read(k), m)
    with pytest.raises(ValueError, match="hash mismatch") as error:
        store.read(key(3))
    message = str(error.value)
    assert message.startswith(f"{path}: entry {key(3)} is damaged")
    assert "delete this shard file and run evr1 preprocess" in message
    assert "\n" not in message


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    media = fill(tmp_path / "good", 2, shard_bytes=2**30)
    rng = np.random.default_rng(0)
    whole = (tmp_path / "good" / "media-train.array_record-00000").read_bytes()
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "bad" / "media-train.array_record-00000").write_bytes(data)
        store = ShardStore(tmp_path / "bad")
        for k, m in media.items():
            try:
                assert_same(store.read(k), m)
            except ValueError as error:
                assert "damaged" in str(error)  # noqa: PT017
                refused += 1
    assert refused > 20


def test_a_cut_shard_is_named(tmp_path):
    fill(tmp_path)
    path = tmp_path / "media-train.array_record-00000"
    for size in (0, 100, path.stat().st_size // 2):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"array_record-00000: entry 0+ is damaged"):
            ShardStore(tmp_path).read(key(0))


def test_a_shard_that_holds_something_else_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "media-train.array_record-00000").write_bytes(
        (tmp_path / "media-train.array_record-00001").read_bytes()
    )
    with pytest.raises(ValueError, match="the record holds key 0*2"):
        ShardStore(tmp_path).read(key(0))


def test_deleting_a_shard_and_running_again_repairs(tmp_path):
    media = fill(tmp_path)
    (tmp_path / "media-train.array_record-00001").unlink()
    store = ShardStore(tmp_path)
    assert len(store) == 4
    store.check()
    name = tmp_path / "media-train.array_record-00001"
    gone = f"{name}: gone, and with it the 2 media that index-00001.npz names"
    assert store.lost == [gone]
    added = []
    with ShardWriter(tmp_path) as writer:
        assert writer.repairs == [f"{gone}, and are decoded again"]
        for k, m in media.items():
            if k not in writer:
                writer.add(k, m, "again.mp4")
                added.append(k)
    assert added == [key(2), key(3)]
    store = ShardStore(tmp_path)
    for k, m in media.items():
        assert_same(store.read(k), m)
    assert store.lost == []
    assert sorted(p.name[-5:] for p in tmp_path.glob("media-train*")) == ["00000", "00001", "00002"]


def test_a_lost_index_is_rebuilt_and_a_damaged_one_is_named(tmp_path):
    media = fill(tmp_path)
    (tmp_path / "index-00000.npz").unlink()
    ShardWriter(tmp_path).close()
    store = ShardStore(tmp_path)
    assert_same(store.read(key(0)), media[key(0)])
    shape = store.find(key(0)).shape
    assert (shape.frames, shape.height, shape.width) == (4, 64, 96)
    (tmp_path / "index-00000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"index-00000.npz: damaged index .* delete it and run"):
        ShardStore(tmp_path)


def test_a_killed_run_keeps_its_finished_shards(tmp_path):
    code = f"""
import os, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/rigs")!r}]
from shards_rig import key, medium
from evr1.data.media import shard_files, shard_readers, shards, tfds_format
from evr1.data.media.shards import ShardWriter
writer = ShardWriter({str(tmp_path)!r}, shard_bytes=2 * 4 * 64 * 96 * 3)
for n in range(5):
    writer.add(key(n), medium(n), "a.mp4")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.glob(".writing-*"))
    store = ShardStore(tmp_path)
    assert [key(n) in store for n in range(5)] == [True] * 4 + [False]
    media = fill(tmp_path)
    assert not list(tmp_path.glob(".writing-*"))
    for k, m in media.items():
        assert_same(ShardStore(tmp_path).read(k), m)


def test_an_old_shard_is_completed_before_it_is_full(tmp_path):
    with ShardWriter(tmp_path, shard_seconds=0) as writer:
        writer.add(key(1), medium(1), "a.mp4")
        assert key(1) in ShardStore(tmp_path)  # a kill from here on loses nothing


def test_two_writers_are_refused(tmp_path):
    with (
        ShardWriter(tmp_path),
        pytest.raises(ValueError, match="another process writes here"),
    ):
        ShardWriter(tmp_path)


def test_no_directory_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"data.shards=.*/none': no such directory; run evr1 preprocess"
    ):
        ShardStore(tmp_path / "none")


def test_an_error_still_completes_the_open_shard(tmp_path):
    def fail_after_one():
        with ShardWriter(tmp_path) as writer:
            writer.add(key(1), medium(1), "a.mp4")
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_one()
    assert key(1) in ShardStore(tmp_path)


def test_an_index_whose_arrays_do_not_fit_is_damaged(tmp_path):
    (tmp_path / "media-train.array_record-00000").write_bytes(b"")
    arrays = {"sizes": np.zeros(3, np.int32), "offsets": np.zeros(1, np.int64)}
    arrays |= {"keys": np.zeros(2, "S32"), "timestamps": np.zeros(0), "is_video": np.zeros(2, bool)}
    np.savez(tmp_path / "index-00000.npz", **arrays)
    with pytest.raises(ValueError, match="damaged index"):
        ShardStore(tmp_path)


def spoil(path, how):
    """Damages a shard file in one of the ways that disks, copies and kills do."""
    whole = path.read_bytes()
    size = len(whole)
    cuts = {"empty": 0, "byte": 1, "header": 100, "record": 80_000, "half": size // 2}
    cuts |= {"footer": size - 70_000, "last_byte": size - 1}
    if how in cuts:
        path.write_bytes(whole[: cuts[how]])
    elif how == "zeros":
        path.write_bytes(bytes(size))
    elif how == "longer":
        path.write_bytes(whole + bytes(1000))
    else:
        path.write_bytes(np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes())


def check_and_read(root, k):
    """What is shorter or longer than it was is told before anything is read."""
    store = ShardStore(root)
    store.check()
    store.read(k)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "byte",
        "header",
        "record",
        "half",
        "footer",
        "last_byte",
        "zeros",
        "longer",
        "noise",
    ],
)
def test_a_shard_that_does_not_open_is_set_aside_and_written_anew(tmp_path, how, has_index):
    media = fill(tmp_path)
    path = tmp_path / "media-train.array_record-00001"
    spoil(path, how)
    if not has_index:
        (tmp_path / "index-00001.npz").unlink()
    with pytest.raises(ValueError, match=r"array_record-00001: .* run evr1 preprocess"):
        check_and_read(tmp_path, key(2))
    added = []
    with ShardWriter(tmp_path) as writer:
        [line] = writer.repairs
        assert line.startswith(f"{path}: cut off")
        assert "set aside as damaged-00001.array_record" in line
        for k, m in media.items():
            if k not in writer:
                writer.add(k, m, "again.mp4")
                added.append(k)
    assert added == [key(2), key(3)]
    assert (tmp_path / "damaged-00001.array_record").is_file()
    store = ShardStore(tmp_path)
    store.check()
    for k, m in media.items():
        assert_same(store.read(k), m)
    with ShardWriter(tmp_path) as writer:
        assert writer.repairs == []


def test_the_only_shard_may_be_the_one_that_is_cut_off(tmp_path):
    media = fill(tmp_path, shard_bytes=2**30)
    spoil(tmp_path / "media-train.array_record-00000", "half")
    (tmp_path / "index-00000.npz").unlink()
    with ShardWriter(tmp_path) as writer:
        assert not any(k in writer for k in media)
    fill(tmp_path, shard_bytes=2**30)
    assert len(ShardStore(tmp_path)) == len(media)


@pytest.mark.parametrize("index", ["damaged", "of_a_longer_shard", "of_another_shard", "sizeless"])
def test_an_index_that_is_not_the_shards_is_rebuilt(tmp_path, index):
    media = fill(tmp_path)
    path = tmp_path / "index-00001.npz"
    if index == "damaged":
        path.write_bytes(path.read_bytes()[:300])
    elif index == "of_a_longer_shard":
        fill(tmp_path / "longer", 9, shard_bytes=2**30)
        path.write_bytes((tmp_path / "longer" / "index-00000.npz").read_bytes())
    elif index == "of_another_shard":  # one image more, one video less
        path.write_bytes((tmp_path / "index-00002.npz").read_bytes())
    else:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name != "shard_bytes"}
        np.savez(path, **arrays)
    with ShardWriter(tmp_path) as writer:
        assert len(writer.repairs) == 1
        assert all(k in writer for k in media)
    store = ShardStore(tmp_path)
    store.check()
    for k, m in media.items():
        assert_same(store.read(k), m)
        assert store.find(k).shape.frames == len(m.frames)


def test_a_damaged_record_does_not_cost_the_others_when_the_index_is_gone(tmp_path):
    media = fill(tmp_path, shard_bytes=2**30)
    path = tmp_path / "media-train.array_record-00000"
    data = bytearray(path.read_bytes())
    data[data.index(media[key(3)].frames.tobytes()[:64]) + 1000] ^= 1
    path.write_bytes(data)
    (tmp_path / "index-00000.npz").unlink()
    with ShardWriter(tmp_path) as writer:
        assert "1 of 6 records are damaged" in writer.repairs[0]
        assert [k for k in media if k not in writer] == [key(3)]
        writer.add(key(3), media[key(3)], "again.mp4")
    store = ShardStore(tmp_path)
    assert len(store) == 6
    for k, m in media.items():
        assert_same(store.read(k), m)


def test_no_damaged_index_is_more_than_a_line(tmp_path):
    fill(tmp_path)
    path = tmp_path / "index-00000.npz"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for n in range(150):
        data = bytearray(whole[: rng.integers(len(whole))] if n % 3 == 0 else whole)
        for _ in range(1 + n % 4):
            if data:
                data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            ShardStore(tmp_path)
        except ValueError as error:
            assert "index-00000.npz: damaged index" in str(error)  # noqa: PT017


def shard_copies(root, count):
    """A directory of so many shards, all with the records of one."""
    fill(root, 1, shard_bytes=1)
    for number in range(2, count):
        for name in ("media-train.array_record-{}", "index-{}.npz"):
            shutil.copy(root / name.format("00000"), root / name.format(f"{number:05d}"))


def in_child(code, descriptors):
    """What a process prints that may open so many files."""
    code = f"""
import resource, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/rigs")!r}]
from pathlib import Path
from shards_rig import key, medium
from evr1.data.media import shard_files, shard_readers, shards, tfds_format
shards.media_features()
resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))
{code}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_more_shards_than_a_process_may_open_files(tmp_path):
    shard_copies(tmp_path, 200)
    code = f"""
store = shards.ShardStore({str(tmp_path)!r})
for number in range(200):
    path = shard_files.shard_path(store.root, number)
    assert store._readers.read(path, 0, 1)
print("read")
shards.ShardWriter({str(tmp_path)!r}).close()
print("opened to write")
"""
    assert in_child(code, 100).split("\n")[:2] == ["read", "opened to write"]


def test_a_lack_of_descriptors_is_no_damage(tmp_path):
    fill(tmp_path)
    code = f"""
store = shards.ShardStore({str(tmp_path)!r})
held = []
try:
    while True:
        held.append(open("/dev/null"))
except OSError:
    pass
try:
    shard_readers.open_surely(shard_files.shard_path(store.root, 0))
except OSError as error:
    print(shard_readers.tell(shard_files.shard_path(store.root, 0), error))
try:
    store.read(key(0))
except ValueError as error:
    print(error)
held.pop()
print(store.read(key(0)).frames.shape)
"""
    lines = in_child(code, 64).splitlines()
    assert lines[-1] == "(4, 64, 96, 3)"
    assert len(lines) == 3
    for line in lines[:2]:
        assert "array_record-00000: cannot be read (Too many open files); raise ulimit -n" in line
    for line in lines:
        assert "delete" not in line
    assert not list(tmp_path.glob("damaged-*"))


@pytest.mark.parametrize("act", ["read", "write"])
def test_a_disk_that_fails_is_told_as_one(tmp_path, monkeypatch, act):
    fill(tmp_path)
    store = ShardStore(tmp_path)
    path = tmp_path / "media-train.array_record-00000"
    path.write_bytes(path.read_bytes()[:1000])  # what a reader makes of it

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shard_readers, "read_through", fail)
    with pytest.raises(ValueError, match=r"00000: cannot be read \(Input/output error\)") as error:
        store.read(key(0)) if act == "read" else ShardWriter(tmp_path)
    assert "delete" not in str(error.value)
    assert path.is_file()


def test_a_shard_that_went_away_is_told_as_that(tmp_path):
    fill(tmp_path)
    store = ShardStore(tmp_path)
    (tmp_path / "media-train.array_record-00000").unlink()
    with pytest.raises(ValueError, match=r"cannot be read \(No such file or directory\); bring it"):
        store.read(key(0))


def test_completing_a_shard_opens_no_other(tmp_path, monkeypatch):
    shard_copies(tmp_path, 30)
    with ShardWriter(tmp_path, shard_bytes=1) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(shard_files, "shards_in", lambda *_: pytest.fail("looked at every shard"))
            patch.setattr(shard_readers, "ArrayRecordReader", lambda *_: pytest.fail("opened one"))
            writer.add(key(777), medium(777), "a.mp4")
        info = json.loads((tmp_path / "dataset_info.json").read_text())
    [split] = info["splits"]
    assert split["shardLengths"] == ["1"] * 31
    sizes = [path.stat().st_size for path in tmp_path.glob("media-train.array_record-*")]
    assert split["numBytes"] == str(sum(sizes))


def test_an_open_shard_holds_no_pixels(tmp_path):
    with ShardWriter(tmp_path) as writer:
        media = medium(1)
        gone = weakref.ref(media.frames)
        writer.add(key(1), media, "a.mp4")
        del media
        assert gone() is None


def test_a_record_says_what_tfds_would(tmp_path):
    for media, path in ((medium(1), "a.mp4"), (medium(2, 1, (32, 32), is_video=False), "ü" * 90)):
        fields = {**vars(media), "sample_fps": np.float64(2.5), "key": key(1), "path": path}
        del fields["remarks"], fields["psnr"], fields["source_size"]
        media = dataclasses.replace(media, sample_fps=2.5)
        record = tfds_format.serialize(key(1), media, path)
        theirs = tfds_format.media_features().serialize_example(fields)
        assert len(record) == len(theirs)
        got = tfds_format.media_features().deserialize_example_np(record)
        for name, value in fields.items():
            expected = value.encode() if isinstance(value, str) else value
            np.testing.assert_array_equal(got[name], expected)
        k, parsed = tfds_format.parse(record)
        assert (k, parsed.sample_fps) == (key(1), 2.5)
        assert_same(parsed, media)
