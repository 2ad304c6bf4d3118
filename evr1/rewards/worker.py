"""The scoring process: reads JSON lines of items, writes a JSON line per score.

Run as `python -m evr1.rewards.worker TIMEOUT_S [EXTRA]`. A fresh interpreter (not a fork, not a
spawned copy of the trainer's main module) never touches JAX. The kernel ends it at an item's
deadline: an alarm with its default action stops C code too, and needs nobody to watch.
"""

import functools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable

from evr1.rewards import code, extra, math, score
from evr1.rewards.base import Task, Weights
from evr1.rewards.formulas import symbolic

MEMORY_BYTES = 4 << 30
READY = "ready\n"
CODE_SHARE = 0.75  # of the deadline that programs may run; the rest is for starting them


def main(timeout_s: float, spec: str = "") -> None:
    """Serves requests, each of weights and items, until stdin ends.

    Args:
        timeout_s: an item that takes longer ends the process.
        spec: a user's file of further scorers, see `extra`.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer decides when to stop
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not reach the protocol
    scorers = extra.all_scorers(spec)
    if scorers["math"] is math.score:
        scorers["math"] = functools.partial(math.score, equal=_comparator(timeout_s))
    if scorers["code"] is code.score:
        scorers["code"] = functools.partial(code.score, limit_s=CODE_SHARE * timeout_s)
    print(READY, end="", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        weights = Weights(*request["weights"])
        for response, fields, extra_fields in request["items"]:
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            task = Task(*fields, extra=extra_fields)
            result = score(response, task, weights, scorers)
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(result), file=out, flush=True)


def _comparator(timeout_s: float) -> Callable[[str, str], bool]:
    """Returns symbolic equality whose import, which takes seconds, does not count as scoring."""

    def equal(result: str, truth: str) -> bool:
        signal.setitimer(signal.ITIMER_REAL, 0)
        symbolic.load()
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        return symbolic.equal_inline(result, truth)

    return equal


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
