"""What a job is to answer: the samples of its tasks, and the share of a part."""

import dataclasses
import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evr1.config.evals import BenchmarkSettings
from evr1.evals import presets
from evr1.evals.prepare import is_complete, load_samples
from evr1.evals.subset import stratified
from evr1.evals.tasks import TASKS, find
from evr1.evals.tasks.base import Sample, Task
from evr1.formats.part import Part


def is_of(part: Part, task: str, sample: Sample) -> bool:
    """Returns whether the sample is of this part: all questions on a video are of one."""
    return hash_of(task, sample.cluster) % part.count == part.index


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task that is ready to be answered.

    Attributes:
        task: the benchmark.
        folder: of its files.
        samples: to be answered, of all parts.
        prompt: profile.
        preset: frames that are shown.
        limit: questions that were asked for; 0: all.
    """

    task: Task
    folder: Path
    samples: tuple[Sample, ...]
    prompt: str
    preset: presets.Preset
    limit: int

    @property
    def n_expected(self) -> int:
        """Samples that a complete run scores."""
        return len(self.samples) if self.limit else self.task.source.n

    def manifest(self) -> dict[str, Any]:
        """Returns what the manifest of a run says of the task."""
        return {
            "data": str(self.folder.resolve()),
            "prompt": self.prompt,
            "preset": self.preset.name,
            "limit": self.limit,
            **({"file": self.task.file} if self.task.file else {}),
        }


def prepare(settings: BenchmarkSettings) -> list[Prepared]:
    """Returns the tasks of a config with their samples; needs no model.

    Raises:
        ValueError: an unknown task, prompt or preset, or a folder that holds no complete copy.
    """
    given = [name.strip() for joined in settings.tasks for name in joined.split(",")]
    names = [each for name in given for each in (TASKS if name == "all" else (name,))]
    tasks = [find(name) for name in dict.fromkeys(names)]
    twice = [name for name, n in Counter(task.name for task in tasks).items() if n > 1]
    if twice:
        raise ValueError(f"config.tasks: two tasks are named {twice[0]}; rename one of them")
    _check_folders([name for name, _ in settings.folders], tasks)
    return [_prepare(settings, task) for task in tasks]


def _check_folders(names: Sequence[str], tasks: Sequence[Task]) -> None:
    """Checks that folders are given for tasks that there are; some may not be answered now."""
    known = list(dict.fromkeys([*(task.name for task in tasks), *TASKS]))
    files = {Path(task.file).name: task.name for task in tasks if task.file}
    for name, n in Counter(names).items():
        if n > 1:
            raise ValueError(f"config.folders names {name} {n} times; keep one")
        if name not in known:
            close = [files[file] for file in (Path(name).name,) if file in files]
            close = close or difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}? there is" if close else "there is"
            raise ValueError(f"config.folders: no task {name!r}; {hint} {', '.join(known)}")


def _prepare(settings: BenchmarkSettings, task: Task) -> Prepared:
    prompt = settings.prompt or next(iter(task.prompts))
    if prompt not in task.prompts:
        raise ValueError(f"config.prompt is {prompt!r}; {task.name} has {', '.join(task.prompts)}")
    preset = presets.find(settings.preset or task.source.frames)
    folder = settings.folder(task.name)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder; say where {task.source.hub[0]} lies: config.data_dir holds a "
            f"folder {task.name}, or config.folders=(({task.name!r}, DIR),)"
        )
    listed = load_samples(task, folder)
    if not listed:
        raise ValueError(f"{folder} holds no question of {task.name}; check the folder")
    may_lack = settings.allow_missing or settings.limit
    if not (may_lack or is_complete(task, folder, listed)):
        raise ValueError(
            f"{folder} holds no complete {task.name}: see python -m evr1.evals prepare "
            f"{task.name} --data {folder}; get what is missing, or set allow_missing=True or limit"
        )
    if settings.limit:
        listed = stratified(listed, settings.limit)
    return Prepared(task, folder, tuple(listed), prompt, preset, settings.limit)


def hash_of(task: str, name: str) -> int:
    """Returns a number below 2**64 for a sample or a video of a task, the same for ever."""
    digest = hashlib.sha256(json.dumps([task, name]).encode()).digest()
    return int.from_bytes(digest[:8], "big")
