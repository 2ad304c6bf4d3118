"""Truths that must be worked out: integrals, sums, products, limits and determinants.

Computer algebra has no time bound, so it sees no response, only truths, and runs where it can be
killed: in a scoring worker (`equal_inline`), or in a child process of its own (`equal_in_child`).
"""

import functools
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

from evr1.rewards.formulas import expressions, notation

CHILD_TIMEOUT_S = 30.0  # the child first imports sympy: seconds on a busy machine
MAX_CHARS = 400
MAX_DEPTH = 6  # of brackets: parsing time grows fast with it
MAX_OPERATORS = 3  # sums, products, integrals and limits, each of which may be evaluated
MAX_POWERS = 16  # and quotients
_ENDLESS = re.compile(r"[A-Za-z]{20}|[-+|]{8}")  # to the algebra, a product of twenty symbols
_OPERATOR = re.compile(r"\\(?:sum|prod|int|lim)(?![a-z])")
_HUGE = re.compile(r"\d{5,}\s*!|!\s*!|(?:\^|\*\*)\s*[{(]?\s*-?\d{4,}")
_RAISED_SUM = re.compile(r"[)}\]]\s*(?:\^|\*\*)\s*[{(]?\s*\d{3,}")


def load() -> None:
    """Imports the computer algebra, which takes a second or two; so only where it is needed."""
    import math_verify  # noqa: F401


@functools.lru_cache(maxsize=4096)  # a group's completions often end in the same result
def equal_inline(result: str, truth: str) -> bool:
    """Returns whether a result is a truth, whose integrals, sums and limits are worked out.

    The result never reaches the algebra; a truth takes as long as it takes, see the module.
    """
    if expressions.CALCULUS.search(truth):
        truth = work_out(truth)
    return bool(truth) and expressions.are_equal(notation.unify(result), notation.unify(truth))


@functools.lru_cache(maxsize=1024)
def work_out(truth: str) -> str:
    r"""Returns the value of a truth as plain text, or nothing where there is none.

    >>> work_out(r"\sum_{k=1}^{4} k")
    '10'
    """
    if not is_tame(truth):
        return ""
    import math_verify
    import sympy

    # Its own time limits rest on alarms, which belong to the worker; it warns when they are off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    latex = [math_verify.LatexExtractionConfig()]
    readings = math_verify.parse(f"${truth}$", latex, "no_fallback", parsing_timeout=0)
    if not readings or not isinstance(readings[0], sympy.Expr):
        return ""
    value = readings[0].doit()
    return "" if value.has(sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit) else str(value)


def equal_in_child(result: str, truth: str) -> bool:
    """Returns whether two expressions are equal, decided in a child process with a deadline.

    Raises:
        TimeoutError: the child had to be killed.
        ValueError: the child failed.
    """
    if not is_tame(result) or not is_tame(truth):
        return False
    command = [sys.executable, "-m", "evr1.rewards.formulas.symbolic"]
    try:
        process = subprocess.run(
            command,
            input=json.dumps([result, truth]),
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired as e:
        raise TimeoutError(f"comparing {result[:80]!r} took over {CHILD_TIMEOUT_S} s") from e
    if process.returncode:
        raise ValueError(f"comparing {result[:80]!r} failed: {process.stderr.strip()[-200:]}")
    return json.loads(process.stdout)


def child_environment() -> dict[str, str]:
    """Returns the environment in which a Python child finds this evr1, wherever it starts."""
    root = str(Path(__file__).parents[3])
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def is_tame(text: str) -> bool:
    """Returns whether an expression is short and flat, without huge powers or factorials."""
    if not 0 < len(text) <= MAX_CHARS or _ENDLESS.search(text):
        return False
    if _HUGE.search(text) or _RAISED_SUM.search(text) or has_tower(text):
        return False
    if len(_OPERATOR.findall(text)) > MAX_OPERATORS:
        return False
    if len(re.findall(r"[\^/]", text)) > MAX_POWERS or text.count(":") > 2:
        return False
    depth = deepest = 0
    for bracket in re.finditer(r"[](){}[]", text):
        depth += 1 if bracket[0] in "({[" else -1
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH


def has_tower(text: str) -> bool:
    r"""Returns whether a power stands within an exponent.

    >>> has_tower(r"\frac{x^{2}}{y^{2}}"), has_tower("2^3 3^2"), has_tower("9^{9^9}")
    (False, False, True)
    """
    exponents = []  # for each open bracket, whether it stands within an exponent
    is_after_power = False
    was_exponent = False  # the power before ended just now: 9^9^9
    for token in re.findall(r"\^|\*\*|[({\[]|[)}\]]|\\?\w+|\S", text):
        if token in ("^", "**"):
            if any(exponents) or was_exponent:
                return True
            is_after_power, was_exponent = True, False
        elif token in ("(", "{", "["):
            exponents.append(is_after_power or any(exponents[-1:]))
            is_after_power = was_exponent = False
        elif token in (")", "}", "]"):
            was_exponent = bool(exponents) and exponents.pop() and not any(exponents[-1:])
        elif token != "-":
            was_exponent, is_after_power = is_after_power, False
    return False


if __name__ == "__main__":
    print(json.dumps(equal_inline(*json.load(sys.stdin))))
