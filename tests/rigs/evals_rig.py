"""A job of benchmarks on miniatures, with the demo's model on one device, in this process."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from evr1.config import evals
from evr1.evals import job, samples
from evr1.evals.samples import Answer

MODEL = Path(__file__).parents[2] / "evr1" / "assets" / "demo_model"


def settings(workdir: Path, data: Path, **fields: Any) -> evals.BenchmarkSettings:
    """Settings of a small and quick job."""
    config = evals.get_config()
    config.update(
        {
            "workdir": str(workdir),
            "model": str(MODEL),
            "data_dir": str(data),
            "preset": "smoke",
            "max_tokens": 12,
            "dtype": "float32",
            "workers": 1,
            "slots": 2,
            "window_steps": 8,
            "limit": 1000,
        }
        | fields
    )
    return evals.resolve(config)


def run(made: evals.BenchmarkSettings, part: str = "1/1", retry: bool = False) -> None:
    """The job."""
    job.run(made, job.Part.parse(part), retry, Console(quiet=True), jax.devices()[:1])


def answers(workdir: Path) -> dict[tuple[str, str], Answer]:
    """What a run has written, by task and id."""
    read = samples.read_run(workdir)
    return {(t, a.sample.id): a for t, merged in read.tasks.items() for a in merged.answers}


def timeless(found: dict[tuple[str, str], Answer]) -> dict[tuple[str, str], Answer]:
    """The same without what depends on a clock."""
    return {key: dataclasses.replace(a, seconds=0.0) for key, a in found.items()}


def nameless(found: dict[tuple[str, str], Answer]) -> dict[tuple[str, str], Answer]:
    """The same without what depends on a clock, or names the run."""
    return {key: dataclasses.replace(a, seconds=0.0, made="") for key, a in found.items()}
