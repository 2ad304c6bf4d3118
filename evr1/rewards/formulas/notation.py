r"""Rewrites of mathematical text into one notation, before any of it is parsed.

Symbols become macros, decorated forms plain ones, and numbers that are written in several pieces
(digit groups, repeating decimals, mixed numbers) a single number or fraction. All are linear.
"""

import re
from fractions import Fraction

from evr1.rewards import parse

MAX_PERIOD = 40  # digits of a repeating decimal that repeat

_BEFORE_FOLDING = str.maketrans(  # what compatibility folding would turn into something else
    {"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}"}
    | {"ℂ": r"\mathbb{C}", "º": "°", "˚": "°", "…": r"\ldots "}
    | {"ⁿ": "^n", "ˣ": "^x", "ᵏ": "^k", "ᵐ": "^m", "ᵗ": "^t", "ⁱ": "^i"}
)
_SUBSCRIPTS = re.compile("[₀-₉]+")
_SUBSCRIPT_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_UNICODE_ROOT = re.compile(
    r"([√∛∜])\s?(\d+(?:[.,]\d+)*|[A-Za-zπ]|\([^()]{1,200}\)|\{[^{}]{1,200}\})"
)
_ROOT_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}
_BAR_ABOVE = re.compile("(?:\\d[\u0304\u0305]\\s?)+")
_DOT_ABOVE = re.compile("(\\d)\u0307")
_SYMBOLS = {
    **{"×": r"\times", "✕": r"\times", "÷": r"\div", "·": r"\cdot", "⋅": r"\cdot", "∙": r"\cdot"},
    **{"∗": "*", "±": r"\pm", "∓": r"\mp", "≤": r"\le", "≥": r"\ge", "⩽": r"\le", "⩾": r"\ge"},
    **{"≠": r"\ne", "≈": r"\approx", "≃": r"\approx", "≅": r"\approx", "∞": r"\infty"},
    **{"∅": r"\emptyset", "⌀": r"\emptyset", "∪": r"\cup", "∩": r"\cap", "∈": r"\in"},
    **{"∖": r"\setminus", "∧": r"\land", "∨": r"\lor", "∣": "|", "∶": ":", "⌊": r"\lfloor"},
    **{"⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil", "⟨": r"\langle", "⟩": r"\rangle"},
    **{"π": r"\pi", "θ": r"\theta", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta"},
    **{"λ": r"\lambda", "μ": r"\mu", "σ": r"\sigma", "φ": r"\phi", "ϕ": r"\phi", "ω": r"\omega"},
    **{
        "τ": r"\tau",
        "ρ": r"\rho",
        "ε": r"\epsilon",
        "Δ": r"\Delta",
        "Ω": r"\Omega",
        "∆": r"\Delta",
    },
    **{"√": r"\sqrt", "∘": r"\circ", "→": r"\to", "，": ",", "；": ";", "、": ",", "′": "'"},
    **{"∫": r"\int", "∑": r"\sum", "∏": r"\prod", "⁺": "+", "∠": r"\angle", "△": r"\triangle"},
}
_SYMBOL = re.compile("|".join(map(re.escape, _SYMBOLS)))
_LAYOUT = [
    (re.compile(r"\\m?(?:left|right)\s?(?![a-z])\.?"), ""),
    (re.compile(r"\\(?:[bB]igg?[lrm]?|middle)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|strut|bf|rm|it)(?![a-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:lbrace|lbrack)(?![a-z])\s?"), r"\\{"),
    (re.compile(r"\\(?:rbrace|rbrack)(?![a-z])\s?"), r"\\}"),
    (re.compile(r"\\(?:qquad|quad|enspace|thinspace|hspace\{[^{}]{0,20}\})(?![a-z])"), " "),
    (re.compile(r"\\(?:bmod|pmod|mod)(?![a-z])"), r"\\bmod "),
    (re.compile(r"(?<=[\w)}\]])\s?\*\*\s?(?=[\w({\\-])"), "^"),
    (re.compile(r"(?<!\\)\\[$](?=\s?\d)|(?<!\\)\$"), ""),
    (re.compile(r"(?<!\\)\\[][()]"), " "),
    (re.compile(r"(?<=\\\\)\[\d{1,3}(?:pt|em|ex|mm|cm)\]"), ""),
    (re.compile(r"\s?\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![a-z])|\{\s?°\s?\}|°)"), "°"),
    (re.compile(r"\s?(?:\{\s?:\s?\}|\\colon(?![a-z])|(?<=\d)\s?:(?=\s?\d))\s?"), ":"),
    (re.compile(r"\s?\\text\s?\{\s?([AaPp]\.?[Mm]\.?)\s?\}$"), r" \1"),
    (re.compile(r"\\(?:degrees?|textdegree)(?![a-z])"), "°"),
    (re.compile(r"(?<![A-Za-z\\])log(2|10)\s?(?=\()"), r"\\log_{\1}"),
]
_GROUP_MARK = r"(?:\\[,;:!> ]|\\text\{,\}|\\thinspace\s?|\{,\}|\{\s\}|~|[\u00a0\u2009\u202f ]|')"
_GROUPS = re.compile(
    rf"(?<![\w.,}}])(?<!\\[,;:!])(\d{{1,3}})((?:{_GROUP_MARK}{{1,2}}\d{{3}})+)(?!\d)"
    r"(?P<over>\s?/)?"
)
_COMMA_GROUPS = re.compile(
    r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?![\d]|,\d)"
)
_OPENING = re.compile(r"\\?[(\[{]|\\?[)\]}]|" + _COMMA_GROUPS.pattern)
_REPEATING = re.compile(
    r"""(?x)(?<![\d.])(?P<whole>\d{0,40})\.(?P<head>\d{0,40})
    (?: \\(?:overline|bar|overbar)\s?(?:\{\s?(?P<bar>\d{1,40})\s?\}|(?P<bar1>\d))
      | \((?P<brackets>\d{1,40})\)
      | \\dot\s?\{?(?P<first>\d)\}?(?:(?P<middle>\d{0,40})\\dot\s?\{?(?P<last>\d)\}?)?
      | (?P<dots>\.{3}|\\[lc]?dots(?![a-z]))
    )(?!\d)(?:\.{3}|\\[lc]?dots(?![a-z]))?"""
)
_PERIOD = re.compile(r"^(\d{0,8}?)(?:(\d)\2{2,40}|(\d{2,12}?)\3{1,10})$")
_MIXED = re.compile(
    r"(?<![\w.,/^}\\])(?<!_\{)(?<!\^\{)(?P<whole>\d{1,9})(?:\s|\\[ ,;:!])*"
    r"(?:(?<=[\s,;:!])(?P<a>\d{1,9})\s?/\s?(?P<b>\d{1,9})(?![\d./!^%])"
    r"|\\frac\s?\{\s?(?P<c>\d{1,9})\s?\}\s?\{\s?(?P<d>\d{1,9})\s?\}(?!\s?[!^]))"
)
_SHORT_FRACTION = re.compile(r"\\frac\s{0,2}(?:(\d)|\{(\d{1,40})\})\s{0,2}(?:(\d)|\{(\d{1,40})\})")


