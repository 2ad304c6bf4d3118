"""Open-ended answers: signs that carry meaning tell apart, how a text is set down does not."""

import json
import time

import pytest

from evr1 import rewards
from evr1.rewards import text, words
from evr1.rewards.gold import gold_answer

SAME = [
    ("3/4", "3 / 4"),
    ("3*4", "3 * 4"),
    ("x=-3", "x = - 3"),
    ("(3, -2)", "(3,−2)"),
    ("10:30 a.m.", "10:30 am"),
    ("x < y", "x &lt; y"),
    ("x ≠ y", r"x \neq y"),
    ("x ≤ y", r"$x \leq y$"),
    ("5%", r"5\%"),
    ("-5", "$-5$"),
    ("-5", "negative 5"),
    ("C++", "<b>C++</b>"),
    ("C++", "c++"),
    ("C#", "c#."),
    ("-5", "−5"),
    ("-5", "– 5"),
    ("-5", "minus 5"),
    ("5", "+5"),
    ("5", "5.0"),
    ("5", '"5"'),
    ("5%", "5 %"),
    ("5%", "5 percent"),
    ("5%", "5 per cent"),
    ("5 °C", "5℃"),
    ("5°", "5 degrees"),
    ("$5", "5 dollars"),
    ("€5", "5 €"),
    ("$1,000", "1000 dollars"),
    ("1,234", "1234"),
    ("1/2", "½"),
    ("m²", "m^2"),
    ("10^6", "10⁶"),
    ("x ≠ y", "x != y"),
    ("x ≤ y", "x <= y"),
    ("a -> b", "a → b"),
    ("3 × 4", "3 x 4"),
    ("A+", "a+"),
    ("AT&T", "at&t"),
    ("cats & dogs", "cats and dogs"),
    ("a red car", "A red car."),
    ("a red car", "“a red car”"),
    ("a red car", "**a red car**"),
    ("a red car", "a *red* car"),
    ("a red car", "- a red car"),
    ("a red car", "# a red car"),
    ("a red car", "> a red car"),
    ("a red car", "`a red car`"),
    ("a red car", "a <b>red</b> car"),
    ("a red car", "a   red\ncar"),
    ("a red car", "Ａ ｒｅｄ ｃａｒ"),
    ("a red car", "a red car!"),
    ("a well-known man", "a well‐known man"),
    ("a well-known man", "a well known man"),
    ("it's red", "it’s red"),
    ("été", "e\u0301te\u0301"),
    ("red, blue", "red; blue"),
    ("red (or blue)", "red or blue"),
    ("5-7", "5–7"),
    ("12:30", "12：30"),
    ("$x^2$", "x^2"),
    ("Wi-Fi", "wi fi"),
    ("10", "10."),
    ("№ 5", "no 5"),
    ("#1", "1"),
    ("COVID-19", "covid 19"),
    ("- red\n- blue", "red, blue"),
    ("✔ done", "✓ done"),
    ("停车", "停 车。"),
    ("3.5 m", "3.5 m."),
    ("U.S.", "u.s."),
    ("AB-", "ab-"),
    ("1.5:1", "1.5 : 1"),
    ("a...b", "a… b"),
]
DIFFERENT = [
    ("C++", "C--"),
    ("x < y", "y < x"),
    ("3/4", "3:4"),
    ("2^3", "23"),
    ("x-y", "x+y"),
    ("1, -2", "1, 2"),
    ("[-1]", "[1]"),
    ("≈", "="),
    (">5", "<5"),
    ("H+", "H-"),
    ("Ca2+", "Ca2-"),
    ("10%", "10"),
    ("C++", "C#"),
    ("C++", "C"),
    ("C#", "C"),
    ("F#", "F"),
    ("F", "F♯"),
    ("B♭", "B"),
    ("B♭", "B♯"),
    ("-5", "5"),
    ("-5", "+5"),
    ("−5", "5"),
    ("5 - 3", "5 + 3"),
    ("<", ">"),
    ("x < y", "x > y"),
    ("x ≤ y", "x ≥ y"),
    ("x <= y", "x >= y"),
    ("x = y", "x ≠ y"),
    ("x == y", "x != y"),
    ("+", "-"),
    ("-", "+"),
    ("×", "÷"),
    ("=", "≠"),
    ("5%", "5"),
    ("5%", "5‰"),
    ("5°", "5"),
    ("5 °C", "5 C"),
    ("5 °C", "5 °F"),
    ("$5", "€5"),
    ("£5", "$5"),
    ("$5", "5"),
    ("A+", "A-"),
    ("A+", "A"),
    ("A-", "A"),
    ("AB+", "AB-"),
    ("O-", "O+"),
    ("3.5", "35"),
    ("3.5", "5.3"),
    ("3.5", "3"),
    ("3.5", "3 5"),
    ("1/2", "12"),
    ("1/2", "2/1"),
    ("1/2", "1 2"),
    ("10^6", "106"),
    ("10⁶", "10⁵"),
    ("3*4", "34"),
    ("→", "←"),
    ("turn →", "turn ←"),
    ("↑", "↓"),
    ("✓", "✗"),
    ("✅ passed", "❌ passed"),
    ("a ∈ B", "a ∉ B"),
    ("A ∪ B", "A ∩ B"),
    ("p ∧ q", "p ∨ q"),
    ("∀x", "∃x"),
    ("-0.5", "0.5"),
    (".5", "5"),
    ("-.5", ".5"),
    ("-5 to 5", "5 to 5"),
    ("x=-5", "x=5"),
    ("(-5)", "(5)"),
    ("18+", "18"),
    ("±5", "5"),
    ("√2", "2"),
    ("5 million", "5"),
    ("1,234", "1.234"),
    ("red", "blue"),
    ("2+2", "2×2"),
    ("6÷2", "6-2"),
    ("¥5", "$5"),
]


