"""Scorers by hand: what is right, what is wrong, what is no answer, and what must not be gamed."""

import json
import time

import numpy as np
import pytest

from evr1 import rewards
from evr1.formats import problem_types
from evr1.rewards import Status, Weights, boolean, choice, grounding, number, parse, stem, text
from evr1.rewards.geometry import overlap

COLOURS = ("A. Red", "B. Blue", "C. Green", "D. White")
TIME = {"time": [10, 20]}
BOX = {"boxes": [0, 0, 10, 10]}
TUBE = {"boxes": {"1": [0, 0, 10, 10], "2": [0, 0, 10, 10]}}
BOTH = {"time": [8, 11], "boxes": {"9": [0, 0, 10, 10], "10": [0, 0, 10, 10]}}


def score(problem_type, response, answer, options=()):
    row = {"problem_type": problem_type, "answer": answer, "options": list(options)}
    return rewards.score(response, row)


def tag(answer) -> str:
    return f"<answer>{answer if isinstance(answer, str) else json.dumps(answer)}</answer>"


# (problem type, response, answer, accuracy, format); no answer read: None
CASES = [
    ("multiple choice", tag("B"), "B", 1, 1),
    ("multiple choice", tag("(b)"), "B", 1, 1),
    ("multiple choice", tag("B. Blue"), "B. Blue", 1, 1),
    ("multiple choice", tag("The answer is B"), "B", 1, 1),
    ("multiple choice", tag("\uff22"), "B", 1, 1),  # full width
    ("multiple choice", tag("\u0412"), "B", None, 0),  # Cyrillic
    ("multiple choice", tag("K"), "K", 1, 1),
    ("multiple choice", tag("A or B"), "B", None, 0),
    ("multiple choice", tag("A, B"), "A", None, 0),
    ("multiple choice", tag("A and B"), "A", None, 0),
    ("multiple choice", tag("A dog is running"), "A", None, 0),
    ("multiple choice", "I think a man walks in", "A", None, 0),
    ("multiple choice", "I choose option (B)", "B", 1, 0),
    ("multiple choice", "The answer is A. No, the answer is B.", "B", 1, 0),
    ("multiple choice", "The answer is not B.", "B", None, 0),
    ("multiple choice", "应该选C", "C", 1, 0),
    ("multiple choice", "答案：C。", "C", 1, 0),
    ("multiple choice", r"so \boxed{C}", "C", 1, 0),
    ("multiple choice", "**C**", "C", 1, 0),
    ("multiple choice", tag("A, C"), "AC", 1, 1),
    ("multiple choice", tag("A"), "AC", 0, 1),
    ("numerical", tag("5"), 5, 1, 1),
    ("numerical", tag("5.004"), "5", 1, 1),
    ("numerical", tag("5.01"), "5", 0, 1),
    ("numerical", tag("2020"), "2019", 0, 1),  # within 0.1 %, but integers are exact
    ("numerical", tag("0.02"), "0.01", 0, 1),
    ("numerical", tag("0.3333"), "0.333", 1, 1),
    ("numerical", tag("1,234"), "1234", 1, 1),
    ("numerical", tag("1.234,5"), "1234.5", 1, 1),
    ("numerical", tag("1,5"), "1.5", None, 0),  # one number or two?
    ("numerical", tag("3 apples"), "3", 1, 1),
    ("numerical", tag("300 cm"), "3 m", 1, 1),
    ("numerical", tag("3 s"), "3 m", 0, 1),
    ("numerical", tag("50%"), "50", 1, 1),
    ("numerical", tag("50%"), "0.5", 1, 1),
    ("numerical", tag("0.5"), "50%", 1, 1),
    ("numerical", tag("1/2"), "0.5", 1, 1),
    ("numerical", tag("1/0"), "1", None, 0),
    ("numerical", tag(r"\frac{1}{2}"), "0.5", 1, 1),
    ("numerical", tag("1e3"), "1000", 1, 1),
    ("numerical", tag("1.5 \u00d7 10^3"), "1500", 1, 1),
    ("numerical", tag("\u22123"), "-3", 1, 1),
    ("numerical", tag("twenty-one"), "21", 1, 0),
    ("numerical", tag("two hundred and five"), "205", 1, 0),
    ("numerical", tag("两百零五"), "205", 1, 0),
    ("numerical", tag("three and four"), "4", None, 0),
    ("numerical", tag("about 3"), "3", 1, 0),
    ("numerical", tag("3-5"), "3", None, 0),
    ("numerical", tag("3 or 4"), "4", None, 0),
    ("numerical", tag("nan"), "5", None, 0),
    ("numerical", tag("1e400"), "1e400", 1, 1),
    ("numerical", "The answer is 7.", "7", 1, 0),
    ("numerical", "7", "7", 1, 0),
    ("regression", tag("10.5"), "10", 1, 1),
    ("regression", tag("11"), "10", 0.9, 1),
    ("regression", tag("12"), "10", 0.7, 1),
    ("regression", tag("15 m"), "10", 0.1, 1),
    ("regression", tag("20"), 10.0, 0, 1),
    ("regression", tag("0.1"), "0", 0, 1),
    ("boolean", tag("YES."), "Yes", 1, 1),
    ("boolean", tag("no"), False, 1, 1),
    ("boolean", tag("True"), "yes", 1, 1),
    ("boolean", tag("1"), "Yes", 1, 0),
    ("boolean", tag("Yes, because there is no car"), "Yes", 1, 0),
    ("boolean", tag("No, yes"), "Yes", None, 0),
    ("boolean", tag("yes or no"), "Yes", None, 0),
    ("boolean", tag("Yes (No)"), "Yes", None, 0),
    ("boolean", tag("not yes"), "No", None, 0),
    ("ocr", tag("Hello"), "Hello World", 0.5, 1),
    ("ocr", tag("hello  world"), "Hello World", 1, 1),
    ("ocr", tag("停 车"), "停车", 1, 1),
    ("ocr", tag("停在"), "停车", 0.5, 1),
    ("ocr", tag("a/b <c>"), "a/b <c>", 1, 1),
    ("math", tag(r"\frac{2}{4}"), "1/2", 1, 1),
    ("math", tag("x = 5"), "$$5$$", 1, 1),
    ("math", tag("41"), "42", 0, 1),
    ("math", tag("5"), ["5"], 1, 1),
    ("math", tag(r"\text{five}"), "five", 1, 1),
    ("math", r"\boxed{42}", "42", 1, 0),
    ("temporal grounding", tag({"time": [12, 18]}), TIME, 0.6, 1),
    ("temporal grounding", tag({"time": [15, 25]}), TIME, 1 / 3, 1),
    ("temporal grounding", tag({"time": [20, 10]}), TIME, 0, 0),
    ("temporal grounding", tag("from 10 to 20 seconds"), TIME, 1, 0),
    ("temporal grounding", tag("00:10 - 00:20"), TIME, 1, 0),
    ("temporal grounding", tag("```json\n" + json.dumps(TIME) + "\n```"), TIME, 1, 0),
    ("temporal grounding", tag('{"time": [NaN, 20]}'), TIME, None, 0),
    ("temporal grounding", tag('{"time": [10, 20]'), TIME, None, 0),
    ("temporal grounding", json.dumps(TIME), TIME, 1, 0),
    ("spatial grounding", tag({"boxes": [5, 5, 15, 15]}), BOX, 25 / 175, 1),
    ("spatial grounding", tag({"boxes": [10, 10, 0, 0]}), BOX, 0, 0),
    ("spatial grounding", tag({"bbox_2d": [0, 0, 10, 10]}), BOX, 1, 0),
    ("spatial grounding", tag([[0, 0, 10, 10]]), BOX, 1, 0),
    ("spatial-temporal grounding", tag(BOTH), BOTH, 1, 1),
    ("spatial-temporal grounding", tag({**BOTH, "boxes": {"9": [0, 0, 10, 10]}}), BOTH, 0.75, 1),
    ("spatial-temporal grounding", tag({"time": [8, 11]}), BOTH, 0.5, 0),
    ("spatial-temporal grounding", tag({"time": [8, 11]}), {"time": [8, 11]}, 1, 1),
    ("tracking", tag(TUBE), TUBE, 1, 1),
    ("tracking", tag({"boxes": {"01": [0, 0, 10, 10]}}), TUBE, 0.5, 1),
    ("tracking", tag({"boxes": {**TUBE["boxes"], "3": [0, 0, 1, 1]}}), TUBE, 2 / 3, 1),
    ("tracking", tag({"boxes": {"1": "bad"}}), TUBE, 0, 0),
    ("tracking", tag({"boxes": {}}), TUBE, None, 0),
    ("open-ended", tag("The cat jumped on a table"), "A cat jumps onto the table.", 23 / 45, 1),
    ("open-ended", tag("cat"), "Cat.", 1, 1),
    ("open-ended", tag("一只猫跳上了桌子"), "一只猫跳上了桌子", 1, 1),
    ("open-ended", "Therefore, the final answer is: a cat", "a cat", 1, 0),
    ("preference", tag("Response A"), "Response 1", 1, 1),
    ("preference", tag("the second response"), 2, 1, 1),
    ("preference", tag("Response 2 is better than Response 1"), "Response 2", 1, 0),
    ("preference", tag("Response 1 and Response 2"), "Response 1", None, 0),
    ("preference", tag("identity"), "Tie", None, 0),
]


