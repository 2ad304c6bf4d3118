"""Tasks whose functions raise ValueError in one line, whatever a wrong row makes them trip over."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from evr1.evals.tasks.base import Aggregate, Media, Part, Prompt, Record, Sample, Task
from evr1.formats import user_code

Load = Callable[[Path], Iterator[Sample]]


def guarded(task: Task, name: str) -> Task:
    """Returns the task with a `load`, prompts and aggregates that fail in one line.

    Args:
        task: a built-in one, or a user's own.
        name: that lines begin with.
    """
    guard = _Guard(name, is_own=name != task.name)
    return dataclasses.replace(
        task,
        load=guard.load(task.load),
        prompts={key: guard.prompt(key, ask) for key, ask in task.prompts.items()},
        aggregates={key: guard.aggregate(key, add) for key, add in task.aggregates.items()},
    )


@dataclasses.dataclass(frozen=True)
class _Guard:
    name: str
    is_own: bool  # then it is the function that is wrong, else the row

    def load(self, load: Load) -> Load:
        @functools.wraps(load)
        def guarded(folder: Path) -> Iterator[Sample]:
            last, samples = "", iter(())
            with self._named("load", str(folder)):
                samples = iter(load(folder))
            while True:
                with self._named(f"load, behind sample {last}" if last else "load", str(folder)):
                    sample = next(samples, None)
                    if sample is None:
                        return
                    if fault := _fault(sample):
                        raise ValueError(f"{self.name}: load gives {fault}")
                last = sample.id
                yield sample

        return guarded

    def prompt(self, key: str, ask: Prompt) -> Prompt:
        @functools.wraps(ask)
        def guarded(sample: Sample) -> tuple[Part, ...]:
            with self._named(f"prompt {key} of sample {sample.id}", self.name):
                parts = ask(sample)
                if isinstance(parts, str) or not all(isinstance(part, Part) for part in parts):
                    raise ValueError(
                        f"{self.name}: prompt {key} of sample {sample.id} gives "
                        f"{user_code.short(parts)}; give a tuple of texts, Show and Subtitles"
                    )
                return tuple(parts)

        return guarded

    def aggregate(self, key: str, add: Aggregate) -> Aggregate:
        @functools.wraps(add)
        def guarded(records: Sequence[Record]) -> dict[str, float]:
            with self._named(f"aggregate {key}", self.name):
                means = add(records)
                if self.is_own and not _are_means(means):
                    raise ValueError(
                        f"{self.name}: aggregate {key} gives {user_code.short(means)}; give a dict "
                        "of names to numbers, the headline first"
                    )
                return means

        return guarded

    @contextlib.contextmanager
    def _named(self, what: str, where: str) -> Iterator[None]:
        """Gives whatever a function trips over a line; one that tells the place is its own."""
        try:
            yield
        except ValueError as error:
            if self.is_own or where in str(error):
                raise
            raise ValueError(f"{self.name}: {what}: {error}") from error
        except Exception as error:  # a user's function, or a wrong row, may fail in any way
            if isinstance(error, OSError | MemoryError) and not self.is_own:
                raise  # no row is wrong: the disk, or the memory
            said = user_code.failure(error)
            if not self.is_own:
                said = f"{user_code.short(error)}; a row is no official one: get its file again"
            raise ValueError(f"{self.name}: {what}: {said}") from error


def _fault(sample: Any) -> str:
    """Returns what is wrong with what `load` gives; "": nothing."""
    if not (isinstance(sample, Sample) and isinstance(sample.id, str)):
        return f"{user_code.short(sample)}; give Samples, whose ids are texts"
    if not all(isinstance(m, Media) and isinstance(m.path, str) for m in sample.media):
        return f"sample {sample.id} media {user_code.short(sample.media)}; give Media with paths"
    for tag, value in sample.tags.items():
        labels = (value,) if isinstance(value, str) else value
        if not (isinstance(labels, tuple) and all(isinstance(each, str) for each in labels)):
            return f"sample {sample.id} the {tag} {user_code.short(value)}; give texts as labels"
    for field in ("group", "subtitles", "video"):
        value = getattr(sample, field)
        if not isinstance(value, str):
            return f"sample {sample.id} the {field} {user_code.short(value)}; give a text"
    return ""


def _are_means(means: Any) -> bool:
    is_table = isinstance(means, Mapping) and bool(means)
    return is_table and all(isinstance(k, str) and isinstance(v, Real) for k, v in means.items())
