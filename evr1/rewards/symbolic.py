"""Symbolic equality of two mathematical expressions.

Computer algebra on model text has no time bound, so it runs where it can be killed: in a scoring
worker (`equal_inline`), or in a child process of its own (`equal_in_child`).
"""

import functools
import json
import logging
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from evr1.rewards.number import ROUNDING_TOLERANCE

CHILD_TIMEOUT_S = 30.0  # the child first imports sympy: seconds on a busy machine
MAX_CHARS = 400
MAX_DEPTH = 6  # of brackets: parsing time grows fast with it
MAX_OPERATORS = 3  # sums, products, integrals and limits, each of which may be evaluated
MAX_POWERS = 16  # and quotients
_ENDLESS = re.compile(r"[A-Za-z]{20}|[-+|]{8}")  # to the algebra, a product of twenty symbols
_OPERATOR = re.compile(r"\\(?:sum|prod|int|lim)(?![a-z])")
_DECIMAL = re.compile(r"^-?\d{1,20}\.\d{2,20}$")
_TOWER = re.compile(
    r"(?:\^|\*\*)[^+\-=]{0,40}(?:\^|\*\*)|\d{5,}\s*!|!\s*!|(?:\^|\*\*)\s*[{(]?\s*\d{5,}"
)


def load() -> None:
    """Imports the computer algebra, which takes a second or two; so only where it is needed."""
    import math_verify  # noqa: F401


@functools.lru_cache(maxsize=4096)  # a group's completions often end in the same result
def equal_inline(given: str, truth: str) -> bool:
    """Whether two expressions are equal; unbounded in time, see the module."""
    if not is_tame(given) or not is_tame(truth):
        return False
    import math_verify

    gold, target = _parse(truth), _parse(given)
    if not gold or not target:
        return False
    if _DECIMAL.match(truth) and _rounds_to(target[0], truth):
        return True
    if _differ(gold[0], target[0]):
        return False
    return math_verify.verify(gold, target, allow_set_relation_comp=True, timeout_seconds=None)


@functools.lru_cache(maxsize=1024)
def _parse(side: str) -> list[Any]:
    """What math-verify makes of an expression: the expression, then its text; or nothing."""
    import math_verify

    # Its own time limits rest on alarms, which belong to the worker; it warns when they are off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify.parse(f"${side}$", parsing_timeout=0)


def _differ(a: Any, b: Any) -> bool:
    """Whether two expressions plainly differ at one point, which is cheaper to see than by algebra.

    Sets, relations and what has no value there are left to the algebra.
    """
    import sympy

    unevaluated = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)
    if not all(isinstance(e, sympy.Expr) and not e.has(*unevaluated) for e in (a, b)):
        return False
    names = sorted(a.free_symbols | b.free_symbols, key=str)
    point = {name: sympy.Rational(7 * i + 5, 11 * i + 13) for i, name in enumerate(names)}
    try:
        x, y = (complex(e.evalf(15, subs=point)) for e in (a, b))
    except (TypeError, ValueError, OverflowError):
        return False
    return abs(x - y) > 1e-4 * max(1.0, abs(x), abs(y))


def _rounds_to(expression: Any, decimal: str) -> bool:
    """Whether an exact result, such as pi, is what a truth such as 3.14 was rounded from."""
    if not getattr(expression, "is_number", False) or not expression.is_real:
        return False
    value = expression.evalf(30)
    if not value.is_finite:
        return False
    exact, written = Fraction(str(value)), Fraction(decimal)
    step = Fraction(1, 10 ** len(decimal.partition(".")[2]))
    return abs(exact - written) <= min(step / 2, ROUNDING_TOLERANCE * max(abs(exact), abs(written)))


def equal_in_child(given: str, truth: str) -> bool:
    """Whether two expressions are equal, decided in a child process with a deadline.

    Raises:
        TimeoutError: the child had to be killed.
        ValueError: the child failed.
    """
    if not is_tame(given) or not is_tame(truth):
        return False
    command = [sys.executable, "-m", "evr1.rewards.symbolic"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps([given, truth]),
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired as e:
        raise TimeoutError(f"comparing {given[:80]!r} took over {CHILD_TIMEOUT_S} s") from e
    if done.returncode:
        raise ValueError(f"comparing {given[:80]!r} failed: {done.stderr.strip()[-200:]}")
    return json.loads(done.stdout)


def child_environment() -> dict[str, str]:
    """The environment in which a Python child finds this evr1, wherever it is started from."""
    root = str(Path(__file__).parents[2])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def is_tame(text: str) -> bool:
    """Whether an expression is short and flat, with no tower of powers, huge power or factorial."""
    if not 0 < len(text) <= MAX_CHARS or _ENDLESS.search(text):
        return False
    if _TOWER.search(text.replace(" ", "")) or len(_OPERATOR.findall(text)) > MAX_OPERATORS:
        return False
    if len(re.findall(r"[\^/]", text)) > MAX_POWERS or text.count(":") > 2:
        return False
    depth = deepest = 0
    for bracket in re.finditer(r"[](){}[]", text):
        depth += 1 if bracket[0] in "({[" else -1
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH


if __name__ == "__main__":
    print(json.dumps(equal_inline(*json.load(sys.stdin))))
