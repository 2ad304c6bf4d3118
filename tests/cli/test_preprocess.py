"""evr1 preprocess: what it says."""

import re

import pytest
import tools_rig as rig
from clips import write_image

from evr1.cli import preprocess_videos as preprocess

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
        "videos: 2 frames a second, at most 128, of 3136 to 262144 pixels; images: 3136 to 1048576 "
        "pixels; a visual token: 32 x 32 pixels, of videos in 2 frames"
    )
    assert "0 videos and 1 image written (1 frame," in said


def test_messages_name_flags(run, tmp_path):
    rows = [{**CHOICE, "images": "i.png", "answer": "B"}]
    status, said, error = run(rows, "--media_dir", str(tmp_path / "nowhere"))
    assert status == 1
    assert "correct the path or --media_dir" in said
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
