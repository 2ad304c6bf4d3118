"""Runs of one short string: nothing is earned, and the time grows as the length, not its square."""

import functools
import json
import random
import time

import pytest

from evr1 import rewards
from evr1.rewards import Status, __main__, code, compose, math
from evr1.rewards.base import Task

INLINE = {
    **rewards.SCORERS,
    "math": functools.partial(math.score, equal=lambda result, truth: False),
}
BOX = [0, 0, 10, 10]
POINTS = [[1, 1], [2, 2], [3, 3]]
SVG = '<svg viewBox="0 0 9 9"><rect x="1" y="1" width="2" height="2"/></svg>'
TRUTHS = {
    "multiple choice": "B",
    "numerical": "5",
    "regression": "5",
    "boolean": "Yes",
    "ocr": "STOP",
    "math": "5",
    "temporal grounding": {"time": [10, 20]},
    "spatial grounding": {"boxes": BOX},
    "tracking": {"boxes": {"1": BOX}},
    "spatial-temporal grounding": {"time": [8, 11], "boxes": {"9": BOX}},
    "open-ended": "a red car",
    "preference": "Response 1",
    "segmentation": {"boxes": BOX, "positive_points": POINTS, "negative_points": POINTS},
    "svg-code": SVG,
    "html-code": "<p>red car</p>",
}
SIGNS = [
    *"([{<)]}>|/\\\"'`*_#-+=:;,.!?&%^~$@",
    " ",
    "\n",
    "\t",
    "\u3000",
    "\x00",
    "\ud800",
    "①",
    "½",
    "²",
    "ﷺ",
]
WORDS = [
    "A ",
    "A, ",
    "A\n",
    "a",
    "1",
    "1,",
    "1, ",
    "1.",
    "1/",
    "1:",
    "1 ",
    "1-",
    "1 to ",
    "[1,",
    "(1,",
    "[[",
]
WORDS += [
    "or ",
    "and ",
    "not ",
    "is ",
    "no ",
    "yes ",
    "| ",
    "one ",
    "hundred ",
    "so ",
    "only ",
    "一",
    "不",
    "选",
]
WORDS += [
    "the answer is ",
    "Answer: ",
    "I choose ",
    "better ",
    "1 > ",
    "(A) ",
    "**A** ",
    "Response 1 is ",
]
TAGS = [
    "<answer>",
    "</answer>",
    "<answer",
    "answer>",
    "<think>",
    "</think>",
    "<div>",
    "</div>",
    "<p",
    "<p ",
]
TAGS += [
    "<a b='",
    '<a b="',
    "<!--",
    "<![CDATA[",
    "&lt;",
    "&#",
    "<svg>",
    "<g>",
    "<li>",
    '<p a=">"',
    "<|im_end|>",
]
LATEX = [
    "\\boxed{",
    "\\frac{",
    "\\text{",
    "\\(",
    "\\[",
    "\\left(",
    "$$",
    "$x$ ",
    "x^",
    "x+",
    "{,}",
    "\\,",
]
LATEX += [
    "```",
    "```\n",
    "```json\n",
    "``` ",
    "'''",
    '{"a":',
    '{"answer":',
    '"answer"',
    '{"boxes":',
    "{}",
    "[] ",
]
TOKENS = [*SIGNS, *WORDS, *TAGS, *LATEX]
FORMS = ["{}", "<answer>{}</answer>", "<answer>B {}5</answer>"]
MORE_FORMS = [
    "<answer>Response 1{}or 2</answer>",
    "<answer>A{}",
    "the answer is {}",
    "**{}**",
    "\\boxed{{{}}}",
]
MORE_FORMS += [
    "```\n{}\n```",
    "<answer>[{}]</answer>",
    "<answer>yes, {}no</answer>",
    "<think>{}</think>B",
]
MORE_FORMS += [
    "<answer><svg>{}</svg></answer>",
    "<answer><html>{}</html></answer>",
    "{}<answer>{}</answer>",
]
LONG, SHORT = 60_000, 4_900  # beyond what most readers look at, and below it
FLOOR_S = {LONG: 0.25, SHORT: 0.03}  # quicker is no matter
GROWTH = 8.0  # of the time at four times the length; 4 is linear, 16 quadratic


