"""Symbolic equality of two mathematical expressions.

Computer algebra on model text has no time bound, so it runs where it can be killed: in a scoring
worker (`equal_inline`), or in a child process of its own (`equal_in_child`).
"""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

CHILD_TIMEOUT_S = 30.0  # the child first imports sympy: seconds on a busy machine
MAX_CHARS = 1000

_TOWER = re.compile(
    r"(?:\^|\*\*)[^+\-=]{0,40}(?:\^|\*\*)|\d{5,}\s*!|!\s*!|(?:\^|\*\*)\s*[{(]?\s*\d{5,}"
)


def load() -> None:
    """Imports the computer algebra, which takes a second or two; so only where it is needed."""
    import math_verify  # noqa: F401


def equal_inline(given: str, truth: str) -> bool:
    """Whether two expressions are equal; unbounded in time, see the module."""
    if not is_tame(given) or not is_tame(truth):
        return False
    import math_verify

    # Its own time limits rest on alarms, which belong to the worker; it warns when they are off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold, target = (math_verify.parse(f"${side}$", parsing_timeout=0) for side in (truth, given))
    return bool(gold and target and math_verify.verify(gold, target, timeout_seconds=None))


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
    """Whether an expression is short and holds no tower of powers, no huge power or factorial."""
    return 0 < len(text) <= MAX_CHARS and not _TOWER.search(text.replace(" ", ""))


if __name__ == "__main__":
    print(json.dumps(equal_inline(*json.load(sys.stdin))))
