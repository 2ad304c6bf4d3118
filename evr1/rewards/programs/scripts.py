"""Test scripts: what in them comes from the response, what is the judge's own, what tests nothing.

A script is Python that asserts. The name under test comes from the response. What the script is
written in does not: a response that brings its own `isclose` would pass without a solution.
"""

import ast
import builtins
import functools
import importlib
import re
import symtable
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evr1.rewards.programs.jail import MODULES

# Members of standard modules that tests use without naming the module.
_MEMBERS = {
    "math": "ceil comb cos degrees exp factorial floor gcd hypot inf isclose isfinite isinf isnan"
    " isqrt lcm log log10 log2 nan pi prod radians sin sqrt tan tau trunc",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "itertools": "accumulate chain combinations combinations_with_replacement cycle groupby islice"
    " pairwise permutations product repeat zip_longest",
    "functools": "cmp_to_key lru_cache partial reduce wraps",
    "operator": "attrgetter itemgetter",
    "copy": "deepcopy",
    "datetime": "date datetime timedelta timezone",
    "decimal": "Decimal getcontext",
    "fractions": "Fraction",
    "heapq": "heapify heappop heappush nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort",
    "statistics": "mean median pstdev stdev",
    "io": "BytesIO StringIO",
    "contextlib": "redirect_stdout suppress",
    "dataclasses": "dataclass field",
    "enum": "Enum IntEnum",
    "typing": "Any Callable Dict Generator Iterable Iterator List NamedTuple Optional Sequence Set"
    " Tuple Type TypeVar Union",
    "unittest": "TestCase",
}
STANDARD = {name: module for module, names in _MEMBERS.items() for name in names.split()}
# What tests call packages that are not there.
_ABSENT = {"np": "numpy", "pd": "pandas", "plt": "matplotlib", "tf": "tensorflow", "nx": "networkx"}
_ABSENT |= {name: name for name in ("numpy", "pandas", "torch", "scipy", "sympy", "pytest")}
_LOADED = frozenset((*MODULES.split(), "sys", "builtins", "marshal", "errno", "posixpath"))
_ROOTS = frozenset(name.partition(".")[0] for name in _LOADED)
_NOTHING = (ast.Pass, ast.Expr, ast.Import, ast.ImportFrom)  # no body of a helper

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Row(NamedTuple):
    """What a row says beside its tests."""

    function: str = ""  # the one under test, where the row names it
    problem: str = ""
    solution: str = ""
    imports: str = ""  # that its tests need


@functools.lru_cache(maxsize=256)  # a row is read once for each of its responses
def read(text: str, row: Row) -> Mapping[str, Any]:
    """Returns a script as a test: its text, its names of the response's, and the judge's own.

    Test functions and classes that nothing calls are called. `shown` is the problem's own code,
    which the response may use too.

    Raises:
        ValueError: it is no Python, tests nothing, or no program can pass it.
    """
    text = f"{row.imports}\n{text}".strip("\n")
    tree = _parsed(text)
    _check_imports(tree)
    text += _calls(tree, row.function)
    tree = _parsed(text)
    _check_asserts(tree)
    asked = _free_names(text)
    shown = _shown(row)
    imports = _shown_imports(row.problem) if shown else []
    helpers = _helpers(asked, shown)
    if helpers:
        text = "\n".join([*imports, *helpers, text])
        tree, asked = _parsed(text), _free_names(text)
    own = _own(tree, asked, row)
    names = sorted(asked - own.keys())
    if not names:  # standard names alone: those are what is tested
        names = sorted(name for name, path in own.items() if len(path) == 2)
        own = {name: path for name, path in own.items() if name not in names}
    names = names or sorted(_called_builtins(tree))
    if not names:
        raise ValueError("uses nothing of the response, so that every program passes")
    _check_names(names, row)
    return {
        "script": text,
        "names": names,
        "own": own,
        "shown": "\n".join([*imports, *shown.values()]),
    }


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise ValueError(f"is no Python: {getattr(e, 'msg', e)}") from e


def _check_imports(tree: ast.Module) -> None:
    """Refuses imports of what the sandbox lacks, but for those that a script does without."""
    optional = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and node.handlers
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
            modules += [
                f"unittest.{a.name}" for a in node.names if a.name in ("mock", "async_case")
            ]
        for name in modules:
            is_there = name in _LOADED or (name in _ROOTS and "." not in name)
            if not is_there and id(node) not in optional:
                raise ValueError(
                    f"imports {name}, which the sandbox has not; there are standard modules only, "
                    "and the response's names need no import"
                )


