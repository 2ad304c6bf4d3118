"""Frames in the page: once a prompt, within the budget, and never lost by a page built anew."""

import base64
import contextlib
import io
import json

import numpy as np
from clips import write_clip, write_image
from pages import Page
from PIL import Image
from report_rig import CONFIG, build, make_run, rollout

from evr1 import report
from evr1.data.media.decode import DecodePool
from evr1.data.media.source import MediaSource
from evr1.data.records import Budgets, Geometry
from evr1.data.rows import Schema, load_rows
from evr1.data.shown import Frame, Shown, ShownRows
from evr1.report import again
from evr1.report.__main__ import main
from evr1.report.frames import Pictures, embed_frames, within
from evr1.report.page import Refreshed


def shown(*values, height=48, width=64):
    frames = [np.full((height, width, 3), value, np.uint8) for value in values]
    return Shown([Frame(pixels, 0.5 * i) for i, pixels in enumerate(frames)])


def pixels(uri):
    assert uri.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_frames_come_once_a_prompt(tmp_path):
    asked = []

    def frames(split, problem_id):
        asked.append((split, problem_id))
        return {"p1": shown(10, 250), "p2": None}[problem_id]

    records = [rollout(s, p) for s in (1, 2) for p in ("p1", "p2")]
    data = build(make_run(tmp_path, records), frames).data
    assert list(data["frames"]) == ["train/p1"]
    pictures = data["frames"]["train/p1"]["frames"]
    assert [second for _, second in pictures] == [0, 0.5]
    for (uri, _), value in zip(pictures, (10, 250), strict=True):
        assert pixels(uri).shape == (48, 64, 3)
        assert abs(pixels(uri).mean() - value) < 3
    assert set(asked) == {("train", "p1"), ("train", "p2")}


def test_rows_of_both_files_may_share_an_id(tmp_path):
    def frames(split, problem_id):
        return shown({"train": 10, "eval": 250}[split])

    records = [rollout(1, "0"), rollout(1, "0", split="eval", advantage=None)]
    data = build(make_run(tmp_path, records), frames).data
    assert set(data["frames"]) == {"train/0", "eval/0"}
    assert data["frames"]["train/0"] != data["frames"]["eval/0"]


def test_frames_shrink_to_the_budget():
    noise = np.random.default_rng(0).integers(0, 255, (20, 72, 128, 3), dtype=np.uint8)
    full = Shown([Frame(each, 1.0) for each in noise])
    prompts = [("train", f"p{i}") for i in range(4)]

    def size(budget, kept=None):
        out = embed_frames(None if kept else lambda *_: full, prompts, budget, kept)
        assert sum(pictures.bytes for pictures in out.values()) <= budget
        first = out["train/p0"].frames
        return len(out), len(first), max(pixels(first[0][0]).shape)

    assert size(2_000_000) == (4, 16, 128)
    assert size(150_000) == (4, 4, 112)
    pictured, count, side = size(40_000)  # even the smallest does not fit for all
    assert (count, side) == (3, 96)
    assert 1 <= pictured < 4
    kept = embed_frames(lambda *_: full, prompts, 2_000_000)
    assert size(150_000, kept) == (4, 4, 112)  # those of an earlier page are made smaller


def test_a_page_built_anew_has_what_the_page_had(tmp_path):
    """Without frames at hand, and with more rollouts; only the new prompt is asked for."""
    run = make_run(tmp_path, [rollout(1, "p1"), rollout(1, "p2")])
    build(run, lambda split, name: shown(10, 250))
    before = (run / "report.html").read_bytes()
    report.build(run)
    assert (run / "report.html").read_bytes() == before
    make_run(tmp_path, [rollout(1, name) for name in ("p1", "p2", "p3")])
    asked = []
    page = build(run, lambda split, name: asked.append(name) or shown(99))
    assert set(asked) == {"p3"}
    assert set(page.data["frames"]) == {"train/p1", "train/p2", "train/p3"}
    (run / "report.html").write_text("<html>half a pa")
    assert build(run).data["frames"] == {}


