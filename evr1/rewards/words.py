"""Words of a text as ROUGE counts them: stemmed, in any script, with the signs that carry meaning.

Punctuation, case, quotes, emphasis and forms of letters do not count. Signs that tell answers apart
do: C++ and C#, -5 and 5, 3.5 and 35, < and >, A+ and A-.
"""

import html
import re
import unicodedata

from evr1.rewards import parse
from evr1.rewards.stem import stem

# Scripts written without spaces: one character is one token.
UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_LETTERS = rf"[^\W\d_{UNSPACED}][^\W_{UNSPACED}]*(?:[\u0300-\u036f][^\W_{UNSPACED}]*)*"
_WORD = rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:[\u0300-\u036f][^\W_{UNSPACED}]*)*"
_MINUS = r"(?:(?<![^\s(\[{=<>≤≥≈≠,:;/+\"'])-)?"  # no hyphen, no dash of a range
_NUMBER = rf"{_MINUS}(?<![\w./])(?:\d+(?:[./]\d+)?(?!\w|[./]\d)|\.\d+(?!\w|\.\d))"
_SIGN = r"[+<=>±÷√∞≈≠≤≥≡∈∉⊂⊃∪∩∧∨¬∀∃∂∇∑∏∫→←↑↓↔⇒♯♭✓✗$€£¥₩₹]|(?<=\d)(?:\^(?=-?\d)|\*(?=\d))"
_GRADE = r"(?<=(?<!\w)[a-z])-(?![\w-])|(?<=(?<!\w)ab)-(?![\w-])"  # A-, AB-
_SHARP = r"(?<=[a-z])#"  # C#
_TOKEN = re.compile(rf"{_LETTERS}|{_NUMBER}|{_SIGN}|{_GRADE}|{_SHARP}|{_WORD}")
_PLAIN_TOKEN = re.compile(_WORD)
_ODD = re.compile(r"[^a-z\s.,;:'\"!?()_-]")  # in ASCII
_ODD_ANYWHERE = re.compile(r"\d|[^\w\s.,;:'\"!?()。，、；：！？（）-]")
_LONE_HYPHEN = re.compile(r"-(?!\w)|(?<!\w)-")
_SPELLED = str.maketrans(
    {
        **{"%": " percent ", "‰": " permille ", "°": " degree ", "&": " and ", "×": " x "},
        **{"✔": "✓", "✅": "✓", "❌": "✗", "✘": "✗", "✖": "✗"},
    }
)
_DIGRAPHS = (("!=", "≠"), ("<=", "≤"), (">=", "≥"), ("=>", "⇒"), ("->", "→"), ("<-", "←"))
_MACROS = {
    "neq": "≠",
    "ne": "≠",
    "leq": "≤",
    "le": "≤",
    "geq": "≥",
    "ge": "≥",
    "lt": "<",
    "gt": ">",
}
_MACROS |= {"times": "×", "div": "÷", "pm": "±", "approx": "≈", "to": "→", "rightarrow": "→"}
_MACROS |= {"leftarrow": "←", "in": "∈", "notin": "∉", "cup": "∪", "cap": "∩", "infty": "∞"}
_MACROS |= {"degree": "°", "circ": "°", "%": "%", "$": "$", "#": "#", "&": "&"}
_MACRO = re.compile(rf"\\({'|'.join(re.escape(m) for m in _MACROS)})(?![a-z])")
_MONEY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₩": "won", "₹": "rupee"}
_CHANGES = (  # what is written in several ways, or is no part of the text; with a part of each
    ("", r"(?m)^[ \t]{0,8}(?:#{1,6}[ \t]|[>*+•-][ \t]){1,3}(?=\s{0,4}[^\W\d])", ""),
    ("*", r"(?<![\w*])\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?![\w*])", ""),
    ("<", r"</?(?:b|i|u|em|strong|br|p|sub|sup|code|span|div|ul|ol|li)\s?/?>", ""),
    ("$", r"\$(?=\S)([^$\n]{1,200})(?<=\S)\$(?!\d)", r"\1"),
    ("^", r"(?<=[a-z])\^(?=\d)", ""),  # m^2 is m²
    ("/", r"(?<=\d)\s/\s(?=\d)", "/"),
    ("*", r"(?<=\d)\s\*\s(?=\d)", "*"),
    ("- ", r"(?<=[=<>≤≥≠(\[,])(\s?)-\s(?=\d)", r"\1-"),
    (".m", r"\b([ap])\.m\b\.?", r"\1m"),
    ("per cent", r"\bper cent\b", "percent"),
    ("minus", r"(?<!\d\s)\bminus\s(?=\d)", "-"),
    ("negative", r"(?<!\d\s)\bnegative\s(?=\d)", "-"),
    ("- ", r"\A-\s(?=\d[^\n]*\Z)", "-"),
    ("+", r"\A\+\s?(?=\d)", ""),
    (",", r"(?<![\d.,])\d{1,3}(?:,\d{3}){1,6}(?!,?\d)", lambda m: m[0].replace(",", "")),
    (".0", r"(?<![\d.])(\d{1,30})\.0{1,30}(?![\d.]\d|\d)", r"\1"),
    *((sign, rf"\{sign}\s?(\d[\d.]{{0,30}})", rf" \1 {name} ") for sign, name in _MONEY.items()),
    *((sign, rf"(?<=\d)\s?\{sign}(?!\w)", f" {name} ") for sign, name in _MONEY.items()),
)
_COMPILED = tuple((part, re.compile(pattern), changed) for part, pattern, changed in _CHANGES)
_RAISED = re.compile(r"(?<=\d)[⁻⁰¹²³⁴-⁹]+")  # 10⁶, but m² is m2
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def tokens(text: str) -> list[str]:
    """Returns the words of a text, stemmed; single characters in scripts without spaces; signs.

    >>> tokens("The cats jumped 5.0 m at -3 °C. 停车")
    ['the', 'cat', 'jump', '5', 'm', 'at', '-3', 'degre', 'c', '停', '车']
    """
    text = _RAISED.sub(_lower, text[: parse.MAX_NORMALIZED_CHARS])
    text = parse.normalize(text).casefold()
    if not _has_signs(text):
        return [stem(t) for t in _PLAIN_TOKEN.findall(text)]
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _MACRO.sub(lambda m: _MACROS[m[1]], text)
    for digraph, sign in _DIGRAPHS:
        text = text.replace(digraph, sign)
    for part, pattern, changed in _COMPILED:
        if part in text:
            text = pattern.sub(changed, text)
    return [stem(t) if t[0].isalpha() else t for t in _TOKEN.findall(text.translate(_SPELLED))]


def _has_signs(text: str) -> bool:
    """Returns whether there may be more in a text than words and punctuation."""
    if (_ODD if text.isascii() else _ODD_ANYWHERE).search(text):
        return True
    return ("-" in text and bool(_LONE_HYPHEN.search(text))) or "per cent" in text


def _lower(raised: re.Match[str]) -> str:
    return "^" + raised[0].translate(_LOWERED)


def has_words(text: str) -> bool:
    """Returns whether a text says something: punctuation, spaces and invisible signs do not."""
    is_said = any(unicodedata.category(c)[0] not in "PZC" for c in text)
    return is_said or bool(tokens(text))
