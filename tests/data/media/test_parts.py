"""Shards in fixed places: any parts write the same bytes, and lose little to a kill."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from clips import GEOMETRY, write_clip
from repo import ROOT

from evr1.cli import preprocess_videos
from evr1.data import rows
from evr1.data.media import parts, preprocess
from evr1.data.media.shards import ShardStore, ShardWriter
from evr1.data.records import Budgets
from evr1.formats.part import WHOLE, Part

CLIPS = 8
BUDGETS = Budgets(video_max_frames=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, one of them twice, one missing and one that is no video, and their rows."""
    root = tmp_path_factory.mktemp("clips")
    for n in range(CLIPS):
        write_clip(root / f"{n}.mp4", 10 + n)
    (root / "copy.mp4").write_bytes((root / "3.mp4").read_bytes())
    (root / "bad.mp4").write_bytes(b"no video")
    names = [*(f"{n}.mp4" for n in range(CLIPS)), "copy.mp4", "bad.mp4", "missing.mp4"]
    base = {"problem": "?", "answer": "1", "problem_type": "numerical"}
    lines = [json.dumps({**base, "problem_id": n, "videos": [n]}) for n in names]
    (root / "rows.jsonl").write_text("\n".join(lines))
    return root


def fill(folder, out, part=WHOLE, num_shards=0, some=slice(None), workers=2):
    return preprocess.preprocess(
        rows.load_rows(folder / "rows.jsonl")[some],
        str(out),
        budgets=BUDGETS,
        geometry=GEOMETRY,
        media_dir=str(folder),
        workers=workers,
        part=part,
        num_shards=num_shards,
    )


def shard_bytes(out):
    return {p.name: p.read_bytes() for p in out.glob("media-train*")}


def index_keys(out):
    return ShardStore(out).keys()


@pytest.fixture(scope="module")
def single(folder, tmp_path_factory):
    """A run of one process."""
    out = tmp_path_factory.mktemp("single")
    summary = fill(folder, out, num_shards=3)
    assert (summary.total, summary.videos, summary.cached) == (CLIPS + 3, CLIPS, 1)
    assert sorted(error.kind for error in summary.failed) == ["missing", "undecodable"]
    return out


def test_parts_write_what_one_process_writes(folder, single, tmp_path):
    found = [fill(folder, tmp_path, Part(i, 4), 3) for i in (2, 0, 3, 1)]
    assert sum(s.total for s in found) == CLIPS + 3
    assert sum(len(s.failed) for s in found) == 2
    assert shard_bytes(tmp_path) == shard_bytes(single)
    assert len(shard_bytes(tmp_path)) == 3
    assert len(index_keys(tmp_path)) == CLIPS
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(tmp_path).as_data_source()["train"]
    assert len(source) == CLIPS
    assert source[0]["frames"].shape[1:] == (64, 96, 3)


def test_another_number_of_parts_goes_on(folder, single, tmp_path):
    first = fill(folder, tmp_path, Part(0, 2), 3)
    assert 0 < len(shard_bytes(tmp_path)) < 3
    summary = fill(folder, tmp_path)  # the directory is cut already
    assert shard_bytes(tmp_path) == shard_bytes(single)
    assert summary.cached == 1 + first.videos


def test_more_rows_are_added_in_their_places(folder, single, tmp_path):
    fill(folder, tmp_path, num_shards=3, some=slice(0, 5))
    summary = fill(folder, tmp_path)
    assert summary.cached == 5 + 1
    assert shard_bytes(tmp_path) == shard_bytes(single)


def test_shards_without_media_are_empty_files(folder, tmp_path):
    fill(folder, tmp_path, num_shards=40)
    assert len(shard_bytes(tmp_path)) == 40
    assert len(index_keys(tmp_path)) == CLIPS
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(tmp_path).as_data_source()["train"]
    assert len({record["key"] for record in source}) == CLIPS


def test_a_kill_loses_no_complete_shard(folder, single, tmp_path):
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/rigs")!r}, {str(ROOT / "tests/data/media")!r}]
import pathlib, test_parts
test_parts.fill(pathlib.Path({str(folder)!r}), {str(tmp_path)!r}, num_shards=3, workers=1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("index-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    complete = shard_bytes(tmp_path)
    assert complete
    summary = fill(folder, tmp_path)
    assert summary.cached >= 1
    assert shard_bytes(tmp_path) == shard_bytes(single) | complete
    assert not list(tmp_path.glob(".writing-*"))


def test_two_processes_may_not_write_one_shard(folder, tmp_path):
    parts.agree(tmp_path, 8, 4)
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from evr1.data.media import parts
from evr1.formats.part import Part
with parts.PartWriter({str(tmp_path)!r}, 4, Part(1, 2)):
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with parts.PartWriter(tmp_path, 4, Part(0, 2)):
            pass  # beside it
        with pytest.raises(ValueError, match="another process writes shard 3; wait for it"):
            parts.PartWriter(tmp_path, 4, Part(3, 4))
        with pytest.raises(ValueError, match="another process writes here"):
            ShardWriter(tmp_path)
        process.stdin.close()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "3/2"], "--part='3/2': give i/N"),
        (["--num_shards", "7"], "is cut into 3 shards, --num_shards=7; leave the flag away"),
    ],
)
def test_the_command_says_what_does_not_fit(folder, single, capsys, flags, message):
    data = ["--data", str(folder / "rows.jsonl"), "--media_dir", str(folder)]
    assert preprocess_videos.main([*data, "--out", str(single), *flags]) == 1
    assert message in capsys.readouterr().err


def test_shards_without_parts_are_not_cut_later(folder, tmp_path):
    fill(folder, tmp_path, some=slice(0, 2))
    with pytest.raises(ValueError, match="its shards were written without parts; give another"):
        fill(folder, tmp_path, Part(1, 2))


def test_a_damaged_list_of_parts_is_named(tmp_path):
    (tmp_path / parts.MANIFEST).write_text("[]")
    with pytest.raises(ValueError, match="parts.json: not {"):
        parts.count_of(tmp_path)


def test_the_first_decides_into_how_many(tmp_path):
    assert parts.agree(tmp_path, 65) == 3
    assert parts.agree(tmp_path, 6500) == 3
    assert sorted(os.listdir(tmp_path)) == [parts.MANIFEST]
