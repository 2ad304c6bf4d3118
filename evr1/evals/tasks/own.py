"""A benchmark of a user's own: a Python file that defines TASK; docs/own_benchmark.md shows one."""

import contextlib
import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from evr1.evals.tasks.base import Aggregate, Part, Prompt, Record, Sample, Source, Task
from evr1.formats import user_code


def read(path: Path, taken: Container[str]) -> Task:
    """Returns the task of a file, which is run; it knows its file and what that says of it.

    Its `load`, prompts and aggregates raise ValueError in one line, whatever they trip over.

    Args:
        path: of a .py file.
        taken: names of other tasks.

    Raises:
        ValueError: there is no such file, it fails, or what it holds cannot be used; one line.
    """
    path = path.resolve()
    try:
        module = user_code.run(path, f"evr1_task_{path.stem}")
        task = _checked(vars(module).get("TASK"), taken)
    except ValueError as error:
        raise ValueError(f"{path}: {error}{_nearest(path)}") from error
    return dataclasses.replace(
        task,
        load=_loading(path, task.load),
        prompts={name: _asking(path, name, ask) for name, ask in task.prompts.items()},
        aggregates={name: _adding(path, name, add) for name, add in task.aggregates.items()},
        file=str(path),
        about=task.about or inspect.getdoc(module) or "",
    )


Load = Callable[[Path], Iterator[Sample]]


def _loading(path: Path, load: Load) -> Load:
    @functools.wraps(load)
    def guarded(folder: Path) -> Iterator[Sample]:
        with _named(path, "load: "):
            for sample in load(folder):
                if not (isinstance(sample, Sample) and isinstance(sample.id, str)):
                    raise ValueError(
                        f"{path}: load gives {user_code.short(sample)}; give Samples, whose ids "
                        "are texts"
                    )
                yield sample

    return guarded


def _asking(path: Path, name: str, ask: Prompt) -> Prompt:
    @functools.wraps(ask)
    def guarded(sample: Sample) -> tuple[Part, ...]:
        with _named(path, f"prompt {name} of sample {sample.id}: "):
            parts = ask(sample)
            if isinstance(parts, str) or not all(isinstance(part, Part) for part in parts):
                raise ValueError(
                    f"{path}: prompt {name} gives {user_code.short(parts)}; give a tuple of texts, "
                    "Show and Subtitles"
                )
            return tuple(parts)

    return guarded


def _adding(path: Path, name: str, add: Aggregate) -> Aggregate:
    @functools.wraps(add)
    def guarded(records: Sequence[Record]) -> dict[str, float]:
        with _named(path, f"aggregate {name}: "):
            means = add(records)
            if not _are_means(means):
                raise ValueError(
                    f"{path}: aggregate {name} gives {user_code.short(means)}; give a dict of "
                    "names to numbers, the headline first"
                )
            return means

    return guarded


def _are_means(means: Any) -> bool:
    is_table = isinstance(means, Mapping) and bool(means)
    return is_table and all(isinstance(k, str) and isinstance(v, Real) for k, v in means.items())


@contextlib.contextmanager
def _named(path: Path, where: str) -> Iterator[None]:
    """Gives whatever a user's function trips over a line; a ValueError has its own."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001  it may fail in any way; the line says which
        raise ValueError(f"{path}: {where}{user_code.failure(error)}") from error


def _nearest(path: Path) -> str:
    """Returns a hint at a file of nearly the same name, where there is none of this one."""
    if path.exists():
        return ""
    names = [each.name for each in path.parent.glob("*.py")]
    close = difflib.get_close_matches(path.name, names, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _checked(task: Any, taken: Container[str]) -> Task:
    if task is None:
        raise ValueError("it has no TASK; define TASK = Task(...), as in docs/own_benchmark.md")
    if not isinstance(task, Task):
        given = user_code.short(task)
        raise ValueError(f"TASK is {given}; make it a Task of evr1.evals.tasks.base")
    name = task.name
    if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
        raise ValueError(f"its task is named {name!r}; use letters, digits and _, no digit first")
    if name in taken:
        raise ValueError(f"its task is named {name}, as a built-in one; choose another name")
    source = task.source
    if not isinstance(source, Source) or not source.hub or not isinstance(source.n, int):
        raise ValueError(
            f"source of TASK is {user_code.short(source)}; make it Source(hub=(name of the data,), "
            "n=number of questions)"
        )
    if not callable(task.load):
        raise ValueError(f"load of TASK is {user_code.short(task.load)}; give a function")
    for field, table in (("prompts", task.prompts), ("rules", task.rules)):
        if not (isinstance(table, Mapping) and table and all(map(callable, table.values()))):
            raise ValueError(
                f"{field} of TASK is {user_code.short(table)}; make it a dict of name: function"
            )
    return task