def test_a_page_while_the_run_goes_takes_a_twentieth_of_the_time(tmp_path):
    run = make_run(tmp_path, [rollout()])
    now, lines = [0.0], []

    def frames(split, name):
        now[0] += 2.0
        return shown(10)

    page = Refreshed(run, frames, lambda: now[0])
    page.refresh(lines.append)  # takes 2 s
    written = (run / "report.html").stat().st_mtime_ns
    for now[0], is_new in ((39.0, False), (41.0, True)):
        page.refresh(lines.append)
        assert ((run / "report.html").stat().st_mtime_ns != written) == is_new
    (run / "metrics.jsonl").write_text("nonsense\n")
    now[0] = 1e6
    page.refresh(lines.append)
    assert len(lines) == 1
    assert "metrics.jsonl:1: not a JSON object" in lines[0]


def test_no_more_frames_once_the_time_is_over():
    assert within(lambda *_: shown(1), 60.0)("train", "p") is not None
    assert within(lambda *_: shown(1), -1.0)("train", "p") is None


def write_rows(folder):
    write_clip(folder / "a.mp4", 8, fps=4, size=(48, 64))
    write_image(folder / "a.png", (40, 56))
    rows = [
        {"problem": "<video>?", "answer": "yes", "problem_type": "open-ended", "videos": ["a.mp4"]},
        {"problem": "<image>?", "answer": "yes", "problem_type": "open-ended", "images": ["a.png"]},
        {"problem": "<image>?", "answer": "yes", "problem_type": "open-ended", "images": ["b.png"]},
    ]
    text = "".join(json.dumps(r | {"problem_id": f"r{i}"}) + "\n" for i, r in enumerate(rows))
    (folder / "rows.jsonl").write_text(text)


def test_what_rows_show(tmp_path):
    """A clip with seconds, an image without, both with the size of their files; a lost one."""
    write_rows(tmp_path)
    rows = load_rows(str(tmp_path / "rows.jsonl"), Schema())
    with DecodePool(1, 60.0) as pool:
        source = MediaSource(
            budgets=Budgets(), geometry=Geometry(16, 2, 2), pool=pool, media_dir=str(tmp_path)
        )
        show = ShownRows(rows, [], source)
        clip, image = show("train", "r0"), show("train", "r1")
        assert [frame.second for frame in clip.frames] == [0.0, 0.5, 1.25, 1.75]
        assert [frame.second for frame in image.frames] == [None]
        assert image.size == (56, 40)
        assert clip.size == (64, 48)
        assert show("train", "r2") is None
        assert show("eval", "r0") is None


def test_the_command_decodes_what_no_page_has(tmp_path, capsys):
    """From the run's own folder; where the data is gone, what the page had stays."""
    folder = tmp_path / "home"
    folder.mkdir()
    write_rows(folder)
    data = {"train": "rows.jsonl", "media_dir": "."}
    model = str(again.__file__).replace("report/again.py", "assets/demo_model")
    config = CONFIG | {"data": data, "model": model, "run": {"folder": str(folder)}}
    records = [rollout(1, "r0"), rollout(1, "r1")]
    run = make_run(tmp_path / "run", records, config=config)
    assert main([str(run)]) == 0
    first = Page(run / "report.html").data["frames"]
    assert set(first) == {"train/r0", "train/r1"}
    (folder / "rows.jsonl").unlink()
    make_run(run, [*records, rollout(2, "r2")], config=config)
    assert main([str(run)]) == 0
    assert Page(run / "report.html").data["frames"] == first
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no frames but those of earlier pages" in error
    assert "rows.jsonl" in error


def test_pictures_of_nothing():
    assert embed_frames(lambda *_: Shown([]), [("train", "p")], 10_000) == {}
    assert Pictures([]).bytes == 0
    with contextlib.ExitStack() as stack:
        lines = []
        assert again.Again("nowhere", stack, lines.append)("train", "p") is None
    assert len(lines) == 1
