"""Wrong rows: whatever a task's function trips over is one line that says where."""

import json

import pytest
from miniatures import write

from evr1.evals import prepare, show
from evr1.evals.__main__ import main
from evr1.evals.tasks import find
from evr1.evals.tasks.base import Media, Sample, Show, Source, Task
from evr1.evals.tasks.guard import guarded


def change(folder, **fields):
    """Changes the second question of LVBench; None: takes the field away."""
    path = folder / "video_info.meta.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["qa"][1].update(fields)
    for name, value in fields.items():
        if value is None:
            del rows[0]["qa"][1][name]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"question": None},
            "lvbench: prompt .* of sample .*: KeyError.*; a row is no official one",
        ),
        ({"question_type": 0}, "lvbench: load, behind sample .*: TypeError.*get its file again"),
        ({"answer": "Z"}, r"video_info.meta.jsonl:1: answer 'Z' is none of A, B, C, D"),
        ({"question_type": [{"a": 1}]}, "lvbench: load gives sample .* the capability"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path, fields, says):
    write("lvbench", tmp_path)
    change(tmp_path, **fields)
    task = find("lvbench")

    def work():
        for sample in prepare.load_samples(task, tmp_path):
            next(iter(task.prompts.values()))(sample)

    with pytest.raises(ValueError, match=says) as error:
        work()
    assert "\n" not in str(error.value)


def test_the_commands_end_in_one_line(tmp_path):
    write("lvbench", tmp_path)
    change(tmp_path, question_type=0)
    with pytest.raises(SystemExit, match="^error: lvbench: load, behind sample"):
        main(["prepare", "lvbench", "--data", str(tmp_path)])


def task_of(load, ask=lambda sample: (Show(), "?")):
    return Task("mine", Source(("mine",), 1), load, {"p": ask}, {"evr1": None})


def test_an_error_that_tells_no_place_gets_one(tmp_path):
    def load(folder):
        yield Sample("a", {}, (Media("a.mp4"),))
        float("x")

    def numbers(folder):
        yield Sample(3, {}, ())

    with pytest.raises(ValueError, match="mine: load gives .*give Samples, whose ids are texts"):
        list(guarded(task_of(numbers), "mine").load(tmp_path))
    with pytest.raises(ValueError, match="^mine: load, behind sample a: could not convert"):
        list(guarded(task_of(load), "mine").load(tmp_path))

    def fails(folder):
        raise ValueError(f"{folder}/a.json: no JSON")

    with pytest.raises(ValueError, match=r"^/.*a.json: no JSON$"):
        list(guarded(task_of(fails), "mine").load(tmp_path))


def test_a_disk_that_fails_is_no_wrong_row(tmp_path):
    def load(folder):
        yield Sample("a", {}, (Media("a.mp4"),))
        raise PermissionError(13, "Permission denied", "a.json")

    with pytest.raises(PermissionError, match=r"a\.json"):
        list(guarded(task_of(load), "mine").load(tmp_path))
    with pytest.raises(ValueError, match="^own: load, behind sample a: running it fails with Perm"):
        list(guarded(task_of(load), "own").load(tmp_path))


def test_a_prompt_that_shows_what_is_not_there():
    task = guarded(task_of(list, lambda sample: (Show(3), "?")), "mine")
    sample = Sample("a", {}, (Media("a.mp4"),))
    with pytest.raises(ValueError, match="a: its prompt shows medium 3, counted from 0, of 1"):
        show.render(task.prompts["p"](sample), sample)
    assert show.asked(task, "p", sample) == show.asked(task, "q", sample) == ""
