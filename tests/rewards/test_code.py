"""Programs: what passes, what the sandbox holds back, and what must not earn a point."""

import functools
import json
import os
import platform
import sys
import time

import numpy as np
import pytest
from programs import GAMES, SERVED

from evr1 import rewards
from evr1.rewards import Status, code, worker
from evr1.rewards.gold import gold_answer
from evr1.rewards.pool import RewardPool
from evr1.rewards.programs import sandbox, seccomp

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in seccomp.ARCHITECTURES,
    reason="no sandbox on this platform",
)
SUM = "a, b = map(int, input().split())\nprint(a + b)"
RUNS = [{"input": "1 2", "output": "3"}, {"input": "2 3", "output": "5\n"}]
ADD = "def add(a, b):\n    return a + b"
ASSERTS = ["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]"]
CALLS = {"fn_name": "add", "inputs": [[1, 2], [2.5, 2]], "outputs": [3, 4.5]}
HUMAN = "def check(candidate):\n    for i in range(3):\n        assert candidate(i, 1) == i + 1\n"


def score(response, tests=None, answer="", limit_s=20.0, **fields):
    """Scored without haste: on a busy machine a program that ends may take seconds."""
    return rewards.score(
        response,
        {"problem_type": "code", "answer": answer, "tests": tests, **fields},
        scorers={"code": functools.partial(code.score, limit_s=limit_s)},
    )


def tag(text):
    return f"<answer>{text}</answer>"


def fence(text):
    return f"```python\n{text}\n```"


# (response, tests, answer, accuracy, format); no program read: None
CASES = [
    (tag(SUM), RUNS, "", 1, 1),
    (tag(f"\n{SUM}\n"), json.dumps(RUNS), "", 1, 1),
    (tag(fence(SUM)), RUNS, "", 1, 0),
    (tag(f"Here it is:\n{fence(SUM)}\nDone."), RUNS, "", 1, 0),
    (f"So:\n{fence('print(1)')}\nNo:\n{fence(SUM)}", RUNS, "", 1, 0),
    (f"<think>{fence(SUM)}</think>\n{fence('print(3)')}", RUNS, "", 0, 0),
    (f"<think>{tag(SUM)}", RUNS, "", 1, 1),  # an open block that ends with the tag
    (tag(f'"""Adds.\n{fence("x")}\n"""\n{SUM}'), RUNS, "", 1, 1),  # a fence in a docstring
    (tag("print(3)"), RUNS, "", 0, 1),
    (tag("print('3\\n5')"), RUNS, "", 0, 1),
    (tag(f"{SUM}\nprint('done')"), RUNS, "", 0, 1),
    (tag(f"{SUM}\nraise KeyError"), RUNS, "", 0, 1),  # right output, then a fault
    (tag(f"{SUM}\nimport sys\nsys.exit(0)"), RUNS, "", 1, 1),
    (
        tag("import threading\n" + f"threading.Thread(target=lambda: exec({SUM!r})).start()"),
        RUNS,
        "",
        1,
        1,
    ),
    (
        tag(f"if __name__ == '__main__':\n    {SUM.replace(chr(10), chr(10) + '    ')}"),
        RUNS,
        "",
        1,
        1,
    ),
    (
        tag("import os\nx = os.read(0, 99).split()\nos.write(1, b'%d' % sum(map(int, x)))"),
        RUNS,
        "",
        1,
        1,
    ),
    (
        tag("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (-1, -1))\n" + SUM),
        RUNS,
        "",
        1,
        1,
    ),
    (tag("a, b = open(0).read().split()\nprint(int(a) + int(b))"), RUNS, "", 1, 1),
    (tag("see above"), RUNS, "", None, 0),
    (tag("junk"), RUNS, "", None, 0),
    (tag("{}"), ASSERTS, "", None, 0),
    (tag("def add(a, b): return"), ASSERTS, "", 0, 1),
    (tag("def add(a, b) return"), ASSERTS, "", None, 0),
    ("", RUNS, "", None, 0),
    (tag(""), RUNS, "", None, 0),
    (SUM, RUNS, "", 1, 0),
    (tag("print(6 * 7)"), None, "42", 1, 1),
    (tag("print('42 ')\nprint()"), None, 42, 1, 1),
    (tag("print('4 2')"), None, "42", 0, 1),
    (tag("print(1 / 3)"), None, "0.333333333", 1, 1),
    (tag("print(0.33)"), None, "0.333333333", 0, 1),
    (tag(ADD), ASSERTS, "", 1, 1),
    (tag(ADD), "\n".join(ASSERTS), "", 1, 1),
    (tag("def add(a, b):\n    return 3"), ASSERTS, "", 0, 1),
    (tag(ADD), CALLS, "", 1, 1),
    (tag(ADD), None, json.dumps(CALLS), 1, 1),
    (tag("class Solution:\n    def add(self, a, b):\n        return a + b"), CALLS, "", 1, 1),
    (tag("def add(a, b):\n    return str(a + b)"), CALLS, "", 0, 1),
    (tag(SUM), None, {"inputs": ["1 2\n"], "outputs": ["3\n"]}, 1, 1),
    (tag(ADD), None, f"# sum\n{ADD}", 1, 1),
    (tag("def add(a, b):\n    return b + a"), None, ADD, 0, 1),
    (tag("def plus(a, b):\n    return a + b"), None, ADD, 0, 1),
]