def write(form, token, length):
    return form.format(*[token * (length // len(token))] * 2)


def seconds(kind, text):
    start = time.process_time()
    result = rewards.score(text, {"problem_type": kind, "answer": TRUTHS[kind]}, scorers=INLINE)
    spent = time.process_time() - start
    assert result.status is not Status.ERROR, (result.detail, text[:80])
    return spent


def check(kind, form, token, length):
    """Fails where a quarter of the length takes much less than a quarter of the time."""
    whole = quarter = float("inf")
    for tries in range(20):  # the best of all so far: on a busy machine single ones are slow
        whole = min(whole, seconds(kind, write(form, token, length)))
        quarter = min(quarter, seconds(kind, write(form, token, length // 4)))
        if whole < FLOOR_S[length] or (tries >= 4 and whole < GROWTH * quarter):
            return
    assert whole < GROWTH * quarter, (kind, form, token, whole, quarter)


@pytest.mark.parametrize("kind", TRUTHS)
def test_runs_of_one_string_take_linear_time(kind):
    """Each type reads a fifth of the strings, so that every one is read by three."""
    for i, token in enumerate(TOKENS[list(TRUTHS).index(kind) % 5 :: 5]):
        check(kind, FORMS[i % 3], token, LONG)
        check(kind, FORMS[(i + 1) % 3], token, SHORT)


@pytest.mark.parametrize("kind", TRUTHS)
def test_runs_of_one_sign_earn_nothing(kind):
    for sign in SIGNS:
        for form in FORMS[:2]:
            row = {"problem_type": kind, "answer": TRUTHS[kind]}
            assert rewards.score(write(form, sign, 2000), row, scorers=INLINE).accuracy == 0, sign


def mixes(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        token = "".join(rng.choice(TOKENS) for _ in range(rng.randint(2, 4)))
        yield rng.choice(FORMS + MORE_FORMS), token


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize(
    ("count", "seed"), [(30, 1), pytest.param(2000, 2, marks=pytest.mark.slow)]
)
def test_runs_of_several_strings_take_linear_time(kind, count, seed):
    for form, token in mixes(count, seed):
        check(kind, form, token, SHORT)
        if count > 30:
            check(kind, form, token, LONG)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRUTHS)
def test_every_form_takes_linear_time(kind):
    for token in TOKENS:
        for form in FORMS + MORE_FORMS:
            check(kind, form, token, SHORT)
            check(kind, form, token, LONG)


def quickest(call):
    """Returns the least CPU seconds of three calls; one that is quick ends it."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
        if best < 0.1:
            break
    return best


def test_programs_are_found_in_linear_time():
    blocks = [
        "```\n",
        "```python\nx = 1\n```\n",
        "```\ndef f(): pass\n```\n",
        "~~~\n",
        "```py\ng()\n```\n",
    ]
    lines = ["def f(): pass\n", "a = 1\n", " \n", "\t", "python\n", "from a import b\n"]
    for token in TOKENS + blocks + lines:
        for form in (*FORMS[:2], "```python\n{}\n```", "```\ndef f(): pass\n```\n{}"):
            text = write(form, token, LONG)
            assert quickest(lambda t=text: code.find_code(t)) < FLOOR_S[LONG], (form, token)


@pytest.mark.parametrize("name", compose.TERMS)
def test_terms_take_linear_time(name):
    settings = compose.Settings(100, 20, 4)
    answers = ["<x" + "<" * 40_000, "{" * 40_000, '{"a": 1}' + " " * 40_000]
    texts = [f"<answer>{answer}</answer>{answer[-1] * 50_000}" for answer in answers]
    for text in texts + [token * (LONG // len(token)) for token in TOKENS]:
        completion = compose.Completion(text, Task("ocr", "x", problem=text), 9, True, settings)
        start = time.process_time()
        compose.TERMS[name](completion)
        assert time.process_time() - start < 1, text[:80]


def test_the_command_scores_runs_of_100_kB(tmp_path):
    rows = [
        {"problem_type": kind, "answer": truth, "response": write(form, token, 99_000)}
        for kind, truth in TRUTHS.items()
        for form, token in [("{}", "("), (FORMS[1], " "), (FORMS[1], "<p "), (FORMS[0], "<answer>")]
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    __main__.main([f"--rows={source}", f"--out={out}", "--workers=1", "--timeout_s=30"])
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    assert {s["status"] for s in scores} <= {"ok", "unparsed"}
    assert all(s["accuracy"] == 0 for s in scores)
