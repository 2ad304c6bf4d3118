"""Test scripts: which names come from the response, what is the judge's own, what is refused."""

import platform
import sys

import pytest
from script_games import FAILS, REFUSED
from script_programs import PASSES

from evr1 import rewards
from evr1.rewards import Status, code
from evr1.rewards.programs import scripts, seccomp

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in seccomp.ARCHITECTURES,
    reason="no sandbox on this platform",
)
SAME = "def f(x):\n    return x"
LIAR = "def f(x):\n    return 9"
CHECK = "def check(candidate):\n    assert candidate(1) == 1"
ALIAS = {"test_imports": ["from math import isclose as is_near"]}
POLY = '''import math


def poly(xs: list, x: float):
    """Evaluates a polynomial."""
    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])


def find_zero(xs: list):
    """Finds a zero.

    >>> round(find_zero([1, 2]), 2)
    -0.5
    """
'''
ROOT = "def check(candidate):\n    assert abs(poly([1, 2], candidate([1, 2]))) < 1e-4"
SHIFT = "def turn(s):\n    return s[1:] + s[0]\n\ndef back(s):\n    '''Undoes turn.'''\n"
TURN = "def check(candidate):\n    assert candidate(turn('abc')) == 'abc'"
LISTS = """import random
from typing import *

class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

def list_node(values: list):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def is_same_list(p1, p2):
    if not p1 or not p2:
        return p1 is p2
    return p1.val == p2.val and is_same_list(p1.next, p2.next)
"""
RAISED = """def check(candidate):
    assert is_same_list(candidate(list_node([1, 2])), list_node([2, 3]))"""
RAISE = """class Solution:
    def f(self, head: Optional[ListNode]) -> Optional[ListNode]:
        return ListNode(head.val + 1, self.f(head.next)) if head else None"""
IN_PLACE = """class Solution:
    def f(self, head):
        at = head
        while at:
            at.val += 1
            at = at.next
        return head"""
ON_LISTS = {"prompt": LISTS, "entry_point": "Solution().f"}
ADD_ONE = [{"input": "4", "output": "5"}]


def score(response, tests, **fields):
    row = {"problem_type": "code", "answer": "", "tests": tests, **fields}
    return rewards.score(f"<answer>{response}</answer>", row)


@pytest.mark.parametrize("name", PASSES)
def test_right_programs_pass(name):
    program, tests = PASSES[name].split("\n--\n")
    result = score(program, tests)
    assert (result.accuracy, result.detail) == (1, "")


@pytest.mark.parametrize("name", PASSES)
def test_an_empty_program_passes_nothing(name):
    assert score("x = 1", PASSES[name].split("\n--\n")[1]).accuracy == 0


@pytest.mark.parametrize("name", FAILS)
def test_no_program_brings_its_own_tests(name):
    program, tests = FAILS[name].split("\n--\n")
    result = score(program, tests)
    assert (result.accuracy, result.detail) == (0, "")


@pytest.mark.parametrize("name", REFUSED)
def test_scripts_that_tell_nothing_are_refused(name):
    program, tests = REFUSED[name].split("\n--\n")
    result = score(program, tests)
    assert result.status is Status.ERROR
    assert result.detail.startswith("ValueError: tests: ")
    with pytest.raises(ValueError, match="^tests: "):
        rewards.check_row({"problem_type": "code", "answer": "", "tests": tests})


