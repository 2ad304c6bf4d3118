"""Pixels in flight keep within a bound, and none is copied more often than it must."""

import json
import subprocess
import sys
import threading
import time

import pytest
from clips import GEOMETRY, write_clip
from repo import ROOT

from evr1.data import rows
from evr1.data.media import memory, preprocess
from evr1.data.records import Budgets


def test_media_wait_until_they_fit():
    bound, order = memory.Memory(100 * memory.COPIES), []

    def take(name, pixel_bytes):
        with bound.hold(pixel_bytes):
            order.append(name)

    with bound.hold(60):
        threads = [threading.Thread(target=take, args=x) for x in (("large", 10**9), ("small", 40))]
        for thread in threads:
            thread.start()
        threads[1].join(timeout=10)
        time.sleep(0.05)
        assert order == ["small"]  # the other one never fits, and comes alone
    threads[0].join(timeout=10)
    assert order == ["small", "large"]
    with pytest.raises(ValueError, match="--memory gives -1 bytes"):
        memory.Memory(-1)


def test_a_small_bound_writes_the_same_media(tmp_path, monkeypatch):
    for n in range(6):
        write_clip(tmp_path / f"{n}.mp4", 20 + n)
    base = {"problem": "?", "answer": "1", "problem_type": "numerical"}
    lines = [json.dumps({**base, "problem_id": str(n), "videos": [f"{n}.mp4"]}) for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    every_row = rows.load_rows(tmp_path / "rows.jsonl")
    held, plain = [], memory.Memory.hold
    monkeypatch.setattr(memory.Memory, "hold", lambda s, n: held.append(n) or plain(s, n))
    for name, limit in (("free", 0), ("bound", 10**5)):
        how = {"budgets": Budgets(video_max_frames=8), "geometry": GEOMETRY, "workers": 2}
        out = str(tmp_path / name)
        media_dir = str(tmp_path)
        done = preprocess.preprocess(every_row, out, media_dir=media_dir, memory_bytes=limit, **how)
        assert (done.videos, done.failed) == (6, [])
    assert held[:6] == [0] * 6  # the budgets alone keep them within half of the machine
    assert set(held[6:]) == {4 * 64 * 96 * 3}


def test_one_copy_to_write_a_record():
    """A record of 96 MB: the pixels, the record, and what ArrayRecord holds of it."""
    code = f"""
import sys, tempfile
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/rigs")!r}]
import numpy as np
from evr1.data.media import shard_files, shards, tfds_format
from evr1.data.records import Media

def megabytes(name):
    text = open("/proc/self/status").read()
    return int(text.split(name + ":")[1].split()[0]) / 1000

shards.media_features()
with tempfile.TemporaryDirectory() as root, shards.ShardWriter(root) as writer:
    base = megabytes("VmRSS")
    media = Media(np.ones((100, 400, 800, 3), np.uint8), np.arange(100.0), True)
    hollow, record = shard_files.hollow(media), tfds_format.serialize("k", media, "a")
    del media
    writer.add_record("k", hollow, record)
    print(megabytes("VmHWM") - base)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.4 * 96
