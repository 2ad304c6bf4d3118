"""Readings of the process and of a step: compilations, memory, speed."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Self

import jax
import numpy as np

from evr1.models import Model
from evr1.parallel import hosts
from evr1.telemetry import flops
from evr1.types import GroupBatch

_LOWERED_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # what comes before compiling
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts the XLA compilations of this process; a context manager, which counts inside.

    Attributes:
        count: compilations that ended.
        seconds: that they took, those of several at a time added up.
        on_change: called with None when one begins, and with its seconds when it ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # several may end at once
        self.count = 0
        self.seconds = 0.0
        self.on_change: Callable[[float | None], None] = lambda _: None

    def __enter__(self) -> Self:
        """Begins to count, and returns the counter."""
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        return self

    def __exit__(self, *error: object) -> None:
        """Stops counting."""
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: object) -> None:
        if event == _LOWERED_EVENT:
            self.on_change(None)
        elif event == _COMPILE_EVENT:
            with self._lock:
                self.count += 1
                self.seconds += duration_secs
            self.on_change(duration_secs)


def host_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system keeps no record of it."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def device_bytes() -> int:
    """The most memory any local device has held, in bytes; 0 where the backend keeps no record."""
    stats = [d.memory_stats() for d in jax.local_devices()]
    return max((s.get("peak_bytes_in_use", 0) for s in stats if s), default=0)


def readings(compiles: CompileCounter) -> dict[str, float]:
    """Metrics of the process: compilations and memory."""
    return {
        "compile/count": compiles.count,
        "compile/seconds": compiles.seconds,
        "memory/host_gib": host_bytes() / 2**30,
        "memory/device_peak_gib": device_bytes() / 2**30,
    }


def speed(batch: GroupBatch, times: Mapping[str, float]) -> dict[str, float]:
    """Metrics of a step: tokens a second, and what the group layout saves.

    Args:
        batch: of the step, on the host.
        times: the step's time/* metrics.
    """
    prompts = np.asarray(batch.prompts.lengths, np.float64)
    completions = batch.completion_mask.sum(axis=2).astype(np.float64)
    n = completions.shape[1]
    once, copied = prompts.sum() + completions.sum(), n * prompts.sum() + completions.sum()
    return {
        "speed/tokens_per_s": once / times["time/step_s"],
        "speed/completion_tokens_per_s": completions.sum() / max(times["time/rollout_s"], 1e-9),
        "speed/tokens_shared_share": 1 - once / copied,
    }


def update_mfu(
    model: Model,
    parts: Iterable[GroupBatch],
    times: Mapping[str, float],
    devices: int,
    *,
    has_tower: bool,
) -> dict[str, float]:
    """Metric of a step: the policy's MFU; {} where the device's peak is not known.

    Args:
        model: that was trained, with its adapters.
        parts: what the step's updates went over, in all epochs, on the host. Not the whole rollout
            batch: groups that move nothing may have been left out.
        times: the step's time/* metrics.
        devices: that worked on it.
        has_tower: the update went through the vision tower.
    """
    peak = flops.peak_flops(jax.devices()[0].device_kind)
    if not peak:
        return {}
    work = sum(flops.update(model, part, has_tower=has_tower) for part in parts)
    return {"speed/update_mfu": work / (times["time/update_s"] * peak * devices)}


def over_hosts(times: dict[str, float]) -> dict[str, float]:
    """Returns the seconds of the slowest host, and how far apart the hosts are."""
    with hosts.staying():  # of a step that is done
        told = hosts.gather_json(times)
    slowest = {name: max(one.get(name, 0.0) for one in told) for name in times}
    if len(told) == 1:
        return slowest
    apart = {
        name.replace("time/", "hosts/spread_"): slowest[name] - min(one[name] for one in told)
        for name in times
        if all(name in one for one in told)
    }
    return slowest | apart
