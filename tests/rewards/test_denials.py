"""Answers that are denied, taken back or several: nothing is earned, in whatever way they stand.

Beside them, right answers that look alike and must be paid.
"""

import functools
import json

import pytest

from evr1 import rewards
from evr1.rewards import Status, math
from evr1.rewards.formulas import symbolic

INLINE = {**rewards.SCORERS, "math": functools.partial(math.score, equal=symbolic.equal_inline)}
OPTIONS = ("A. oak", "B. elm", "C. ash", "D. fir")
FORMS = ["<answer>{}</answer>", "{}", "<think>so</think>{}", "The answer is {}"]

BOX = [0, 0, 10, 10]
TIME = {"time": [10, 20]}
TRUTHS = {
    "multiple choice": "B",
    "numerical": "5",
    "regression": "5",
    "boolean": "yes",
    "math": "5",
    "ocr": "STOP",
    "open-ended": "blue",
    "preference": "Response 1",
    "temporal grounding": {"time": [10, 20]},
    "spatial grounding": {"boxes": BOX},
    "tracking": {"boxes": {"1": BOX}},
    "spatial-temporal grounding": {"time": [1, 2], "boxes": {"1": BOX}},
    "segmentation": {"boxes": BOX},
    "svg-code": "<svg><rect/></svg>",
    "html-code": "<p>STOP</p>",
}

# fmt: off
DENIED = [  # problem type, truth, contents
    ("multiple choice", "B", [
        "B: 0%", "B 0.0 %", "!B", "~~B~~", r"\neg B", "≠ B", "B: no", "B (wrong)",
        "A: 0.25, B: 0.25",
        "B is eliminated", "all but B", "C rather than B", "A 25% B 25% C 25% D 25%",
    ]),
    ("boolean", "yes", [
        "!yes", "¬yes", "≠ yes", "~~yes~~", "! True", "❌ yes", "✗yes", "yes not", "Yes n't",
        "yes (wrong)", "Yes, incorrect", "yes: untrue", "Yes to some, no to others",
        "yes in the morning, no in the evening", "Yes for A and no for B", r"\neg yes",
    ]),
    ("boolean", "no", ["!no", "~~no~~", "≠ no", "no for A, yes for B"]),
    ("preference", "Response 1", [
        "!Response 1", "~~Response 1~~", "≠ Response 1", "Response -1", "Response 1 (rejected)",
        "Response 1: no", "Response 1: bad", "Response 1: 3", "Response 1: 5/10, Response 2: 8/10",
        "1: 3, 2: 7", "Response 1: bad, Response 2: good", "Response 1 for style, 2 for accuracy",
        "Response 1 is better in style, Response 2 in accuracy", "Response 1, no wait, Response 2",
    ]),
    ("numerical", "5", [
        "5π", "5i", "5j", "5 e π", "5 NaN", "5nan", "5 no", "五吗", "五折", "5折", "(5) negative",
        "twice 5", "half of 5", "log 5", "sin 5", "page 5", "none of 5", "perhaps 5",
        "doubtfully 5",
    ]),
    ("math", "5", ["5 perhaps", "5 possibly", "5 nan", "(5) negative", "5 score", "4.99", "5.001"]),
    ("math", "1000", ["999.5", "1000.4", "1000 + 0.4"]),
    ("math", "(3,4)", ["3 or 4"]),
    ("temporal grounding", TIME, [
        "outside 10 to 20", "outside of (10, 20)", "except from 10 to 20", "anything but 10-20",
        "all but 10 to 20", "wrong: 10 to 20", "the wrong answer is 10 to 20", "I doubt 10 to 20",
        "it is false that 10 to 20", "10 to 20 is wrong", "10 to 20 s has been ruled out",
        "~~10 to 20~~", "!(10,20)", "10 to 20?", "10 to 20 percent", "10 to 20 hours",
        "10 to 20 ms", "-10 - 20",
        'wrong: {"time": [10, 20]}', '{"time": [10, 20]} is incorrect', '{"time": [10, 20]}?',
        'anything but {"time": [10, 20]}', '~~{"time": [10, 20]}~~',
    ]),
    ("spatial grounding", {"boxes": BOX}, [
        "[0, 0, 10, 10]?", "anything but [0, 0, 10, 10]", "outside [0, 0, 10, 10]",
        "wrong: [0, 0, 10, 10]", "[0, 0, 10, 10] is wrong", "The wrong box is [0, 0, 10, 10]",
        "~~[0, 0, 10, 10]~~", "![0, 0, 10, 10]", "either [0, 0, 10, 10] or the whole image",
        '{"not_boxes": [0, 0, 10, 10]}', '{"wrong": [0, 0, 10, 10]}',
        '{"incorrect_boxes": [0, 0, 10, 10]}', 'never {"boxes": [0, 0, 10, 10]}',
    ]),
    ("tracking", {"boxes": {"1": BOX}}, [
        'anything but {"boxes": {"1": [0, 0, 10, 10]}}',
        '{"boxes": {"1": [0, 0, 10, 10]}} is wrong',
        'The wrong boxes are {"boxes": {"1": [0, 0, 10, 10]}}',
    ]),
    ("segmentation", {"boxes": BOX}, [
        'never {"boxes": [0, 0, 10, 10]}', '~~{"boxes": [0, 0, 10, 10]}~~',
        '{"boxes": [0, 0, 10, 10]} has been ruled out',
    ]),
]
PAID = [
    ("multiple choice", "B", ["B: 100%", "B!", "(B)", "B: 0.9"]),
    ("boolean", "no", ["❌ No", "✗ no", "No (wrong)", "No, incorrect", "No!"]),
    ("boolean", "yes", ["Yes!", "Yes, in the morning", "Yes, there is no entry", "✓ yes"]),
    ("preference", "Response 1", [
        "Response-1", "Response - 1", "Response 1!", "Response 1: no errors",
        "Response 1 is better because it actually answers", "Response 1: better in both",
        "Response 1 is better, while response 2 in contrast rambles",
    ]),
    ("numerical", "5", [
        "5 negative reviews", "5 J", "5 eggs", "5 dogs lie there", "5 is correct", "5e0",
        "In the second half he scores 5 goals.", "The square has 5 dots.",
        "He answers 5 questions.",
        "There is a line of 5 people.", "The tan dog barks 5 times.",
    ]),
    ("numerical", "10", ["9.99"]),  # a measure, unlike a result of mathematics
    ("math", "5", ["5.0", "5.", "10/2", "5 points", "5.000"]),
    ("math", r"50\%", ["0.5", "50"]),
    ("math", "(3,4)", ["3, 4"]),
    ("math", r"\{3, 4\}", ["3 or 4"]),
    ("temporal grounding", TIME, [
        "He walks outside from 10 to 20", "~10 to 20", "the wrong bus passes from 10 to 20",
        "All but one leave from 10 to 20", "10 to 20 s (95% sure)", 'Found! {"time": [10, 20]}',
        'He was not seen before. {"time": [10, 20]}', "When? From 10 to 20.", "- 10 - 20",
    ]),
    ("spatial grounding", {"boxes": BOX}, [
        "The dog outside is at [0, 0, 10, 10]", "The false door: [0, 0, 10, 10]", "[0, 0, 10, 10]!",
        '{"notebook": [0, 0, 10, 10]}', '{"badge": [0, 0, 10, 10]}',
    ]),
]
# fmt: on


