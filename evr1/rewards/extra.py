"""Problem types and terms of a user's own, from a Python file that the config names.

The file holds a dict SCORERS (problem type: function of response and task that returns a Verdict or
None), a dict TERMS (name: function of a completion that returns a number), or both. It is run in
the process that trains and in each worker. docs/rewards.md shows one.
"""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evr1 import problems
from evr1.rewards import SCORERS, Scorer, check_verdict
from evr1.rewards.base import Task
from evr1.rewards.compose import Term

_NAME = re.compile("[a-z0-9][a-z0-9 _-]*")  # it becomes part of a metric's name


class Extra(NamedTuple):
    """What a user's file adds."""

    scorers: Mapping[str, Scorer]
    terms: Mapping[str, Term]


@functools.cache
def load(spec: str) -> Extra:
    """The scorers and terms of a file, which is run once in each process.

    Args:
        spec: a module name or the path of a .py file; `:NAME` behind it if the dict of scorers is
            not called SCORERS. Empty: nothing is added.

    Raises:
        ValueError: there is no such file, or what it holds cannot be used; one line.
    """
    if not spec:
        return Extra({}, {})
    with contextlib.redirect_stdout(sys.stderr):  # what a file prints must not reach any output
        return _load(spec)


def all_scorers(spec: str) -> dict[str, Scorer]:
    """The built-in scorers, with those of a user's file added or in their place.

    Raises:
        ValueError: as `load`.
    """
    return {**SCORERS, **load(spec).scorers}


def absolute(spec: str) -> str:
    """The spec with the path of its file made absolute, for a process that starts elsewhere."""
    source, colon, name = spec.partition(":")
    return f"{Path(source).resolve()}{colon}{name}" if source.endswith(".py") else spec


def _load(spec: str) -> Extra:
    source, _, name = spec.partition(":")
    held = vars(_import(spec, source))
    if name and name not in held:
        raise _wrong(spec, f"{source} has no {name}; define it as a dict of problem type: function")
    if not name and "SCORERS" not in held and "TERMS" not in held:
        raise _wrong(spec, f"{source} has neither SCORERS nor TERMS; define one of them as a dict")
    scorers = _functions(spec, name or "SCORERS", held, ("", Task("", "")))
    terms = _functions(spec, "TERMS", held, (None,))
    if spaced := [key for key in terms if " " in key]:
        raise _wrong(spec, f"TERMS has the key {spaced[0]!r}; use a name without spaces")
    return Extra(_with_plain_names(spec, scorers), terms)


def _import(spec: str, source: str) -> types.ModuleType:
    path = Path(source)
    if source.endswith(".py"):
        if not path.is_file():
            raise _wrong(spec, "no such file; correct the path")
        # a name of its own: my math.py must not stand in for the library's
        found = importlib.util.spec_from_file_location(f"evr1_extra_{path.stem}", path)
    else:
        found = _find(spec, source)
    if found is None or found.loader is None:
        raise _wrong(spec, f"no module {source!r}; give the path of a .py file, or a module's name")
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module  # dataclasses look themselves up there
        found.loader.exec_module(module)
        return module
    # A user's file may fail in any way; the message says which.
    except (Exception, SystemExit) as e:  # noqa: BLE001
        raise _wrong(spec, f"running it fails with {_one_line(e)}; correct it") from e


def _find(spec: str, source: str) -> Any:
    try:
        return importlib.util.find_spec(source)
    except ModuleNotFoundError:
        return None
    # Finding a.b runs a; a name such as "" or ".x" is none.
    except Exception as e:  # noqa: BLE001
        raise _wrong(spec, f"finding it fails with {_one_line(e)}; correct it") from e


def _functions(
    spec: str, name: str, held: Mapping[str, Any], arguments: tuple[Any, ...]
) -> dict[str, Callable[..., Any]]:
    """The dict `name` of a module, each value of which can be called with `arguments`."""
    table = held.get(name, {})
    if not isinstance(table, Mapping) or (name in held and not table):
        raise _wrong(spec, f"{name} is {_short(table)}; make it a dict of name: function")
    for key, function in table.items():
        if not isinstance(key, str) or not _NAME.fullmatch(problems.plain_name(key)):
            raise _wrong(
                spec,
                f"{name} has the key {_short(key)}; use a name of letters a-z, digits, - and _",
            )
        if not callable(function):
            raise _wrong(spec, f"{name}[{key!r}] is {_short(function)}; give a function")
        form = "(response, task)" if len(arguments) == 2 else "(completion)"
        try:
            signature = inspect.signature(function)
        except ValueError:
            continue  # a built-in function that does not tell
        try:
            signature.bind(*arguments)
        except TypeError as e:
            raise _wrong(spec, f"{name}[{key!r}] cannot be called with {form}: {e}") from e
    return dict(table)


def _with_plain_names(spec: str, scorers: Mapping[str, Scorer]) -> dict[str, Scorer]:
    """The scorers by plain name; each was called once, to see what it returns."""
    plain: dict[str, Scorer] = {}
    for key, scorer in scorers.items():
        name = problems.plain_name(key)
        builtin = problems.canonical(name, (name,))
        if builtin != name:
            raise _wrong(
                spec,
                f"{key!r} is an alias of {builtin!r}; use that name to replace its scorer, or "
                "choose another",
            )
        if name in plain:
            raise _wrong(spec, f"{key!r} is there twice in other spelling; leave one")
        try:
            returned = scorer("", Task(name, ""))
        except Exception:  # noqa: BLE001, S110
            returned = None  # an empty ground truth may be refused; rows are checked when loaded
        try:
            check_verdict(returned)
        except ValueError as e:
            raise _wrong(spec, f"{key!r}, called with an empty response: {e}") from e
        plain[name] = scorer
    return plain


def _wrong(spec: str, what: str) -> ValueError:
    return ValueError(f"rewards.extra={spec}: {what}")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
