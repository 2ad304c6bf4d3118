"""The reference's prompts, and its one rule on forms that no recorded case has."""

import time

import pytest

from evr1.evals.tasks.base import Media, Sample, Show
from evr1.evals.tasks.kits import easyvideor1

CHOICE = {
    "problem_type": "multiple choice",
    "problem": "Who?",
    "options": ["A. Ann", "B. Bob"],
    "solution": "<answer>B</answer>",
}


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("<think>A?</think>\nB", "B"),
        ("<answer>ab</answer>", "AB"),  # a run of letters in alphabetical order is a letter
        ("So the answer is: b. Or is the answer is C?", "B"),
        ("The answer is C. Therefore, the final answer is B", "B"),
        ("I pick option b because", "B"),
        ("A\nB.\nlong line that ends in no letter at all, and on", "B"),
        ("B. Bob", ""),
    ],
)
def test_letters(response, letter):
    assert easyvideor1.read(response, "multiple choice") == letter


@pytest.mark.parametrize(
    ("kind", "gold", "response", "score"),
    [
        ("numerical", "5", "5.0", 0.0),
        ("numerical", "1,000", "$1000.00$", 1.0),
        ("numerical", "5", "5 or 6", 0.0),
        ("regression", "10", "13", 0.4),
        ("regression", "10", "about 1e999", 0.0),
        ("SSR", "No", "UNKNOWN", 1.0),
        ("CRR", "Yes", "y", 1.0),
        ("REC", "12", "1 and 2", 1.0),
        ("open-ended", "blue", "blue", 0.0),
        ("temporal grounding", '{"time": [1, 3]}', '{"time": [3, 1]}', 0.0),
        ("temporal grounding", '{"time": [1, 3]}', '{"time": ["1", "2"]}', 0.5),
    ],
)
def test_scores(kind, gold, response, score):
    row = {"problem_type": kind, "solution": f"<answer>{gold}</answer>"}
    assert easyvideor1.score(row, response).score == pytest.approx(score)


def test_options_stand_below_their_question():
    ask = easyvideor1.prompt(lambda doc: CHOICE)
    shown, text = ask(Sample("1", {}, (Media("v.mp4"),)))
    assert shown == Show(0)
    assert "Question: Who? Possible answer choices:\nA. Ann\nB. Bob\n\nThe best" in str(text)


@pytest.mark.parametrize(
    "unit", ["<answer>", "so ", "answer is ", "choose ", "{", "A ", "\n", "1,"]
)
def test_time_is_linear(unit):
    text = "A" + " " * 50_000 + unit * 20_000
    start = time.monotonic()
    for kind in ("multiple choice", "numerical", "temporal grounding"):
        easyvideor1.read(text, kind)
    assert time.monotonic() - start < 2
