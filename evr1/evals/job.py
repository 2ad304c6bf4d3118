"""Benchmarks as a job: every sample of some tasks is answered by a model, and nothing is lost.

plan -> decode (processes) -> encode -> prefill -> decode -> append: stages joined by a bounded
queue. A part of a job is a whole job over its share of the videos; parts never speak.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from evr1.config.evals import BenchmarkSettings
from evr1.evals import manifest, samples
from evr1.evals.answerer import Answerer, opened
from evr1.evals.plan import Prepared, is_of, prepare
from evr1.formats.part import Part


def run(
    settings: BenchmarkSettings,
    part: Part,
    retry: bool,
    console: Console,
    devices: Sequence[Any] | None = None,
) -> None:
    """Answers all samples of the part that have no answer yet.

    Args:
        settings: of the job.
        part: share of it.
        retry: also answer samples that failed before.
        console: for the user.
        devices: these, and not the ones that are there.

    Raises:
        ValueError: bad input, or a folder that was written with other settings; in one line.
    """
    folder = Path(settings.workdir or "")
    prepared = prepare(settings)
    manifest.check(folder, settings, prepared)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                samples.Writer(samples.path_of(folder, each.task.name, part.number, part.count))
            )
            for each in prepared
        ]
        todo = [
            (each, writer, _done(folder, each.task.name, retry))
            for each, writer in zip(prepared, writers, strict=True)
        ]
        left = [(each, _waiting(each, part, done)) for each, _, done in todo]
        for each, count in left:
            for line in _lines(each, count, part, settings.temperature):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        if not any(count for _, count in left):
            return
        answerer: Answerer = stack.enter_context(opened(settings, devices))
        manifest.write(folder, settings, prepared)  # now, as a wrong model is to leave none
        for each, writer, done in todo:
            if _waiting(each, part, done):
                answerer.answer(each, part, done, writer.append, console)


def _lines(prepared: Prepared, count: int, part: Part, temperature: float) -> list[str]:
    """Returns what is said of a task before it is answered."""
    preset, of_part = prepared.preset, ""
    if part.count > 1:
        of_part = f", part {part.number} of {part.count}"
    lines = [
        f"{prepared.task.name}: {count} of {len(prepared.samples)} questions to answer{of_part}; "
        f"prompt {prepared.prompt}, preset {preset.name}"
    ]
    if temperature and preset.sampling.presence_penalty:
        lines.append(
            f"{prepared.task.name}: numbers of preset {preset.name} were published with presence "
            f"penalty {preset.sampling.presence_penalty:g}; there is none here"
        )
    return lines


def _waiting(prepared: Prepared, part: Part, done: frozenset[str]) -> int:
    return sum(
        is_of(part, prepared.task.name, sample) and sample.id not in done
        for sample in prepared.samples
    )


def _done(folder: Path, task: str, retry: bool) -> frozenset[str]:
    """Returns the ids that need no answer any more, whichever part has answered them."""
    answers = [
        answer
        for path in folder.glob(f"samples_{task}.*jsonl")
        for answer in samples.read(path).answers
    ]
    return frozenset(a.sample.id for a in answers if a.task == task and not (a.reason and retry))
