"""Terms of the reward, each by hand; what they add up to; and what must not earn anything."""

import json
import time

import numpy as np
import pytest
from collect_rig import example, row
from hypothesis import given
from hypothesis import strategies as st

from evr1.exchange.group import Group
from evr1.rewards import Score, Status, Task, __main__, compose
from evr1.rewards.compose import Completion, Settings
from evr1.rollout.outcomes import outcomes_of, reward_metrics
from evr1.types import Rollouts

SETTINGS = Settings(max_length=100, overlong_cache=20, repetition_words=2)


def completion(text="", problem="", length=0, finished=True, settings=SETTINGS):
    return Completion(text, Task("math", "1", problem=problem), length, finished, settings)


@pytest.mark.parametrize(("length", "expected"), [(0, 0), (25, -0.25), (100, -1), (300, -1)])
def test_length_penalty(length, expected):
    assert compose.length_penalty(completion(length=length)) == expected


@pytest.mark.parametrize(
    ("length", "finished", "expected"),
    [
        (0, True, 0),
        (80, True, 0),
        (81, True, -0.05),
        (90, True, -0.5),
        (99, True, -0.95),
        (100, True, -1),
        (101, True, -1),
        (100, False, -1),
        (10, False, -1),  # cut, wherever the limit was
    ],
)
def test_overlong_penalty_is_dapos_equation_13(length, finished, expected):
    found = compose.overlong_penalty(completion(length=length, finished=finished))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("one", 0),
        ("a b c d", 0),
        ("a b a b a", -0.5),  # ab ba ab ba
        ("A b. a B.", -0.4),  # "a b" and "b ." come twice, ". a" once
        ("no no no no no", -0.75),
        ("! ! ! ! !", -0.75),
        ("!!!!!", -0.75),
        ("好好好好好", -0.75),
        ("我看我看我", -0.5),
        ("x" * 41, -39 / 40),  # without spaces, too
        ("ab" * 20 + "a", -38 / 40),
        ("<answer>a b a b a</answer>", -1 / 3),  # a tag is one word; 6 phrases, 4 different
        ('so <answer>{"boxes": {"1": [1, 2, 1, 2, 1, 2]}}</answer>', 0),
        ("<answer>" * 5, -0.75),
    ],
)
def test_repetition_penalty(text, expected):
    assert compose.repetition_penalty(completion(text)) == pytest.approx(expected)


def test_longer_phrases_may_repeat_their_words():
    settings = SETTINGS._replace(repetition_words=4)
    text = "a b c a b d a b e"
    assert compose.repetition_penalty(completion(text, settings=settings)) == 0
    assert compose.repetition_penalty(completion(text)) == -0.25  # ab thrice among 8


ENGLISH, CHINESE, JAPANESE = "How many cats?", "有几只猫？", "猫は何匹ですか"


