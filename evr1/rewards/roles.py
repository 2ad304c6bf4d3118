"""What a confined process does: run a program, serve its functions, or judge them. Not imported.

Tests that call functions never share a process with the response. One process runs the response
and answers calls; another runs the tests and sees plain data only: numbers, texts, lists. A value
that is none of these is a Remote there, whose operators are not the response's: an object that
claims to equal everything equals nothing.
"""

import ast
import atexit
import builtins
import json
import math
import os
import sys
import threading
import types
from decimal import Decimal
from fractions import Fraction
from typing import Any

NOT_A_PROGRAM = 98
MAX_MESSAGE_BYTES = 8 << 20


def run(role: dict) -> int:
    """The exit code of a role: main, serve, judge or compare."""
    return {"main": _main, "serve": _serve, "judge": _judge, "compare": _compare}[role["do"]](role)


def _parse(code: str) -> ast.Module:
    """The program's tree; words and bare values are no program, and end the process."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        os._exit(NOT_A_PROGRAM)
    nodes = list(ast.walk(tree))
    does = [n for n in nodes if isinstance(n, ast.stmt) and not isinstance(n, ast.Expr | ast.Pass)]
    if not does and not any(isinstance(n, ast.Call) for n in nodes):
        os._exit(NOT_A_PROGRAM)
    return tree


def _execute(tree: ast.Module, name: str) -> tuple[dict, int]:
    """The names that a program leaves, and its exit code."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    code = 0
    try:
        exec(compile(tree, "<program>", "exec"), module.__dict__)
    except SystemExit as e:
        code = 0 if e.code is None or e.code in (0, False) else 1
    except BaseException:  # noqa: BLE001
        code = 1
    return module.__dict__, code


def _main(role: dict) -> int:
    tree = _parse(role["code"])
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", errors="replace", closefd=False)
    out = sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    _, code = _execute(tree, "__main__")
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    out.flush()
    return code


def _compare(role: dict) -> int:
    """0 if two programs have the same syntax tree; neither is run."""
    given, truth = (ast.dump(_parse(text)) for text in (role["code"], role["truth"]))
    return int(given != truth)


def _serve(role: dict) -> int:
    tree = _parse(role["code"])
    names, code = _execute(tree, "solution")
    peer = _Peer(names)
    peer.send(["ready", code])
    while True:
        peer.answer(peer.receive())


