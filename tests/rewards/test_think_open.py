"""Prompts that leave a think block open: what stands before the first </think> earns nothing."""

import json

import pytest
from repo import DEMO_MODEL
from templates import PREFILLED, SWITCH, make_dir

from evr1 import rewards
from evr1.rewards import Status, Verdict, __main__, compose, parse
from evr1.rewards.base import MAX_CHARS, make_task
from evr1.rewards.gold import gold_answer
from evr1.rewards.judging.judge import Judged
from evr1.rewards.judging.judge_prompt import Ruling
from evr1.rewards.pool import RewardPool

ROWS = {
    "multiple choice": "B",
    "numerical": 3.5,
    "regression": 3.5,
    "boolean": "Yes",
    "ocr": "a red car",
    "math": r"\frac{1}{2}",
    "temporal grounding": {"time": [1.0, 2.5]},
    "spatial grounding": {"boxes": [1, 2, 30, 40]},
    "spatial-temporal grounding": {"time": [1, 2], "boxes": {"1": [1, 2, 30, 40]}},
    "tracking": {"boxes": {"1": [1, 2, 30, 40]}},
    "open-ended": "a red car",
    "preference": "Response 1",
    "segmentation": {
        "boxes": [1, 2, 30, 40],
        "positive_points": [[9, 9], [15, 15], [20, 20]],
        "negative_points": [[90, 90], [80, 80], [70, 70]],
    },
    "code": "print(3)",
    "svg-code": "<svg><rect width='3'/></svg>",
    "html-code": "<html><body><p>a</p></body></html>",
}
MC = {"problem": "?", "problem_type": "multiple choice", "answer": "B"}
# response in an open block; accuracy, format
CASES = [
    ("I look.\n</think>\n\n<answer>B</answer>", 1, 1),
    ("</think><answer>B</answer>", 1, 1),
    ("<think>\nI look.</think><answer>B</answer>", 1, 1),  # opened once more
    ("I look.</ Think >\n<answer>B</answer>", 1, 1),
    ("I look.</thinking><answer>B</answer>", 1, 1),
    ("A? <answer>A</answer></think><answer>B</answer>", 1, 1),
    ("I look.</think> The answer is B.", 1, 0),
    ("I look.</think> B", 1, 0),
    ("so</think> B? <think>yes</think><answer>B</answer>", 1, 1),
    ("<answer>B</answer></think><answer>A</answer>", 0, 1),
    ("<answer>B</answer></think>", 0, 0),
    ("<answer>B</answer></think> I am done.", 0, 0),
    ("The answer is B.</think>", 0, 0),
    ("<answer>B</answer>", 0, 0),  # never closed, though it ends with the tag
    ("<think>so <answer>B</answer>", 0, 0),
    ("So <answer>B</answer>\n\n<answer>B</answer>", 0, 0),
    ("The form is <answer>B</answer> or another letter. Let me look", 0, 0),
    ("So the answer is B", 0, 0),
    (r"\boxed{B}", 0, 0),
    ("**B**", 0, 0),
    ('{"answer": "B"}', 0, 0),
    ("B", 0, 0),
    ("", 0, 0),
    (None, 0, 0),
]


@pytest.mark.parametrize(("response", "accuracy", "form"), CASES)
def test_only_what_follows_the_reasoning_counts(response, accuracy, form):
    row = {**MC, "think_open": True}
    for score in (rewards.score(response, row), rewards.score(response, MC, think_open=True)):
        assert (score.accuracy, score.format) == (accuracy, form)
        assert score.status is (Status.OK if accuracy or form else Status.UNPARSED)


@pytest.mark.parametrize("name", ROWS)
def test_every_type(name):
    row = {"problem": "?", "problem_type": name, "answer": ROWS[name], "think_open": True}
    gold = gold_answer(row)
    assert rewards.score(gold, row | {"think_open": False}).overall == 1
    for text in (gold, f"Well, {gold}", f"{gold} or not", ROWS[name] if name == "code" else "B"):
        assert rewards.score(text, row)[:4] == (0, 0, 0, Status.UNPARSED)
    assert rewards.score(gold_answer(row, think_open=True), row).overall == 1
    assert rewards.score(f"{gold}</think>{gold}", row).overall == 1


def test_a_ground_truth_at_fault_is_told_all_the_same():
    score = rewards.score("so", {"problem_type": "numerical", "answer": "many", "think_open": True})
    assert score.status is Status.ERROR


def test_own_scorers_see_the_turn_and_are_not_asked_about_reasoning_alone():
    seen = []

    def riddle(response, task):
        seen.append((response, task.think_open))
        return Verdict(1.0, True, response)

    row = {"problem_type": "riddle", "answer": "B", "think_open": True}
    assert rewards.score("so</think>B", row, scorers={"riddle": riddle}).overall == 1
    assert rewards.score("so B", row, scorers={"riddle": riddle}).overall == 0
    assert seen == [("<think>so</think>B", True), ("", True)]


LONG = "a " * MAX_CHARS


