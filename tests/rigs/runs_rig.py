"""Small runs of the demo config: their fields, their environment, and what they write."""

import json
import os
import signal
from pathlib import Path
from typing import Any

CLOCKS = (
    "time/",
    "start/",
    "speed/",
    "memory/",
    "compile/",
    "hosts/",
    "utilization/",
)  # no run repeats them
STEPS = 4
SMALL = {
    "num_steps": STEPS,
    "data.generate": False,
    "rollout.prompts": 8,
    "rollout.n": 4,
    "rollout.slots": 8,
    "rollout.window_steps": 8,
    "eval.every_steps": 2,
    "checkpoint.every_steps": 2,
    "log.tensorboard": False,
    "optim.schedule": "constant",  # else num_steps would change the learning rate
}


def small(data: Path, workdir: Path, **fields: Any) -> dict[str, Any]:
    """The fields of a small run, by dotted name.

    Args:
        data: demo clips and rows, see make_demo.
        workdir: of the run.
        **fields: more of them, or others, with __ for the dots.
    """
    paths = {
        "workdir": workdir,
        "data.train": data / "train.jsonl",
        "data.eval": data / "heldout.jsonl",
        "data.media_dir": data,
        "data.shards": data / "shards",
    }
    return {**SMALL, **paths, **{k.replace("__", "."): v for k, v in fields.items()}}


def environment(devices: int = 1) -> dict[str, str]:
    """The variables of a run on so many simulated devices, every program of which is kept."""
    flags = os.environ.get("XLA_FLAGS", "")  # of tests/conftest.py
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    }


def interruptible() -> None:
    """Has programs that are started from now on take SIGINT, which a shell's background ignores."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without clocks."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(CLOCKS)} for line in lines]


def rollouts(workdir: Path) -> list[dict[str, Any]]:
    """The lines of rollouts.jsonl."""
    return [json.loads(line) for line in (workdir / "rollouts.jsonl").read_text().splitlines()]