@pytest.mark.parametrize(
    ("program", "tests", "accuracy", "fields"),
    [
        ("print(int(input()) + 1)\nexit()", ADD_ONE, 1, {}),
        ("print(int(input()) + 1)\nquit(0)", ADD_ONE, 1, {}),
        ("print(int(input()) + 1)\nexit(1)", ADD_ONE, 0, {}),
        ("print(int(open('/dev/stdin').read()) + 1)", ADD_ONE, 1, {}),
        (
            "def g(a: List[int]) -> int:\n    return a[0] + 1\nprint(g([int(input())]))",
            ADD_ONE,
            1,
            {},
        ),
        (SAME, ["assert is_near(f(1), 1)"], 1, ALIAS),
        (SAME, ["assert is_near(f(1), 1)"], 1, {"test_imports": ALIAS["test_imports"][0]}),
        (
            SAME,
            ["assert is_near(f(1), 1)"],
            1,
            {"test_imports": str(ALIAS["test_imports"]).replace("'", '"')},
        ),
        (f"def is_near(*a):\n    return True\n{LIAR}", ["assert is_near(f(1), 1)"], 0, ALIAS),
        (SAME, ["assert f(K) == 1"], 1, {"test_setup_code": "K = 1"}),
        # The problem's own helper judges, wherever the row shows it.
        (f"{POLY}    return -0.5", ROOT, 1, {"problem": POLY, "entry_point": "find_zero"}),
        ("def find_zero(xs): return -0.5", ROOT, 1, {"problem": POLY, "entry_point": "find_zero"}),
        *[
            (
                "def poly(*a): return 0\ndef find_zero(xs): return 7",
                ROOT,
                0,
                {where: POLY, "entry_point": "find_zero"},
            )
            for where in ("problem", "prompt", "starter_code")
        ],
        (
            "def turn(s): return s\ndef back(s): return s",
            TURN,
            0,
            {"problem": SHIFT, "entry_point": "back"},
        ),
        ("def back(s): return s[-1] + s[:-1]", TURN, 1, {"problem": SHIFT, "entry_point": "back"}),
        (
            SAME,
            ["assert f(1) == 1"],
            1,
            {"problem": "Correct this:\ndef f(x):\n    return x + 1\n"},
        ),
        # The response may use it too, and bring a class of the same name.
        *[(p, RAISED, 1, ON_LISTS) for p in (RAISE, IN_PLACE, f"{LISTS}\n{RAISE}")],
        *[
            (p, RAISED, 0, ON_LISTS)
            for p in (
                "x = 1",
                "is_same_list = lambda *a: True\nclass Solution:\n    def f(self, head): return 1",
            )
        ],
        ("def back(s): return turn(turn(s))", TURN, 1, {"problem": SHIFT, "entry_point": "back"}),
        # A standard name that the row asks for is the response's.
        (
            f"def permutations(x): return [x]\n{SAME}",
            ["assert permutations(f([1])) == [[1]]"],
            1,
            {"solution": f"def permutations(x):\n    return [x]\n{SAME}"},
        ),
        (
            f"def median(x): return 7\n{SAME}",
            ["assert median(f([1])) == 7"],
            1,
            {"problem": "Write a function named `median` and a function f."},
        ),
        (f"def check(*a): pass\n{LIAR}", CHECK, 0, {"entry_point": "f"}),
        (f"def check(*a): pass\n{SAME}", CHECK, 1, {"entry_point": "f"}),
    ],
)
def test_fields_beside_the_tests(program, tests, accuracy, fields):
    result = score(program, tests, **fields)
    assert (result.accuracy, result.detail) == (accuracy, "")


@pytest.mark.parametrize(
    ("program", "arguments", "output"),
    [
        (
            "def two(self, a: List[int], t: Optional[int]) -> Dict[str, int]: return sum(a) + t",
            [[1, 2], 3],
            6,
        ),
        ("def two(self, a: 'Nope') -> Nope: return math.floor(a) + len(deque([1]))", [1.5], 2),
        (
            "def two(self, root: TreeNode) -> Deque: return Counter(root).most_common(1)[0][1]",
            ["aab"],
            2,
        ),
        ("def two(self, a): heapify(a); return defaultdict(int)[3] + heappop(a)", [[2, 1]], 1),
    ],
)
def test_what_leetcode_imports_needs_no_import(program, arguments, output):
    tests = {"fn_name": "two", "inputs": [arguments], "outputs": [output]}
    assert score(f"class Solution:\n    {program}", tests).accuracy == 1
    assert (
        score("class Solution:\n    def one(self): pass", {**tests, "fn_name": "gcd"}).accuracy == 0
    )


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"fn_name": "f", "inputs": [[1]], "outputs": [None]}, "expects nothing of any program"),
        ([{"input": "1", "output": ""}, {"input": "2", "output": "\n"}], "expects nothing of any"),
        (
            ["import numpy as np\nassert f(1) == np.int64(1)"],
            "imports numpy, which the sandbox has not",
        ),
        (["from solution import f\nassert f(1)"], "imports solution, .* names need no import"),
        (["assert np.isclose(f(1), 1)"], "uses numpy, which the sandbox has not"),
        (
            ["def test_a(tmp_path):\n    assert f(1)"],
            r"has test_a\(tmp_path\), whose arguments nothing gives",
        ),
        (
            ["class T(unittest.TestCase):\n    def a(self):\n        self.fail()"],
            "no test methods in T",
        ),
        (["f(1)\nassert True"], "asserts nothing that is run"),
        (["assert same(f(1), 1)"], "uses same, which the row neither defines nor asks for"),
        (["assert 1 == 1"], "uses nothing of the response"),
        (["def a():\n    assert f(1)"], "asserts nothing that is run"),
    ],
)
def test_refusals_say_why(tests, message):
    row = {"problem_type": "code", "answer": "", "tests": tests}
    with pytest.raises(ValueError, match=message):
        rewards.check_row({**row, "problem": "Write f, which returns its argument."})


