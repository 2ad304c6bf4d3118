"""Equality of whole answers: numbers, lists, sets, tuples, intervals, relations, matrices, times.

Each is what it is: a tuple has an order and a set has none, an element that is written twice is
there twice, an interval is no pair of brackets with other ends, and a relation is no number.
"""

import itertools
import re
from fractions import Fraction
from typing import Any

from evr1.rewards import number
from evr1.rewards.formulas import evaluate, real_sets
from evr1.rewards.formulas.formula import Node
from evr1.rewards.numbers import units

_FUNCTION_NAMES = "fghpqFGHP"  # f(x) is a name, and xy a product
MAX_ITEMS = 40  # of lists that are compared in any order
MIN_DECIMALS = 5  # of a decimal that stands for an irrational number
_CLOCK = re.compile(r"^(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s?([ap])?\.?(?:m\.?)?$", re.IGNORECASE)


def read_clock(text: str) -> tuple[int, int, int, str] | None:
    """Returns hour, minute, second and a, p or nothing, where a text is a time of day.

    >>> read_clock("12:30"), read_clock("3:05 pm"), read_clock("24:60")
    ((12, 30, 0, ''), (3, 5, 0, 'p'), None)
    """
    found = _CLOCK.match(text.strip())
    if not found or int(found[1]) > 24:
        return None
    return int(found[1]), int(found[2]), int(found[3] or 0), (found[4] or "").lower()


def are_same_time(a: tuple[int, int, int, str], b: tuple[int, int, int, str]) -> bool:
    """Returns whether two times of day are the same; one may leave out what half of the day."""
    if a[1:3] != b[1:3]:
        return False
    halves = [{"a": 0, "p": 12}.get(time[3]) for time in (a, b)]
    hours = [
        time[0] if half is None else time[0] % 12 + half
        for time, half in zip((a, b), halves, strict=True)
    ]
    return hours[0] == hours[1] or (None in halves and a[0] == b[0])


def is_answer(result: Node, truth: Node) -> bool:
    """Returns whether an answer is the truth; letters may be written in the other case."""
    names, truths = evaluate.symbols(result), evaluate.symbols(truth)
    other_case = {
        name: name.swapcase()
        for name in names - truths
        if len(name) == 1 and name.swapcase() in truths - names
    }
    return are_equal(_rename(result, other_case) if other_case else result, truth)


def _rename(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, Node):
        if node.op == "symbol":
            return Node("symbol", (names.get(node.args[0], node.args[0]),))
        return Node(node.op, tuple(_rename(part, names) for part in node.args))
    return tuple(_rename(part, names) for part in node) if isinstance(node, tuple) else node


def are_equal(result: Node, truth: Node) -> bool:
    """Returns whether two formulas are equal, as a whole or part by part."""
    result, truth = _spread(_without_tuple_name(result)), _spread(_without_tuple_name(truth))
    if truth.op != "unit" and result.op == "unit":
        result = result.args[0]
    if "unit" in (result.op, truth.op):
        return _are_equal_measures(result, truth)
    if real_sets.is_set_like(result) or real_sets.is_set_like(truth):
        return _are_equal_sets(result, truth)
    names = _named_values(truth), _named_values(result)
    if names[0] or names[1]:
        by_name = _are_equal_by_name(result, truth, *names)
        if by_name is not None:
            return by_name
    if "relation" in (result.op, truth.op):
        return _are_equal_relations(result, truth)
    for op, compare in _COMPARISONS.items():
        if op in (result.op, truth.op):
            return compare(result, truth)
    return are_equal_values(result, truth)


def _without_tuple_name(node: Node) -> Node:
    """Returns (3, 4) for "(x, y) = (3, 4)"."""
    if node.op == "relation" and node.args[0] == ("=",) and node.args[1][0].op == "sequence":
        (_, names), value = node.args[1][0].args, node.args[1][1]
        return value if all(name.op == "symbol" for name in names) else node
    return node


def _spread(node: Node) -> Node:
    """Returns a formula with ± as a list of two."""
    if node.op == "list":
        items = [part for item in node.args[0] for part in _items(_spread(item))]
        if len(items) == len(node.args[0]):
            return node
        return Node("list", (tuple(items), (",",) * (len(items) - 1)))
    if node.op == "set":
        return Node("set", tuple(part for item in node.args for part in _items(_spread(item))))
    if not (evaluate.has(node, "pm") or evaluate.has(node, "mp")):
        return node
    both = tuple(_with_sign(node, is_upper) for is_upper in (True, False))
    return Node("list", (both, ("or",)))


def _with_sign(node: Any, is_upper: bool) -> Any:
    if isinstance(node, tuple) and not isinstance(node, Node):
        return tuple(_with_sign(part, is_upper) for part in node)
    if not isinstance(node, Node):
        return node
    parts = tuple(_with_sign(part, is_upper) for part in node.args)
    if node.op in ("pm", "mp"):
        return parts[0] if (node.op == "pm") == is_upper else Node("neg", parts)
    return Node(node.op, parts)