@pytest.mark.parametrize(
    ("response", "think_open", "accuracy"),
    [
        (f"{LONG}</think><answer>B</answer>", True, 1),
        (f"so</think>{LONG}<answer>B</answer>", True, 1),
        (f"{LONG}<answer>B</answer>", True, 0),
        (f"{LONG}<answer>B</answer>", False, 1),
        (f"<think>{LONG}The answer is B", False, 0),
        (f"<think>{LONG}<answer>B</answer> or not", False, 0),
        (f"<think>so</think>{LONG}\nThe answer is B", False, 1),
        (f"<think>{LONG}</think>The answer is B", False, 1),
    ],
)
def test_what_began_before_the_part_that_is_looked_at(response, think_open, accuracy):
    row = {**MC, "think_open": think_open}
    assert rewards.score(response, row).accuracy == accuracy
    with RewardPool(workers=1, timeout_s=20.0) as pool:
        assert pool.score_batch([response], [row])[0].accuracy == accuracy


@pytest.mark.parametrize("shift", range(9))
def test_a_tag_on_the_edge_of_that_part(shift):
    tail = "x" * (MAX_CHARS - shift)
    assert parse.last_part(f"<think>{tail}", False)[0].startswith("<think>")
    text, is_open = parse.last_part(f"so</think>{tail}", True)
    assert (is_open and "</think>" not in text) is False


def test_the_pool_scores_its_rows_so_and_a_row_may_say_otherwise():
    said, right = "<answer>B</answer>", "so</think><answer>B</answer>"
    with RewardPool(workers=1, think_open=True) as pool:
        rows = [MC, MC, {**MC, "think_open": False}, {**MC, "think_open": None}]
        scores = pool.score_batch([said, right, said, said], rows)
    assert [s.overall for s in scores] == [0, 1, 1, 0]


def test_a_judge_rules_on_the_answer_behind_the_reasoning_alone():
    asked = []

    def judge(questions):
        asked.extend(questions)
        return [Ruling(Status.OK, 1.0, "") for _ in questions]

    judge.identity = "stub"
    row = {"problem": "?", "problem_type": "open-ended", "answer": "a car", "think_open": True}
    long = "an auto " * 200
    with RewardPool(workers=1) as pool:
        judged = Judged(pool, judge, ["open-ended"])
        texts = ["an auto", "a bus</think><answer>an auto</answer>"]
        texts += [f"{long}</think><answer>{long}now</answer>"]
        scores = judged.score_batch(texts, [row] * 3)
    assert [s.accuracy for s in scores] == [0, 1, 1]
    assert [q.answer for q in asked] == ["an auto", f"{long}now"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so</think><answer>B</answer>", 1),
        ("\nso\n</think>\n\n<answer>B</answer>", 1),
        ("</think><answer>B</answer>", 0),  # no reasoning
        ("<think>so</think><answer>B</answer>", 0),  # two openings
        ("so <answer>B</answer>", 0),
        ("so</think> well <answer>B</answer>", 0),
    ],
)
def test_think_format(text, expected):
    terms = compose.find_terms((("think_format", 1.0),), {}, compose.Settings(100, 20, 4))
    score = rewards.score(text, MC, think_open=True)
    task = make_task(MC, think_open=True)
    [made] = compose.add_terms([score], [(text, task, 9, True)], terms)
    assert made.terms == (("think_format", expected),)


def test_a_flag_of_the_row_that_is_none():
    with pytest.raises(ValueError, match="think_open is 'yes'; give true, false or null"):
        make_task({**MC, "think_open": "yes"})


def run(tmp_path, rows, *flags):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1", *flags])
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
    ("tail", "flags", "is_open"),
    [
        (PREFILLED, [], True),
        (PREFILLED, ["--thinking"], True),
        (SWITCH, [], True),
        (SWITCH, ["--no-thinking"], False),
        (SWITCH, ['--template_variables={"enable_thinking": false}'], False),
        ("", [], False),
    ],
)
def test_the_command_asks_the_chat_template(tmp_path, tail, flags, is_open):
    said = {**MC, "response": "<answer>B</answer>"}
    rows = [said, {**said, "think_open": True}, {**said, "think_open": False}]
    rows += [{**said, "think_open": 1}]
    flags = [f"--model={make_dir(tmp_path, tail)}", "--terms=think_format=0.5", *flags]
    out = run(tmp_path, rows, *flags)
    assert [r["accuracy"] for r in out] == [0 if is_open else 1, 0, 1, 0]
    assert out[3]["detail"] == "think_open is 1; give true, false or null"
    right = {**MC, "response": "so</think><answer>B</answer>"}
    [made] = run(tmp_path, [right], *flags)
    assert made["overall"] == (1.5 if is_open else 1)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--thinking"], "--thinking and --template_variables need --model DIR"),
        (["--model=nowhere"], "nowhere/chat_template.jinja is missing"),
        (
            [f"--model={DEMO_MODEL}", '--template_variables={"a": 1}'],
            "--template_variables: the chat template of .* has no variable 'a'",
        ),
    ],
)
def test_flags_that_cannot_be_meant(tmp_path, flags, says):
    with pytest.raises(SystemExit, match=says):
        run(tmp_path, [{**MC, "response": "B"}], *flags)