@pytest.mark.parametrize(("response", "tests", "answer", "accuracy", "form"), CASES)
def test_cases(response, tests, answer, accuracy, form):
    result = score(response, tests, answer)
    assert result.detail == ""
    assert result.status is (Status.UNPARSED if accuracy is None else Status.OK)
    assert (result.accuracy, result.format) == (accuracy or 0, form)


@pytest.mark.parametrize("name", SERVED)
def test_tests_see_the_program_from_outside(name):
    program, tests = SERVED[name].split("\n--\n")
    assert score(tag(program), tests).accuracy == 1
    assert score(tag("def f(*x, **y):\n    return 77\nStack = f"), tests).accuracy == 0


def test_check_functions_and_setup_of_public_sets():
    assert score(tag(ADD), test=HUMAN, entry_point="add").accuracy == 1
    assert score(tag("def add(a, b): return 1"), test=HUMAN, entry_point="add").accuracy == 0
    mbpp = {"test_list": ["assert add(K, 2) == 3"], "test_setup_code": "K = 1"}
    assert score(tag(ADD), **mbpp).accuracy == 1
    apps = {"input_output": json.dumps({"inputs": ["1 2"], "outputs": ["3"]})}
    assert score(tag(SUM), **apps).accuracy == 1
    lines = [{"input": '[1, 2]\n"x"', "output": "[2, 1]"}]
    assert score(tag("def f(a, b): return a[::-1]"), lines, fn_name="f").accuracy == 1
    wrapped = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}
    assert score(tag(ADD), wrapped).accuracy == 1
    assert score(tag(ADD), np.array(ASSERTS)).accuracy == 1


def test_a_share_counts_only_where_the_row_says_so():
    half = tag("print(3)")
    assert score(half, RUNS).accuracy == 0
    assert score(half, RUNS, partial=True).accuracy == 0.5
    assert score(tag("def add(a, b):\n    return 3"), ASSERTS, partial=True).accuracy == 0.5
    hang = tag("def add(a, b):\n    while b != 2:\n        pass\n    return 3")
    assert score(hang, ASSERTS, limit_s=3.0, partial=True).accuracy == 0.5


@pytest.mark.parametrize(
    ("given", "truth", "same"),
    [
        ("1\n2\n\n", "1\n2", True),
        ("1 \r\n2", "1\n2", True),
        ("1 2", "1\n2", False),
        ("1  2", "1 2", False),
        (" 1", "1", False),
        ("1", "1.0", True),
        ("2.0000001", "2.0", True),
        ("2.1", "2.0", False),
        ("nan", "2.0", False),
        ("5", "6", False),
        ("1000001", "1000000", False),  # integers are exact
        ("", "x", False),
    ],
)
def test_outputs_agree_line_by_line(given, truth, same):
    assert code.is_same_output(given, truth) is same