@pytest.mark.parametrize(("kind", "response", "answer", "accuracy", "form"), CASES)
def test_cases(kind, response, answer, accuracy, form):
    result = score(kind, response, answer)
    assert result.detail == ""
    expected = Status.UNPARSED if accuracy is None else Status.OK
    assert (result.status, result.format) == (expected, form)
    assert result.accuracy == pytest.approx(accuracy or 0)
    assert result.overall == pytest.approx(0.9 * (accuracy or 0) + 0.1 * form)


@pytest.mark.parametrize(
    ("response", "accuracy", "form"),
    [
        (tag("Blue"), 1, 0),
        (tag("blue."), 1, 0),
        (tag("B Blue"), 1, 1),
        (tag("B. Red"), None, 0),  # letter and text contradict each other
        (tag("whitewash"), None, 0),
        (tag("The blue one"), None, 0),
        (tag("E"), None, 0),
        (tag("B. not A"), 1, 0),
    ],
)
def test_choice_with_options(response, accuracy, form):
    result = score("multiple choice", response, "B", COLOURS)
    assert (result.accuracy, result.format) == (accuracy or 0, form)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>maybe A</think><answer>B</answer>", "B"),
        ("<think><answer>A</answer></think><answer>B</answer>", "B"),
        ("maybe A</think><answer>B</answer>", "B"),  # the prompt opened the block
        ("<answer>A</answer> no <answer>B</answer>", "B"),
        ("< Answer >B< / answer >", "B"),
        ("<answer>A <answer>B</answer>", "B"),
        ("<think>long <answer>B</answer>", "B"),  # never closed, but ends with the tag
        ("<think>long <answer>B</answer> and on", None),
        ("<think>A A A A", None),
        ("<answer>B</answer></think>", None),
        ("<answer></answer> B", ""),
    ],
)
def test_answer_tag(response, answer):
    assert parse.answer_tag(response) == answer
    expected = Status.OK if answer else Status.UNPARSED
    assert score("multiple choice", response, "B").status is expected