@pytest.mark.parametrize(
    ("problem", "text", "expected"),
    [
        (ENGLISH, "two cats", 1),
        (ENGLISH, "两只猫", 0),
        (ENGLISH, "ab 两只", 0.5),
        (ENGLISH, "été für ａｂ", 1),  # accents and full width are Latin
        (CHINESE, "两只猫", 1),
        (CHINESE, "两只猫 and cat", 3 / 9),
        (CHINESE, "两只ねこ", 0.5),  # kana are not Chinese
        (JAPANESE, "二匹のネコー", 1),
        (JAPANESE, "two", 0),
        ("Сколько?", "Два", 1),
        ("고양이?", "두 마리", 1),
        (f"<video>{CHINESE}", "<think>两只</think><answer>B</answer>", 1),  # the letter is no word
        (CHINESE, "<think>两只</think><answer>a</answer>", 1),
        (CHINESE, r"所以 $\frac{1}{2}$", 1),
        (CHINESE, "12 + 3", 1),
        ("1 + 1 = ?", "anything", 1),
        ("<image>", "anything", 1),
        *[
            (problem, text, 0)
            for problem in (ENGLISH, CHINESE, "1 + 1 = ?", "")
            for text in ("", "\n")
        ],
    ],
)
def test_language_consistency(problem, text, expected):
    assert compose.language_consistency(completion(text, problem)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>so</think><answer>B</answer>", 1),
        ("\n<think>\nso\n</think>\n\n<answer> B </answer>\n", 1),
        ("<think></think><answer>B</answer>", 0),
        ("<think> </think><answer>B</answer>", 0),
        ("<think>so</think><answer></answer>", 0),
        ("<answer>B</answer>", 0),
        ("so</think><answer>B</answer>", 0),
        ("<answer>B</answer><think>so</think>", 0),
        ("<think>so</think> then <answer>B</answer>", 0),
        ("<think>so</think><answer>B</answer> then", 0),
        ("Well <think>so</think><answer>B</answer>", 0),
        ("<think>so</think><answer>A</answer><answer>B</answer>", 0),
        ("<think>so <answer>A</answer></think><answer>B</answer>", 0),
        ("<think>so</think><think>so</think><answer>B</answer>", 0),
        ("<think>so <think></think><answer>B</answer>", 0),
        ("<think>so < Answer ></think><answer>B</answer>", 0),  # the parser reads that as a tag
        ("<thinking>so</thinking><answer>B</answer>", 0),
    ],
)
def test_think_format(text, expected):
    assert compose.think_format(completion(text)) == expected


TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", "猫", " ", "{}", "\\x"])
).map("".join)


@given(TEXTS, TEXTS, st.integers(0, 300), st.booleans())
def test_terms_stay_in_their_bounds(text, problem, length, finished):
    for name, term in compose.TERMS.items():
        value = term(completion(text, problem, length, finished))
        low, high = (-1, 0) if name.endswith("penalty") else (0, 1)
        assert low <= value <= high, name


