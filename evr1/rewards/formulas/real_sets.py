"""Sets of real numbers: intervals, points, unions, and the solutions of linear inequalities."""

import functools
import itertools
import math
from fractions import Fraction
from typing import Any, NamedTuple

from evr1.rewards.formulas import evaluate
from evr1.rewards.formulas.formula import Node

MAX_PIECES = 50
ROUNDED_TO = 10**30  # what is not exact, to this part of one


class Piece(NamedTuple):
    """An interval from low to high, which may be infinite or, closed on both sides, one point."""

    low: Any
    has_low: bool
    high: Any
    has_high: bool


ALL = [Piece(-math.inf, False, math.inf, False)]


def is_set_like(node: Node) -> bool:
    """Returns whether a formula can only be meant as a set, not as a number or a tuple."""
    match node.op:
        case "const":
            return node.args[0] in ("empty", "R")
        case "union" | "meet" | "minus":
            return True
        case "sequence":
            is_infinite = any(math.inf == abs(bound) for bound in _bounds(node) or ())
            return node.args[0] in ("(]", "[)") or is_infinite
        case "relation":
            return any(sign not in "=~" for sign in node.args[0])
        case "list":
            return any(map(is_set_like, node.args[0]))
    return False


def read_set(node: Node) -> list[Piece] | None:
    """Returns the disjoint pieces of a set, in order; or None where it is no set of numbers."""
    pieces = _read(node)
    return None if pieces is None or len(pieces) > MAX_PIECES else _join(pieces)


def _read(node: Node) -> list[Piece] | None:
    match node.op:
        case "const" if node.args[0] == "empty":
            return []
        case "const" if node.args[0] == "R":
            return ALL
        case "union" | "meet" | "minus":
            a, b = read_set(node.args[0]), read_set(node.args[1])
            if a is None or b is None:
                return None
            if node.op == "union":
                return a + b
            return _meet(a, b if node.op == "meet" else _complement(b))
        case "sequence":
            return _interval(node)
        case "set":
            return _points(node.args)
        case "relation":
            return _solve(node)
        case "list":
            return _read_list(*node.args)
    return _points((node,))


def _bounds(node: Node) -> tuple[Any, Any] | None:
    if len(node.args[1]) != 2:
        return None
    low, high = (_end(evaluate.constant(part)) for part in node.args[1])
    return None if low is None or high is None else (low, high)


def _end(value: Any) -> Any:
    """Returns a real value as a fraction, rounded where it is not exact; or infinite, or None."""
    if value is None or not evaluate.is_real(value):
        return None
    if isinstance(value, Fraction | float):
        return value
    if abs(value) > ROUNDED_TO:
        return None
    return Fraction(int(evaluate.context().nint(value.real * ROUNDED_TO)), ROUNDED_TO)


def _interval(node: Node) -> list[Piece] | None:
    bounds = _bounds(node)
    if bounds is None:
        return None
    low, high = bounds
    has_low, has_high = node.args[0][0] == "[", node.args[0][1] == "]"
    if low > high or (low == high and not (has_low and has_high)):
        return None
    is_finite = (abs(low) != math.inf, abs(high) != math.inf)
    return [Piece(low, has_low and is_finite[0], high, has_high and is_finite[1])]


def _points(nodes: tuple[Node, ...]) -> list[Piece] | None:
    points = [_end(evaluate.constant(node)) for node in nodes if node.op not in ("list", "set")]
    if len(points) != len(nodes) or any(p is None or abs(p) == math.inf for p in points):
        return None
    return [Piece(p, True, p, True) for p in points]


def _read_list(items: tuple[Node, ...], joints: tuple[str, ...]) -> list[Piece] | None:
    """Returns the set of several conditions; a comma joins them as "and" unless none is left."""
    if not all(item.op == "relation" for item in items):
        return None
    names = set().union(*map(evaluate.symbols, items))
    sets = [read_set(item) for item in items]
    known = [pieces for pieces in sets if pieces is not None]
    if len(names) != 1 or len(known) != len(sets):
        return None
    if "or" in joints:
        return None if "and" in joints else [piece for pieces in known for piece in pieces]
    both = functools.reduce(_meet, known)
    if both or "and" in joints:
        return both
    return [piece for pieces in known for piece in pieces]


