import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from clips import BUDGETS, GEOMETRY, write_clip, write_image
from PIL import Image
from repo import ROOT

from evr1.data import rows
from evr1.data.errors import MediaError
from evr1.data.media import quarantine, video
from evr1.data.media.decode import DecodePool, Job
from evr1.data.media.preprocess import preprocess
from evr1.data.media.quarantine import Quarantine


def job(path, kind="video", start=None, end=None, times=()):
    return Job(kind, str(path), BUDGETS, GEOMETRY, start, end, times)


def hanging(path):
    """A file whose opening never returns, as some broken files make decoders hang."""
    os.mkfifo(path)
    return path


@pytest.fixture
def pool(tmp_path):
    with DecodePool(2, 30.0, quarantine=Quarantine(tmp_path / "quarantine.jsonl")) as pool:
        yield pool


def test_a_job_survives_its_line():
    one = job("a b\n.mp4", start=0.1, end=7.3, times=(0.5, 1.2))
    assert Job.from_json(one.to_json()) == one
    assert "\n" not in one.to_json()


def test_children_give_what_this_process_gives(pool, tmp_path):
    clip, image = write_clip(tmp_path / "a.mp4"), write_image(tmp_path / "a.png")
    for one in (job(clip), job(clip, start=0.5, end=1.5), job(image, "image")):
        far, near = pool.decode(one), one.run()
        np.testing.assert_array_equal(far.frames, near.frames)
        np.testing.assert_array_equal(far.timestamps, near.timestamps)
        assert far.is_video == near.is_video
        shape = pool.measure(one)
        assert (shape.frames, shape.height, shape.width, 3) == near.frames.shape
        np.testing.assert_array_equal(shape.timestamps, near.timestamps)


def test_many_threads_share_two_children(pool, tmp_path):
    clips = [write_clip(tmp_path / f"{n}.mp4", n + 4) for n in range(8)]
    last = [None] * len(clips)

    def one(i):
        last[i] = pool.decode(job(clips[i])).timestamps[-1]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert last == pytest.approx([(n + 3) / 30 for n in range(8)])