def unify(text: str) -> str:
    r"""Returns a text in one notation: LaTeX without layout, numbers in one piece.

    >>> unify("√2 × 10 000"), unify(r"1\tfrac12"), unify(r"0.1\overline{6}")
    ('\\sqrt{2} \\times  10000', '\\frac{3}{2}', '\\frac{1}{6}')
    """
    text = text[: parse.MAX_NORMALIZED_CHARS]
    text = mark_overlines(spell_subscripts(text.translate(_BEFORE_FOLDING)))
    text = spell_symbols(spell_roots(parse.normalize(parse.spell_powers(text))))
    text = join_spaced_groups(drop_layout(text))
    return join_mixed_numbers(join_repeating_decimals(join_comma_groups(text)))


def spell_subscripts(text: str) -> str:
    """Returns a text with lowered digits as subscripts: log₂ as log_{2}."""
    return _SUBSCRIPTS.sub(lambda m: f"_{{{m[0].translate(_SUBSCRIPT_DIGITS)}}}", text)


def mark_overlines(text: str) -> str:
    """Returns a text with bars and dots that are combined with digits as macros."""
    text = _BAR_ABOVE.sub(lambda m: rf"\overline{{{re.sub('[^0-9]', '', m[0])}}}", text)
    return _DOT_ABOVE.sub(r"\\dot{\1}", text)


