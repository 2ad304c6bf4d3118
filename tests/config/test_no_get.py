"""Nobody reads a config with a default: `config.get("typo", 3)` gives the 3 without a word."""

import ast

import pytest
from repo import ROOT

FOLDERS = ("evr1", "tools", "configs", "benchmarks")
# What a config is called, and what makes one.
NAMES = {"config", "settings", "c", "cfg", "get_config"}
TYPES = ("Settings", "Config", "ConfigDict")
# What makes the plain dict of a config.json, which may be called config too.
READERS = ("json.loads", "json.load", "read_json", "read_config")


def parts(node):
    """The names along an expression, the root last: `a.b["c"].d()` gives d, b, a."""
    names = []
    while True:
        match node:
            case ast.Attribute():
                names.append(node.attr)
                node = node.value
            case ast.Subscript():
                node = node.value
            case ast.Call():
                node = node.func
            case ast.Name():
                return [*names, node.id]
            case _:
                return []  # no plain expression: a literal, an operation


def is_config(node, configs, dicts):
    names = parts(node)
    if not names or names[-1] in dicts:
        return False
    return names[-1] in configs or any(n.strip("_").lower() in NAMES for n in names)


def pairs(node):
    """The names that a statement binds, each with its value."""
    for target in node.targets if isinstance(node, ast.Assign) else ():
        both = (target, node.value)
        if all(isinstance(x, ast.Tuple) for x in both):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield both


def bound(scope):
    """Names of a function that are configs or sections, and names that are plain dicts."""
    configs, dicts = set(), set()
    for node in ast.walk(scope):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
            kind = ast.unparse(node.annotation)
            if kind.startswith(("dict", "Mapping", "Sequence", "list", "tuple")):
                dicts.add(name)
            elif kind.split(" | ")[0].split(".")[-1].strip('"').endswith(TYPES):
                configs.add(name)
    for _ in range(3):  # a name may be bound to another that is bound further down
        for node in ast.walk(scope):
            for target, value in pairs(node):
                if not isinstance(target, ast.Name):
                    continue
                is_call = isinstance(value, ast.Call)
                if is_call and ast.unparse(value.func).endswith(READERS):
                    dicts.add(target.id)
                elif not is_call and is_config(value, configs, dicts):
                    configs.add(target.id)
    return configs, dicts


def scopes(body):
    for node in body:
        yield from scopes(node.body) if isinstance(node, ast.ClassDef) else [node]


def silent_reads(source):
    """The calls that read a field of a config, or a default in its place."""
    calls = []
    for scope in scopes(ast.parse(source).body):
        configs, dicts = bound(scope)
        for node in ast.walk(scope):
            if not isinstance(node, ast.Call):
                continue
            match node:
                case ast.Call(func=ast.Attribute(value=of, attr="get" | "setdefault")):
                    pass
                case ast.Call(func=ast.Name(id="getattr"), args=[of, _, _]):
                    pass
                case ast.Call(func=ast.Name(id="hasattr"), args=[of, _]):
                    pass
                case _:
                    continue
            if is_config(of, configs, dicts):
                calls.append(ast.unparse(node))
    return calls


FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_nobody_reads_a_config_with_a_default():
    assert len(FILES) > 100
    reads = {str(path.relative_to(ROOT)): silent_reads(path.read_text()) for path in FILES}
    assert {path: calls for path, calls in reads.items() if calls} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'def f(config): return config.get("rolout")',
        'def f(config): return config.rollout.get("m", 3)',
        'def f(config):\n    r, a = config.rollout, config.algorithm\n    return a.get("m", 3)',
        'def f(config):\n    a = config.algorithm\n    b = a\n    return [b.get("m") for _ in a]',
        'def f(o: OptimSettings): return o.get("lr")',
        'def f(o: "settings.OptimSettings | None"): return getattr(o, "lr", 1e-6)',
        'def f(x: ml_collections.ConfigDict): return x.data.get("fps", 2)',
        'def f(settings): return getattr(settings.rollout, "m", 3)',
        'def f(settings): return hasattr(settings, "rolout")',
        'class A:\n    def f(self): return self._config.data.get("fps")',
        'def f(): return base.get_config().data.get("fps", 2)',
        'def get_config():\n    c = base.get_config()\n    c.n = c.get("m", 3)\n    return c',
        '_CONFIG.value.get("seed", 0)',
        'def f(config): return config["rollout"].get("m")',
    ],
)
def test_what_is_planted_is_seen(planted):
    assert len(silent_reads(planted)) == 1
    path = ROOT / "evr1" / "train.py"  # and amid other code
    assert len(silent_reads(f"{path.read_text()}\n\n{planted}\n")) == 1


@pytest.mark.parametrize(
    "innocent",
    [
        'def f(config: Mapping[str, Any]): return config.get("model_type")',
        'def f(config: dict[str, Any]): return config.get("a", {}).get("b")',
        'def f(root):\n    config = json.loads(root.read_text())\n    return config.get("a")',
        'def f(root):\n    config = processor_files.read_json(root)\n    return config.get("a")',
        "def f(config, names): return getattr(config, names[0])",
        "def f(config, seen): return seen.get(config.model, 3)",
        "def f(config): return Budgets(**{n: getattr(config.data, n) for n in NAMES})",
    ],
)
def test_other_reads_are_left_alone(innocent):
    assert silent_reads(innocent) == []