def _calls(tree: ast.Module, function: str) -> str:
    """Returns statements that call the test functions and classes that nothing else calls."""
    called = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    lines = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not _is_case(node, tree) and node.name not in called:
            tests = [f for f in node.body if isinstance(f, Function) and f.name.startswith("test")]
            for test in tests:
                _check_parameters(test, skipped=1)
                setup = any(isinstance(f, Function) and f.name == "setup_method" for f in node.body)
                lines.append(f"_test = {node.name}()")
                lines += ["_test.setup_method()"] * setup + [f"_test.{test.name}()"]
        if not isinstance(node, ast.FunctionDef) or node.name in called:
            continue
        if node.name == "check" and not function:
            raise ValueError("has a check() that needs to know what to check; give entry_point")
        if node.name == "check":
            lines.append(f"check({function})")
        elif node.name.startswith("test"):
            _check_parameters(node, skipped=0)
            lines.append(f"{node.name}()")
    return "".join(f"\n{line}" for line in lines)


def _check_parameters(test: Function, skipped: int) -> None:
    given = test.args.posonlyargs + test.args.args
    if len(given) - skipped > len(test.args.defaults):
        raise ValueError(f"has {test.name}({given[skipped].arg}), whose arguments nothing gives")


def _is_case(node: ast.ClassDef, tree: ast.Module) -> bool:
    """Returns whether a class is a unittest.TestCase, itself or by a class of the script."""
    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    if any(base.endswith("TestCase") for base in bases):
        return True
    parents = (
        n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in bases - {node.name}
    )
    return any(_is_case(parent, tree) for parent in parents if parent.lineno < node.lineno)


def _check_asserts(tree: ast.Module) -> None:
    """Refuses a script none of whose asserts is ever reached, which every program passes."""
    defined = {n.name: n for n in ast.walk(tree) if isinstance(n, Function | ast.ClassDef)}
    cases = [n for n in tree.body if isinstance(n, ast.ClassDef) and _is_case(n, tree)]
    tests = [f for case in cases for f in case.body if isinstance(f, ast.FunctionDef)]
    tests = [f for f in tests if f.name.startswith("test")]
    if cases and not tests:
        raise ValueError(f"has no test methods in {cases[0].name}, so that every program passes")
    swallowed = {id(inner) for node in ast.walk(tree) for inner in _swallowed(node)}
    waiting: list[ast.AST] = [n for n in tree.body if not isinstance(n, Function | ast.ClassDef)]
    waiting += tests
    seen: set[str] = set()
    while waiting:
        for node in ast.walk(waiting.pop()):
            if id(node) in swallowed:
                continue
            if isinstance(node, ast.Assert | ast.Raise):
                test = node.test if isinstance(node, ast.Assert) else None
                if isinstance(test, ast.Constant) and test.value:
                    continue
                return
            name = node.id if isinstance(node, ast.Name) else ""
            name = node.attr if isinstance(node, ast.Attribute) else name
            if re.match("assert|fail$", name):
                return
            if name in defined and name not in seen:
                seen.add(name)
                waiting.append(defined[name])
    raise ValueError("asserts nothing that is run, so that every program passes")