def _solve(node: Node) -> list[Piece] | None:
    """Returns the numbers for which a chain of linear relations in one symbol holds."""
    signs, parts = node.args
    if len(signs) == 1 and signs[0] == "in" and parts[0].op == "symbol":
        return read_set(parts[1])
    names = sorted(evaluate.symbols(node))
    if len(names) != 1 or len(signs) > 4:
        return None
    pieces = ALL
    for sign, (left, right) in zip(signs, itertools.pairwise(parts), strict=True):
        solution = _solve_one(sign, Node("add", (left, Node("neg", (right,)))), names[0])
        infinite = _compare_with_infinity(sign, left, right)
        solution = infinite if infinite is not None else solution
        if solution is None:
            return None
        pieces = _meet(pieces, solution)
    return pieces


def _compare_with_infinity(sign: str, left: Node, right: Node) -> list[Piece] | None:
    """Returns all numbers for "x < infinity" and "-infinity < x"."""
    if sign not in ("<", "<="):
        return None
    bounds = (evaluate.constant(left), evaluate.constant(right))
    is_free = bounds[0] == -math.inf or bounds[1] == math.inf
    return ALL if is_free and None in bounds else None


def _solve_one(sign: str, difference: Node, name: str) -> list[Piece] | None:
    """Returns where a linear difference is negative, zero and so on."""
    at = []
    for x in (0, 1, 2):
        try:
            at.append(_end(evaluate.value(difference, {name: Fraction(x)})))
        except evaluate.NoValue:
            return None
    if None in at:
        return None
    slope = at[1] - at[0]
    if not _are_close(at[2] - at[1], slope) or _are_close(slope, Fraction(0)):
        return None
    root = -at[0] / slope
    if sign == "=":
        return [Piece(root, True, root, True)]
    if sign == "!=":
        return _complement([Piece(root, True, root, True)])
    if sign[0] not in "<>":
        return None
    is_below = (sign[0] == "<") == (slope > 0)
    has_end = sign.endswith("=")
    if is_below:
        return [Piece(-math.inf, False, root, has_end)]
    return [Piece(root, has_end, math.inf, False)]


def _complement(pieces: list[Piece]) -> list[Piece]:
    """Returns what disjoint pieces, in order, leave out."""
    low, has_low, rest = -math.inf, False, []
    for piece in _join(pieces):
        rest.append(Piece(low, has_low, piece.low, not piece.has_low))
        low, has_low = piece.high, not piece.has_high
    rest.append(Piece(low, has_low, math.inf, False))
    return [piece for piece in rest if _is_some(piece)]


def _is_some(piece: Piece) -> bool:
    if abs(piece.low) == math.inf and piece.low == piece.high:
        return False
    return piece.low < piece.high or (piece.low == piece.high and piece.has_low and piece.has_high)


def _meet(a: list[Piece], b: list[Piece]) -> list[Piece]:
    """Returns what two sets have in common."""
    common = []
    for p in a:
        for q in b:
            low, lacks_low = max((p.low, not p.has_low), (q.low, not q.has_low))
            high, has_high = min((p.high, p.has_high), (q.high, q.has_high))
            piece = Piece(low, not lacks_low, high, has_high)
            if _is_some(piece):
                common.append(piece)
    return common[: MAX_PIECES + 1]


def _join(pieces: list[Piece]) -> list[Piece]:
    """Returns disjoint pieces in order, touching ones joined."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.low, not p.has_low)):
        last = joined[-1] if joined else None
        touches = last and (
            piece.low < last.high or (piece.low == last.high and (piece.has_low or last.has_high))
        )
        if last and touches:
            high, has_high = max((last.high, last.has_high), (piece.high, piece.has_high))
            joined[-1] = Piece(last.low, last.has_low, high, has_high)
        else:
            joined.append(piece)
    return joined


def are_same(a: list[Piece], b: list[Piece]) -> bool:
    """Returns whether two sets are equal, up to the rounding of their ends."""
    return len(a) == len(b) and all(
        _are_close(p.low, q.low) and _are_close(p.high, q.high) and p[1::2] == q[1::2]
        for p, q in zip(a, b, strict=True)
    )


def _are_close(a: Any, b: Any) -> bool:
    return a == b or (math.inf not in (abs(a), abs(b)) and abs(a - b) * 10**25 <= max(1, abs(a)))