def rows(table):
    return [(kind, truth, content) for kind, truth, contents in table for content in contents]


def score(kind, truth, response):
    options = OPTIONS if kind == "multiple choice" else ()
    row = {"problem_type": kind, "answer": truth, "options": options}
    return rewards.score(response, row, scorers=INLINE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", rows(DENIED), ids=str)
def test_nothing_is_earned(case, form):
    kind, truth, content = case
    result = score(kind, truth, form.format(content))
    assert result.accuracy == 0, result
    assert result.status in (Status.OK, Status.UNPARSED)


@pytest.mark.parametrize("case", rows(PAID), ids=str)
def test_what_looks_alike_is_paid(case):
    kind, truth, content = case
    assert score(kind, truth, f"<answer>{content}</answer>").accuracy == 1


@pytest.mark.parametrize("kind", rewards.SCORERS)
@pytest.mark.parametrize(
    "truth", [None, float("nan"), [None], [[]], {}, [float("nan")], b"x", "", []]
)
def test_a_missing_truth_is_refused(kind, truth):
    if kind == "code" and truth == b"x":
        return  # an expected output may be anything
    with pytest.raises(ValueError, match="correct the row|the row has no|is no expected output"):
        rewards.check_row({"problem_type": kind, "answer": truth})


@pytest.mark.parametrize("kind", ["numerical", "temporal grounding", "preference"])
def test_a_long_truth_is_not_quoted_in_full(kind):
    detail = score(kind, "a" * 200_000, "5").detail
    assert len(detail) < 600
    assert detail.endswith("correct the row")


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "content",
    [
        r"\boxed{}",
        r"\boxed{ } \boxed{}",
        "** **",
        r"so \boxed{}.",
        r"\fbox{}",
        "$$$$",
        "The answer is :",
    ],
)
def test_an_empty_frame_is_no_answer(kind, content, form):
    result = rewards.score(
        form.format(content), {"problem_type": kind, "answer": TRUTHS[kind]}, scorers=INLINE
    )
    assert result.status in (Status.OK, Status.UNPARSED)
    assert result.accuracy == 0


@pytest.mark.parametrize("second", ["-1", "frame 1", "1 min", "one", "1e0"])
def test_boxes_are_asked_by_second(second):
    response = json.dumps({"boxes": {"1": BOX, second: BOX}})
    assert score("tracking", {"boxes": {"1": BOX}}, f"<answer>{response}</answer>").format == 0
