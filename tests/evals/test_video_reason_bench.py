"""VideoReasonBench: files in miniature, six simulators, and plans as models write them."""

import json
import random
from typing import Any

import miniatures
import pytest
from miniatures.plans import GOLD, QUESTIONS, answer_row, plan_row

from evr1.evals.tasks import TASKS, demos, video_reason_bench
from evr1.evals.tasks.base import JUDGE, Media, Record

TASK = TASKS["video_reason_bench"]
SLIDES = [  # row 0 is the lowest
    [[6, 5, 8], [4, 3, 0], [2, 1, 7]],
    [[6, 5, 8], [4, 3, 7], [2, 1, 0]],
    [[6, 5, 8], [4, 3, 7], [2, 0, 1]],
    [[6, 5, 8], [4, 0, 7], [2, 3, 1]],
    [[6, 0, 8], [4, 5, 7], [2, 3, 1]],
    [[6, 8, 0], [4, 5, 7], [2, 3, 1]],
]
FLIPS = [
    [[0, 1, 0], [0, 0, 1], [0, 0, 0]],
    [[1, 0, 1], [0, 1, 1], [0, 0, 0]],
    [[1, 1, 1], [1, 0, 0], [0, 1, 0]],
    [[1, 1, 1], [1, 1, 0], [1, 0, 1]],
]


def write(folder):
    miniatures.write("video_reason_bench", folder)


def test_questions_are_loaded(tmp_path):
    write(tmp_path)
    samples = list(TASK.load(tmp_path))
    assert len(samples) == 12
    assert samples[0].id == "hrd_state3_op5_prediction_operation_start"
    assert samples[0].media == (Media("videos/hrd/state3_op5_start.mp4"),)
    assert samples[0].doc == plan_row("hrd")
    assert samples[1].tags == {
        "level": "infer",
        "dimension": "infer_state",
        "demo": "hrd",
        "visible_time": "start",
        "operations": "10-14",
        "states": "1",
    }


