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

from evr1.formats import problem_types, user_code
from evr1.rewards import SCORERS, Scorer, check_verdict
from evr1.rewards.base import Task
from evr1.rewards.compose import Term

_NAME = re.compile("[a-z0-9][a-z0-9 _-]*")  # it becomes part of a metric's name


class Extra(NamedTuple):
    """The scorers and terms that a user's file adds."""

    scorers: Mapping[str, Scorer]
    terms: Mapping[str, Term]


@functools.cache
def load(spec: str) -> Extra:
    """Returns the scorers and terms of a file, which is run once in each process.

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
    """Returns the built-in scorers, with a user's file's added or in their place.

    Raises:
        ValueError: as `load`.
    """
    return {**SCORERS, **load(spec).scorers}


def absolute(spec: str) -> str:
    """Returns the spec with the file's path made absolute, for a process that starts elsewhere."""
    source, colon, name = spec.partition(":")
    return f"{Path(source).resolve()}{colon}{name}" if source.endswith(".py") else spec


def _load(spec: str) -> Extra:
    source, _, name = spec.partition(":")
    members = vars(_import(spec, source))
    if name and name not in members:
        raise _wrong(spec, f"{source} has no {name}; define it as a dict of problem type: function")
    if not name and "SCORERS" not in members and "TERMS" not in members:
        raise _wrong(spec, f"{source} has neither SCORERS nor TERMS; define one of them as a dict")
    scorers = _functions(spec, name or "SCORERS", members, ("", Task("", "")))
    terms = _functions(spec, "TERMS", members, (None,))
    if spaced := [key for key in terms if " " in key]:
        raise _wrong(spec, f"TERMS has the key {spaced[0]!r}; use a name without spaces")
    return Extra(_with_plain_names(spec, scorers), terms)


def _import(spec: str, source: str) -> types.ModuleType:
    if source.endswith(".py"):
        path = Path(source)
        try:
            return user_code.run(path, f"evr1_extra_{path.stem}")
        except ValueError as e:
            raise _wrong(spec, str(e)) from e
    if _find(spec, source) is None:
        raise _wrong(spec, f"no module {source!r}; give the path of a .py file, or a module's name")
    try:
        return importlib.import_module(source)
    # A user's file may fail in any way; the message says which.
    except (Exception, SystemExit) as e:  # noqa: BLE001
        raise _wrong(spec, user_code.failure(e)) from e


def _find(spec: str, source: str) -> Any:
    try:
        return importlib.util.find_spec(source)
    except ModuleNotFoundError:
        return None
    # Finding a.b runs a; a name such as "" or ".x" is none.
    except Exception as e:  # noqa: BLE001
        raise _wrong(spec, user_code.failure(e, "finding")) from e


def _functions(
    spec: str, name: str, members: Mapping[str, Any], arguments: tuple[Any, ...]
) -> dict[str, Callable[..., Any]]:
    """Returns the dict `name` of a module, whose values can all be called with `arguments`."""
    table = members.get(name, {})
    if not isinstance(table, Mapping) or (name in members and not table):
        raise _wrong(spec, f"{name} is {user_code.short(table)}; make it a dict of name: function")
    for key, function in table.items():
        if not isinstance(key, str) or not _NAME.fullmatch(problem_types.plain_name(key)):
            raise _wrong(
                spec,
                f"{name} has the key {user_code.short(key)}; use a name of letters a-z, digits, - "
                "and _",
            )
        if not callable(function):
            raise _wrong(spec, f"{name}[{key!r}] is {user_code.short(function)}; give a function")
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
    """Returns the scorers by plain name; each was called once, to see what it returns."""
    plain: dict[str, Scorer] = {}
    for key, scorer in scorers.items():
        name = problem_types.plain_name(key)
        builtin = problem_types.canonical(name, (name,))
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


def _wrong(spec: str, reason: str) -> ValueError:
    return ValueError(f"rewards.extra={spec}: {reason}")
