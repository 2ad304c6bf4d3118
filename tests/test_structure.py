"""The shape of the code: what stands in one place only, who may see the whole config, what is too
long. Each rule finds what is planted."""

import ast
import functools

import pytest
from repo import ROOT

FILES = [path for name in ("evr1", "tools") for path in sorted((ROOT / name).rglob("*.py"))]
MAX_PARAMETERS, MAX_FUNCTION_LINES, MAX_FILE_LINES, MAX_ROOT_MODULES = 6, 80, 500, 6
# The commands: they hold all of a config and hand out its sections.
WHOLE = (
    "evr1/api.py",
    "evr1/main.py",
    "evr1/train.py",
    "evr1/evaluate.py",
    "evr1/preflight/__init__.py",
    "evr1/config/",
)
PLAN = ("evr1/plan/plan.py", "evr1/plan/phases.py")
# Where something is made, by the name that makes it; conversion.py moves weights, and
# make_demo_model.py makes them: neither draws anything.
MAKERS = {
    "load_model": {
        "evr1/sampler/actor.py",
        "evr1/train.py",
        "evr1/cli/conversion.py",
        "tools/make_demo_model.py",
    },
    "Sampler": {"evr1/sampler/actor.py"},
    "ShapeTable": {"evr1/batch/shapes.py", "tools/make_demo_model.py", "evr1/plan/plan.py"},
    "Program": {"evr1/learner/programs.py"},
    "Published": {"evr1/evaluate.py", "evr1/exchange/published.py"},
}


@functools.cache
def sources():
    """The text of every file of the package and of the commands, by its path."""
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in FILES}


def package():
    """The files of the package alone."""
    return {path: source for path, source in sources().items() if path.startswith("evr1/")}


@functools.cache
def parse(source):
    """Every node of a module."""
    return list(ast.walk(ast.parse(source)))


def functions(source):
    """(name of the class or "", function) of every function."""
    nodes = parse(source)
    classes = {id(f): c.name for c in nodes if isinstance(c, ast.ClassDef) for f in c.body}
    defs = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(classes.get(id(f), ""), f) for f in defs]


def parameters(function):
    """All parameters of a function."""
    a = function.args
    more = [x for x in (a.vararg, a.kwarg) if x is not None]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *more]


def imported_as(source, name):
    """The names that a module has for a name of another one, and that name."""
    aliases = (a for n in parse(source) if isinstance(n, ast.ImportFrom) for a in n.names)
    return {name} | {a.asname for a in aliases if a.name == name and a.asname}


def calls(source, name):
    """The calls of a function or class, under whatever name it was imported."""
    names = imported_as(source, name)
    found = []
    for node in parse(source):
        if isinstance(node, ast.Call):
            of = node.func
            is_it = isinstance(of, ast.Name) and of.id in names
            if is_it or isinstance(of, ast.Attribute) and of.attr == name:
                found.append(node)
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_made_in_one_place(name):
    """A model is opened, buckets are planned, programs are listed and weights published once."""
    assert {path for path, source in sources().items() if calls(source, name)} == MAKERS[name]


@pytest.mark.parametrize(
    "planted",
    [
        "def f(d):\n    return load_model(d)",
        "from evr1.models import load_model as read\nmodel = read('d')",
        "from evr1 import models\nmodel = models.load_model('d', remat='none')",
    ],
)
def test_another_place_is_seen(planted):
    assert len(calls(planted, "load_model")) == 1
    assert calls("from evr1.models import load_model\ndef f(load_model): pass", "load_model") == []


def private_names(source):
    """Private names of other modules that a module uses."""
    nodes = parse(source)
    imported = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    modules = {(a.asname or a.name).split(".")[0] for n in imported for a in n.names}
    names = [a.name for n in imported for a in n.names if a.name.startswith("_")]
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in modules:
                names.append(node.attr)
    return names


@pytest.mark.parametrize("path", PLAN)
def test_a_plan_jits_nothing_and_looks_into_nobody(path):
    """What it compiles are the functions that a run calls, by their public names."""
    source = sources()[path]
    assert private_names(source) == []
    assert calls(source, "jit") == []


def test_a_plan_that_does_is_seen():
    assert private_names("from evr1.sampler.engine import _init") == ["_init"]
    assert private_names("from evr1.sampler import engine\nx = engine._init.lower()") == ["_init"]
    assert private_names("import evr1.a\nx = evr1.a._b") == ["_b"]
    assert private_names("class A:\n    def f(self):\n        return self._b, x._c") == []
    assert len(calls("import jax\nf = jax.jit(g)", "jit")) == 1


def listed_programs(source):
    """The names in the calls of `Program`, in their order."""
    return [call.args[0].value for call in calls(source, "Program")]


def test_a_plan_knows_every_program_that_is_listed():
    plan = ast.parse(sources()["evr1/plan/plan.py"]).body
    (known,) = (
        ast.literal_eval(node.value)
        for node in plan
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROGRAMS"
    )
    listed = listed_programs(sources()["evr1/learner/programs.py"])
    assert sorted(listed) == sorted(known)
    assert listed_programs('[Program("a", f, (), {}, 0), Program("b", f)]') == ["a", "b"]