def _judge(role: dict) -> int:
    """Writes a 1 or a 0 per test to the second stream, until the first 0 unless all count."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the tests print is no verdict
    peer = _Peer(None)
    if peer.receive() != ["ready", 0]:
        return 1
    for test in role["tests"]:
        passed = _passes(test, peer)
        os.write(out, b"1" if passed else b"0")
        if not passed and not role["is_partial"]:
            break
    return 0


def _passes(test: dict, peer: "_Peer") -> bool:
    try:
        if "script" in test:
            _run_script(test["script"], peer)
            return True
        function = _find(test["function"], peer)
        result, expected = function(*test["arguments"]), test["expected"]
        return same(result, expected) or ("is_wrapped" in test and same(result, expected[0]))
    except SystemExit as e:  # unittest.main ends so; a served function cannot
        return e.code in (None, 0, False)
    except BaseException:  # noqa: BLE001
        return False


def _run_script(script: str, peer: "_Peer") -> None:
    tree = ast.parse(script)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    for name in sorted(used):
        # The response must not redefine what the tests are written in.
        if not hasattr(builtins, name) and not name.startswith("__"):
            peer.define(name, module.__dict__)
    exec(compile(tree, "<tests>", "exec"), module.__dict__)


def _find(name: str, peer: "_Peer"):
    """A function of the response, or a method of its class Solution."""
    names: dict = {}
    peer.define(name, names)
    if name not in names:
        peer.define("Solution", names)
        return getattr(names["Solution"](), name)
    return names[name]


def same(given, truth) -> bool:
    """Whether two values are equal as JSON: tuples are lists, floats agree to 1e-6.

    >>> same((1, 2.0000000001), [1, 2]), same("1", 1)
    (True, False)
    """
    if isinstance(truth, dict):
        if not isinstance(given, dict) or len(given) != len(truth):
            return False
        given = {str(k): v for k, v in given.items()}
        return all(k in given and same(given[k], v) for k, v in truth.items())
    if isinstance(truth, list):
        if not isinstance(given, list | tuple) or len(given) != len(truth):
            return False
        return all(map(same, given, truth))
    if isinstance(truth, int | float) and isinstance(given, int | float):
        if isinstance(truth, float) or isinstance(given, float):
            return given == truth or math.isclose(given, truth, rel_tol=1e-6, abs_tol=1e-9)
        return given == truth
    return type(given) is type(truth) and given == truth


class _RemoteError(Exception):
    """What the response raised, where no built-in exception says it."""


class _Remote:
    """A value of the other side. It can be called and looked into; it equals only itself."""

    def __init__(self, peer: "_Peer", number: int) -> None:
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


class _Peer:
    """One end of the line between the response and its tests.

    Each end may call what the other has passed to it. Only the response's end can be looked into.
    """

    def __init__(self, names: dict | None) -> None:
        self._names = names or {}
        self._is_open = names is not None  # the response's end
        self._objects: list = []
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
        """The other side's answer; it may ask back before it answers."""
        return self._decode(self._ask(operation, *map(self._encode, arguments)))

    def call(self, function: _Remote, arguments: tuple, named: dict):
        """Calls a function there; what it did to lists, dicts and sets is done here too."""
        values = [*arguments, *named.values()]
        given = [self._encode(a) for a in arguments]
        keywords = {k: self._encode(v) for k, v in named.items()}
        result, after = self._ask("call", self._encode(function), given, keywords)
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

    def _ask(self, *request):
        self.send(request)
        while (message := self.receive())[0] not in ("ok", "error"):
            self.answer(message)
        if message[0] == "ok":
            return message[1]
        kinds = [getattr(builtins, k, None) for k in message[1] if isinstance(k, str)]
        kind = next((k for k in kinds if isinstance(k, type) and issubclass(k, Exception)), None)
        # An end of iteration in the tests' process could end their loops early.
        if kind is None or issubclass(kind, StopIteration | StopAsyncIteration):
            kind = _RemoteError
        try:
            error = kind(message[2])
        except TypeError:
            error = _RemoteError(message[2])
        raise error

    def answer(self, request) -> None:
        try:
            reply = ["ok", self._serve(*request)]
        except BaseException as e:  # noqa: BLE001
            reply = ["error", [k.__name__ for k in type(e).__mro__], str(e)[:500]]
        self.send(reply)

    def _serve(self, operation, *request):
        if operation == "name" and self._is_open:
            return self._lookup(*request)
        if operation == "call":
            function, arguments, named = request
            given = [self._decode(a) for a in arguments]
            keywords = {k: self._decode(v) for k, v in named.items()}
            called: Any = self._decode(function)
            result = self._encode(called(*given, **keywords))
            return [result, [self._encode(v) for v in (*given, *keywords.values())]]
        if not self._is_open:
            raise PermissionError("the tests are not to be looked into")
        return self._encode(_OPERATIONS[operation](*map(self._decode, request)))

    def _lookup(self, name: str):
        if name not in self._names:
            return ["none", None]
        value = self._names[name]
        if isinstance(value, types.ModuleType):
            return ["module", None]
        home = sys.modules.get(getattr(value, "__module__", None) or "")
        if home is not None and home.__name__ != "solution" and getattr(home, name, None) is value:
            return ["member", home.__name__]
        return ["value", self._encode(value)]

    def _encode(self, value):
        """Plain data as JSON; anything else as a number under which it can be asked for."""
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 1 << 53 else {"int": hex(value)}
        if isinstance(value, list):
            return [self._encode(v) for v in value]
        if isinstance(value, dict):
            return {"dict": [[self._encode(k), self._encode(v)] for k, v in value.items()]}
        for kind in (tuple, set, frozenset):
            if isinstance(value, kind):
                return {kind.__name__: [self._encode(v) for v in value]}
        if isinstance(value, bytes | bytearray):
            return {"bytes": value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, Decimal | Fraction):
            return {type(value).__name__.lower(): str(value)}
        if isinstance(value, _Remote):
            return {"yours": value.__dict__["_number"]}
        self._objects.append(value)
        return {"mine": len(self._objects) - 1}

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
            return _Remote(self, value)
        if kind == "yours":
            return self._objects[value]
        return _READERS[kind](value)


_READERS = {
    **{"int": lambda text: int(text, 16), "bytes": bytes.fromhex, "fraction": Fraction},
    **{"complex": lambda pair: complex(*pair), "decimal": Decimal},
}