def test_a_table_is_loaded_and_its_states_are_put_in_order(tmp_path):
    write(tmp_path)
    (tmp_path / "questions" / "file_sys.json").unlink()
    row = plan_row("file_sys") | {"id": "state1"}
    row["states"] = {
        "path0": {"touch path0/{a.txt}": ["a.txt", "c.md"], "init": ["x.md"], "mv": []}
    }
    miniatures.write_rows(tmp_path / "file_sys" / "test-00000-of-00001.parquet", [row])
    (sample,) = (each for each in TASK.load(tmp_path) if each.id == "file_sys_state1")
    assert list(sample.doc["states"]["path0"]) == ["init", "touch path0/{a.txt}"]
    assert TASK.rules["evr1"](sample.doc, GOLD["file_sys"]).score == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": "guessing"}, "dim 'guessing' is none of order_operation"),
        ({"answer": "up"}, "answer 'up' of a prediction_operation; only plans have none"),
    ],
)
def test_wrong_rows_are_told_in_one_line(tmp_path, change, message):
    write(tmp_path)
    rows = {"state3": plan_row("hrd") | change}
    (tmp_path / "questions" / "hrd.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        list(TASK.load(tmp_path))
    with pytest.raises(ValueError, match=r"holds no questions/hrd.json or"):
        list(TASK.load(tmp_path / "questions" / "deeper"))


def test_released_states_follow_from_released_moves():
    slides = ["down", "right", "up", "up", "left"]
    flips = ["left", "down", "down"]
    for place in range(len(slides) + 1):
        row = {"demo": "hrd", "states": SLIDES, "visible_time": "end"}
        assert demos.play(row, slides[:place], demos.RIGHT) == SLIDES[place]
    for place in range(len(flips) + 1):
        row = {"demo": "grid", "states": FLIPS, "visible_time": "end", "coords": [[2, 0], [1, 2]]}
        assert demos.play(row, flips[:place], demos.RIGHT) == FLIPS[place]
    assert SLIDES[0] == [[6, 5, 8], [4, 3, 0], [2, 1, 7]]  # docs stay as they are


def reversed_pile():
    parts = GOLD["card"].split(", ")
    return ", ".join(parts[:3] + parts[:2:-1])


@pytest.mark.parametrize("demo", QUESTIONS)
def test_right_plans_score_one_and_damaged_ones_less(demo):
    rule, row = TASK.rules["evr1"], plan_row(demo)
    for form in ("Final Answer: {}", "**Final Answer:** `{}`.", "<think>up</think>{}", "{}"):
        assert rule(row, form.format(GOLD[demo])).score == 1, form
    assert rule(row, "").score == rule(row, "Final Answer:").score == 0
    assert rule(row, "Final Answer: I would try it out.") == (JUDGE, None, "")
    damaged = {
        "hrd": ["left, left", "up", "right"],  # a move that cannot be made voids the plan
        "grid": ["left, right", "right, left", "down"],
        "cup": ["(b1, b2), (d1, a1)", "(a1, b2)", "(b1, b2), (a1, b1)"],
        "file_sys": ["touch path0/{b.py}", "touch path0/{b.py,c.md} & rm -rf path0/{c.md}"],
        "card": [reversed_pile(), "remove Jack of Clubs from pile0", "add 1 of Hearts to pile0"],
        "chip": ["add 5 to cup0", "remove 50 from cup0", "add 5 to cup1, remove 10 from cup0"],
    }
    for plan in damaged[demo]:
        assert rule(row, f"Final Answer: {plan}").score == 0, plan


@pytest.mark.parametrize(
    ("demo", "text", "plan"),
    [
        ("hrd", "1. Up\n2. Left", ["up", "left"]),
        ("grid", "up -> down → left and then right", ["up", "down", "left", "right"]),
        ("grid", "['up', 'down']", ["up", "down"]),
        ("grid", "up or down", None),
        ("grid", "not up", None),
        ("cup", "1st: (a1, b2), 2nd: (c3,b1)", [("a1", "b2"), ("c3", "b1")]),
        ("cup", "swap them", None),
        ("chip", "Add 20 to cup0; remove 50 from cup0", ["add 20 to cup0", "remove 50 from cup0"]),
        ("chip", "do not add 20 to cup0", None),
        ("card", "add the 6 of hearts to the top of pile1", ["add 6 of Hearts to pile1"]),
    ],
)
def test_plans_are_read_only_where_nothing_else_is_said(demo, text, plan):
    assert video_reason_bench.read_plan(demo, text) == plan


def test_the_authors_accept_the_pile_upside_down():
    right, wrong = (str(text.split(", ")) for text in (GOLD["card"], reversed_pile()))
    rule: Any = TASK.rules["official"]
    row = plan_row("card")
    marked = {"response": "Final Answer: plan"}
    assert rule(row, marked | {"extracted_by_llm": right}).score == 0
    assert rule(row, marked | {"extracted_by_llm": wrong}).score == 1


def test_answers_are_compared_and_then_judged(tmp_path):
    row = answer_row("chip")
    assert TASK.rules["evr1"](row, "Thus.\nFinal Answer: 2 chips: 20, 5.").score == 1
    assert TASK.rules["evr1"](row, "Final Answer: 3 chips") == (JUDGE, None, "")
    assert TASK.rules["official"](row, "Final Answer: 2 chips: 20, 5") == (JUDGE, None, "")
    assert TASK.rules["official"](row, "final answer: 2 chips").score == 0
    write(tmp_path)
    samples = list(TASK.load(tmp_path))
    texts = [GOLD[s.doc["demo"]] if s.doc["answer"] is None else s.doc["answer"] for s in samples]
    records = [
        Record(sample, TASK.rules["evr1"](sample.doc, f"Final Answer: {text}"))
        for sample, text in zip(samples, texts, strict=True)
    ]
    means = TASK.aggregates["evr1"](records)
    assert set(means.values()) == {1.0}
    assert means.keys() >= {"accuracy", "level/predict", "dimension/infer_state", "demo/hrd"}
    random.Random(0).shuffle(records)
    assert TASK.aggregates["evr1"](records) == means
    fork = TASK.rules["official_vlmevalkit"]
    unmarked = [Record(sample, fork(sample.doc, "left")) for sample in samples]
    assert TASK.aggregates["official_vlmevalkit"](unmarked)["final_ans_match"] == 0
