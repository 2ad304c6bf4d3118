"""Answers as models write them, right and wrong, hundreds of each; and what a problem asks for.

A line of `golden/reward_siblings.jsonl` is a row with contents of the answer tag: those that earn
accuracy 1, and those that earn none, since they say something else, hedge, or deny.
"""

import json

import pytest
from repo import GOLDEN

from evr1 import rewards
from evr1.rewards import Status
from evr1.rewards.numbers import asked

ROWS = [json.loads(line) for line in (GOLDEN / "reward_siblings.jsonl").read_text().splitlines()]
NAMES = [f"{row['problem_type']} {row['answer']} {i}" for i, row in enumerate(ROWS)]
HEDGED_NUMBERS = [
    *("三到五", "between 3 and 5", "3-5", "either 3 or 4", "about 3 to 5", "3 or 4", "not 3"),
    *("3 is wrong", "at least 3", "3?", "三四个", "3 or more", "3 max", "20多个", "二三十"),
]
ASKS_PERCENT = [
    "What percentage of the seats are free?",
    "How many percent of them are red?",
    "What is the share of red cars, in percent?",
    "What is the percent change in sales?",
    "Give the share in %.",
    "Express the ratio as a percentage.",
    "By what percent did it rise?",
    "红色汽车占百分之几？",
    "What is the free share (in %)?",
    "Of the 30% that left, what percentage came back?",
    "Find the percentage of blue cars.",
    "What approximate percentage of the frame is sky?",
    "占总数的百分比是多少？",
    "Compute the per cent error.",
    "Estimate what percent is shown.",
    "Round to the nearest percent: what is the growth?",
    "How much did it grow? Answer in percent.",
    "What is the value (%)?",
    "Percentage of free seats?",
]
ASKS_NO_PERCENT = [
    "",
    "What share is free?",
    "After 30% of the seats are taken, what share is free, as a number?",
    "A 20 percent discount applies. What is the price?",
    "The percentage fell last year. What share is left?",
    "The growth in percent fell. What is the new price?",
    "What is 20% of 4?",
    "What is 20 percent of 4?",
    "What fraction (not a percentage) is red?",
    "Give the share as a decimal, not as a percentage.",
    "With 15% off, what is the factor?",
    "水占百分之三十，余下的小数是多少？",
    "Twenty percent left. What number remains?",
    "The label says 100%. What number is next to it?",
    "Give a fraction instead of a percentage: what part is red?",
    "What is the probability? Do not use the % sign.",
    "The percent sign is hidden. What is the ratio?",
]


def score(content, row):
    fields = {k: row[k] for k in ("problem_type", "answer", "problem", "options") if k in row}
    return rewards.score(f"<answer>{content}</answer>", fields)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_right_answers_earn_1(row):
    assert [c for c in row["right"] if score(c, row).accuracy != 1] == []


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_wrong_answers_and_hedges_earn_nothing(row):
    results = {c: score(c, row) for c in row["wrong"]}
    assert [c for c, result in results.items() if result.accuracy != 0] == []
    assert {result.status for result in results.values()} <= {Status.OK, Status.UNPARSED}


@pytest.mark.parametrize("kind", ["numerical", "regression"])
def test_hedged_numbers_earn_no_format_either(kind):
    row = {"problem_type": kind, "answer": "3"}
    assert [h for h in HEDGED_NUMBERS if score(h, row).overall > 0] == []


@pytest.mark.parametrize("problem", ASKS_PERCENT)
def test_where_a_percentage_is_asked_for_bare_truths_are_percentages(problem):
    row = {"problem_type": "numerical", "problem": problem}
    shares = [score(c, row | {"answer": "0.8"}).accuracy for c in ("0.8%", "0.8", "80%")]
    assert shares == [1, 1, 0]
    assert [score(c, row | {"answer": "80"}).accuracy for c in ("80%", "80", "0.8")] == [1, 1, 0]


@pytest.mark.parametrize("problem", ASKS_NO_PERCENT)
def test_a_percent_sign_elsewhere_in_the_problem_turns_no_reading_round(problem):
    row = {"problem_type": "numerical", "problem": problem, "answer": "0.8"}
    assert [score(c, row).accuracy for c in ("80%", "0.8", "0.8%")] == [1, 1, 0]


@pytest.mark.parametrize(
    ("problem", "unit"),
    [
        ("How many seconds does it last?", "seconds"),
        ("How far is it, in kilometers per hour?", "kilometers per hour"),
        ("What is the area (in m²)?", "m^2"),
        ("多少厘米？", "厘米"),
        ("How many cars are there?", ""),
        ("In 5 minutes, how many metres does it move?", "metres"),
        ("How many minutes are in 3 hours? How many seconds?", ""),  # two, so none
    ],
)
def test_the_unit_that_a_problem_asks_for(problem, unit):
    assert asked.asked_unit(problem) == unit


