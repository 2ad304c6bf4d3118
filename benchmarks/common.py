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
