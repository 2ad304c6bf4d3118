"""Mathematics: answers in the forms that models write, right and wrong, and the rewrites before.

`golden/math_answers.jsonl` was written by hand: for each truth, other writings of it and what only
looks like it.
"""

import functools
import json
import time

import pytest
from repo import GOLDEN

from evr1 import rewards
from evr1.rewards import Status, math
from evr1.rewards.formulas import evaluate, formula, notation, structures, symbolic

LINES = (GOLDEN / "math_answers.jsonl").read_text("utf-8").strip().split("\n")
TRUTHS = [json.loads(line) for line in LINES]
SCORERS = {**rewards.SCORERS, "math": functools.partial(math.score, equal=symbolic.equal_inline)}


def score(response: str, truth: str) -> rewards.Score:
    return rewards.score(response, {"problem_type": "math", "answer": truth}, scorers=SCORERS)


@pytest.mark.parametrize("row", TRUTHS, ids=lambda row: row["answer"])
def test_answers(row):
    for answer in row.get("right", []):
        assert score(f"<answer>{answer}</answer>", row["answer"]).accuracy == 1, answer
    for answer in row.get("wrong", []):
        assert score(f"<answer>{answer}</answer>", row["answer"]).accuracy == 0, answer


def test_both_kinds_are_many():
    assert sum(len(row.get("right", [])) for row in TRUTHS) > 450
    assert sum(len(row.get("wrong", [])) for row in TRUTHS) > 400


@pytest.mark.parametrize(
    ("written", "unified"),
    [
        (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"0.\dot{1}4285\dot{7}", r"\frac{1}{7}"),
        ("2.1(6)", r"\frac{13}{6}"),
        ("0.1666...", r"\frac{1}{6}"),
        ("0.125...", "0.125..."),  # nothing repeats
        (r"\frac{10\,000}{3}", r"\frac{10000}{3}"),
        (r"\sqrt{10,000}", r"\sqrt{10000}"),
        ("(10,000)", "(10,000)"),  # a pair
        ("1 125/1000", r"\frac{1125}{1000}"),
        ("10 000/3", "10000/3"),
        (r"2\frac{1}{2}", r"\frac{5}{2}"),
        (r"2\frac{3}{2}", r"2\frac{3}{2}"),  # a product
        ("x^2 1/2", "x^2 1/2"),
        ("2½", r"\frac{5}{2}"),
        (r"\left\{1, 2\right\}", r"\{1, 2\}"),
        ("log₂ 8", "log_{2} 8"),
        (r"30^{\circ}", "30°"),
    ],
)
def test_notation(written, unified):
    assert notation.unify(written) == unified


@pytest.mark.parametrize(
    "text",
    ["3 4", "5 +", "(3", "3)", "4 dozen", "4 or", "", "x ? y", r"\frac{1}", r"\unknown 3", "5 6!"]
    + ["(" * 40 + "5" + ")" * 40, "x" * 1400, "9!" * 700, "--" * 300 + "5"],
)
def test_what_is_no_formula(text):
    assert formula.read(text) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("(x+1)^2", "x^2+2x+1", True),
        ("2^{100}", "1267650600228229401496703205376", True),
        ("2^{100}+1", "2^{100}", False),
        (r"\sin^2 x + \cos^2 x", "1", True),
        (r"\ln x^2", r"2\ln x", True),  # wherever the second is real
        (r"2\ln x", r"\ln x^2", False),
        (r"\sqrt{x^2}", "x", False),
        ("(-8)^{1/3}", "-2", True),
        (r"e^{i\pi}", "-1", True),
        (r"\sin 30°", r"\frac{1}{2}", True),
        ("9^{9^{9}}", "9^{9^{9}}+1", False),  # too big to tell
    ],
)
def test_values(one, other, equal):
    assert evaluate.are_equal(formula.read(one), formula.read(other)) == equal


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("12:30", "12:30 PM", True),
        ("00:30", "12:30 am", True),
        ("12:30 am", "12:30 pm", False),
        ("15:05", "3:05 p.m.", True),
        ("3:05", "3:05:00", True),
        ("3:05", "3:50", False),
    ],
)
def test_times(one, other, same):
    times = structures.read_clock(one), structures.read_clock(other)
    assert structures.are_same_time(*times) == same


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        (r"\sum_{k=1}^{4} k", "10", "11"),
        (r"\int_0^1 x dx", r"\frac12", "1"),
        (r"\int x dx", "x^2/2", "x^2"),
        (r"\lim_{x\to 0} \frac{\sin x}{x}", "1", "0"),
    ],
)
def test_a_truth_may_have_to_be_worked_out(truth, right, wrong):
    assert score(f"<answer>{right}</answer>", truth).accuracy == 1
    assert score(f"<answer>{wrong}</answer>", truth).accuracy == 0