def whole_configs(source):
    """Parameters and fields that are a whole config: its type, or its name without one."""
    froms = (n for n in parse(source) if isinstance(n, ast.ImportFrom))
    of_config = [n for n in froms if (n.module or "").startswith("evr1.config")]
    kinds = {a.asname or a.name for n in of_config for a in n.names if a.name == "Settings"}
    kinds |= {"ConfigDict", "FrozenConfigDict", "config.Settings", "settings.Settings"}

    def is_whole(annotation):
        options = ast.unparse(annotation).replace('"', "").replace("'", "").split(" | ")
        return any(o in kinds or o.endswith(tuple(f".{kind}" for kind in kinds)) for o in options)

    found = []
    for _, function in functions(source):
        for one in parameters(function):
            is_bare = one.annotation is None or ast.unparse(one.annotation) in ("Any", "object")
            if one.arg in ("config", "settings") if is_bare else is_whole(one.annotation):
                found.append(f"{function.name}({one.arg})")
    for cls in (n for n in parse(source) if isinstance(n, ast.ClassDef)):
        fields = (n for n in cls.body if isinstance(n, ast.AnnAssign))
        found += [f"{cls.name}.{ast.unparse(n.target)}" for n in fields if is_whole(n.annotation)]
    return found


def test_only_the_commands_see_a_whole_config():
    wholes = {
        path: whole_configs(source)
        for path, source in sources().items()
        if not path.startswith(WHOLE)
        and path not in ("evr1/cli/plan.py", "evr1/plan/plan.py")  # it plans a whole run
    }
    assert len(wholes) > 100
    assert {path: found for path, found in wholes.items() if found} == {}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("from evr1.config import Settings\ndef f(s: Settings): pass", ["f(s)"]),
        ("from evr1.config.settings import Settings as S\ndef f(a, *, s: S): pass", ["f(s)"]),
        ('from evr1.config import Settings\ndef f(s: "Settings | None"): pass', ["f(s)"]),
        ("from evr1 import config\ndef f(s: config.Settings): pass", ["f(s)"]),
        ("def f(c: ml_collections.ConfigDict): pass", ["f(c)"]),
        ("def f(config): pass", ["f(config)"]),
        ("def f(settings): pass", ["f(settings)"]),
        ("class A:\n    def f(self, config: Any): pass", ["f(config)"]),
        ("from evr1.config import Settings\nclass A:\n    settings: Settings", ["A.settings"]),
        ("from evr1.config import RolloutSettings\ndef f(s: RolloutSettings): pass", []),
        ("class Settings: pass\ndef f(settings: Settings): pass", []),
        ("def f(config: Mapping[str, Any]): pass", []),
        ("def f(config: LossConfig): pass", []),
    ],
)
def test_a_whole_config_is_seen(planted, found):
    assert whole_configs(planted) == found


def with_many_parameters(source):
    """Functions with more parameters than there may be; the first of a method is not counted."""
    wide = []
    for cls, function in functions(source):
        is_static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
        if len(parameters(function)) - bool(cls and not is_static) > MAX_PARAMETERS:
            wide.append(f"{cls}.{function.name}".strip("."))
    return wide


def test_functions_of_the_step_have_few_parameters():
    folders = ("evr1/rollout/", "evr1/learner/", "evr1/batch/")
    wide = {p: with_many_parameters(s) for p, s in sources().items() if p.startswith(folders)}
    assert len(wide) > 20
    assert {path: names for path, names in wide.items() if names} == {}


def test_many_parameters_are_seen():
    assert with_many_parameters("def f(a, b, c, d, e, f): pass") == []
    assert with_many_parameters("def f(a, b, c, /, d, *, e, f, g): pass") == ["f"]
    assert with_many_parameters("def f(a, b, c, d, e, *f, **g): pass") == ["f"]
    method = "class A:\n    def f(self, a, b, c, d, e, f{}): pass"
    assert with_many_parameters(method.format("")) == []
    assert with_many_parameters(method.format(", g")) == ["A.f"]
    assert with_many_parameters("def f():\n    def g(a, b, c, d, e, f, h): pass") == ["g"]


def long_functions(source):
    """Functions with more lines than there may be, decorators not counted."""
    return [
        f.name for _, f in functions(source) if f.end_lineno - f.lineno + 1 > MAX_FUNCTION_LINES
    ]


def test_no_function_is_long():
    """`get_config` is the table of all fields."""
    long = {path: long_functions(source) for path, source in package().items()}
    assert {path: n for path, n in long.items() if n} == {"evr1/config/base.py": ["get_config"]}


def test_a_long_function_is_seen():
    body = "    x = 1\n"
    assert long_functions("def f():\n" + body * (MAX_FUNCTION_LINES - 1)) == []
    assert long_functions("class A:\n    def f(self):\n" + f"    {body}" * 80) == ["f"]


def long_files(files):
    """Files with more lines than there may be, of path -> text."""
    return [path for path, text in files.items() if len(text.splitlines()) > MAX_FILE_LINES]


def test_no_file_is_long():
    assert long_files(sources()) == []
    assert long_files({"a.py": "x\n" * 500, "b.py": "x\n" * 501}) == ["b.py"]


def root_modules(paths):
    """Modules of the package that lie in no folder of it."""
    return [p for p in paths if p.count("/") == 1 and not p.endswith("/__init__.py")]


def test_few_modules_lie_at_the_root():
    assert len(root_modules(package())) <= MAX_ROOT_MODULES
    paths = [f"evr1/m{i}.py" for i in range(7)] + ["evr1/__init__.py", "evr1/rl/kl.py"]
    assert len(root_modules(paths)) > MAX_ROOT_MODULES