def test_errors_keep_their_type(pool, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    for one, kind in (
        (job(tmp_path / "none.mp4"), "missing"),
        (job(tmp_path / "text.mp4"), "undecodable"),
        (job(tmp_path / "text.mp4", "image"), "undecodable"),
        (job(write_clip(tmp_path / "a.mp4"), start=9.0), "clip"),
    ):
        with pytest.raises(MediaError) as error:
            pool.decode(one)
        assert error.value.kind == kind


def test_a_clip_that_hangs_is_given_up_and_never_tried_again(tmp_path):
    path = hanging(tmp_path / "hangs.mp4")
    good = write_clip(tmp_path / "a.mp4")
    quarantine = tmp_path / "quarantine.jsonl"
    with DecodePool(1, 30.0, quarantine=Quarantine(quarantine)) as pool:
        pool.decode(job(good))  # the child is up: starting is not counted
        pool.timeout_s = 0.3
        begin = time.monotonic()
        with pytest.raises(MediaError, match=r"hangs.mp4: not done within 0.3 s; raise") as error:
            pool.decode(job(path))
        assert error.value.kind == "timeout"
        assert time.monotonic() - begin < 5
        pool.timeout_s = 30.0
        pool.decode(job(good))  # the next clip gets a new child
    [entry] = map(json.loads, quarantine.read_text().splitlines())
    assert entry["path"] == str(path)
    assert entry["kind"] == "timeout"
    with (
        DecodePool(1, 0.3, quarantine=Quarantine(quarantine)) as pool,
        pytest.raises(MediaError, match=r"within 0.3 s \(in .*quarantine.jsonl\)"),
    ):
        pool.decode(job(path))
    assert pool._children == [None]  # nothing was started for it
    write = threading.Thread(target=path.write_bytes, args=[b"no video"], daemon=True)
    write.start()  # what hangs there goes on, with nothing in it
    with (
        DecodePool(1, 30.0, quarantine=Quarantine(quarantine)) as pool,
        pytest.raises(MediaError, match="cannot be read as a video") as error,
    ):
        pool.decode(job(path))  # a larger limit: tried again
    assert error.value.kind == "undecodable"


def test_how_many_frames_are_to_decode_is_told(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 100, gop=600)
    worked = []
    assert len(video.decode(clip, BUDGETS, GEOMETRY, on_work=worked.append).frames) == 6
    assert worked == [100]
    long = write_clip(tmp_path / "long.mp4", 300, gop=30)
    video.decode(long, BUDGETS, GEOMETRY, times=[1.1, 9.0], on_work=worked.append)
    assert worked == [100, 4 + 15]  # frames 33 and 270, of key frames at 30 and 256


def test_announced_work_moves_the_deadline(tmp_path):
    """The clip is slow, and was told to have frames that take so long."""
    clip = write_clip(tmp_path / "a.mp4", 40)
    code = (
        "import time; from evr1.data.media import decode, video\n"
        "plain = video._frames\n"
        "def slow(*a):\n"
        "    time.sleep(1.5)\n"
        "    yield from plain(*a)\n"
        "video._frames = slow\n"
        "decode._serve()\n"
    )
    start = subprocess.Popen

    def popen(command, **keywords):
        return start([command[0], "-c", code], **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", popen)
        with DecodePool(1, 1.0) as pool:  # and 2 s for 40 frames
            assert len(pool.decode(job(clip)).frames) == 4


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_decoder_dies_with_its_parent(tmp_path):
    """However that ends, and though the decoder hangs in native code."""
    path = hanging(tmp_path / "a.mp4")
    code = f"""
import sys, threading, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/rigs")!r}]
from clips import BUDGETS, GEOMETRY
from evr1.data.media.decode import DecodePool, Job
pool = DecodePool(1, 600.0)
one = Job("video", {str(path)!r}, BUDGETS, GEOMETRY)
threading.Thread(target=pool.decode, args=[one], daemon=True).start()
while pool._children[0] is None or not pool._children[0]._clips:
    time.sleep(0.01)
print(pool._children[0]._process.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def test_what_took_too_long_is_tried_again_under_a_larger_limit(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("x")
    late = MediaError("timeout", path, "not done within 120 s")
    Quarantine(tmp_path / "q.jsonl").add(late, 120.0)
    Quarantine(tmp_path / "q.jsonl").check(str(path), 240.0)
    with pytest.raises(MediaError, match="not done within 120 s"):
        Quarantine(tmp_path / "q.jsonl").check(str(path), 120.0)


def test_a_decoder_that_dies_is_replaced(tmp_path):
    path = hanging(tmp_path / "a.mp4")
    good = write_clip(tmp_path / "good.mp4")
    with DecodePool(1, 30.0) as pool:
        pool.decode(job(good))
        child = pool._children[0]._process
        threading.Timer(0.2, child.send_signal, [signal.SIGSEGV]).start()
        with pytest.raises(MediaError, match=r"the decoder died \(SIGSEGV\)") as error:
            pool.decode(job(path))
        assert error.value.kind == "crashed"
        pool.decode(job(good))
        assert pool._children[0]._process.pid != child.pid


def test_faults_of_our_own_are_not_blamed_on_the_file(pool, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.mp4")
    broken = Job("video", str(clip), BUDGETS, None)  # the child fails with an ordinary exception
    with pytest.raises(MediaError, match=r"the decoder died \(exit status 1\)") as error:
        pool.decode(broken)
    assert error.value.kind == "error"
    assert not (tmp_path / "quarantine.jsonl").exists()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodePool(1, 30.0) as other, pytest.raises(RuntimeError, match="did not start"):
        other.decode(job(clip))


def test_a_child_is_replaced_after_a_number_of_clips(tmp_path):
    image = write_image(tmp_path / "a.png")
    with DecodePool(1, 30.0, clips_per_child=2) as pool:
        pids = []
        for _ in range(4):
            pool.decode(job(image, "image"))
            pids.append(pool._children[0]._process.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_closing_ends_children_and_what_they_do(tmp_path):
    path = hanging(tmp_path / "a.mp4")
    pool = DecodePool(1, 30.0, quarantine=Quarantine(tmp_path / "q.jsonl"))
    failures = []

    def one():
        try:
            pool.decode(job(path))
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=one)
    thread.start()
    while pool._children[0] is None:
        time.sleep(0.01)
    pool.close()
    thread.join(timeout=10)
    assert len(failures) == 1
    assert not (tmp_path / "q.jsonl").exists()  # the file is not to blame


def test_an_orphan_that_hangs_is_ended_by_the_kernel(tmp_path, monkeypatch):
    path = hanging(tmp_path / "a.mp4")
    line = f"decode 0.2 {job(path).to_json()}\n"
    command = [sys.executable, "-m", "evr1.data.media.decode", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(line.encode())
        child.stdin.flush()
        assert child.wait(timeout=60) == -signal.SIGALRM


def test_children_import_no_jax():
    names = "('jax', 'torch', 'tensorflow')"
    code = f"import evr1.data.media.decode, sys; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_quarantine_ends_when_the_file_changes(pool, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("not a video")
    for _ in range(2):
        with pytest.raises(MediaError):
            pool.decode(job(path))
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 1
    write_clip(path)
    assert len(pool.decode(job(path)).frames) == 4


def test_missing_files_and_wrong_clips_are_no_fault_of_a_file(pool, tmp_path):
    for one in (job(tmp_path / "none.mp4"), job(write_clip(tmp_path / "a.mp4"), start=9.0)):
        with pytest.raises(MediaError):
            pool.decode(one)
    assert not (tmp_path / "quarantine.jsonl").exists()


def test_a_path_is_never_a_url(pool, tmp_path):
    for url in ("http://127.0.0.1:1/a.mp4", "pipe:0", "concat:/etc/passwd"):
        with pytest.raises(MediaError, match="no such video"):
            pool.measure(job(url))
    assert pool.measure(job(write_clip(tmp_path / "a:b.mp4"))).frames


def test_preprocessing_lists_missing_files_once_until_they_are_there(tmp_path):
    fields = {"problem": "q", "answer": "a", "problem_type": "math", "images": "later.png"}
    made = [rows.parse_row(fields, 0, "rows.jsonl:1")]
    kinds = {"budgets": BUDGETS, "geometry": GEOMETRY, "media_dir": str(tmp_path), "workers": 1}
    listed = tmp_path / "s" / "quarantine.jsonl"
    for _ in range(2):
        assert len(preprocess(made, str(tmp_path / "s"), **kinds).failed) == 1
        [entry] = map(json.loads, listed.read_text().splitlines())
        assert (entry["kind"], entry["path"]) == ("missing", str(tmp_path / "later.png"))
    write_image(tmp_path / "later.png")
    assert preprocess(made, str(tmp_path / "s"), **kinds).failed == []


def test_a_quarantine_line_cut_short_is_made_good(tmp_path):
    path, clip = tmp_path / "q.jsonl", tmp_path / "a.mp4"
    path.write_text('{"path": "/x')
    Quarantine(path).add(MediaError("empty", clip, "no frames"))
    assert len(path.read_text().splitlines()) == 1
    with pytest.raises(MediaError, match="no frames"):
        Quarantine(path).check(str(clip))


def test_a_damaged_quarantine_list_is_named_by_line(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"path": "a"}\n{"pa\n')
    with pytest.raises(ValueError, match=r"q.jsonl:1: not a quarantine entry; delete the line"):
        Quarantine(tmp_path / "q.jsonl")


def test_nonsense_settings_are_refused():
    for workers, timeout_s in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match=r"data.workers=\d, data.decode_timeout_s"):
            DecodePool(workers, timeout_s)


def test_what_a_library_prints_does_not_reach_the_answers(tmp_path):
    """The child's standard output is the channel; C code may write to it at any time."""
    clip = write_clip(tmp_path / "a.mp4")
    code = (
        "import os, sys; sys.argv = ['x']\n"
        "from evr1.data.media import decode, video\n"
        "plain = video.decode\n"
        "def noisy(*a, **k): os.write(1, b'noise'); return plain(*a, **k)\n"
        "video.decode = noisy\n"
        "decode._serve()\n"
    )
    line = f"decode 30 {job(clip).to_json()}\n"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        child.stdin.write(line.encode())
        child.stdin.flush()
        header, start = {}, child.stdout.read(4)
        while "frames" not in header:  # before it comes how much there is to decode
            header = json.loads(child.stdout.read(int.from_bytes(child.stdout.read(4), "little")))
        child.stdin.close()  # nothing else is wanted
        answers, noise = child.stdout.read(), child.stderr.read()
    assert start == bytes(4)
    assert header["frames"] == 4
    assert answers == video.decode(clip, BUDGETS, GEOMETRY).frames.tobytes()
    assert noise == b"noise"


def test_every_quarantined_kind_has_a_fix():
    from evr1.data.errors import KINDS

    assert set(quarantine.QUARANTINED) < set(KINDS)


def test_media_of_strangers_have_bounds(tmp_path):
    """Of memory, and of time whatever they promise."""
    Image.new("RGB", (5000, 4000)).save(tmp_path / "large.png")  # 60 MB of pixels
    small, clip = write_image(tmp_path / "small.png"), write_clip(tmp_path / "a.mp4", 300)
    with DecodePool(1, 60.0, frame_s=0, memory_bytes=48 << 20) as pool:
        with pytest.raises(MediaError, match="memory") as caught:
            pool.decode(job(tmp_path / "large.png", "image"))
        assert caught.value.kind == "undecodable"
        assert len(pool.decode(job(small, "image")).frames) == 1
        pool.timeout_s = 0.001  # 300 frames take longer on any machine
        with pytest.raises(MediaError) as caught:
            pool.decode(job(clip))
        assert caught.value.reason == "not done within 0.001 s"
