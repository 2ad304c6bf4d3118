"""Parses mathematical text, rewritten by `notation`, into a tree; in linear time.

What is not wholly a formula is none: the parser never leaves out a part that it cannot read.
"""

from fractions import Fraction
from typing import Any, NamedTuple

from evr1.rewards.formulas.tokens import (
    CONSTANTS,
    FUNCTIONS,
    MAX_DEPTH,
    Token,
    Unreadable,
    is_no_unit,
    tokenize,
)

MAX_CHARS = 1500
MAX_LEVELS = 100  # of the tree: each factor of a product is one
_INVERTED = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"))  # by ^-1
_SEVERAL = frozenset(("gcd", "lcm", "max", "min"))  # functions of several arguments


class Node(NamedTuple):
    """A part of a formula: its kind, and numbers, names and further nodes."""

    op: str
    args: tuple[Any, ...] = ()


def read(text: str) -> Node | None:
    """Returns the tree of a whole text, or None where it is no formula."""
    if not 0 < len(text) <= MAX_CHARS:
        return None
    try:
        parser = _Parser(tokenize(text))
        node = parser.items(())
        return node if parser.at_end() and _depth(node) <= MAX_LEVELS else None
    except Unreadable:
        return None


def _depth(node: Node) -> int:
    """Returns the number of levels of a tree, counted without recursion."""
    depth, level = 0, [node]
    while level:
        depth += 1
        parts = [part for node in level for part in node.args]
        parts += [part for group in parts if type(group) is tuple for part in group]
        parts += [cell for row in parts if type(row) is tuple for cell in row]
        level = [part for part in {id(part): part for part in parts}.values() if type(part) is Node]
    return depth


