"""What every benchmark shares: timing side by side, a table, JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Clock = Callable[[], float]  # seconds


def time_side_by_side(
    variants: Mapping[str, Callable[[], Any]], repeats: int = 5, warmups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call of each variant; they take turns, so drift of the machine hits all.

    Args:
        variants: name → work; it must wait for its own device results.
        repeats: counted calls of each.
        warmups: calls before them that are not counted (compilation, caches).
    """
    for _ in range(warmups):
        for work in variants.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, work in variants.items():
            begin = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def use_one_core() -> None:
    """Keeps this process to one core; called before there are threads."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Returns the median of slow / fast, pair by pair."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def matmul_rate(dtype: str, clock: Clock = time.perf_counter) -> float:
    """Returns operations a second of a large product, where the caller's programs run: the roof of
    what multiplies matrices. The best of five."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((2048, 2048), dtype)
    full = jax.lax.Precision.HIGHEST if dtype == "float32" else jax.lax.Precision.DEFAULT
    product = jax.jit(lambda x: jnp.dot(x, x, precision=full))
    return 2 * 2048**3 / _best(lambda: jax.block_until_ready(product(x)), clock)


def copy_rate(clock: Clock = time.perf_counter) -> float:
    """Returns bytes a second of reading and writing 256 MiB, the roof of what reads memory: the
    best of five."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(2**26, jnp.float32)
    more = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy() -> None:
        nonlocal x
        x = jax.block_until_ready(more(x))

    return 2 * x.nbytes / _best(copy, clock)


def _best(work: Callable[[], Any], clock: Clock) -> float:
    """Returns the fewest seconds of five calls, after one that compiles."""
    work()
    seconds = []
    for _ in range(5):
        begin = clock()
        work()
        seconds.append(clock() - begin)
    return min(seconds)


def device_name() -> str:
    """Returns what the figures were measured on."""
    import jax

    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} x {kind}, {platform.machine()}" if kind != "cpu" else _cpu()


def show(title: str, rows: Sequence[Mapping[str, Any]], json_path: str | None) -> None:
    """Prints the rows as a table and writes them, with the device and versions, as JSON."""
    import jax

    table = Table(title=f"{title} ({device_name()})")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_text(v) for v in row.values()))
    Console(width=120).print(table)
    if json_path:
        record = {
            "title": title,
            "device": device_name(),
            "jax": jax.__version__,
            "rows": [dict(r) for r in rows],
        }
        Path(json_path).write_text(json.dumps(record, indent=2) + "\n")


def _cpu() -> str:
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