SECRET = "SECRET-" + "7" * 9
HARD = {
    "runs": [{"input": "", "output": SECRET}],
    "asserts": ["assert f(1) == 'SECRET-777777777'"],
    "near": "assert abs(f(1) - 5.5) < 1e-6\nassert len(f(2)) == 12345",
    "loops": f"n = 0\nfor r in map(f, [1]):\n    n += 1\n    assert r == '{SECRET}'\nassert n == 1",
    "calls": {"fn_name": "f", "inputs": [[1], [2]], "outputs": [SECRET, [SECRET]]},
}


@pytest.mark.parametrize("tests", HARD)
@pytest.mark.parametrize("name", GAMES)
def test_games_earn_nothing_in_bounded_time(name, tests):
    start = time.monotonic()
    result = rewards.score(
        tag(GAMES[name]),
        {"problem_type": "code", "answer": "", "tests": HARD[tests]},
        scorers={"code": lambda response, task: code.score(response, task, limit_s=0.3)},
    )
    assert result.detail == ""
    assert result.accuracy == 0
    assert result.status in (Status.OK, Status.UNPARSED)
    assert time.monotonic() - start < 60  # on a busy machine
    assert score(tag(SUM), RUNS).accuracy == 1  # the sandbox is as good as before


def test_the_pool_runs_programs_within_its_deadline():
    rows = [{"problem_type": "code", "answer": "", "tests": RUNS}] * 3
    with RewardPool(workers=1, timeout_s=3.0) as pool:
        scores = pool.score_batch([tag(SUM), tag("while True: pass"), tag(SUM)], rows)
    assert [(s.accuracy, s.status) for s in scores] == [
        *[(1, Status.OK), (0, Status.OK), (1, Status.OK)]
    ]
    assert 0 < worker.CODE_SHARE < 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tests": RUNS, "language": "C++"}, r"language='C\+\+' cannot be run"),
        ({"tests": "def f(: pass"}, "is no Python"),
        ({"tests": "f(1)"}, "asserts nothing"),
        ({"tests": HUMAN}, "give entry_point"),
        ({"tests": [1, 2]}, "give a list of input and output"),
        ({"tests": {"stdin": []}}, "give inputs and outputs"),
        ({"tests": {"inputs": ["1"], "outputs": []}}, "1 inputs and 0 outputs"),
        ({"tests": {"inputs": [], "outputs": []}}, "holds 0 tests"),
        ({"tests": RUNS * 100}, "holds 200 tests"),
        ({"tests": {"fn_name": "a b", "inputs": [[1]], "outputs": [1]}}, "no name of a function"),
        ({"tests": {"fn_name": "f", "inputs": ["x"], "outputs": ["1"]}}, "one JSON value a line"),
        ({"tests": {"fn_name": "f", "inputs": [3], "outputs": [1]}}, "no list of arguments"),
        ({}, "has no tests and its answer is empty"),
        ({"answer": [1]}, "no expected output"),
    ],
)
def test_rows_that_cannot_be_judged_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        rewards.check_row({"problem_type": "code", "answer": "", **fields})


def test_without_a_sandbox_rows_are_refused(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    with pytest.raises(ValueError, match="needs a sandbox, and there is none on darwin"):
        rewards.check_row({"problem_type": "code", "answer": "x", "tests": RUNS})


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": "", "tests": RUNS},
        {"answer": "", "tests": CALLS},
        {"answer": "it's\n42"},
        {"answer": ADD},
        {"answer": ADD, "tests": ASSERTS},
        {"answer": "", "tests": ASSERTS, "solutions": json.dumps([ADD])},
    ],
)
def test_gold_answers(fields):
    row = {"problem_type": "code", **fields}
    assert rewards.score(gold_answer(row), row).overall == 1


def test_the_scorer_never_runs_a_program_in_its_own_process():
    before = os.getpid()
    score(tag("import os\nos.environ['EVR1_LEAK'] = '1'"), RUNS)
    assert "EVR1_LEAK" not in os.environ
    assert os.getpid() == before
