"""Two runs on one page: paired differences, what was set otherwise, rows that flipped."""

import math

import browser as rig
import pytest
from pages import NASTY, Page, check_nothing_from_outside, check_policy
from report_rig import CONFIG, METRICS, make_run, metric, rollout

from evr1.formats import user_code
from evr1.report import compare
from evr1.report.__main__ import main


def answers(accuracies, step=2, **fields):
    """Held-out rollouts e0, e1, ... of these accuracies; every other one is of type ocr."""
    return [
        rollout(step, f"e{i}", split="eval", advantage=None, score={"overall": a, "accuracy": a},
                problem_type=("ocr", "math")[i % 2], **fields)
        for i, a in enumerate(accuracies)
    ]  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    """Runs whose last evaluations answer e0 to e3 and, the second one, e4; earlier ones differ."""
    first = [*answers([1.0, 1.0, 1.0, 1.0], step=0), *answers([0.0, 1.0, 0.0, 0.5])]
    second = answers([1.0, 1.0, 0.0, 0.0, 1.0], completion=NASTY)
    config = CONFIG | {"optim": {"learning_rate": 2e-6}, "workdir": "elsewhere"}
    metrics = [*METRICS, metric(3, reward__overall=0.9)]
    a = make_run(tmp_path / "one", first)
    return a, make_run(tmp_path / "two", second, metrics, config)


def test_differences_are_of_the_rows_that_both_answered(runs):
    a, b = (compare.read_run(run) for run in runs)
    everything, math_, ocr = compare.differences(a, b)
    assert everything[:4] == ("all", 4, 0.375, 0.5)
    # differences 1, 0, 0, -0.5: mean 0.125, variance (49 + 1 + 1 + 25) / 64 / 3
    error = math.sqrt((0.875**2 + 2 * 0.125**2 + 0.625**2) / 3 / 4)
    assert everything.half_width == pytest.approx(1.96 * error)
    assert (everything.direction, everything.text) == ("", "+12.5 ± 61.7")
    assert ocr[:4] == ("ocr", 2, 0.0, 0.5)
    assert math_[:4] == ("math", 2, 0.75, 0.5)
    assert compare.differences(a, a)[0].text == "+0.0 ± 0.0"


def test_the_command_writes_a_page_and_says_what_differs(runs, capsys):
    a, b = runs
    assert main([str(a), "--compare", str(b)]) == 0
    said = capsys.readouterr().out
    assert "one and two: held-out accuracy of the rows that both answered" in said
    assert "37.5% →  50.0%  +12.5 ± 61.7 points, 4 rows" in said
    assert "  optim.learning_rate: 1e-06 | 2e-06" in said
    assert "elsewhere" not in said  # no two runs have one workdir
    page = Page(a / compare.FILE)
    check_nothing_from_outside(page)
    check_policy(page)
    assert "2 rows of another accuracy" in page.visible
    reward = page.data["metrics"]
    assert page.data["steps"] == [0, 1, 2, 3]
    assert reward["A: one/reward/overall"] == [None, 0.2, None, None]
    assert reward["B: two/reward/overall"] == [None, 0.2, None, 0.9]
    assert main([str(a), "--compare", str(a / "nothing")]) == 1
    assert "metrics.jsonl does not exist; give the workdir" in capsys.readouterr().err


def scored(extra="", digest="", **rewards):
    """A config of these scorers."""
    rewards = {"extra": extra, "terms": [], "workers": 2} | rewards
    return CONFIG | {"rewards": rewards, "run": {user_code.RECORD: digest}}


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (scored(), scored(workers=8), ""),
        (scored("r.py", "1"), scored("elsewhere/r.py", "1"), ""),  # the same scorers
        (scored("r.py", ""), scored("r.py", "1"), ""),  # of an older run nobody knows
        (scored() | {"run": {"git_commit": "0" * 40}}, scored(), ""),
        ({}, {}, ""),
        (
            scored(terms=[["shout", 0.1]]),
            scored(accuracy_weight=1.0),
            "rewards.terms, rewards.accuracy_weight): the reward (overall) of one does not compare "
            "with the other's.",
        ),
        (
            scored("r.py", "1"),
            scored("r.py", "2"),
            "what r.py holds (rewards.extra)): the reward (overall) of one does not compare with "
            "the other's; nor does accuracy where what r.py holds (rewards.extra) decides it.",
        ),
        (
            scored("r.py:A", "1"),
            scored("r.py:B", "1"),
            "rewards.extra): the reward (overall) of one does not compare with the other's; nor "
            "does accuracy where rewards.extra decides it.",
        ),
    ],
)
def test_rewards_of_other_scorers_are_said_not_to_compare(tmp_path, capsys, a, b, why):
    """The curves of both stood on one axis without a word."""
    one, other = (make_run(tmp_path / name, config=c) for name, c in (("one", a), ("two", b)))
    assert main([str(one), "--compare", str(other)]) == 0
    line = why and f"The runs were not scored alike (they differ in {why}"
    said = capsys.readouterr().out.splitlines()
    assert [text for text in said if "scored alike" in text] == ([line] if why else [])
    visible = " ".join(Page(one / compare.FILE).visible.split())
    assert ("scored alike" in visible) == bool(why)
    assert line in visible


@pytest.mark.skipif(rig.PATH is None, reason=rig.WHY_NOT)
def test_the_page_in_a_browser(runs):
    a, b = runs
    path, _ = compare.build(a, b)
    with rig.Browser() as browser:
        page = browser.open(path.as_uri(), width=400, dark=True)
        assert page.text("#charts .legend")[0].split() == ["A:", "one", "0.2", "B:", "two", "0.9"]
        page.click("#all summary", "Every metric")
        page.wait("document.querySelectorAll('#all-charts svg').length > 5")
        assert page.eval("document.documentElement.scrollWidth") <= 400
        assert page.errors == []
