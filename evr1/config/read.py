"""From the fields of a config to the dataclasses that hold them, with their types checked."""

import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from evr1.config.checks import Section, require
from evr1.config.settings import Settings

S = typing.TypeVar("S", bound=Section)
_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text, '' for none",
    tuple: "a tuple",
}


def read(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settings:
    """Returns the settings that a config's fields spell, unchecked but for their types.

    Args:
        fields: of the config, nested.
        defaults: of `base.py`, nested: a field may be None where it is None there.

    Raises:
        ValueError: a field is unknown, missing or of another type.
    """
    return read_section(Settings, fields, defaults)


def read_section(kind: type[S], fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> S:
    """Does what `read` does, for settings of another kind."""
    return _section("", kind, fields, defaults)


def _section(
    prefix: str, kind: type[S], fields: Mapping[str, Any], defaults: Mapping[str, Any]
) -> S:
    """One section and those in it; `prefix` is its name with a dot behind it, or empty."""
    hints = typing.get_type_hints(kind)
    for name in fields:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            raise ValueError(
                f"config.{prefix}{name}: no such field"
                + "".join(f'; did you mean "{prefix}{other}"?' for other in near)
                + ("" if near else f"; {kind.home} has every field")
            )
    for name in hints:
        if name not in fields:
            raise ValueError(
                f"the config has no field {prefix}{name}; start from get_config() of "
                "evr1/config/base.py"
            )
    return kind(
        **{
            name: _value(prefix + name, hint, fields[name], defaults[name])
            for name, hint in hints.items()
        }
    )


def _value(field: str, hint: Any, value: Any, default: Any) -> Any:
    """A field's value as its type has it: whole numbers become floats, lists become tuples."""
    if isinstance(hint, type) and issubclass(hint, Section):
        require(isinstance(value, Mapping), field, f"is {value!r}", "need a section of fields")
        return _section(f"{field}.", hint, value, default)
    if value is None and default is None:
        return None
    (kind,) = (t for t in _plain_types(hint) if t is not types.NoneType)
    value = _as_tuple(value)
    if kind is str and isinstance(value, Mapping):  # an object, which the text would spell as JSON
        value = json.dumps(dict(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    ok = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(ok, field, f"is {value!r}", f"need {_KINDS[kind]}")
    return value


def _plain_types(hint: Any) -> list[type]:
    """The classes that a hint allows.

    >>> _plain_types(tuple[str, ...]), _plain_types(int)
    ([<class 'tuple'>], [<class 'int'>])
    """
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else [hint]
    return [typing.get_origin(part) or part for part in parts]


def _as_tuple(value: Any) -> Any:
    """A list or tuple, and those in it, as a tuple; anything else as it is."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value