@pytest.mark.parametrize(
    ("text", "is_tower"),
    [
        (r"\frac{x^{2}}{y^{2}}", False),
        ("2^3 3^2", False),
        ("(2^3)^2", False),
        ("9^{9^9}", True),
        ("9^9^9", True),
        ("x^{2}^{3}", True),
    ],
)
def test_only_a_power_within_an_exponent_is_a_tower(text, is_tower):
    assert symbolic.has_tower(text) == is_tower


@pytest.mark.parametrize(
    ("response", "truth", "accuracy"),
    [
        ("Thus x = ln(7).", r"\ln 7", 1),
        ("The area is 5√2", r"5\sqrt{2}", 1),
        ("The wrong answer is 5√2", r"5\sqrt{2}", 0),
        ("It isn't true: the area is 5√2", r"5\sqrt{2}", 0),
        (r"I get \(5\) or \(6\)", "5", 0),
        ("The answer is 5 or 6.", "5", 0),
        (r"So \boxed{3\sqrt{5}}", "3√5", 1),
        ("<answer>\\binom5e0</answer>", "1", 0),
        (r"<answer>x > \sqrt{2} + 1</answer>", r"(1+\sqrt{2}, \infty)", 1),
        (r"<answer>(\ln 2, 1/3]</answer>", "x > 2", 0),
    ],
)
def test_responses(response, truth, accuracy):
    result = score(response, truth)
    assert result.accuracy == accuracy
    assert result.status in (Status.OK, Status.UNPARSED)


@pytest.mark.parametrize(
    ("content", "truth", "form"),
    [
        ("5", "5", 1),
        (r"\boxed{5}", "5", 1),
        ("5 cm", "5", 1),
        (r"\frac{1}{2}", "5", 1),
        ("no solution", "5", 1),
        ("Tuesday", "Monday", 1),
        ("I am not sure", "5", 0),
        ("Hmm, 5?", "5", 0),
        ("5, I think", "5", 0),
        ("5 because it is", "5", 0),
        ("about 5", "5", 0),
        ("?", "5", 0),
        ("---", "5", 0),
    ],
)
def test_the_form_is_a_formula(content, truth, form):
    assert score(f"<answer>{content}</answer>", truth).format == form


COSTLY = {
    "power of a sum": "(x+1)^{1000}",
    "power of five": "(a+b+c+d+e)^{300}",
    "tower": "9^{9^{9}}",
    "higher tower": "9^{9^{9^{9}}}",
    "powers": "((x^{99})^{99})^{99}",
    "product": "*".join(f"(x+{i})^{{99}}" for i in range(80)),
    "long list": ",".join(map(str, range(10_000))),
    "list": ",".join(map(str, range(390))),
    "brackets": "(" * 5000 + "5" + ")" * 5000,
    "factorials": "*".join(["1000!"] * 60),
    "gammas": "+".join(f"(x+{i})!" for i in range(100)),
    "sines": "+".join(rf"\sin({i}x)" for i in range(100)),
    "nested sets": r"\{1," * 25 + "1" + r"\}" * 25,
    "intervals": r"\cup".join(f"({2 * i},{2 * i + 1})" for i in range(49)),
    "exponentials": "e^{e^{e^{e^{9}}}}",
    "exponents": "1e9999*1e-9999",
    "relations": "<".join(map(str, range(300))),
}
COSTLY |= {
    f"run of {unit!r}": unit * (100_000 // len(unit))
    for unit in [*"09([{}|\\^/-+!,:=<√²½∪ x$", r"\frac{", r"\sqrt", r"\text{", "x^", "1,", "sin "]
}
COSTLY |= {f"short {name}": text[:1400] for name, text in COSTLY.items() if name[:3] == "run"}


@pytest.mark.parametrize("name", COSTLY)
def test_nothing_takes_long(name):
    others = [] if name[:3] == "run" else ["5", "(x+1)^2", "x > 2", COSTLY["list"][:-3] + "1"]
    for truth in (r"\{1, 2\}", *others):
        for response in (COSTLY[name], f"<answer>{COSTLY[name]}</answer>"):
            start = time.process_time()
            result = score(response, truth)
            assert time.process_time() - start < 0.5  # ten times as long as it takes
            assert result.status is not Status.ERROR, result.detail
            assert result.accuracy == 0