def _items(node: Node) -> tuple[Node, ...]:
    return node.args[0] if node.op == "list" else (node,)


def are_equal_values(result: Node, truth: Node) -> bool:
    """Returns whether two formulas without relations, sets and lists have the same value."""
    a, b = evaluate.constant(result), evaluate.constant(truth)
    if a is None or b is None:
        if evaluate.symbols(result) or evaluate.symbols(truth):
            return evaluate.are_equal(result, truth)
        return False
    if isinstance(a, float) or isinstance(b, float):  # infinite
        return a == b
    if result.op == "degree" and evaluate.has(truth, "const"):
        return evaluate.are_close(evaluate.value(result, {}, degrees=True), b)
    if truth.op == "degree" and evaluate.has(result, "const"):
        return evaluate.are_close(a, evaluate.value(truth, {}, degrees=True))
    return evaluate.are_close(a, b) or _are_rounded(result, a, truth, b)


def _are_rounded(result: Node, a: Any, truth: Node, b: Any) -> bool:
    """Returns whether one value is the other, rounded as its decimals say."""
    if not (evaluate.is_real(a) and evaluate.is_real(b)):
        return False
    decimals, truth_decimals = _decimals(result), _decimals(truth)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        if is_whole(b, truth_decimals) and a % 1:
            return False
        if not decimals and not truth_decimals:
            return False
        return number.is_close(_as_number(a, decimals), _as_number(b, truth_decimals))
    if truth_decimals >= 2:
        reach = min(Fraction(1, 2 * 10**truth_decimals), number.ROUNDING_TOLERANCE * abs(b))
        return abs(a - _inexact(b)) <= _inexact(reach)
    if decimals >= MIN_DECIMALS:
        return abs(_inexact(a) - b) <= _inexact(Fraction(1, 10**decimals))
    return False


def is_whole(value: Fraction, places: object) -> bool:
    """Returns whether a truth is a whole number, written without decimal places."""
    return value.denominator == 1 and not places


def _inexact(fraction: Fraction) -> Any:
    return evaluate.context().mpf(fraction.numerator) / fraction.denominator


def _decimals(node: Node) -> int:
    """Returns how many decimals a formula that is one number was written with."""
    while node.op in ("neg", "degree", "percent"):
        node = node.args[0]
    return node.args[1] if node.op == "number" else 0


def _as_number(value: Fraction, decimals: int) -> number.Number:
    return number.Number(value, resolution=Fraction(1, 10**decimals) if decimals else None)


def _are_equal_measures(result: Node, truth: Node) -> bool:
    """Returns whether two values with units agree; a missing unit is no other unit."""
    a, b = (_plain_unit(node.args[1]) if node.op == "unit" else "" for node in (result, truth))
    x, y = (node.args[0] if node.op == "unit" else node for node in (result, truth))
    factors = units.convert(Fraction(1), a, b) if a and b else None
    if factors is not None:
        return any(
            are_equal(x if factor == 1 else Node("mul", (x, Node("number", (factor, 0)))), y)
            for factor in factors
        )
    return not units.do_conflict(a, b) and are_equal(x, y)


def _plain_unit(unit: str) -> str:
    """Returns a unit as `units` reads it.

    >>> _plain_unit("m / s ^ 2")
    'm/s^2'
    """
    return units.plain(re.sub(r"\s?([/^-])\s?", r"\1", unit))


def _are_equal_sets(result: Node, truth: Node) -> bool:
    a, b = real_sets.read_set(result), real_sets.read_set(truth)
    if a is not None and b is not None:
        names = evaluate.symbols(result), evaluate.symbols(truth)
        if names[0] and names[1] and names[0] != names[1]:
            return False
        return real_sets.are_same(a, b)
    if result.op == truth.op == "relation":
        return _are_equal_relations(result, truth)
    if result.op == truth.op in ("union", "meet", "minus"):
        x, y = result.args, truth.args
        same = are_equal(x[0], y[0]) and are_equal(x[1], y[1])
        return same or (result.op != "minus" and are_equal(x[0], y[1]) and are_equal(x[1], y[0]))
    if result.op == truth.op == "sequence":
        return _are_equal_sequences(result, truth)
    if result.op == truth.op == "list":
        return _are_equal_lists(_items(result), _items(truth))
    return False


def _named_values(node: Node) -> dict[str, Node]:
    """Returns the values that a list gives to two or more names, in the order as written."""
    items = _items(node)
    pairs = [_assignment(item) for item in items]
    known = [pair for pair in pairs if pair is not None]
    return dict(known) if len(dict(known)) == len(items) > 1 else {}


