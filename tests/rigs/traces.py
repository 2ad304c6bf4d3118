"""How often jax traces a function: once for each program that it compiles of it.

`_cache_size` of a jitted function says less: it stays 0 once a process has cached 8,192 programs.
"""

import functools
from collections.abc import Callable
from typing import Any


def counted(f: Callable) -> tuple[Callable, list[None]]:
    """`f` to be jitted, and a list that gets an entry at each trace."""
    traces: list[None] = []

    @functools.wraps(f)
    def traced(*args: Any, **kwargs: Any) -> Any:
        traces.append(None)
        return f(*args, **kwargs)

    return traced, traces
