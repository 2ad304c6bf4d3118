"""evr1 preprocess: what it says."""

import json
import re

import pytest
import tools_rig as rig
from clips import write_image

from evr1.cli import preprocess_videos as preprocess
from evr1.config import base
from evr1.data.media import parts
from evr1.data.media.shards import ShardWriter
from evr1.formats.part import Part

CHOICE = {"problem": "Which?", "problem_type": "multiple choice", "options": ["A. x", "B. y"]}


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command on rows with an image; returns its exit status and what it said."""
    write_image(tmp_path / "i.png")

    def act(rows, *flags):
        path = rig.write_rows(tmp_path / "rows.jsonl", rows)
        out = ["--data", path, "--out", str(tmp_path / "shards"), *flags]
        status = preprocess.main(out)
        said = capsys.readouterr()
        return status, said.out, said.err

    return act


def test_answers_that_are_no_option_are_counted_and_named(run, tmp_path):
    rows = [{**CHOICE, "images": "i.png", "answer": a} for a in "AEF"]
    status, said, _ = run(rows, "--media_dir", str(tmp_path))
    assert status == 0
    head = r"^warning: 2 of 3 rows cannot be scored, and training refuses such: \S+rows.jsonl:2: "
    assert re.search(head + "the answer 'E' is no option letter or option text; correct", said)
    assert "rows.jsonl:3: the answer 'F'" in said


def test_rows_without_an_answer_or_of_an_unknown_type_are_counted_and_named(run, tmp_path):
    number = {"problem": "How many?", "problem_type": "numericl", "answer": 3, "images": "i.png"}
    rows = [number, {**CHOICE, "images": "i.png", "answer": None}, number | {"problem_type": "mc"}]
    status, said, _ = run([*rows, number | {"problem_type": "rec"}], "--media_dir", str(tmp_path))
    assert status == 0
    assert "warning: 3 of 4 rows cannot be scored, and training refuses such: " in said
    assert "rows.jsonl:1: unknown problem_type 'numericl'; did you mean one of numerical" in said
    assert "? (rewards.extra and rewards.unknown_type take others); " in said
    assert "rows.jsonl:2: the row has no answer; give the field answer or ground_truth" in said


def test_settings_are_spelled_and_one_is_one(run, tmp_path):
    rows = [{**CHOICE, "images": "i.png", "answer": "B"}]
    status, said, _ = run(rows, "--media_dir", str(tmp_path))
    assert status == 0
    assert "warning: 1" not in said.replace("warning: one", "")
    assert said.splitlines()[0] == f"1 row from {tmp_path}/rows.jsonl"
    assert said.splitlines()[1] == (
        "videos: 2 frames a second, at most 128, each of 3,136 to 262,144 pixels (56 x 56 to 512 x "
        "512); images: 3,136 to 1,048,576 pixels (56 x 56 to 1024 x 1024); 32 x 32 pixels of an "
        "image, or of 2 frames of a video, are one visual token"
    )
    assert "0 videos and 1 image written (1 frame," in said


def test_a_config_or_a_run_gives_all_that_it_needs(tmp_path, capsys):
    """The same shards by flags, by the fields of training, and by a run's config."""
    media = rig.write_media(tmp_path)
    data = rig.write_rows(tmp_path / "rows.jsonl", rig.QUESTIONS)
    flags = ["--data", data, "--media_dir", media, "--model", rig.MODEL, *rig.BUDGETS]
    shards = str(tmp_path / "shards")
    assert preprocess.main([*flags, "--out", shards]) == 0
    assert "1 video and 1 image written" in capsys.readouterr().out
    fields = {"train": data, "media_dir": media, "shards": shards, "video_fps": 2.0}
    fields |= {"video_max_frames": 4, "video_max_pixels": 4096, "image_max_pixels": 4096}
    given = [f"--config.data.{name}={value}" for name, value in fields.items()]
    given += ["--config=qwen_video", f"--config.model={rig.MODEL}"]
    assert preprocess.main(given) == 0
    assert "0 videos and 0 images written (0 frames, 0 frames/s, 0.0 MB), 2 there before" in (
        capsys.readouterr().out
    )
    config = base.get_config().to_dict()
    config |= {"model": rig.MODEL, "data": config["data"] | fields | {"eval": data}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert preprocess.main(["--run", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "2 there before" in said
    assert f"6 rows from {data}, {data}" in said
    assert preprocess.main(["--run", str(tmp_path), "--max_frames", "6"]) == 0  # a flag wins
    assert "1 video and 0 images written" in capsys.readouterr().out


def test_what_is_missing_or_misspelt_is_a_line(capsys):
    def error(*flags):
        assert preprocess.main(list(flags)) == 1
        return capsys.readouterr().err.removeprefix("preprocess_videos: ").strip()

    assert error("--out", "s").startswith("--data is missing; give files of rows, --config, or")
    assert error("--data", "r") == "--out is not given; give a directory of shards, or --config"
    assert (
        error("--config", "demo", "--run", "w") == "--config and --run are given; give one of them"
    )
    assert error("--config.data.train=r").startswith("--config.data.train=r without --config")
    assert "did you mean qwen_video?" in error("--config=qwen_vidio")
    wrong = error("--config=qwen_video", "--config.data.video_pfs=3")
    assert wrong.startswith(
        "unknown config field --config.data.video_pfs; did you mean --config.da"
    )


def test_messages_name_flags(run, tmp_path):
    rows = [{**CHOICE, "images": "i.png", "answer": "B"}]
    status, said, error = run(rows, "--media_dir", str(tmp_path / "nowhere"))
    assert status == 1
    assert "correct the path" not in said  # it is told once
    assert "correct the path or --media_dir" in error
    status, said, error = run(rows, "--max_pixels", "2304")
    assert (status, said) == (1, "")
    assert error == (
        "preprocess_videos: --min_pixels=3136 (the default) is over --max_pixels=2304; give "
        "--min_pixels of at most 2304, or a larger --max_pixels\n"
    )
    untyped = [{"problem": "Why?", "answer": "So.", "images": "i.png"}]
    _, said, _ = run(untyped, "--media_dir", str(tmp_path))
    assert "1 row has no problem_type; it is open-ended (--problem_type)" in said


def test_that_another_one_is_at_work_is_said_before_the_rows_are_read(tmp_path, capsys):
    """It took the minutes that reading a million rows takes."""
    command = ["--data", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)]
    writes = f"preprocess_videos: {tmp_path}: another process writes here; wait for it\n"
    with ShardWriter(tmp_path):
        for flags in ([], ["--num_shards", "2"], ["--part", "0/2"]):
            assert preprocess.main([*command, *flags]) == 1
            assert capsys.readouterr().err == writes
    assert parts.agree(tmp_path, 8, 4) == 4
    with parts.PartWriter(tmp_path, 4, Part(1, 2)):
        assert preprocess.main([*command, "--part", "0/2"]) == 1  # it is beside that one
        assert "none.jsonl" in capsys.readouterr().err