def _assignment(node: Node) -> tuple[str, Node] | None:
    """Returns name and value of "x = 5", "f(x) = 2x" and "x = y = 5"."""
    if node.op != "relation" or any(sign not in "=~" for sign in node.args[0]):
        return None
    left = node.args[1][0]
    if left.op == "symbol":
        return left.args[0], _value_of_chain(node)
    is_call = left.op == "mul" and left.args[0].op == left.args[1].op == "symbol"
    if is_call and left.args[0].args[0] in _FUNCTION_NAMES and len(node.args[1]) == 2:
        name = f"{left.args[0].args[0]}({left.args[1].args[0]})"
        return name, node.args[1][1]
    return None


def _value_of_chain(node: Node) -> Node:
    signs, parts = node.args
    return parts[1] if len(parts) == 2 else Node("relation", (signs[1:], parts[1:]))


def _are_equal_by_name(
    result: Node, truth: Node, truths: dict[str, Node], results: dict[str, Node]
) -> bool | None:
    """Returns whether values with names agree: by name, or else in the order as written."""
    if truths and results:
        if truths.keys() == results.keys():
            return all(are_equal(results[name], truths[name]) for name in truths)
        return None
    named = truths or results
    plain = result if truths else truth
    if plain.op == "sequence":
        items = plain.args[1]
    elif plain.op == "list":
        items = plain.args[0]
    else:
        return None
    if len(items) != len(named):
        return False
    pairs = (
        zip(items, named.values(), strict=True)
        if truths
        else zip(named.values(), items, strict=True)
    )
    if all(are_equal(x, y) for x, y in pairs):
        return True
    # Names of roots, as x_1 and x_2, say nothing of an order.
    return None if results and plain.op == "list" else False


def _are_equal_relations(result: Node, truth: Node) -> bool:
    """Returns whether two relations say the same, or one gives the value that the other is."""
    if result.op != "relation":
        assigned = _assignment(truth)
        return assigned is not None and are_equal(result, assigned[1])
    if truth.op != "relation":
        return _chain_gives(result, truth)
    a, b = _assignment(result), _assignment(truth)
    if a and b and a[0] == b[0] and are_equal(a[1], b[1]):
        return True
    return _say_the_same(result, truth)


def _chain_gives(result: Node, truth: Node) -> bool:
    """Returns whether "x = 2 + 3 = 5" gives the truth: its parts agree, and with the truth.

    A name may come first; "9 = 4" and "4 ≈ 6" give nothing.
    """
    signs, parts = result.args
    if any(sign not in "=~" for sign in signs):
        return False
    named = _assignment(result)
    if named and truth.op != "symbol":
        signs, parts = signs[1:], parts[1:]
    for sign, (left, right) in zip(signs, itertools.pairwise(parts), strict=True):
        if not (are_equal(right, left) or (sign == "~" and _approximates(right, left))):
            return False
    return are_equal(parts[-1], truth) or ("~" in signs and are_equal(parts[0], truth))


def _approximates(rounded: Node, exact: Node) -> bool:
    """Returns whether a decimal is a value rounded to its decimals."""
    decimals = _decimals(rounded)
    a, b = evaluate.constant(rounded), evaluate.constant(exact)
    if not decimals or not isinstance(a, Fraction) or b is None or not evaluate.is_real(b):
        return False
    return abs(_inexact(a) - b) <= _inexact(Fraction(1, 10**decimals))


def _say_the_same(result: Node, truth: Node) -> bool:
    """Returns whether two relations have the same solutions: differences in a constant ratio."""
    (signs, parts), (truth_signs, truth_parts) = result.args, truth.args
    if len(signs) != 1 or len(truth_signs) != 1:
        if len(signs) != len(truth_signs) or signs != truth_signs:
            return False
        return all(are_equal(x, y) for x, y in zip(parts, truth_parts, strict=True))
    ordered = [_to_less(signs[0], *parts), _to_less(truth_signs[0], *truth_parts)]
    if ordered[0][0] != ordered[1][0]:
        return False
    sides = [side for _, *both in ordered for side in both]
    if not all(map(_is_scalar, sides)):
        return all(are_equal(x, y) for x, y in zip(ordered[0][1:], ordered[1][1:], strict=True))
    differences = [_numerator(Node("add", (x, Node("neg", (y,))))) for _, x, y in ordered]
    if not (evaluate.symbols(differences[0]) and evaluate.symbols(differences[1])):
        return False  # "3 = 4" and "5 = 6" have nothing to say
    factor = evaluate.ratio(differences[0], differences[1])
    if factor is None or not evaluate.is_real(factor):
        return False
    return ordered[0][0] in ("=", "!=", "~") or factor > 0


def _to_less(sign: str, left: Node, right: Node) -> tuple[str, Node, Node]:
    return (sign.replace(">", "<"), right, left) if ">" in sign else (sign, left, right)


