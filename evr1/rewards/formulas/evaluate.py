"""Values of formulas at points: exact fractions while they last, then 50 digits.

Two formulas are equal where their values are, at several points of their symbols. What is too big
to compute has no value, so nothing here takes long.
"""

import functools
import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from evr1.rewards.formulas.formula import Node

DIGITS = 50
MAX_BITS = 4096  # of an exact numerator or denominator
MAX_EXPONENT = 100_000  # bits of a power
MAX_FACTORIAL = 1000
MAX_ARGUMENT = 10**9  # of a periodic or growing function

# Values of the first symbols, then by a rule; below and above 1, positive and negative.
_SIGNS = ((1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1))


class NoValue(ValueError):
    """Raised where a formula has no value at a point, or one that is too big to compute."""


@functools.cache
def context() -> Any:
    """Returns the arithmetic of many digits, apart from the settings of other users of mpmath."""
    import mpmath

    numbers = mpmath.ctx_mp.MPContext()
    numbers.dps = DIGITS
    return numbers


def points(names: list[str]) -> list[dict[str, Fraction]]:
    """Returns points to compare at: a value for each name."""
    if not names:
        return [{}]
    return [
        {
            name: signs[i % 2] * Fraction(7 * i + 5 + 9 * k, 11 * i + 13 - 2 * k)
            for i, name in enumerate(names)
        }
        for k, signs in enumerate(_SIGNS)
    ]


def symbols(node: Any) -> set[str]:
    """Returns the names of the symbols in a formula."""
    if isinstance(node, Node):
        if node.op == "symbol":
            return {node.args[0]}
        return set().union(*map(symbols, node.args))
    return set().union(*map(symbols, node)) if isinstance(node, tuple) else set()


def has(node: Any, op: str) -> bool:
    """Returns whether a formula has a part of a kind."""
    if isinstance(node, Node):
        return node.op == op or any(has(part, op) for part in node.args)
    return isinstance(node, tuple) and any(has(part, op) for part in node)


@functools.lru_cache(maxsize=4096)  # elements of lists are compared again and again
def constant(node: Node) -> Any:
    """Returns the value of a formula without symbols, or None where it has none; may be infinite.

    >>> from evr1.rewards.formulas.formula import read
    >>> constant(read("1/2 + 1/3"))
    Fraction(5, 6)
    """
    sign, inner = 1, node
    if inner.op in ("neg", "pm") and inner.args:
        sign, inner = (-1 if inner.op == "neg" else 1), inner.args[0]
    if inner == Node("const", ("inf",)):
        return sign * math.inf
    if symbols(node):
        return None
    try:
        return value(node, {})
    except NoValue:
        return None


