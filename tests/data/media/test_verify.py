"""What is on disk is read whole, and each fault is named once."""

import numpy as np
import pytest

from evr1.cli import preprocess_videos
from evr1.data.media import shard_files, verify
from evr1.data.media.shards import ShardWriter
from evr1.data.records import Media


def key(n):
    return f"{n:032x}"


@pytest.fixture
def root(tmp_path):
    """Three shards of two entries."""
    with ShardWriter(tmp_path, shard_bytes=2 * 4 * 64 * 96 * 3) as writer:
        for n in range(6):
            media = Media(np.full((4, 64, 96, 3), n, np.uint8), np.arange(4.0), True)
            writer.add(key(n), media, f"{n}.mp4")
    return tmp_path


def test_all_is_well(root, capsys):
    report = verify.verify(root)
    assert (report.shards, report.records, report.faults) == (3, 6, [])
    assert report.record_bytes >= 6 * 4 * 64 * 96 * 3
    assert preprocess_videos.main(["--out", str(root), "--verify"]) == 0
    assert "6 records in 3 shards" in capsys.readouterr().out


def test_a_flipped_bit_is_found(root, capsys):
    path = shard_files.shard_path(root, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    report = verify.verify(root)
    assert (report.shards, report.records, len(report.faults)) == (3, 5, 1)
    assert report.faults[0].startswith(f"{path}: entry {key(2)} is damaged (")
    assert preprocess_videos.main(["--out", str(root), "--verify"]) == 1
    assert "1 fault in" in capsys.readouterr().err


def test_what_is_gone_or_doubled_is_told(root):
    shard_files.index_path(root, 0).unlink()
    shard_files.shard_path(root, 1).unlink()
    for name in (shard_files.shard_path, shard_files.index_path):
        name(root, 7).write_bytes(name(root, 2).read_bytes())
    faults = verify.verify(root).faults
    assert [fault.split(": ", 1)[1] for fault in faults] == [
        "gone, and with it the 2 media that index-00001.npz names",
        "its index index-00000.npz is gone",
        f"entry {key(4)} is in media-train.array_record-00002, too",
        f"entry {key(5)} is in media-train.array_record-00002, too",
    ]


def test_a_shard_of_another_length_and_one_of_other_records(root):
    with shard_files.shard_path(root, 0).open("ab") as file:
        file.write(b"x")
    shard_files.shard_path(root, 2).write_bytes(shard_files.shard_path(root, 1).read_bytes())
    faults = verify.verify(root).faults
    assert faults[0].endswith("in its index")
    assert [f.split(": ", 1)[1] for f in faults[1:]] == [
        f"entry {key(4)} has the record of {key(2)}",
        f"entry {key(5)} has the record of {key(3)}",
    ]


def test_no_directory(tmp_path, capsys):
    assert preprocess_videos.main(["--out", str(tmp_path / "none"), "--verify"]) == 1
    assert "no such directory; give a directory of shards" in capsys.readouterr().err
    assert preprocess_videos.main(["--out", str(tmp_path)]) == 1
    assert "--data is missing; give files of rows, --config, or --verify" in capsys.readouterr().err
