"""Truths that accept several numbers, and options that are numbered."""

import pytest

from evr1 import rewards
from evr1.rewards import Status, numbered
from evr1.rewards.gold import gold_answer


def score(kind, given, truth, options=()):
    row = {"problem_type": kind, "answer": truth, "options": options}
    return rewards.score(f"<answer>{given}</answer>", row)


@pytest.mark.parametrize("truth", [[5, 6.5], ["5", "6.5"], "[5, 6.5]", (6.5, 5), ["5.0", 6.5, 5]])
@pytest.mark.parametrize("kind", ["numerical", "regression"])
def test_any_of_the_accepted_numbers_is_right(kind, truth):
    for given in ("5", "6.5", "5.0", "13/2"):
        assert score(kind, given, truth).overall == 1
    for given in ("20", "5 or 6.5", "5, 6.5", "[5, 6.5]", "-5", "5 to 6.5"):
        assert score(kind, given, truth).accuracy == 0
    row = {"problem_type": kind, "answer": truth}
    assert rewards.score(gold_answer(row), row).overall == 1


def test_the_nearest_of_the_accepted_numbers_counts():
    assert score("regression", "11", [10, 100]).accuracy == 0.9
    assert score("regression", "110", [10, 100]).accuracy == 0.9
    assert score("numerical", "11", [10, 100]).accuracy == 0


@pytest.mark.parametrize("truth", [[], [5, "x"], [True], [None], "[5, x]"])
def test_what_is_no_list_of_numbers_is_refused(truth):
    with pytest.raises(ValueError, match="is no number; correct the row"):
        rewards.check_row({"problem_type": "numerical", "answer": truth})


TREES = ["1. oak", "2. elm", "3. ash"]


@pytest.mark.parametrize("truth", ["2", 2, "2.", "(2)", "B", "2. elm", "elm", "Elm"])
def test_the_number_of_a_numbered_option_is_its_letter(truth):
    row = {"problem_type": "multiple choice", "answer": truth, "options": TREES}
    assert gold_answer(row) == "<answer>B</answer>"
    assert score("multiple choice", "B", truth, TREES).overall == 1
    for given in ("2", "(2)", "2.", "02", "option 2", "2. elm", "2) elm.", "elm"):
        result = score("multiple choice", given, truth, TREES)
        assert (result.accuracy, result.format) == (1, 0)
    for given in ("1", "3", "0", "4", "22", "2. ash", "1 or 2", "2, 3", "ash", "elm or ash", "A"):
        assert score("multiple choice", given, truth, TREES).accuracy == 0


def test_a_list_of_option_numbers_is_a_set_of_letters():
    assert score("multiple choice", "A, C", [1, 3], TREES).overall == 1
    assert score("multiple choice", "C, A", [3, 1, 3], TREES).overall == 1
    assert score("multiple choice", "A", [1, 3], TREES).accuracy == 0


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["(0) oak", "(1) elm"], {"0": "A", "1": "B"}),
        (["1) oak", "2) elm"], {"1": "A", "2": "B"}),
        (["oak", "elm"], {}),
        (["A. oak", "B. elm"], {}),
        (["1. oak", "3. elm"], {}),
        (["2. oak", "1. elm"], {}),
        (["2. oak", "3. elm"], {}),
        (["1. 2", "2. 1"], {}),  # "1" could be either
        (["1.5 m", "2.5 m"], {}),
        (["3", "5"], {}),
        (["1. oak"], {}),
        ([], {}),
    ],
)
def test_options_are_numbered_in_order_or_not_at_all(options, numbers):
    lettered = dict(zip("ABC", options, strict=False))
    assert numbered.option_numbers(lettered) == numbers


@pytest.mark.parametrize("truth", [2, "2", 0, [0, 1], True])
def test_a_number_counts_from_nowhere_where_options_have_none(truth):
    options = ["oak", "elm", "ash"]
    assert score("multiple choice", "B", truth, options).status is Status.ERROR
