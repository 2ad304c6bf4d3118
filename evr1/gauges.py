"""Readings of the process and of a step: compilations, memory, speed."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from evr1 import flops
from evr1.models import Model
from evr1.models.lora import LoraModel
from evr1.types import GroupBatch

_LOWERED_EVENT = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # what comes before compiling
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts XLA compilations from now on, in this process.

    Attributes:
        count: compilations that ended.
        seconds: that they took.
        on_change: called with None when one begins, and with its seconds when it ends.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.on_change: Callable[[float | None], None] = lambda _: None
        jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event: str, duration_secs: float, **_: object) -> None:
        if event == _LOWERED_EVENT:
            self.on_change(None)
        elif event == _COMPILE_EVENT:
            self.count += 1
            self.seconds += duration_secs
            self.on_change(duration_secs)


def host_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096
    except OSError:
        return 0


def device_bytes() -> int:
    """The most memory any local device has held, in bytes; 0 where the backend does not tell."""
    stats = [d.memory_stats() for d in jax.local_devices()]
    return max((s.get("peak_bytes_in_use", 0) for s in stats if s), default=0)


def readings(compiles: CompileCounter) -> dict[str, float]:
    """Metrics of the process."""
    return {
        "compile/count": compiles.count,
        "compile/seconds": compiles.seconds,
        "memory/host_gib": host_bytes() / 2**30,
        "memory/device_peak_gib": device_bytes() / 2**30,
    }


def speed(
    model: Model, batch: GroupBatch, times: Mapping[str, float], devices: int, *, has_tower: bool
) -> dict[str, float]:
    """Tokens a second, what the group layout saves, and MFU where the device's peak is known.

    Args:
        model: that was trained.
        batch: of the step, on the host.
        times: the step's time/* metrics.
        devices: that worked on it.
        has_tower: the update passed through the vision tower.
    """
    prompts = np.asarray(batch.prompts.lengths, np.float64)
    completions = batch.completion_mask.sum(axis=2).astype(np.float64)
    n = completions.shape[1]
    once, copied = prompts.sum() + completions.sum(), n * prompts.sum() + completions.sum()
    result = {
        "speed/tokens_per_s": once / times["time/step_s"],
        "speed/completion_tokens_per_s": completions.sum() / max(times["time/rollout_s"], 1e-9),
        "speed/tokens_shared_share": 1 - once / copied,
    }
    peak = flops.peak_flops(jax.devices()[0].device_kind)
    if peak:
        # The backward pass has two products for one of the forward pass; adapters need one of them.
        passes = 2 if isinstance(model, LoraModel) else 3
        work = passes * flops.forward(model, batch, has_tower=has_tower)
        result["speed/update_mfu"] = work / (times["time/update_s"] * peak * devices)
    return result
