"""The roles of a confined process: run a program, serve its functions, judge. Not imported.

Tests that call functions never share a process with the response. One process runs the response
and answers calls; another runs the tests and sees plain data only, see peer.py.
"""

import __future__

import ast
import atexit
import builtins
import math
import os
import sys
import threading
import types
import unittest
from typing import Any

from evr1.rewards.programs.peer import Peer

NOT_A_PROGRAM = 98


def run(role: dict) -> int:
    """Plays a role (main, serve, judge or compare) and returns its exit code."""
    return {"main": _main, "serve": _serve, "judge": _judge, "compare": _compare}[role["do"]](role)


def _parse(code: str) -> ast.Module:
    """Returns the program's tree; ends the process where words or bare values are no program."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        os._exit(NOT_A_PROGRAM)
    nodes = list(ast.walk(tree))
    does = [n for n in nodes if isinstance(n, ast.stmt) and not isinstance(n, ast.Expr | ast.Pass)]
    if not does and not any(isinstance(n, ast.Call) for n in nodes):
        os._exit(NOT_A_PROGRAM)
    return tree


def _execute(tree: ast.Module, name: str) -> tuple[dict, int]:
    """Runs a program; returns the names that it leaves, and its exit code."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    _add_builtins()
    code = 0
    try:
        # No annotation is looked at: it may name what only the tests have.
        flags = __future__.annotations.compiler_flag
        exec(compile(tree, "<program>", "exec", flags), module.__dict__)
    except SystemExit as e:
        code = 0 if e.code is None or e.code in (0, False) else 1
    except BaseException:  # noqa: BLE001  a response's code may raise anything
        code = 1
    return module.__dict__, code


_given: dict[str, Any] = {}  # what `prepare` has found


def prepare() -> None:
    """Finds what programs are given, once all modules are there: here, and not in each of them."""
    _given.update({"exit": sys.exit, "quit": sys.exit})
    _given.update({"ListNode": _ListNode, "TreeNode": _TreeNode})
    for module, members in _PRELUDE.items():
        _given[module] = sys.modules[module]
        _given.update({name: getattr(sys.modules[module], name) for name in members.split()})
    for name in _given.keys() & vars(builtins).keys():
        del _given[name]


def _add_builtins() -> None:
    """Gives a program what an interactive Python has, and what it need not import on LeetCode."""
    builtins.__dict__.update(_given)


def _main(role: dict) -> int:
    tree = _parse(role["code"])
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", errors="replace", closefd=False)
    out = sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    builtins.open = _open
    _, code = _execute(tree, "__main__")
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    out.flush()
    return code


def _open(file, *arguments, _plain=open, **named):
    """Opens a stream by its number or its name; the kernel opens no path."""
    return _plain({"/dev/stdin": 0, "/dev/stdout": 1}.get(str(file), file), *arguments, **named)


def _compare(role: dict) -> int:
    """Returns 0 if two programs have the same syntax tree; neither is run."""
    code, truth = (ast.dump(_parse(text)) for text in (role["code"], role["truth"]))
    return int(code != truth)


def _serve(role: dict) -> int:
    tree = _parse(role["code"])
    empty: Any = _Empty()
    sys.stdin = empty
    for name, value in _shown(role["shown"]).items():
        setattr(builtins, name, value)
    names, code = _execute(tree, "solution")
    peer = Peer(names)
    peer.send(["ready", code])
    while True:
        peer.answer(peer.receive())


def _shown(text: str) -> dict[str, Any]:
    """Returns what the code of the problem defines, if it runs."""
    names: dict[str, Any] = {"__name__": "problem"}
    try:
        exec(compile(text, "<problem>", "exec", __future__.annotations.compiler_flag), names)
    except BaseException:  # noqa: BLE001  code of a row that does not run alone shows nothing
        return {}
    return {k: v for k, v in names.items() if not k.startswith("_") and not hasattr(builtins, k)}


