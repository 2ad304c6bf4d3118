"""The line between a response and its tests, each in a confined process. Not imported.

Numbers, texts, lists and what else is plain data go by value. Anything else is a Remote on the
other side, whose operators are not the response's: an object that claims to equal everything
equals nothing.
"""

import array
import builtins
import datetime
import json
import os
import sys
import types
import unittest
from collections import Counter, OrderedDict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

MAX_MESSAGE_BYTES = 8 << 20


class _RemoteError(Exception):
    """An error of the response for which there is no built-in exception."""


class _Remote:
    """A value of the other side. It can be called and looked into; it equals only itself."""

    def __init__(self, peer: "Peer", number: int) -> None:
        self.__dict__.update(_peer=peer, _number=number)

    def __call__(self, *arguments, **named):
        return self._peer.call(self, arguments, named)

    def __getattr__(self, name):
        return self._peer.ask("get", self, name)

    def __setattr__(self, name, value):
        self._peer.ask("set", self, name, value)

    def __iter__(self):
        items = self._peer.ask("iter", self)
        while (item := self._peer.ask("next", items)) is not None:
            yield item[0]

    def __getitem__(self, key):
        return self._peer.ask("item", self, key)

    def __setitem__(self, key, value):
        self._peer.ask("set_item", self, key, value)

    def __len__(self):
        return self._peer.ask("len", self)

    def __bool__(self):
        return bool(self._peer.ask("bool", self))

    def __str__(self):
        return str(self._peer.ask("str", self))

    def __repr__(self):
        return str(self._peer.ask("repr", self))


def _set_item(value, key, item):
    value[key] = item


_OPERATIONS = {
    **{"get": getattr, "set": setattr, "iter": iter, "len": len, "bool": bool, "str": str},
    **{"repr": repr, "next": lambda items: next(([item] for item in items), None)},
    **{"item": lambda value, key: value[key], "set_item": _set_item},
}


class Peer:
    """One end of the line between the response and its tests.

    Each end may call what the other has passed to it. Only the response's end can be looked into.
    """

    def __init__(self, names: dict | None) -> None:
        self._names = names or {}
        self._is_open = names is not None  # the response's end
        self._objects: list = []
        self._numbers: dict[int, int] = {}  # id → place in _objects, which keeps it alive
        self._remotes: dict[int, _Remote] = {}  # one object of the other side is one object here
        self._errors: dict[str, type] = {}  # classes of errors that the response defines
        self._reader = os.fdopen(
            3, "rb", closefd=False
        )  # a socket as a file: reads and writes only
        self._writer = os.fdopen(3, "wb", closefd=False)

    def send(self, message) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        self._writer.flush()

    def receive(self):
        line = self._reader.readline(MAX_MESSAGE_BYTES)
        if not line.endswith(b"\n"):
            os._exit(1)
        return json.loads(line)

    def ask(self, operation: str, *arguments):
        """Returns the other side's answer; it may ask back before it answers."""
        return self._decode(self._ask(operation, *map(self._encode, arguments)))

    def call(self, function: _Remote, arguments: tuple, named: dict):
        """Calls a function there; what it did to lists, dicts and sets is done here too."""
        values = [*arguments, *named.values()]
        encoded = [self._encode(a) for a in arguments]
        keywords = {k: self._encode(v) for k, v in named.items()}
        result, after = self._ask("call", self._encode(function), encoded, keywords)
        for value, new in zip(values, map(self._decode, after), strict=True):
            if isinstance(value, list) and isinstance(new, list):
                value[:] = new
            elif isinstance(value, dict | set) and type(value) is type(new):
                value.clear()
                value.update(new)
        return self._decode(result)

    def define(self, name: str, names: dict) -> None:
        """Binds a name of the response's in `names`, if it has it."""
        kind, value = self._ask("name", name)
        if kind == "value":
            names[name] = self._decode(value)
        elif kind == "module" and name in sys.modules:
            names[name] = sys.modules[name]  # our own copy, under its own name only
        elif kind == "member" and value in sys.stdlib_module_names:
            names[name] = getattr(sys.modules[value], name)
        elif kind == "error":
            names[name] = self._errors[name] = type(name, (_error_kind(value),), {})

    def _ask(self, *request):
        self.send(request)
        while (message := self.receive())[0] not in ("ok", "error"):
            self.answer(message)
        if message[0] == "ok":
            return message[1]
        names = [name for name in message[1] if isinstance(name, str)]
        defined = tuple(self._errors[name] for name in names if name in self._errors)
        kind: Any = type(names[0], defined, {}) if defined else _error_kind(names)
        try:
            error = kind(message[2])
        except TypeError:
            error = _RemoteError(message[2])
        raise error

    def answer(self, request) -> None:
        try:
            reply = ["ok", self._serve(*request)]
        except BaseException as e:  # noqa: BLE001  what a response's code raises, an exit too
            reply = ["error", [k.__name__ for k in type(e).__mro__], str(e)[:500]]
        self.send(reply)

    def _serve(self, operation, *request):
        if operation == "name" and self._is_open:
            return self._lookup(*request)
        if operation == "call":
            function, arguments, named = request
            decoded = [self._decode(a) for a in arguments]
            keywords = {k: self._decode(v) for k, v in named.items()}
            called: Any = self._decode(function)
            result = self._encode(called(*decoded, **keywords))
            return [result, [self._encode(v) for v in (*decoded, *keywords.values())]]
        arguments = [self._decode(a) for a in request]
        if not self._is_open and not _may_look(operation, *arguments):
            raise PermissionError("the tests are not to be looked into")
        return self._encode(_OPERATIONS[operation](*arguments))

    def _lookup(self, name: str):
        if name not in self._names:
            return ["none", None]
        value = self._names[name]
        if isinstance(value, types.ModuleType):
            return ["module", None]
        if (
            isinstance(value, type)
            and issubclass(value, Exception)
            and value.__module__ == "solution"
        ):
            return ["error", [k.__name__ for k in value.__mro__]]
        home = sys.modules.get(getattr(value, "__module__", None) or "")
        if home is not None and home.__name__ != "solution" and getattr(home, name, None) is value:
            return ["member", home.__name__]
        return ["value", self._encode(value)]

    def _encode(self, value):
        """Returns plain data as JSON; anything else as a number under which it can be asked for."""
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 53 else {"int": hex(value)}
        if isinstance(value, list):
            return [self._encode(v) for v in value]
        for name, kind in _KINDS.items():
            if type(value) is kind.type:
                return {name: self._encode(kind.write(value))}
        if isinstance(value, dict):
            return {"dict": [[self._encode(k), self._encode(v)] for k, v in value.items()]}
        fields = getattr(value, "_fields", None) if isinstance(value, tuple) else None
        if fields is not None:
            return {"named": [type(value).__name__, *map(self._encode, (fields, tuple(value)))]}
        for kind in (tuple, set, frozenset):
            if isinstance(value, kind):
                return {kind.__name__: [self._encode(v) for v in value]}
        if isinstance(value, bytes | bytearray):
            return {"bytes": value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, _Remote):
            return {"yours": value.__dict__["_number"]}
        if isinstance(value, type) and value in _TYPES:
            return {"type": value.__name__}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return {"mine": self._numbers[id(value)]}

    def _decode(self, data):
        if isinstance(data, list):
            return [self._decode(v) for v in data]
        if not isinstance(data, dict):
            return data
        ((kind, value),) = data.items()
        if kind == "dict":
            return {self._decode(k): self._decode(v) for k, v in value}
        if kind in ("tuple", "set", "frozenset"):
            return getattr(builtins, kind)(map(self._decode, value))
        if kind == "mine":
            return self._remotes.setdefault(value, _Remote(self, value))
        if kind == "yours":
            return self._objects[value]
        if kind == "named":
            name, fields, values = map(self._decode, value)
            return namedtuple(name, fields)(*values)  # noqa: PYI024
        if kind in _KINDS:
            return _KINDS[kind].read(self._decode(value))
        return _READERS[kind](value)