def _is_scalar(node: Node) -> bool:
    return node.op not in ("list", "set", "sequence", "matrix", "ratio", "unit", "nothing")


def _numerator(node: Node) -> Node:
    """Returns an equation's difference times the denominators of its terms: xy - 4 for y - 4/x."""
    terms = list(node.args)
    bottoms = [term for part in terms for term in _denominators(part)]
    for bottom in bottoms[:4]:
        node = Node("mul", (node, bottom))
    return node


def _denominators(node: Node) -> list[Node]:
    if node.op in ("add", "neg"):
        return [bottom for part in node.args for bottom in _denominators(part)]
    return [node.args[1]] if node.op == "div" and evaluate.symbols(node.args[1]) else []


def _are_equal_matrices(result: Node, truth: Node) -> bool:
    if not result.op == truth.op == "matrix":
        rows = (result if result.op == "matrix" else truth).args[1]
        other = truth if result.op == "matrix" else result
        is_vector = len(rows) == 1 or all(len(row) == 1 for row in rows)
        if not is_vector or other.op != "sequence" or other.args[0] not in ("()", "[]"):
            return False
        cells = tuple(cell for row in rows for cell in row)
        return _are_equal_in_order(cells, other.args[1])
    (is_determinant, rows), (is_truth_determinant, truth_rows) = result.args, truth.args
    if is_determinant != is_truth_determinant or len(rows) != len(truth_rows):
        return False
    return all(_are_equal_in_order(x, y) for x, y in zip(rows, truth_rows, strict=True))


def _are_equal_in_order(a: tuple[Node, ...], b: tuple[Node, ...]) -> bool:
    return len(a) == len(b) and all(are_equal(x, y) for x, y in zip(a, b, strict=True))


def _are_equal_ratios(result: Node, truth: Node) -> bool:
    """Returns whether two ratios, or a ratio and a quotient, are in proportion."""
    a, b = (node.args if node.op == "ratio" else _quotient(node) for node in (result, truth))
    if len(a) != len(b) or not all(map(_is_scalar, (*a, *b))):
        return False
    return all(
        are_equal_values(Node("mul", (a[0], y)), Node("mul", (b[0], x)))
        for x, y in zip(a[1:], b[1:], strict=True)
    )


def _quotient(node: Node) -> tuple[Node, ...]:
    return node.args if node.op == "div" else (node, Node("number", (Fraction(1), 0)))


def _are_equal_groups(result: Node, truth: Node) -> bool:
    """Returns whether sets, tuples and lists agree."""
    if {result.op, truth.op} == {"set", "sequence"}:
        return False
    if result.op == truth.op == "sequence":
        return _are_equal_sequences(result, truth)
    if "sequence" in (result.op, truth.op):
        kind, items = (result if result.op == "sequence" else truth).args
        other = truth if result.op == "sequence" else result
        if other.op == "list" and "or" in other.args[1]:
            return False
        others = _items(other)
        # "1, 2" for (1, 2); but [1, 2] is an interval
        is_tuple = kind == "()" or (kind == "[]" and len(items) > 2)
        if not is_tuple or len(others) < 2:
            return False
        return _are_equal_in_order(
            *((items, others) if result.op == "sequence" else (others, items))
        )
    a, b = (node.args if node.op == "set" else _items(node) for node in (result, truth))
    return _are_equal_lists(a, b)


def _are_equal_sequences(result: Node, truth: Node) -> bool:
    (kind, items), (truth_kind, truth_items) = result.args, truth.args
    is_vector = len(items) > 2 and {kind, truth_kind} == {"()", "[]"}
    return (kind == truth_kind or is_vector) and _are_equal_in_order(items, truth_items)


def _are_equal_lists(items: tuple[Node, ...], truths: tuple[Node, ...]) -> bool:
    """Returns whether lists hold the same elements, each as often, in any order."""
    if len(items) != len(truths):
        return False
    bare, bare_truths = map(_without_name, (items, truths))
    if _are_equal_in_order(bare, bare_truths):
        return True
    if len(items) > MAX_ITEMS:
        return False
    left = list(bare_truths)
    for item in bare:
        at = next((i for i, truth in enumerate(left) if are_equal(item, truth)), None)
        if at is None:
            return False
        del left[at]
    return True


def _without_name(items: tuple[Node, ...]) -> tuple[Node, ...]:
    """Returns a list's values without their names: 1, 2 for "x = 1, x = 2" and "x = 1, 2"."""
    pairs = [_assignment(item) for item in items]
    return tuple(item if pair is None else pair[1] for item, pair in zip(items, pairs, strict=True))


_COMPARISONS = {
    "matrix": _are_equal_matrices,
    "ratio": _are_equal_ratios,
    "sequence": _are_equal_groups,
    "set": _are_equal_groups,
    "list": _are_equal_groups,
}