def score(kind, given, truth):
    return rewards.score(f"<answer>{given}</answer>", {"problem_type": kind, "answer": truth})


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_text_in_other_signs(a, b):
    assert score("open-ended", a, b).accuracy == score("open-ended", b, a).accuracy == 1


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_signs_that_carry_meaning_tell_apart(a, b):
    assert score("open-ended", a, b).accuracy <= 0.8
    assert score("open-ended", b, a).accuracy <= 0.8
    if max(len(words.tokens(t)) for t in (a, b)) < 3:
        assert score("open-ended", a, b).accuracy < 0.6


@pytest.mark.parametrize(
    ("truth", "accepted"),
    [
        (["a net", "net"], ["a net", "net"]),
        ('["a net", "net"]', ["a net", "net"]),
        (("a net", "net"), ["a net", "net"]),
        ([{"answer": "net", "answer_confidence": "yes"}, {"answer": "a net"}], ["net", "a net"]),
        ({"answers": ["net", "a net"]}, ["net", "a net"]),
        ({"value": "net", "aliases": ["a net"]}, ["net", "a net"]),
        ({"text": ["net", "net"], "answer_start": [3, 9]}, ["net"]),
        (["5", 6], ["5", "6"]),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
@pytest.mark.parametrize("kind", ["open-ended", "ocr"])
def test_any_of_the_accepted_texts_is_right(kind, truth, accepted):
    row = {"problem_type": kind, "answer": truth}
    for answer in accepted:
        assert score(kind, answer, truth).overall == 1
    assert score(kind, "goal keeper", truth).accuracy == 0
    assert score(kind, " ".join(accepted), truth).accuracy < 1 or len(accepted) == 1
    assert rewards.score(gold_answer(row), row).overall == 1


@pytest.mark.parametrize("truth", [[], [""], ["a", ""], {"answers": []}, '["a", ""]'])
def test_an_empty_text_among_the_accepted_ones_is_refused(truth):
    with pytest.raises(ValueError, match="is empty; correct the row"):
        rewards.check_row({"problem_type": "open-ended", "answer": truth})


def test_lists_of_texts_do_not_depend_on_their_order():
    truths = ["a red car", "the red car", "car"]
    for given in ("red car", "a car", "car"):
        values = {score("open-ended", given, order).accuracy for order in (truths, truths[::-1])}
        assert len(values) == 1
    assert text.read_truths(json.dumps(truths))[:3] == truths


@pytest.mark.parametrize(
    "part",
    ["$", "*", "1,", "- ", "<b", "1.0", "9", "a-", "1^", "$5 ", "-", "minus ", "\n", "#", "# \n"]
    + ["1,111", "0", "1.", "per cent ", "+", "> ", "1/", "$ $", "** ", "e\u0301"],
)
def test_long_texts_take_time_in_proportion(part):
    seconds = []
    for n in (5_000, 20_000):
        start = time.process_time()
        words.tokens(part * n)
        seconds.append(time.process_time() - start)
    assert seconds[1] < max(0.3, 10 * seconds[0])