_TYPES = (int, float, str, bool, list, dict, set, tuple, frozenset, bytes, complex, object)
_READERS = {
    **{"int": lambda text: int(text, 16), "bytes": bytes.fromhex},
    **{"complex": lambda pair: complex(*pair)},
    "type": {kind.__name__: kind for kind in _TYPES}.__getitem__,
}


class _Kind(NamedTuple):
    """A type whose values go by value: what they are written as, and how they are read again."""

    type: type
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


_KINDS = {
    "decimal": _Kind(Decimal, str, Decimal),
    "fraction": _Kind(Fraction, str, Fraction),
    "counter": _Kind(Counter, dict, Counter),
    "ordered": _Kind(OrderedDict, lambda d: list(d.items()), OrderedDict),
    "deque": _Kind(deque, lambda d: [list(d), d.maxlen], lambda pair: deque(*pair)),
    "range": _Kind(range, lambda r: [r.start, r.stop, r.step], lambda ends: range(*ends)),
    "array": _Kind(array.array, lambda a: [a.typecode, list(a)], lambda pair: array.array(*pair)),
    "date": _Kind(datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime": _Kind(
        datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat
    ),
    "time": _Kind(datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": _Kind(
        datetime.timedelta,
        lambda d: [d.days, d.seconds, d.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
}


def _error_kind(names: list) -> type[Exception]:
    """Returns the nearest built-in error of an error's classes, the most special first."""
    kinds = (getattr(builtins, name, None) for name in names if isinstance(name, str))
    kind = next((k for k in kinds if isinstance(k, type) and issubclass(k, Exception)), None)
    # An end of iteration in the tests' process could end their loops early.
    if kind is None or issubclass(kind, StopIteration | StopAsyncIteration):
        return _RemoteError
    return kind


def _may_look(operation: str, value: Any = None, *arguments: Any) -> bool:
    """Returns whether the response may look into what the tests passed to it.

    It may loop over it, and use the public members of objects of the tests' own classes.
    """
    if operation in ("iter", "next", "len", "bool", "item", "str", "repr"):
        return not isinstance(value, type | types.ModuleType)
    is_own = type(value).__module__ == "__main__" and not isinstance(value, unittest.TestCase)
    is_public = isinstance(arguments[0], str) and not arguments[0].startswith("_")
    return is_own and is_public and operation in ("get", "set")