# contents that earn no format, whatever their accuracy: reasons, doubts, sentences, other words
NOT_IN_FORM = {
    ("multiple choice", "B"): [
        *("B because it is blue", "B, because it is not red", "B. blue, since it is", "I think B"),
        *(
            "B\nThe car is blue.",
            "It should be B.",
            "So, after all, B",
            "blue",
            "B is correct",
            "B?",
        ),
        *("Let me think. The car is blue. So the answer is B.", "Not A, but B", "A is wrong, so B"),
        *("Hmm, B", "B (I guess)", "B, not A", "B or C", "not B", "the blue one", "maybe B", "B!?"),
    ],
    ("boolean", "yes"): [
        *(
            "Yes, because it is red",
            "I think yes",
            "Yes, it does",
            "1",
            "y",
            "Yes?",
            "Hmm, yes",
            "so",
        ),
        *(
            "It is true",
            "Absolutely",
            "Let me see. He waves. The answer is yes.",
            "Yes or no",
            "Yep",
        ),
        *("Yes\nHe waves.", "yes yes", "The man opens the door, so yes.", "not no", "maybe yes"),
    ],
    ("preference", "Response 1"): [
        *("Response 1 because it is right", "Response 1 is better", "I prefer Response 1", "1 > 2"),
        *(
            "Overall, Response 1 is better.",
            "Response 1: it is more accurate",
            "Response 1?",
            "both",
        ),
        *("Hmm, Response 1", "Response 2 is worse", "The answer is probably Response 1", "maybe 1"),
        *("Both are good. The answer is Response 1.", "a draw", "they are equal", "equal", "[[C]]"),
    ],
    ("numerical", "5"): [
        *("about 5", "five", "Hmm, 5?", "5?", "I think 5", "The total is 5", "5 because I counted"),
        *("There are 5", "2 + 3 = 5", "2 and 3 are five. So the answer is 5.", "x = 5", "5 or 6"),
        *("maybe 5", "5, I guess", "5 (five)", "half a dozen", "a dozen", "五"),
    ],
}


@pytest.mark.parametrize("row", NOT_IN_FORM)
def test_reasons_and_sentences_earn_no_format(row):
    fields = {"problem_type": row[0], "answer": row[1], "options": ["red", "blue", "green"]}
    fields |= {} if row[0] == "multiple choice" else {"options": []}
    assert [c for c in NOT_IN_FORM[row] if score(c, fields).format] == []


@pytest.mark.parametrize(
    ("kind", "answer", "content"),
    [
        *(("multiple choice", "B", c) for c in ("B", "(b)", "B.", "**B**", "B. blue", "Option B")),
        *(("boolean", "yes", c) for c in ("Yes", "yes.", "**Yes**", "True", "是")),
        *(
            ("preference", "Response 1", c)
            for c in ("Response 1", "response 1.", "Response A", "1")
        ),
        ("preference", "Tie", "tie"),
        *(
            ("numerical", "5", c)
            for c in ("5", "5.0", "$5$", "5 cars", "10/2", "5e0", r"\boxed{5}")
        ),
    ],
)
def test_the_asked_form_earns_all(kind, answer, content):
    options = ["red", "blue", "green"] if kind == "multiple choice" else []
    assert score(content, {"problem_type": kind, "answer": answer, "options": options}).overall == 1


@pytest.mark.parametrize(
    ("content", "accuracy"),
    [
        ("The text is: STOP", 1),
        ("Text: STOP", 1),
        ("The sign says: STOP", 1),
        ("The text in the image reads: **STOP**", 1),
        ("图中的文字是：STOP", 1),
        ("It says: STOP", 1),
        ("The text is: GO", 0),
        ("The text is: STOP GO", 0),
        ("Text: ", 0),
        ("text STOP", 0),
        ("The text is: STOP STOP STOP", 0),
    ],
)
def test_a_text_that_is_announced(content, accuracy):
    assert score(content, {"problem_type": "ocr", "answer": "STOP"}).accuracy == accuracy


@pytest.mark.parametrize(
    "content",
    [
        "$Yes$ or $No$",
        "**Yes** or **No**",
        r"\text{Yes} or \text{No}",
        '"Yes" or "No"',
        "<yes> / <no>",
    ],
)
def test_two_polarities_outside_a_tag_are_none(content):
    for answer in ("yes", "no"):
        row = {"problem_type": "boolean", "answer": answer}
        assert rewards.score(content, row).overall == 0
        assert rewards.score(f"So: {content}", row).overall == 0