def _judge(role: dict) -> int:
    """Writes a 1 or a 0 per test to the second stream, until the first 0 unless all count."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the tests print is no verdict
    peer = Peer(None)
    if peer.receive() != ["ready", 0]:
        return 1
    for test in role["tests"]:
        passed = _passes(test, peer)
        os.write(out, b"1" if passed else b"0")
        if not passed and not role["is_partial"]:
            break
    return 0


def _passes(test: dict, peer: Peer) -> bool:
    try:
        if "script" in test:
            _run_script(test, peer)
            return True
        function = _find(test["function"], peer)
        result, expected = function(*test["arguments"]), test["expected"]
        return same(result, expected) or ("is_wrapped" in test and same(result, expected[0]))
    except SystemExit as e:  # of the script's own; a served function cannot
        return e.code in (None, 0, False)
    except BaseException:  # noqa: BLE001  whatever a test ends with, it is not passed
        return False


def _run_script(test: dict, peer: Peer) -> None:
    """Runs a script with the response's names and the judge's own, see scripts.py."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    for name, path in test["own"].items():
        module.__dict__[name] = sys.modules[path[0]]
        if len(path) == 2:
            module.__dict__[name] = getattr(sys.modules[path[0]], path[1])
    for name in test["names"]:
        peer.define(name, module.__dict__)
    unittest.main = lambda *arguments, **named: (
        None
    )  # all cases are run below, however it is called
    exec(compile(test["script"], "<tests>", "exec"), module.__dict__)
    _run_cases(module)


def _run_cases(module: types.ModuleType) -> None:
    """Runs the unittest cases of a script, which must all pass, and one at least must run."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    if suite.countTestCases():
        result = unittest.TestResult()
        suite.run(result)
        assert result.wasSuccessful()
        assert result.testsRun > len(result.skipped)


def _find(name: str, peer: Peer):
    """Returns a function of the response, or a method of its class Solution."""
    names: dict = {}
    peer.define(name, names)
    if name not in names:
        peer.define("Solution", names)
        return getattr(names["Solution"](), name)
    return names[name]


def same(value, truth) -> bool:
    """Returns whether two values are equal as JSON: tuples are lists, floats agree to 1e-6.

    >>> same((1, 2.0000000001), [1, 2]), same("1", 1)
    (True, False)
    """
    if isinstance(truth, dict):
        if not isinstance(value, dict) or len(value) != len(truth):
            return False
        value = {str(k): v for k, v in value.items()}
        return all(k in value and same(value[k], v) for k, v in truth.items())
    if isinstance(truth, list):
        if not isinstance(value, list | tuple) or len(value) != len(truth):
            return False
        return all(map(same, value, truth))
    if isinstance(truth, int | float) and isinstance(value, int | float):
        if isinstance(truth, float) or isinstance(value, float):
            return value == truth or math.isclose(value, truth, rel_tol=1e-6, abs_tol=1e-9)
        return value == truth
    return type(value) is type(truth) and value == truth


_PRELUDE = {
    "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Generic Iterable Iterator"
    " List Literal Mapping NamedTuple Optional Sequence Set Tuple Type TypeVar Union",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "bisect": "bisect_left bisect_right insort",
    "functools": "cache cmp_to_key lru_cache reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "itertools": "accumulate chain combinations groupby pairwise permutations product zip_longest",
    "math": "ceil comb factorial floor gcd inf isqrt lcm sqrt",
    **dict.fromkeys(("copy", "datetime", "operator", "random", "re", "string", "sys"), ""),
}


class _ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next


class _TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right


class _EndOfInput(EOFError, SystemExit):
    """Ends a program that asks for input where its functions are called, without blame."""


class _Empty:
    """The input of a program whose functions are called."""

    def read(self, size: int = -1):
        raise _EndOfInput

    readline = readlines = __next__ = read

    def __iter__(self):
        return self

    @property
    def buffer(self):
        return self