def test_format_credit_needs_the_form():
    for junk in ("", "junk", "{}", "see above"):
        for kind, answer in (("numerical", 3), ("temporal grounding", TIME), ("boolean", "no")):
            assert score(kind, tag(junk), answer).overall == 0


def test_one_frame_of_a_tube_earns_its_share_only():
    tube = {"boxes": {str(i): [0, 0, 10, 10] for i in range(10)}}
    assert score("tracking", tag({"boxes": {"0": [0, 0, 10, 10]}}), tube).accuracy == 0.1


def test_symbolic_equality_is_decided_in_a_child():
    assert score("math", tag(r"2\sqrt{2}"), r"\sqrt{8}").accuracy == 1


BOMBS = {
    "open tags": "<answer>" * 20000,
    "brackets": "<answer>" + "[" * 90000 + "</answer>",
    "nested objects": "<answer>" + '{"a":' * 15000 + "</answer>",
    "megabyte": "9" * 10**6,
    "spaces": "<answer" + " " * 10**6 + ">",
    "statements": "the answer is " * 20000,
    "bold": "*" * 90000,
    "tower": "<answer>9**9**9</answer>",
    "boxed": r"\boxed{" * 20000,
    "unfolding": "\ufdfa" * 90000,
    "clocks": "00:00:" * 15000,
}


