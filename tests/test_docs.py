"""The pages: files that contributors are led to are there, messages are those that are printed,
fields of configs exist."""

import ast
import importlib.util
import json
import re

import pytest
import shell
from repo import ROOT

from configs import base
from evr1.config import reference

DOCS = ROOT / "docs"
PATH = re.compile(r"`((?:evr1|tests|docs|configs|tools|tpu|benchmarks)/[\w/.]+)`")


def pages():
    """Every page but those that speak of what was, or of other repositories."""
    names = ("README.md", "CONTRIBUTING.md", "tpu/README.md", "benchmarks/README.md")
    others = (DOCS / "decisions.md", DOCS / "coming_from.md")
    found = [*(ROOT / name for name in names), *sorted(DOCS.rglob("*.md"))]
    return [page for page in found if page not in others]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_are_there(page):
    for path in PATH.findall(page.read_text("utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_pages_is_code(page):
    """Python can be read and imports what is there; JSON is a line a row, or one object."""
    for block in shell.blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evr1"):
                    module = importlib.import_module(str(node.module))
                    for alias in node.names:
                        is_there = hasattr(module, alias.name)
                        assert is_there or importlib.util.find_spec(f"{node.module}.{alias.name}")
        elif block.language == "json":
            try:
                json.loads(block.text)
            except ValueError:
                assert all(json.loads(line) for line in block.text.splitlines())


@pytest.mark.parametrize("name", ["family", "task", "reward", "algorithm"])
def test_a_contributor_is_led_to_files(name):
    lines = (DOCS / "contributing" / f"{name}.md").read_text("utf-8").splitlines()
    rows = [line[2:].split(" | ")[0] for line in lines if line.startswith("| `")]
    assert len(rows) > 8
    assert all(PATH.fullmatch(path) for row in rows for path in row.split(", "))


def texts():
    """Every string of the package, with a NUL in the place of what is put in."""
    for path in (ROOT / "evr1").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def symptoms():
    """What the tables of docs/troubleshooting.md quote in their first column: messages, metrics."""
    for line in (DOCS / "troubleshooting.md").read_text("utf-8").splitlines():
        first = line.split(" | ")[0]
        yield from re.findall(r"^\| `([^`]+)`", first)


def test_messages_are_those_that_are_printed():
    printed = [*texts(), (DOCS / "metrics.md").read_text("utf-8")]
    quoted = list(symptoms())
    assert len(quoted) > 40
    for message in quoted:
        parts = (re.escape(part.strip()) for part in message.split("…"))
        pattern = re.compile(".*".join(parts), re.DOTALL)
        assert any(map(pattern.search, printed)), message


def names(config, prefix=""):
    """Every field of a config and its groups, by dotted name."""
    for name, value in config.items():
        yield prefix + name
        if hasattr(value, "items"):
            yield from names(value, f"{prefix}{name}.")


@pytest.mark.parametrize("page", ["coming_from", "first_hour", "recipes", "troubleshooting"])
def test_fields_of_the_config_are_there(page):
    """In a table of fields of several tools, those of the first column are ours."""
    fields = set(names(base.get_config()))
    groups = {name.partition(".")[0] for name in fields if "." in name}
    text = (DOCS / f"{page}.md").read_text("utf-8")
    if page == "coming_from":
        text = "\n".join(line.split(" | ")[0] for line in text.splitlines() if line[:3] == "| `")
    told = re.findall(
        r"(?:`|\bc\.|--config\.)((?:{})\.\w+(?:\.\w+)?)".format("|".join(groups)), text
    )
    told = [name for name in told if not name.endswith((".html", ".jsonl"))]
    assert told
    for name in told:
        assert name in fields, f"{page}: {name}{reference.did_you_mean(name, sorted(fields))}"
