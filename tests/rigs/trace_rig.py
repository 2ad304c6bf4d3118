"""Traces of the profiler, read back."""

import gzip
import json
from pathlib import Path
from typing import Any

from evr1.telemetry.profile import newest


def trace_events(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of the newest trace below a folder: name -> the arguments of each."""
    events: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(newest(folder), "rt") as file:
        for event in json.load(file)["traceEvents"]:
            events.setdefault(event.get("name", ""), []).append(event.get("args", {}))
    return events