def _swallowed(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what stands in a try statement whose handlers only tell of a failed assert."""
    if not isinstance(node, ast.Try):
        return
    for handler in node.handlers:
        caught = ast.unparse(handler.type) if handler.type else "Exception"
        is_mute = all(
            isinstance(statement, ast.Pass | ast.Continue) or _prints(statement)
            for statement in handler.body
        )
        if is_mute and re.search(r"\b(?:AssertionError|Exception|BaseException)\b", caught):
            for statement in node.body:
                yield from ast.walk(statement)


def _prints(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "print"
    return isinstance(value, ast.Constant)


def _free_names(text: str) -> set[str]:
    """Returns the names that a script uses and does not bind itself, built-in ones aside."""
    top = symtable.symtable(text, "<tests>", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    bound |= {s.get_name() for s in top.get_symbols() if s.is_namespace()}
    used, waiting = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, [top]
    while waiting:
        for table in waiting.pop().get_children():
            waiting.append(table)
            for symbol in table.get_symbols():
                if symbol.is_global() and symbol.is_referenced():
                    used.add(symbol.get_name())
                if symbol.is_declared_global() and symbol.is_assigned():
                    bound.add(symbol.get_name())
    return {n for n in used - bound if not hasattr(builtins, n) and not n.startswith("__")}


def _called_builtins(tree: ast.Module) -> set[str]:
    """Returns the built-in names that asserts call first: what a response defines anew, if any."""
    calls = [n for a in ast.walk(tree) if isinstance(a, ast.Assert) for n in ast.walk(a)]
    names = (
        call.func.id
        for call in calls
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and not any(isinstance(n, ast.Call) for a in call.args for n in ast.walk(a))
    )
    return {name for name in names if hasattr(builtins, name)}


def _check_names(names: Sequence[str], row: Row) -> None:
    """Refuses tests of a name that the row tells nobody, where it tells the others."""
    words = set(re.findall(r"\w+", "\n".join((row.function, row.problem, row.solution))))
    unknown = [name for name in names if name not in words]
    if 0 < len(unknown) < len(names) and "Solution" not in unknown:
        raise ValueError(f"uses {unknown[0]}, which the row neither defines nor asks for")


def _helpers(asked: set[str], shown: Mapping[str, str]) -> list[str]:
    """Returns the problem's own functions and classes that the tests use beside the one they test.

    A problem that shows the function itself, for a repair, gives none.
    """
    helpers = asked & shown.keys()
    if not asked - helpers - STANDARD.keys():
        return []
    while further := {n for h in helpers for n in _free_names(shown[h])} & shown.keys() - helpers:
        helpers |= further
    return [text for name, text in shown.items() if name in helpers]


def _shown_imports(problem: str) -> list[str]:
    """Returns the imports in a problem of what is there."""
    lines = re.findall(r"(?m)^(?:import|from) [\w., *]{1,200}$", problem)
    return [line for line in lines if _is_available(line)]


def _is_available(line: str) -> bool:
    try:
        _check_imports(ast.parse(line))
    except (ValueError, SyntaxError):
        return False
    return not line.startswith("from __future__")


def _shown(row: Row) -> dict[str, str]:
    """Returns the functions and classes in a problem that are more than their heads, by name."""
    shown: dict[str, str] = {}
    lines = row.problem.splitlines()
    for start, line in enumerate(lines):
        if not re.match(r"(?:def|class) \w{1,80}\b", line):
            continue
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or lines[end][:1] in " \t"):
            end += 1
        text = "\n".join(lines[start:end])
        try:
            (node,) = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        is_asked = node.name == "Solution" or re.search(rf"\b{node.name}\b", row.function)
        if not is_asked and not all(isinstance(statement, _NOTHING) for statement in node.body):
            shown[node.name] = text
    return shown


def _own(tree: ast.Module, asked: set[str], row: Row) -> dict[str, list[str]]:
    """Returns name → module, or module and member, of what the judge brings itself."""
    declared = {row.function} | _declared(row)
    own: dict[str, list[str]] = {}
    attributes: dict[str, set[str]] = {}
    bases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add(node.attr)
            bases.add(id(node.value))
    plain = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in bases}
    for name in sorted(asked):
        if name in attributes and name not in plain:
            if name in _ABSENT:
                raise ValueError(f"uses {_ABSENT[name]}, which the sandbox has not")
            if name in _LOADED and _has(name, attributes[name]):
                own[name] = [name]
    members = asked & STANDARD.keys() - declared - own.keys()
    tested = {name for name in members if _is_tested(name, tree, own.keys())}
    return own | {name: [STANDARD[name], name] for name in members - tested}


def _has(module: str, attributes: Iterable[str]) -> bool:
    loaded = importlib.import_module(module)
    return all(hasattr(loaded, name) for name in attributes)


def _declared(row: Row) -> set[str]:
    """Returns the names that the row's solution defines, or that its problem asks for."""
    named = r"\b(?:def|class|function|method)\s{1,4}(?:called\s|named\s)?[`'\"]?(\w{1,80})"
    return set(re.findall(named, row.solution)) | set(re.findall(named, row.problem))


def _is_tested(name: str, tree: ast.Module, modules: Container[str]) -> bool:
    """Returns whether a standard name is what an assert tests: `assert gcd(12, 18) == 6`.

    It is what the assert is written in where another name of the response's is in it, a name that
    the script computed, or within its own call a further one: `isclose(sqrt(4), 2)` tests sqrt.
    """
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and _asserts(node))):
            continue
        words = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - {"self"}
        words = {word for word in words if not hasattr(builtins, word) and word not in modules}
        if name not in words or words - STANDARD.keys():
            continue
        calls = [
            n
            for n in ast.walk(node)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name
        ]
        inner = {
            n.func.id
            for call in calls
            for argument in call.args
            for n in ast.walk(argument)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        }
        if calls and not inner & STANDARD.keys() - {name}:
            return True
    return False


def _asserts(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr.startswith("assert")
