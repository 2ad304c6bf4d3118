"""What the commands tell of a task."""

import json

import pytest

from evr1.evals import show
from evr1.evals.__main__ import main
from evr1.evals.examples import EXAMPLES
from evr1.evals.tasks import TASKS
from evr1.evals.tasks.base import Show


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_is_told_from_its_declaration(task):
    text = "\n".join(show.describe(task))
    assert str(task.source.n) in text
    for name in (*task.source.hub, *task.rules, *task.prompts, *task.differs):
        assert name in text
    for reason in task.differs.values():
        assert reason in text
    assert "lambda" not in text
    assert f"frames: {task.source.frames}: " in text


@pytest.mark.parametrize("name", TASKS)
def test_every_prompt_shows_the_example(name):
    task, sample = TASKS[name], EXAMPLES[name]
    for prompt in task.prompts.values():
        parts = prompt(sample)
        assert any(isinstance(part, Show) for part in parts)
        text = show.render(parts, sample)
        assert sample.media[0].path in text
        assert len(text) > len(sample.media[0].path) + 20


@pytest.mark.parametrize("name", TASKS)
def test_sub_scores_stand_without_labels(name):
    scores = show.sub_scores(TASKS[name], EXAMPLES[name])
    assert len(scores) == len(set(scores)) >= 1
    assert "*" not in scores[0]


def test_a_reply_that_is_chosen_is_told():
    told = list(show.describe(TASKS["livesports3k_qa"]))
    assert told.count("reply: Answer: and the likeliest of A, B, C, D") == 1
    place = told.index("## prompt official (default)")
    assert told[place + 2].startswith("reply: ")


def test_labels_are_stars():
    assert show.sub_scores(TASKS["lvbench"], EXAMPLES["lvbench"]) == [
        "accuracy",
        "capability/*",
        "video_type/*",
    ]


def test_a_task_without_an_example_says_how_to_get_one(monkeypatch):
    monkeypatch.delitem(EXAMPLES, "minerva")
    assert "--data DIR shows them" in list(show.describe(TASKS["minerva"]))[-1]


def test_a_folder_gives_its_first_question(tmp_path, capsys):
    row = {"uid": "1", "question": "Who?\n(A) Ann\n(B) Bob", "answer": "A", "question_type": []}
    (tmp_path / "video_info.meta.jsonl").write_text(json.dumps({"key": "k", "qa": [row]}))
    main(["show", "lvbench", "--data", str(tmp_path)])
    assert "(B) Bob" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["show", "video-mme"], "no task 'video-mme'; did you mean video_mme"),
        (["show", "lvbench", "--data", "/absent"], "download it there"),
        (["prepare", "nothing_like_it", "--data", "."], "no task 'nothing_like_it'; there is"),
        (["prepare", "lvbench", "--data", "/absent"], "/absent is no folder"),
    ],
)
def test_bad_input_is_told_in_one_line(command, message):
    with pytest.raises(SystemExit, match=message) as error:
        main(command)
    assert "\n" not in str(error.value)