def are_close(a: Any, b: Any) -> bool:
    """Returns whether two values are the same, up to rounding of what is not exact."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    if isinstance(a, float) or isinstance(b, float):  # infinite
        return a == b
    numbers = context()
    a, b = _inexact(a), _inexact(b)
    return abs(a - b) <= numbers.mpf(10) ** -25 * max(1, abs(a), abs(b))


def is_real(number: Any) -> bool:
    """Returns whether a value has no imaginary part."""
    if isinstance(number, Fraction | float):
        return True
    return not _imaginary(number)


def _imaginary(number: Any) -> Any:
    imaginary = number.imag
    return imaginary if abs(imaginary) > 1e-30 * max(1, abs(number)) else 0


def value(node: Node, point: Mapping[str, Fraction], degrees: bool = False) -> Any:
    """Returns the value of a formula: a Fraction, or a real or complex number of many digits.

    Args:
        node: a formula without relations, sets and lists.
        point: the value of each symbol.
        degrees: a degree sign turns into radians, as within a sine.

    Raises:
        NoValue: there is none, or it is too big.
    """
    try:
        result = _RULES[node.op](node, point, degrees)
    except (ZeroDivisionError, OverflowError, KeyError, TypeError, ValueError) as e:
        raise NoValue(node.op) from e
    return _bounded(result)


def _bounded(number: Any) -> Any:
    """Returns a value as a fraction of bounded size, or else inexact."""
    if isinstance(number, Fraction):
        bits = number.numerator.bit_length() + number.denominator.bit_length()
        return number if bits <= 2 * MAX_BITS else _inexact(number)
    if not context().isfinite(number):
        raise NoValue("infinite")
    if hasattr(number, "imag") and not _imaginary(number):
        number = number.real
    return number


def _inexact(number: Any) -> Any:
    numbers = context()
    if isinstance(number, Fraction):
        return numbers.mpf(number.numerator) / number.denominator
    return numbers.convert(number)


def _add(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    parts = [value(part, point, degrees) for part in node.args]
    if all(isinstance(part, Fraction) for part in parts):
        total = Fraction(0)
        for part in parts:
            total = total + part
            if total.denominator.bit_length() > MAX_BITS:
                break
        else:
            return total
    return sum(map(_inexact, parts), context().mpf(0))


def _both(node: Node, point: Mapping[str, Fraction], degrees: bool) -> tuple[Any, Any]:
    a, b = (value(part, point, degrees) for part in node.args)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a, b
    return _inexact(a), _inexact(b)


def _multiply(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    a, b = _both(node, point, degrees)
    return a * b


def _divide(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    a, b = _both(node, point, degrees)
    return a / b


def _modulo(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    a, b = (_exact(value(part, point, degrees)) for part in node.args)
    return a % b


def _negate(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    return -value(node.args[0], point, degrees)


def _percent(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    return value(node.args[0], point, degrees) / 100


def _degree(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    number = value(node.args[0], point, degrees)
    return _inexact(number) * context().pi / 180 if degrees else number


def _constant(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    numbers = context()
    return {"pi": +numbers.pi, "e": +numbers.e, "i": numbers.mpc(0, 1)}[node.args[0]]


def _power(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    base, exponent = (value(part, point, degrees) for part in node.args)
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1 and isinstance(base, Fraction):
            return _rational_power(base, exponent.numerator)
        if is_real(base) and base < 0 and exponent.denominator % 2 == 1 < exponent.denominator:
            root = _root(base, exponent.denominator)
            return _inexact_power(root, Fraction(exponent.numerator))
    return _inexact_power(base, exponent)


def _rational_power(base: Fraction, exponent: int) -> Any:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base == 0 and exponent <= 0:
        raise NoValue("0^0")
    if bits * abs(exponent) <= MAX_BITS:
        return base**exponent
    return _inexact_power(base, Fraction(exponent))


def _inexact_power(base: Any, exponent: Any) -> Any:
    base = _inexact(base)
    if base == 0:
        if is_real(exponent) and exponent > 0:
            return Fraction(0)
        raise NoValue("0^0")
    exponent = _inexact(exponent)
    if abs(exponent) > MAX_EXPONENT or abs(exponent * context().ln(abs(base))) > MAX_EXPONENT:
        raise NoValue("a huge power")
    return base**exponent


def _root(base: Any, index: int) -> Any:
    """Returns a real root where there is one, also of a negative number."""
    if isinstance(base, Fraction) and base >= 0:
        top, bottom = (_integer_root(n, index) for n in (base.numerator, base.denominator))
        if top is not None and bottom is not None:
            return Fraction(top, bottom)
    if is_real(base) and base < 0 and index % 2:
        positive = _root(-base, index)
        return -positive
    return _inexact_power(base, Fraction(1, index))


def _integer_root(number: int, index: int) -> int | None:
    """Returns a whole root of a small number, or None."""
    if index == 2:
        root = math.isqrt(number)
    elif number.bit_length() <= 400 and index <= 400:
        root = round(number ** (1 / index))
    else:
        return None
    return root if root**index == number else None


def _exact(number: Any) -> Fraction:
    """Returns a value that must be rational."""
    if not isinstance(number, Fraction):
        raise NoValue("not rational")
    return number


def _natural(number: Any, most: int) -> int:
    number = _exact(number)
    if number.denominator != 1 or not 0 <= number <= most:
        raise NoValue("no small natural number")
    return number.numerator


def _factorial(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    number = value(node.args[0], point, degrees)
    if isinstance(number, Fraction) and number.denominator == 1:
        return Fraction(math.factorial(_natural(number, MAX_FACTORIAL)))
    number = _inexact(number)
    if abs(number) > MAX_FACTORIAL:
        raise NoValue("a huge factorial")
    return context().gamma(number + 1)


def _binomial(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    n, k = (value(part, point, degrees) for part in node.args)
    if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1:
        return Fraction(math.comb(_natural(n, MAX_FACTORIAL), _natural(k, MAX_FACTORIAL)))
    n, k = _inexact(n), _inexact(k)
    if max(abs(n), abs(k)) > MAX_FACTORIAL:
        raise NoValue("a huge binomial")
    return context().binomial(n, k)


def _call(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    name, *arguments = node.args
    is_angle = name in _PERIODIC
    numbers = [value(part, point, degrees or is_angle) for part in arguments]
    first = numbers[0]
    if name == "root":
        index = _natural(numbers[1], 1000)
        if index == 0:
            raise NoValue("root")
        return _root(first, index)
    if name == "abs":
        return abs(first)
    if name in ("floor", "ceil"):
        if not is_real(first):
            raise NoValue(name)
        if not isinstance(first, Fraction):
            return Fraction(int(getattr(context(), name)(first)))
        return Fraction(getattr(math, name)(first))
    if name in ("gcd", "lcm"):
        whole = [_natural(number, 10**50) for number in numbers]
        return Fraction(getattr(math, name)(*whole))
    if name in ("max", "min"):
        if not all(map(is_real, numbers)):
            raise NoValue(name)
        return (max if name == "max" else min)(numbers)
    return _transcendental(name, *map(_inexact, numbers))


_PERIODIC = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_OWN_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot"}
_OWN_NAMES |= {"arccsc": "acsc", "arcsec": "asec", "arcsinh": "asinh", "arccosh": "acosh"}
_OWN_NAMES |= {"arctanh": "atanh"}


def _transcendental(name: str, number: Any, base: Any = None) -> Any:
    numbers = context()
    if abs(number) > MAX_ARGUMENT and name not in ("ln", "log"):
        raise NoValue("a huge argument")
    if name == "exp":
        return _inexact_power(+numbers.e, number)
    if name in ("ln", "log"):
        if number == 0:
            raise NoValue("log 0")
        base = numbers.mpf(10) if base is None and name == "log" else base
        return numbers.ln(number) / (1 if base is None else numbers.ln(base))
    if name in ("re", "im"):
        return numbers.mpc(number).real if name == "re" else numbers.mpc(number).imag
    if name in ("sinh", "cosh", "tanh", "coth") and abs(number) > 10_000:
        raise NoValue("a huge argument")
    function = getattr(numbers, _OWN_NAMES.get(name, name))
    result = function(number)
    # An exact zero, such as the cosine of a right angle, comes out as a tiny number.
    return numbers.chop(result, tol=numbers.mpf(10) ** -40)


def _symbol(node: Node, point: Mapping[str, Fraction], degrees: bool) -> Any:
    return point[node.args[0]]


_RULES = {
    **{"number": lambda node, point, degrees: node.args[0], "symbol": _symbol, "const": _constant},
    **{"add": _add, "neg": _negate, "mul": _multiply, "div": _divide, "power": _power},
    **{"percent": _percent, "degree": _degree, "factorial": _factorial, "binomial": _binomial},
    **{"call": _call, "mod": _modulo},
}


def _value_or_none(node: Node, point: Mapping[str, Fraction]) -> Any:
    try:
        return value(node, point)
    except NoValue:
        return None


def are_equal(a: Node, b: Node) -> bool:
    """Returns whether a formula has the values of another wherever that is real.

    Where it is real nowhere, they are compared at complex values.

    Args:
        a: compared.
        b: says where they must agree: for 2 ln x, only at positive numbers.
    """
    unreal = []
    has_real = False
    for point in points(sorted(symbols(a) | symbols(b))):
        y = _value_or_none(b, point)
        if y is None:
            continue
        if not is_real(y):
            unreal.append((point, y))
            continue
        has_real = True
        x = _value_or_none(a, point)
        if x is None or not are_close(x, y):
            return False
    if has_real or not unreal:
        return has_real
    pairs = [(_value_or_none(a, point), y) for point, y in unreal]
    return all(x is not None and are_close(x, y) for x, y in pairs)


def ratio(a: Node, b: Node) -> Any:
    """Returns the constant that b must be multiplied with to give a, or None if there is none."""
    ratios = []
    for point in points(sorted(symbols(a) | symbols(b))):
        x, y = _value_or_none(a, point), _value_or_none(b, point)
        if x is None or y is None or are_close(y, Fraction(0)):
            if (x is None) != (y is None) or (x is not None and not are_close(x, Fraction(0))):
                return None
            continue
        exact = isinstance(x, Fraction) and isinstance(y, Fraction)
        ratios.append(x / y if exact else _inexact(x) / _inexact(y))
    same = all(are_close(p, q) for p, q in itertools.pairwise(ratios))
    return ratios[0] if ratios and same and not are_close(ratios[0], Fraction(0)) else None