def spell_roots(text: str) -> str:
    r"""Returns a text with root signs as macros: √2 as \sqrt{2}."""

    def macro(root: re.Match[str]) -> str:
        inner = root[2].strip("{}") if root[2][0] == "{" else root[2]
        inner = inner[1:-1] if inner[0] == "(" else inner
        return rf"\sqrt{_ROOT_INDEX[root[1]]}{{{inner}}}"

    return _UNICODE_ROOT.sub(macro, text)


def spell_symbols(text: str) -> str:
    r"""Returns a text with mathematical characters as macros: × as \times."""
    return _SYMBOL.sub(lambda m: _SYMBOLS[m[0]] + (" " if _SYMBOLS[m[0]][0] == "\\" else ""), text)


def drop_layout(text: str) -> str:
    r"""Returns a text without \left, \displaystyle, dollar signs and other layout."""
    for pattern, plain in _LAYOUT:
        text = pattern.sub(plain, text)
    return text


def join_spaced_groups(text: str) -> str:
    r"""Returns a text whose groups of three digits are joined: 10\,000, 10{,}000 and 10 000."""

    def join(found: re.Match[str]) -> str:
        groups = re.findall(r"\d{3}", found[2])
        if found["over"] and "\\" not in found[2] and groups[0][0] != "0":
            return found[0]  # 1 125/1000 is a mixed number
        return found[1] + "".join(groups) + (found["over"] or "")

    return _GROUPS.sub(join, text)


def join_comma_groups(text: str) -> str:
    r"""Returns a text whose comma-separated groups are joined, unless the comma separates items.

    >>> join_comma_groups(r"\frac{10,000}{3}"), join_comma_groups("(10,000)")
    ('\\frac{10000}{3}', '(10,000)')
    """
    if not _COMMA_GROUPS.search(text):
        return text
    are_items = [False]  # whether commas separate items, for each open bracket

    def replace(found: re.Match[str]) -> str:
        token = found[0]
        if token[-1].isdigit():
            return token if are_items[-1] else token.replace(",", "")
        if token[-1] in "([{":
            before = text[max(0, found.start() - 12) : found.start()].rstrip()
            is_root = bool(re.search(r"(?:sqrt|ln|log|exp|sin|cos|tan)$", before))
            are_items.append(token != "{" and not is_root)
        elif len(are_items) > 1:
            are_items.pop()
        return token

    return _OPENING.sub(replace, text)


def join_repeating_decimals(text: str) -> str:
    r"""Returns a text with repeating decimals as fractions.

    >>> join_repeating_decimals(r"0.\overline{3}, 0.1(6), 0.\dot{1}4285\dot{7}, 0.333...")
    '\\frac{1}{3}, \\frac{1}{6}, \\frac{1}{7}, \\frac{1}{3}'
    """

    def fraction(found: re.Match[str]) -> str:
        whole, head = found["whole"], found["head"]
        period = found["bar"] or found["bar1"] or found["brackets"]
        if found["first"]:
            period = found["first"] + (found["middle"] or "") + (found["last"] or "")
        if found["dots"]:
            repeats = _PERIOD.match(head)
            if not repeats:
                return found[0]
            head, period = repeats[1], repeats[2] or repeats[3]
        if not period or len(period) > MAX_PERIOD:
            return found[0]
        before = int(whole + head or "0")
        top = int(whole + head + period) - before
        value = Fraction(top, 10 ** len(head) * (10 ** len(period) - 1))
        return _write(value)

    return _REPEATING.sub(fraction, text)


def join_mixed_numbers(text: str) -> str:
    r"""Returns a text with mixed numbers as fractions, and \frac12 with its braces.

    >>> (
    ...     join_mixed_numbers(r"2\frac{1}{2}"),
    ...     join_mixed_numbers("1 1/2"),
    ...     join_mixed_numbers("x^2 1/2"),
    ... )
    ('\\frac{5}{2}', '\\frac{3}{2}', 'x^2 1/2')
    """
    text = _SHORT_FRACTION.sub(
        lambda m: rf"\frac{{{m[1] or m[2]}}}{{{m[3] or m[4]}}}" if not (m[2] and m[4]) else m[0],
        text,
    )

    def fraction(found: re.Match[str]) -> str:
        top, bottom = int(found["a"] or found["c"]), int(found["b"] or found["d"])
        if not top < bottom:  # 2 \frac{3}{2} is a product
            return found[0]
        return rf"\frac{{{int(found['whole']) * bottom + top}}}{{{bottom}}}"

    return _MIXED.sub(fraction, text)


def _write(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
