"""Equality of two cleaned texts as formulas: phrases, statements and units round them are read."""

import functools
import re

from evr1.rewards.formulas import evaluate, formula, structures
from evr1.rewards.formulas.formula import Node
from evr1.rewards.numbers import units

# what must be worked out before it has a value
CALCULUS = re.compile(r"\\(?:int|sum|prod|lim|det|oint|iint)(?![a-z])|\\frac\s?\{d")
_TEXT = re.compile(r"[A-Za-z]{4,}|[A-Z][a-z]{1,2}|yes|no|odd|DNE|[A-Za-z]+(?: [A-Za-z]+)+")
_STATEMENT = re.compile(
    r"(?i)^(?!.*(?:n't\b|\b(?:not|never|or|if|no|wrong|incorrect|false|unlikely|doubt|cannot)\b))"
    r"[a-z][a-z' ]{0,60}?"
    r"(?:\s(?:is|are|equals|was)(?:\sequal\sto|\sgiven\sby)?\s|:\s)\s*"
    r"|^(?!.*[不非没或])[一-鿿]{1,12}?(?:是|为|等于):?\s?"
)
_UNIT_BEHIND = re.compile(  # 3\sqrt{5} m, 2\pi m/s
    r"(?<=\S)\s(?P<unit>(?:(?:sq|cu)\.? |square |cubic )?[A-Za-zμ]{1,12}(?:\s?\^\s?\{?-?[123]\}?)?"
    r"(?:\s?(?:/|per)\s?[A-Za-z]{1,12}(?:\s?\^\s?\{?-?[123]\}?)?)?)$"
)
ALIASES = {
    **dict.fromkeys(
        ("no solution", "no solutions", "no real solution", "no real solutions", "empty set")
        + ("the empty set", "there is no solution", "there are no solutions", "no such x", "{}")
        + ("has no solution", "ø", r"\{\}", "null set", "there are no real solutions"),
        r"\emptyset",
    ),
    **dict.fromkeys(
        ("all real numbers", "all reals", "all real x", "the real numbers", "the set of all real")
        + ("real numbers", "all real numbers x", "the set of real numbers", "any real number")
        + ("the set of all real numbers", "every real number"),
        r"\mathbb{R}",
    ),
}


def said(text: str) -> str:
    """Returns what stands behind "The area is" or "Area:", or the text where nothing does."""
    statement = _STATEMENT.match(text)
    return text[statement.end() :] if statement else text


def are_equal(result: str, truth: str) -> bool:
    """Returns whether two texts are equal formulas, in one of the ways that each may be read."""
    if _TEXT.fullmatch(truth) and truth.lower() not in ALIASES:
        return False  # a text, and not the same
    truth_node = read_formula(truth)
    if truth_node is None:
        return False
    if truth_node.op == "ratio":
        result = re.sub(r"(?<=\d) to (?=\d)", ":", result)
    node = read_formula(result)
    if node is not None and structures.is_answer(node, truth_node):
        return True
    unit = _UNIT_BEHIND.search(result)
    if unit and units.meanings(unit["unit"].lower()) and not evaluate.symbols(truth_node):
        node = read_formula(result[: unit.start()])
        node = node and Node("unit", (node, unit["unit"]))
        return node is not None and structures.is_answer(node, truth_node)
    return False


@functools.lru_cache(maxsize=1024)
def read_formula(text: str) -> Node | None:
    """Returns the formula of a text, which may be a phrase or stand behind "The area is"."""
    text = ALIASES.get(text.lower(), text)
    node = formula.read(text)
    if node is None:
        behind = said(text)
        node = formula.read(behind) if behind != text else None
    return node
