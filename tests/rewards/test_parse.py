"""What parse makes of LaTeX round an answer, and of raised digits."""

import random
import re

import pytest

from evr1.rewards import parse, score

WRAPPED = [
    r"\boxed{%s}",
    r"\boxed{\text{%s}}",
    r"\(\boxed{%s}\)",
    r"\(\boxed{\text{%s}}\)",
    r"\[\boxed{\mathrm{%s}}\]",
    r"$\boxed{%s}$",
    r"$\boxed{\text{%s}}$",
    r"$$\boxed{\textbf{%s}}$$",
    r"\boxed{\textbf{\text{%s}}}",
    r"\boxed{\boxed{%s}}",
    r"\text{\boxed{%s}}",
    r"\boxed {%s}",
    r"\boxed{\(\text{%s}\)}",
    r"\( \text{ %s } \)",
]
NOT_WRAPPED = [
    r"\boxed{Yes} or \boxed{No}",
    r"\text{Yes} \text{No}",
    r"\boxed{\text{Yes} or \text{No}",
    "$Yes$ or $No$",
    r"so \boxed{Yes}",
    r"\boxed{Yes}, I think",
    r"\frac{1}{2}",
    r"\sqrt{\text{Yes}}",
    r"\boxed{}",
    "{Yes}",
    "Yes",
]


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("text", ["Yes", "the cat sat on the mat", r"\frac{1}{2}", r"\{1, 2\}"])
def test_wrapping_latex_is_taken_off(wrapping, text):
    assert parse.unwrap(wrapping % text) == text


@pytest.mark.parametrize("text", NOT_WRAPPED)
def test_what_does_not_wrap_all_of_a_text_stays(text):
    assert parse.unwrap(text) == text


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("kind", ["open-ended", "ocr", "boolean"])
@pytest.mark.parametrize(("form", "overall"), [("%s", 0.9), ("<answer>%s</answer>", 1.0)])
def test_a_right_answer_in_latex_loses_nothing(wrapping, kind, form, overall):
    row = {"problem_type": kind, "answer": "Yes"}
    assert score(form % (wrapping % "Yes"), row).overall == pytest.approx(overall)


def test_a_long_open_answer_in_latex_loses_nothing():
    """The names of the macros would count as words: an overall score of 0.76."""
    row = {"problem_type": "open-ended", "answer": "The cat sat on the mat"}
    response = r"\boxed{\textbf{\text{The cat sat on the mat}}}"
    assert score(response, row).accuracy == 1
    assert score(f"<answer>{response}</answer>", row).overall == 1


@pytest.mark.parametrize(
    "text", [*(t for t in NOT_WRAPPED if "{No" in t), r"\(\boxed{Yes}\) or \(\boxed{No}\)"]
)
def test_two_answers_in_latex_are_not_one(text):
    assert score(text, {"problem_type": "boolean", "answer": "Yes"}).accuracy == 0
    tagged = score(f"<answer>{text}</answer>", {"problem_type": "open-ended", "answer": "Yes"})
    assert tagged.accuracy < 0.5


def test_an_open_truth_in_latex_is_met_by_itself():
    row = {"problem_type": "open-ended", "answer": r"\boxed{\text{Yes}}"}
    assert score(r"<answer>\boxed{\text{Yes}}</answer>", row).overall == 1


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("1½ m²", "1 ½ m^2"),
        ("10⁶", "10^6"),
        ("s⁻¹", "s^-1"),
        ("(a+b)³⁴", "(a+b)^34"),
        ("5 ²", "5 ²"),
        ("½", "½"),
        ("a^2", "a^2"),
    ],
)
def test_powers_are_spelled(text, spelled):
    assert parse.spell_powers(text) == spelled


def test_digits_that_are_spelled_are_those_that_normalize_would_give():
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choices("a1)} ⁻⁰¹²³⁴⁹½⅔^-", k=8))
        marked = re.sub(
            r"(?<=[\w)}\]])(?=[⁻⁰¹²³⁴-⁹])(?<![⁻⁰¹²³⁴-⁹])",
            "^",
            re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text),
        )
        assert parse.normalize(parse.spell_powers(text)) == parse.normalize(marked)