@pytest.mark.parametrize("unit", ["a", "a ", "!", "猫", "<answer>", "</think>", "\ufdfa", '{"a":'])
def test_terms_of_a_megabyte_take_no_second(unit):
    text = unit * (10**6 // len(unit))
    start = time.process_time()
    for term in compose.TERMS.values():
        term(completion(text, ENGLISH, 10))
    assert time.process_time() - start < 2


def terms(*weights, own=None):
    return compose.find_terms(weights, own or {}, SETTINGS)


SCORES = [
    Score(1.0, 1.0, 1.0, Status.OK, "B"),
    Score(0.0, 0.0, 0.0, Status.UNPARSED),
    Score(0.0, 0.0, 0.0, Status.TIMEOUT, detail="over 2 s"),
    Score(0.0, 0.0, 0.0, Status.ERROR, detail="no"),
]
ROW = {"problem_type": "math", "answer": 1}
OUTCOMES = [("x", ROW, np.int32(90), np.True_), ("y", ROW, 10, True)] + [("z", ROW, 90, True)] * 2


def test_overall_is_the_weighted_sum():
    made = compose.add_terms(
        SCORES, OUTCOMES, terms(("overlong_penalty", 0.5), ("length_penalty", 0.1))
    )
    assert made[0].overall == pytest.approx(1 - 0.5 * 0.5 - 0.1 * 0.9)
    assert dict(made[0].terms) == pytest.approx({"overlong_penalty": -0.5, "length_penalty": -0.9})
    assert made[1].overall == pytest.approx(-0.01)
    assert made[0][1:6] == SCORES[0][1:6]
    assert made[2:] == SCORES[2:]  # a failed scorer is no reward, with or without terms


def test_without_terms_nothing_changes():
    assert compose.add_terms(SCORES, [], terms()) == SCORES


def test_a_term_that_fails_is_counted_as_an_error():
    own = {"broken": lambda c: 1 / 0, "odd": lambda c: float("nan"), "none": lambda c: None}
    for name, detail in (
        ("broken", "term broken: ZeroDivisionError: division by zero"),
        ("odd", "term odd gave nan; give a finite number"),
        ("none", "term none: TypeError"),
    ):
        [made] = compose.add_terms(SCORES[:1], OUTCOMES[:1], terms((name, 1.0), own=own))
        assert made[:4] == (0, 0, 0, Status.ERROR)
        assert made.detail.startswith(detail)


def test_own_terms_see_the_completion_and_replace_built_in_ones():
    own = {"length_penalty": lambda c: len(c.text) + c.length + c.settings.max_length}
    [made] = compose.add_terms(SCORES[:1], OUTCOMES[:1], terms(("length_penalty", 1), own=own))
    assert made.overall == 1 + 1 + 90 + 100


def test_unknown_terms_are_refused():
    with pytest.raises(
        ValueError, match="rewards.terms names 'brevity'; there are length_penalty,"
    ):
        terms(("brevity", 1.0))


def test_each_term_is_a_metric_of_the_completions_that_count():
    made = compose.add_terms(SCORES, OUTCOMES, terms(("length_penalty", 1.0)))
    n = len(SCORES)
    rollouts = Rollouts(
        np.zeros((n, 3)), np.zeros((n, 3)), np.full(n, 3, np.int32), np.ones(n, bool)
    )

    def metrics(scores, **term_weights):
        weights = {"accuracy": 0.9, "format": 0.1, **term_weights}
        origins = ("policy",) * n
        groups = [Group(example(row(0)), rollouts, ("",) * n, tuple(scores), origins, 0)]
        return reward_metrics(groups, outcomes_of(groups, weights))

    found = metrics(made, length_penalty=1.0)
    assert found["reward/term/length_penalty"] == pytest.approx((-0.9 - 0.1) / 2)
    assert found["reward/overall"] == pytest.approx((1 - 0.9 - 0.1) / 2)
    assert found.keys() - metrics(SCORES).keys() == {"reward/term/length_penalty"}


def test_command_adds_terms(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    base = {"problem_type": "ocr", "answer": "x", "response": "<answer>x</answer>"}
    rows = [{**base, "length": 90}, {**base, "length": 5, "finished": False}, base]
    rows.append({"problem_type": "ocr", "response": "x"})
    source.write_text("\n".join(map(json.dumps, rows)))
    flags = [f"--rows={source}", f"--out={out}", "--workers=1"]
    __main__.main([*flags, "--terms=overlong_penalty=0.5,think_format=1", "--max_length=100"])
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["overall"] for r in found] == [0.75, 0.5, 1, 0]  # 18 characters are far from 100
    assert found[0]["terms"] == {"overlong_penalty": -0.5, "think_format": 0}
    assert "terms" not in found[3]
    for wrong, message in (
        ("length_penalty=1", "--terms: length_penalty needs --max_length"),
        ("think_format", "--terms: got 'think_format'; give name=weight"),
        ("think_format=much", "--terms: got 'think_format=much'; give name=weight"),
        ("brevity=1", "--terms names 'brevity'"),
    ):
        with pytest.raises(SystemExit, match=message):
            __main__.main([*flags, f"--terms={wrong}"])


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(90, -0.9), (90.0, -0.9), (0, 0), (0.0, 0), (None, -0.18)]
    + [(wrong, None) for wrong in ("90", "", "long", 90.5, -1, True, [90], float("nan"), 1e999)],
)
def test_a_length_is_a_whole_number_or_the_row_is_refused(tmp_path, length, penalty):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    row = {"problem_type": "ocr", "answer": "x", "response": "<answer>x</answer>", "length": length}
    source.write_text(json.dumps(row))
    flags = [f"--rows={source}", f"--out={out}", "--workers=1"]
    __main__.main([*flags, "--terms=length_penalty=1", "--max_length=100"])
    scored = json.loads(out.read_text())
    if penalty is None:
        assert scored["status"] == "error"
        assert scored["detail"] == f"length is {length!r}; give a whole number, such as 90"
    else:
        assert scored["terms"] == {"length_penalty": penalty}
    __main__.main(flags)  # without terms, nothing goes by it
    assert json.loads(out.read_text())["overall"] == 1