class _Parser:
    """A cursor over tokens; each method reads one level of the grammar and returns its node."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._is_in_set = 0  # open sets, in which a colon means "such that"

    def at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else Token("end", "")

    def _next(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _is(self, *values: str) -> bool:
        token = self._peek()
        return token.kind == "sign" and token.value in values

    def _take(self, *values: str) -> bool:
        if self._is(*values):
            self._at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise Unreadable(f"expected {value}")

    def items(self, closing: tuple[str, ...]) -> Node:
        """Reads what stands between brackets, or all: one formula, or a list of them."""
        if self._is(*closing) or self.at_end():
            raise Unreadable("nothing")
        items, joints = [self._ratio()], []
        while self._is(",", ";", "and", "or"):
            joint = self._next().value
            if joint in (",", ";") and self._is("and", "or"):  # 1, 2, and 3
                joint = self._next().value
            if joint in (",", ";") and (self.at_end() or self._is(*closing)):
                break  # a comma at the end
            joints.append(joint)
            items.append(self._ratio())
        return items[0] if len(items) == 1 else Node("list", (tuple(items), tuple(joints)))

    def _ratio(self) -> Node:
        parts = [self._relation()]
        while not self._is_in_set and self._take(":"):
            parts.append(self._relation())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def _relation(self) -> Node:
        # A bound without a left side: "> 3"
        parts: list[Node] = [Node("nothing")] if self._peek().kind == "relation" else []
        signs = []
        if not parts:
            parts.append(self._sets())
        while self._peek().kind == "relation":
            signs.append(self._next().value)
            parts.append(self._sets())
        return parts[0] if not signs else Node("relation", (tuple(signs), tuple(parts)))

    def _sets(self) -> Node:
        node = self._sum()
        while self._peek().kind == "set" or self._is_union_letter():
            sign = self._next()
            node = Node(sign.value if sign.kind == "set" else "union", (node, self._sum()))
        return node

    def _is_union_letter(self) -> bool:
        """Returns whether a letter U stands between two intervals: (1, 2) U (3, 4)."""
        token = self._peek()
        is_letter = token.kind == "name" and token.value in "Uu"
        before, behind = self._peek(-1), self._peek(1)
        return is_letter and before.value in (")", "]", "\\}") and behind.value in ("(", "[", "\\{")

    def _sum(self) -> Node:
        terms = [self._signed_term()]
        while self._is("+", "-", "pm", "mp"):
            terms.append(self._signed_term())
        node = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
        return self._with_unit(node)

    def _signed_term(self) -> Node:
        signs = []
        while self._is("+", "-", "pm", "mp"):
            signs.append(self._next().value)
        if len(signs) > 3:
            raise Unreadable("signs")
        node = self._term()
        for sign in reversed(signs):
            if sign != "+":
                node = Node("neg" if sign == "-" else sign, (node,))
        return node

    def _with_unit(self, node: Node) -> Node:
        """Reads the unit behind a sum, if there is one: words and their powers, to the end."""
        token = self._peek()
        if token.kind not in ("text", "letter"):
            return node
        words = []
        while True:
            token = self._peek()
            if (
                token.kind in ("text", "letter", "name")
                or (token.kind == "sign" and token.value in "/*^-")
                or token.kind == "number"
                and words[-1:] in (["^"], ["-"])
            ):
                words.append(self._next().value)
            elif token.value == "{" and words[-1] == "^":
                self._at += 1
                words.append("".join(self._next().value for _ in range(2) if not self._is("}")))
                self._expect("}")
            else:
                break
        unit = " ".join(words)
        if is_no_unit(unit) or len(words) > 12:
            raise Unreadable(unit)
        return Node("unit", (node, unit))

    def _term(self) -> Node:
        node = self._product()
        while self._is("*", "/", "bmod"):
            sign = self._next().value
            factor = self._signed_factor()
            if sign == "bmod":
                node = Node("mod", (node, factor))
            else:
                node = Node("mul" if sign == "*" else "div", (node, factor))
            node = self._implicit(node)
        return node

    def _signed_factor(self) -> Node:
        if self._take("-"):
            return Node("neg", (self._power(),))
        self._take("+")
        return self._power()

    def _product(self) -> Node:
        return self._implicit(self._power())

    def _implicit(self, node: Node) -> Node:
        """Reads factors that stand side by side: 2x, 3(x+1), 2 \\sqrt{3}."""
        while self._starts_factor():
            if self._peek().kind == "number":
                before = self._peek(-1)
                if before.kind in ("number", "name", "letter"):
                    raise Unreadable("two numbers side by side")
            node = Node("mul", (node, self._power()))
        return node

    def _starts_factor(self) -> bool:
        token = self._peek()
        if token.kind in ("number", "name", "decoration"):
            return not self._is_union_letter()
        if token.kind == "letter":  # \text{m}: a unit
            return False
        if token.kind == "begin":
            return False
        return token.kind == "sign" and token.value in (
            *("(", "[", "{", "frac", "binom", "lfloor", "lceil"),
        )

    def _power(self) -> Node:
        node = self._atom()
        while True:
            if self._take("!"):
                node = Node("factorial", (node,))
            elif self._take("%"):
                node = Node("percent", (node,))
            elif self._take("°"):
                unit = self._peek()
                if unit.kind == "name" and unit.value in ("C", "F"):
                    self._at += 1
                    node = Node("unit", (node, "°" + unit.value))
                else:
                    node = Node("degree", (node,))
            elif self._take("^"):
                node = Node("power", (node, self._exponent()))
            else:
                return node

    def _exponent(self) -> Node:
        if self._take("-"):
            return Node("neg", (self._atom(),))
        self._take("+")
        node = self._atom()
        # 2^3^2 without braces: from the right
        return Node("power", (node, self._exponent())) if self._take("^") else node

    def _atom(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = self._bare_atom()
        self._depth -= 1
        return node

    def _bare_atom(self) -> Node:
        token = self._next()
        if token.kind == "number":
            # 101_2 is a numeral in base two
            return self._subscripted(token.value) if self._is("_") else _read_number(token.value)
        if token.kind in ("name", "letter"):
            return self._named(token.value)
        if token.kind == "decoration":
            return self._subscripted(f"{token.value} {self._raw_group()}")
        if token.kind == "begin":
            return self._matrix(token.value)
        if token.kind != "sign":
            raise Unreadable(token.value)
        match token.value:
            case "{":
                return self._group()
            case "(" | "[" | "<(" | "\\{":
                return self._bracketed(token.value)
            case "|":
                node = self._sum()
                self._expect("|")
                return Node("call", ("abs", node))
            case "lfloor" | "lceil":
                node = self._sum()
                self._expect("r" + token.value[1:])
                return Node("call", ("floor" if token.value == "lfloor" else "ceil", node))
            case "frac":
                return Node("div", (self._argument(), self._argument()))
            case "binom":
                return Node("binomial", (self._argument(), self._argument()))
        raise Unreadable(token.value)

    def _group(self) -> Node:
        """Reads what stands in braces, which are LaTeX's, or without LaTeX those of a set."""
        node = self.items(("}", "|"))
        if self._take("|"):
            node = self.items(("}",))
        self._expect("}")
        if node.op == "list" and not any(joint in ("and", "or") for joint in node.args[1]):
            return Node("set", node.args[0])
        return node

    def _argument(self) -> Node:
        r"""Reads one argument of a macro: a group, or else a single digit or name."""
        token = self._peek()
        if token.kind == "number" and len(token.value) > 1 and token.value.isdecimal():
            digit, rest = token.value[0], token.value[1:]
            self._tokens[self._at] = Token("number", rest)
            return _read_number(digit)
        return self._atom()

    def _bracketed(self, opening: str) -> Node:
        closings = {"(": (")", "]"), "[": ("]", ")"), "<(": (")>",), "\\{": ("\\}",)}[opening]
        if opening == "\\{":
            return self._set()
        if self._is(*closings):
            raise Unreadable("empty brackets")
        node = self.items(closings)
        closing = self._next().value
        if closing not in closings:
            raise Unreadable(closing)
        items = node.args[0] if node.op == "list" else (node,)
        if len(items) == 1 and opening + closing in ("()", "[]"):
            return items[0]
        if node.op == "list" and any(joint in ("and", "or") for joint in node.args[1]):
            return node
        kind = {"<()>": "()"}.get(opening + closing, opening + closing)
        return Node("sequence", (kind, items))

    def _set(self) -> Node:
        """Reads a set in braces: its elements, or what holds of them, {x | x > 2}."""
        if self._take("\\}"):
            return Node("const", ("empty",))
        self._is_in_set += 1
        node = self.items(("\\}", "|", ":"))
        is_condition = self._take("|") or self._take(":")
        if is_condition:
            node = self.items(("\\}",))
        self._is_in_set -= 1
        self._expect("\\}")
        if is_condition:
            return node
        return Node("set", node.args[0] if node.op == "list" else (node,))

    def _named(self, name: str) -> Node:
        if name in FUNCTIONS and name != "det":
            return self._call(FUNCTIONS[name])
        if name.startswith("mathbb "):
            return self._number_set(name[7:])
        if name in CONSTANTS and not (name in "ei" and self._is("_")):
            return Node("const", (CONSTANTS[name],))
        return self._subscripted(name)

    def _number_set(self, name: str) -> Node:
        if name == "R" and self._take("^"):
            token = self._next()
            return Node("symbol", (f"R^{token.value}",))
        return Node("const", (name,))

    def _subscripted(self, name: str) -> Node:
        if self._take("_"):
            name += "_" + self._raw_group()
        while self._take("'"):
            name += "'"
        return Node("symbol", (name,))

    def _raw_group(self) -> str:
        """Reads a group, or one token, as it is written."""
        token = self._next()
        if token.value != "{":
            if token.kind not in ("number", "name", "letter", "text"):
                raise Unreadable(token.value)
            return token.value
        written, depth = "", 1
        while depth:
            token = self._next()
            if token.kind == "end":
                raise Unreadable("open group")
            depth += (token.value == "{") - (token.value == "}")
            written += token.value if depth else ""
        return written

    def _call(self, name: str) -> Node:
        power = base = None
        for _ in range(2):
            if self._take("^"):
                power = self._exponent()
            elif name == "log" and self._take("_"):
                base = self._argument()
        if name == "sqrt" and self._take("["):
            base = self._sum()
            self._expect("]")
        if name in ("sqrt", "cbrt"):
            base = base or _integer(2 if name == "sqrt" else 3)
            name = "root"
        if power == Node("neg", (_integer(1),)) and name in _INVERTED:
            name, power = "arc" + name, None
        arguments = self._arguments(name)
        extra = () if base is None else (base,)
        node = Node("call", (name, *arguments, *extra))
        return node if power is None else Node("power", (node, power))

    def _arguments(self, name: str) -> tuple[Node, ...]:
        """Reads what a function is applied to: a bracket, or factors up to an operator."""
        if self._is("(", "[", "{"):
            node = self._atom()
            if node.op == "sequence" and name in _SEVERAL:
                return node.args[1]
            if node.op in ("list", "sequence"):
                raise Unreadable("several arguments")
            if self._is("!"):
                node = self._postfixed(node)
            return (node,)
        sign = self._take("-")
        node = self._power()
        while name != "root" and self._starts_factor() and not self._starts_call():
            node = Node("mul", (node, self._power()))
        return (Node("neg", (node,)) if sign else node,)

    def _postfixed(self, node: Node) -> Node:
        while self._take("!"):
            node = Node("factorial", (node,))
        return node

    def _starts_call(self) -> bool:
        token = self._peek()
        is_bracket = token.kind == "sign" and token.value in ("(", "[")
        return is_bracket or (token.kind == "name" and token.value in FUNCTIONS)

    def _matrix(self, name: str) -> Node:
        if name not in ("matrix", "pmatrix", "bmatrix", "vmatrix", "Bmatrix", "array"):
            raise Unreadable(name)
        if name == "array":
            self._raw_group()
        rows: list[list[Node]] = [[]]
        while True:
            rows[-1].append(self._sum())
            token = self._next()
            if token.value == "\\\\" and self._peek().kind != "end":
                rows.append([])
            elif token.value not in ("&", "\\\\"):
                break
            if self._peek().kind == "end" and token.value == "\\\\":
                token = self._next()
                break
        if token != Token("end", name) and (token.kind, token.value) != ("end", name):
            raise Unreadable("open matrix")
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("ragged matrix")
        return Node("matrix", (name == "vmatrix", tuple(map(tuple, rows))))


def _integer(value: int) -> Node:
    return Node("number", (Fraction(value), 0))


def _read_number(text: str) -> Node:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 400 or len(exponent) > 4:
        raise Unreadable("long number")
    value = Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    return Node("number", (value, max(decimals, 0) if "." in mantissa else 0))
