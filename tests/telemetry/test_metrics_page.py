"""docs/metrics.md names the metrics that there are, and no others."""

import ast
import re

from repo import ROOT

NAME = re.compile(r"[a-z]+/[a-z0-9_/{}-]*[a-z0-9_}]")
INTERNAL = {"correction/weight_square"}  # correction/ess is made of it
# whose area stands in a variable
BUILT = {"eval/overall", "eval/format", "critic/grad_norm", "critic/is_finite"}


def documented():
    """The names of the table, `<type>` and the like as `x`."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = page.partition("## A trace")[0].splitlines()  # which has no metrics
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    names = re.findall(r"`([^`]+)`", " ".join(cells))
    return {re.sub(r"<\w+>", "x", name) for name in names}


def strings(tree):
    """The strings of a module, `{}` where a value is put in."""
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    pieces = {id(part) for node in formatted for part in node.values}
    for node in formatted:
        parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
        yield "".join(map(str, parts))
    for node in ast.walk(tree):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_string and id(node) not in pieces:
            yield node.value


def written(areas):
    """The names in the code's strings."""
    texts = {
        text
        for path in (ROOT / "evr1").rglob("*.py")
        for text in strings(ast.parse(path.read_text()))
    }
    return {t for t in texts if NAME.fullmatch(t) and t.partition("/")[0] in areas}


def matches(template, name):
    return re.fullmatch(re.escape(template).replace(r"\{\}", ".+"), name) is not None


def test_every_metric_is_explained_and_everything_explained_is_a_metric():
    page = documented()
    code = written({name.partition("/")[0] for name in page}) - INTERNAL
    assert len(page) > 90
    unexplained = {t for t in code if not any(matches(t, name) for name in page)}
    assert unexplained == set()
    gone = {name for name in page if not any(matches(t, name) for t in code)}
    assert gone <= BUILT