@pytest.mark.parametrize(
    ("script", "names", "own"),
    [
        ("assert f(1) == 1", ["f"], {}),
        ("assert math.isclose(f(1), 1)", ["f"], {"math": ["math"]}),
        ("assert isclose(f(1), pi)", ["f"], {"isclose": ["math", "isclose"], "pi": ["math", "pi"]}),
        ("assert gcd(12, 18) == 6", ["gcd"], {}),
        ("assert sum(10, 15) == 6", ["sum"], {}),
        ("assert list(sum(10, 15)) == [6]", ["sum"], {}),
        ("for a in [2]:\n    assert gcd(a, 4) == 2", ["gcd"], {}),
        ("assert isclose(sqrt(4), 2)", ["sqrt"], {"isclose": ["math", "isclose"]}),
        ("assert datetime.date(1, 1, 1) == f()", ["f"], {"datetime": ["datetime"]}),
        ("assert datetime.now() > f()", ["f"], {"datetime": ["datetime", "datetime"]}),
        ("assert queue().push(1) == 1", ["queue"], {}),
        ("assert calendar.book(1)", ["calendar"], {}),
        ("from math import *\nassert isclose(f(1), 1)", ["f"], {"isclose": ["math", "isclose"]}),
        ("x = f(1)\nassert x == [y for y in g(2)]", ["f", "g"], {}),
    ],
)
def test_where_names_come_from(script, names, own):
    test = scripts.read(script, scripts.Row())
    assert (test["names"], test["own"]) == (names, own)


def fence(text, language="python"):
    return f"```{language}\n{text}\n```"


@pytest.mark.parametrize(
    ("response", "program"),
    [
        (f"{fence(SAME)}\nUse:\n{fence('print(f(2))')}", SAME),
        (f"{fence(SAME)}\nUse:\n{fence('print(f(2))')}\n{fence('f(3)')}", SAME),
        (f"{fence(SAME, '')}\nOutput:\n{fence('3', '')}", SAME),
        (f"{fence(SAME)}\nOutput:\n{fence('3', 'text')}", SAME),
        (f"{fence(LIAR)}\nBetter:\n{fence(SAME)}", SAME),
        (f"{fence('f = int')}\nUse:\n{fence('x = f(2); print(x)')}", "f = int"),
        (f"{fence('from math import gcd')}\nUse:\n{fence('gcd(2, 4)')}", "from math import gcd"),
        (f"{fence('n = 5; print(n)')}\nNo:\n{fence('n = 6; print(n)')}", "n = 6; print(n)"),
        (f"{fence(SAME)}\nOr:\n{fence('print(1)')}", "print(1)"),
        (
            f"{fence(SAME)}\nAll:\n{fence('f = int; print(f(input()))')}",
            "f = int; print(f(input()))",
        ),
        (f"<answer>python\n{SAME}</answer>", SAME),
        (f"<answer>\npython3\n{SAME}\n</answer>", SAME),
    ],
)
def test_the_program_among_several_blocks(response, program):
    found = code.find_code(response)
    assert found is not None
    assert found.text.strip() == program


SECRET = """import unittest
SECRET = 'S7'
class Box:
    def m(self): return 1
"""
RAW = """
def f(g):
    peer, seen = g.__dict__['_peer'], []
    for name in ('SECRET', '__globals__', '__class__', '__dict__', 'gi_frame', 'f_globals'):
        for request in (('get', {'yours': 0}, name), ('name', name), ('item', {'yours': 0}, name)):
            try: seen.append(peer._decode(peer._ask(*request)))
            except Exception: pass
    return 'S7' if 'S7' in str(seen) else seen
"""
LOOKS = ["g.__globals__['SECRET']", "g.m.__globals__['SECRET']", "g.__init__.__globals__['SECRET']"]
LOOKS += ["g.gi_frame.f_globals['SECRET']", "g.SECRET", "g.__self__.SECRET", "g.__dict__['SECRET']"]


@pytest.mark.parametrize("argument", ["lambda x: x", "Box()", "Box().m", "Box", "iter([1])"])
def test_what_tests_pass_shows_nothing_else_of_them(argument):
    for program in (RAW, *(f"def f(g): return {look}" for look in LOOKS)):
        result = score(program, f"{SECRET}assert f({argument}) == SECRET")
        assert (result.accuracy, result.detail) == (0, "")