@pytest.mark.parametrize(
    ("kind", "answer", "right"),
    [
        ("multiple choice", "<think>A or B?</think>\nB", "B"),
        ("numerical", "<think>3 and 4</think>7", "7"),
        ("boolean", "<think>no</think>Yes", "yes"),
        ("ocr", "<think>GO?</think> STOP", "STOP"),
        ("open-ended", "<think>no dog</think>a cat", "a cat"),
        ("math", r"<think>2</think>$\frac12$", "1/2"),
        ("temporal grounding", "<think>2 to 3</think>[4, 5]", '{"time": [4, 5]}'),
    ],
)
def test_reasons_before_a_ground_truth_do_not_count(kind, answer, right):
    assert score(kind, f"<answer>{right}</answer>", answer).accuracy == 1
    assert score(kind, "<answer>17</answer>", answer).accuracy == 0


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_answered_at_once(name):
    answers = dict(multiple_choice="B", numerical=5, ocr="STOP", math="5", open_ended="a cat")
    answers |= {"yes/no": "no", "temporal grounding": TIME, "tracking": TUBE, "critic": "Tie"}
    for kind, answer in answers.items():
        start = time.process_time()
        result = score(kind, BOMBS[name], answer)
        assert time.process_time() - start < 2
        assert (result.status, result.accuracy) != (Status.OK, 1)
        assert result.status is not Status.ERROR


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem_type": "numerical", "answer": "many"}, "'many' is no number"),
        ({"problem_type": "numerical", "answer": "inf"}, "'inf' is no number"),
        ({"problem_type": "mc", "answer": "Mauve", "options": COLOURS}, "no option letter"),
        ({"problem_type": "boolean", "answer": "maybe"}, "not yes or no"),
        ({"problem_type": "temporal grounding", "answer": {"time": [2, 1]}}, "before it starts"),
        ({"problem_type": "tracking", "answer": "[1]"}, "is not boxes"),
        ({"problem_type": "ocr", "answer": " "}, "is empty"),
        ({"problem_type": "mc", "answer": []}, "no option letter"),
        ({"problem_type": "mc", "answer": "Z", "options": COLOURS}, "'Z' is no option letter"),
        ({"problem_type": "math", "answer": "$$"}, "no expression"),
        ({"problem_type": "math", "answer": ["1", "2"]}, "no expression"),
        ({"problem_type": "math", "answer": {"x": 1}}, "no expression"),
        ({"problem_type": "mc", "answer": "A", "options": 5}, "options are 5"),
        ({"problem_type": "mc", "answer": "A", "options": "AB"}, "options are 'AB'"),
        ({"problem_type": "segmentation", "answer": "x"}, "'x' has no box"),
        ({"problem_type": "svg-code", "answer": "x"}, "'x' is no SVG"),
        ({"problem_type": "riddle", "answer": "x"}, "unknown problem_type 'riddle'"),
        ({"problem_type": None, "answer": "x"}, "problem_type is None"),
        ({"problem_type": "ocr"}, "the row has no answer"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        rewards.check_row(row)


def test_a_bad_truth_is_an_error_not_a_zero():
    result = score("numerical", tag("3"), "many")
    assert result[:4] == (0, 0, 0, Status.ERROR)
    assert "many" in result.detail


def test_a_broken_scorer_is_an_error():
    def broken(response, task):
        return 1 / 0

    row = {"problem_type": "ocr", "answer": "x"}
    result = rewards.score("x", row, scorers={"ocr": broken})
    assert (result.status, result.detail) == (Status.ERROR, "ZeroDivisionError: division by zero")


def test_null_response_is_no_answer():
    assert score("ocr", None, "x").status is Status.UNPARSED


def test_weights_are_checked():
    assert Weights(0.5, 0.5).check() == (0.5, 0.5)
    for weights in ((0.9, 0.2), (1.5, -0.5), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="sum to 1"):
            Weights(*weights).check()


def test_every_type_has_a_scorer():
    assert set(rewards.SCORERS) == set(problem_types.TYPES)


def test_stems_of_porters_paper():
    pairs = {
        **{"caresses": "caress", "ponies": "poni", "cats": "cat", "agreed": "agre"},
        **{"plastered": "plaster", "motoring": "motor", "conflated": "conflat", "hopping": "hop"},
        **{"filing": "file", "happy": "happi", "relational": "relat", "digitizer": "digit"},
        **{"hopefulness": "hope", "triplicate": "triplic", "electrical": "electr"},
        **{"adjustment": "adjust", "adoption": "adopt", "effective": "effect", "rate": "rate"},
        **{"controll": "control", "roll": "roll", "falling": "fall", "sky": "sky"},
    }
    assert {w: stem.stem(w) for w in pairs} == pairs


def test_rouge_by_hand():
    given, truth = ["the", "cat", "sat", "on", "mat"], ["the", "cat", "on", "the", "mat"]
    # unigrams 4 of 5 (the counts once), pairs 1 of 4, longest common subsequence 4 of 5
    assert text.rouge(given, truth) == pytest.approx((0.8 + 0.25 + 0.8) / 3)


def test_truths_may_be_plain_python_values():
    assert number.read_truth(0.1).value == number.read_truth("0.1").value
    assert boolean.read_truth(True) is True
    assert choice.read_truth(["A", "C"], {}) == {"A", "C"}
    assert grounding.score_temporal(tag(TIME), rewards.Task("", [10, 20])) is not None
    assert np.isclose(overlap.box_iou((0, 0, 2, 2), (1, 1, 3, 3)), 1 / 7)
