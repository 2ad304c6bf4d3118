"""A benchmark of a user's own: a Python file that defines TASK; docs/own_benchmark.md shows one."""

import dataclasses
import difflib
import inspect
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from evr1.evals.tasks.base import Source, Task
from evr1.evals.tasks.guard import guarded
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
    about = task.about or inspect.getdoc(module) or ""
    return dataclasses.replace(guarded(task, str(path)), file=str(path), about=about)


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
