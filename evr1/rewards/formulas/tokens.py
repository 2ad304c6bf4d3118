"""The words and signs that mathematical text is made of, once `notation` has rewritten it."""

import re
from typing import NamedTuple

MAX_DEPTH = 30  # of brackets, roots and powers in one another

CONSTANTS = {"pi": "pi", "e": "e", "i": "i", "infty": "inf", "infinity": "inf", "inf": "inf"}
CONSTANTS |= {"imath": "i", "exponentialE": "e", "emptyset": "empty", "varnothing": "empty"}
FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{"arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan", "asin": "arcsin"},
    **{"acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc"},
    **{"arcctg": "arccot", "arccot": "arccot", "arctg": "arctan", "coth": "coth"},
    **{"ln": "ln", "log": "log", "lg": "log", "exp": "exp", "sqrt": "sqrt", "cbrt": "cbrt"},
    **{"abs": "abs", "floor": "floor", "ceil": "ceil", "gcd": "gcd", "lcm": "lcm", "max": "max"},
    **{"min": "min", "Re": "re", "Im": "im", "det": "det"},
}
_NAMES = re.compile(
    "|".join(sorted((*FUNCTIONS, "pi", "infinity", "emptyset"), key=len, reverse=True))
)
_SHORT_UNITS = frozenset(
    # runs of up to three letters that are no product
    (
        *("mm", "cm", "dm", "km", "nm", "ft", "in", "yd", "mi"),
        *("lb", "lbs", "oz", "kg", "mg", "hr", "hrs", "min", "mins"),
        *("sec", "secs", "ms", "mph", "kmh", "kph", "cc", "ml", "mL"),
        *("cL", "dL", "kL", "Hz", "kHz", "MHz", "GHz", "Pa", "kPa"),
        *("kW", "kWh", "MW", "mW", "kJ", "MJ", "eV", "mol", "rad"),
        *("deg", "cal", "kcal", "dB", "ohm", "ohms", "sq", "cu", "usd"),
        *("eur", "gbp", "rmb"),
    )
)
_SHORT_WORDS = frozenset(
    (
        *("not", "no", "is", "am", "are", "the", "an", "it", "if", "so", "of", "to", "be", "we"),
        *("as", "at", "by", "for", "but", "was", "yes", "can", "has", "one", "two", "all", "any"),
    )
)
_NO_UNIT = re.compile(  # words that change the number, deny it or say that it is not the whole
    r"(?i)\b(?:dozens?|hundreds?|thousands?|millions?|billions?|trillions?|bn|mn|k"
    r"|tens?|tenths?|hundredths?|thousandths?|halves|half|thirds?|quarters?|squared|cubed|times(?=\s)"
    r"|plus|minus|or|and|not|nor|if|unless|when|where|for|but|more|less|fewer|than|least|most|mod"
    r"|modulo|to|maybe|const|constant|over|th|st|nd|rd|wrong|incorrect|false|no|never|is|are|all"
    r"|any|some|with|without|from|about|approximately|approx|between|because|since|so|gross|think|guess|believe|probably"
    r"|perhaps|possibly|nan|inf|infinity|(?:negative|score)(?=\W*$))\b|n't"
)
_GREEK = frozenset(
    (
        *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta"),
        *("vartheta", "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "varrho"),
        *("sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma"),
        *("Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
        *("ell", "hbar", "triangle", "angle"),
    )
)
_DECORATIONS = frozenset(
    ("vec", "hat", "tilde", "overline", "bar", "dot", "ddot", "mathbf", "bm", "mathcal")
)
_DECORATIONS |= frozenset(("overrightarrow", "widehat", "boldsymbol", "mathfrak", "mathscr"))
_RELATIONS = {
    **{"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "le": "<=", "leq": "<="},
    **{"leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">="},
    **{"lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "in": "in"},
    **{"cong": "~", "sim": "~", "equiv": "=", "~": "~", "==": "=", "=<": "<=", "≡": "="},
}
_SETS = {
    "cup": "union",
    "bigcup": "union",
    "cap": "meet",
    "setminus": "minus",
    "backslash": "minus",
}
_TOKEN = re.compile(
    r"""(?x)(?P<space>\s+)
    | (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d{1,4}(?![\w.]))?|\.\d+)
    | \\(?P<frame>begin|end)\s?\{(?P<environment>[a-zA-Z]{1,20})\*?\}
    | \\(?P<text>(?:text|mathrm|textrm|textbf|textit|mbox|operatorname|mathit|mathsf|mathbb))\*?
      \s?\{(?P<content>[^{}]{0,80})\}
    | \\(?P<macro>[A-Za-z]+)
    | \\(?P<spacing>[,;:!\ ])
    | \\(?P<escaped>[{}|%$&\\])
    | (?P<word>[A-Za-z]+)
    | (?P<sign><=|>=|!=|==|=<|[-+*/^_=<>!%°|,;:(){}\[\]&'~])"""
)


class Token(NamedTuple):
    kind: str  # number, name (known or a letter), text, sign, relation, frame
    value: str
    spaced: bool = False  # a space stands before it


class Unreadable(ValueError):
    """Raised where a text is no formula."""


def is_no_unit(words: str) -> bool:
    """Returns whether words behind a number change or deny it: "dozen", "or more"."""
    return bool(_NO_UNIT.search(words))


def tokenize(text: str) -> list[Token]:
    """Returns the tokens of a text.

    Raises:
        Unreadable: a character has no meaning, or brackets stand too deep in one another.
    """
    tokens, at, spaced, depth = [], 0, False, 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise Unreadable(text[at : at + 20])
        at = found.end()
        if found["space"] or found["spacing"]:
            spaced = True
            continue
        for token in _read_token(found):
            depth += token.value in ("(", "[", "{", "\\{") and token.kind == "sign"
            depth -= token.value in (")", "]", "}", "\\}") and token.kind == "sign"
            if depth > MAX_DEPTH:
                raise Unreadable("too deep")
            tokens.append(token._replace(spaced=spaced))
            spaced = False
    return tokens


def _read_token(found: re.Match[str]) -> list[Token]:
    """Returns the tokens that one match stands for; a run of letters may be several."""
    if found["number"]:
        return [Token("number", found["number"])]
    if found["frame"]:
        return [Token(found["frame"], found["environment"])]
    if found["text"]:
        return _read_text(found["text"], found["content"].strip().strip("~").strip())
    if found["escaped"]:
        mark = found["escaped"]
        kept = {"{": "\\{", "}": "\\}", "\\": "\\\\", "|": "|", "%": "%", "&": "and"}
        return [Token("sign", kept[mark])] if mark in kept else []
    if found["sign"]:
        sign = found["sign"]
        return [Token("relation", _RELATIONS[sign]) if sign in _RELATIONS else Token("sign", sign)]
    if found["word"]:
        return _read_word(found["word"])
    return _read_macro(found["macro"])


def _read_macro(name: str) -> list[Token]:
    signs = {"cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "pm", "mp": "mp"}
    signs |= {"lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "colon": ":", "langle": "<("}
    signs |= {"rangle": ")>", "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil"}
    signs |= {"rceil": "rceil", "land": "and", "lor": "or", "wedge": "and", "vee": "or"}
    signs |= {"bmod": "bmod", "frac": "frac", "binom": "binom", "prime": "'", "circ": "°"}
    signs |= {"dbinom": "binom", "tbinom": "binom", "percent": "%"}
    if name in signs:
        return [Token("sign", signs[name])]
    if name in _RELATIONS:
        return [Token("relation", _RELATIONS[name])]
    if name in _SETS:
        return [Token("set", _SETS[name])]
    if name in _DECORATIONS:
        return [Token("decoration", name)]
    if name in CONSTANTS or name in FUNCTIONS or name in _GREEK:
        return [Token("name", name)]
    raise Unreadable(name)


def _read_text(macro: str, content: str) -> list[Token]:
    r"""Returns the tokens of \text{...}: a connective, a name, or words."""
    if macro == "mathbb":
        return [Token("name", f"mathbb {content}")]
    word = content.strip(" .,;")
    if word.lower() in ("and", "or"):
        return [Token("sign", word.lower())]
    if word in CONSTANTS or word in FUNCTIONS or (len(word) == 1 and word.isalpha()):
        return [Token("letter" if len(word) == 1 and word not in "ei" else "name", word)]
    if word.lower() in ("percent", "%", "\\%"):
        return [Token("sign", "%")]
    if not word:
        return [Token("sign", ",")] if "," in content else []
    return [Token("text", word)]


def _read_word(word: str) -> list[Token]:
    """Returns the tokens of a run of letters: a connective, functions, letters, or a word."""
    if word in FUNCTIONS or word in CONSTANTS or len(word) == 1:
        return [Token("name", word)]
    lower = word.lower()
    if lower in ("and", "or"):
        return [Token("sign", lower)]
    if lower in ("percent", "pct"):
        return [Token("sign", "%")]
    if lower in ("degrees", "degree"):
        return [Token("sign", "°")]
    if word in _SHORT_UNITS or lower in _SHORT_WORDS:
        return [Token("text", word)]
    if word in ("Pi", "PI"):
        return [Token("name", "pi")]
    if lower in ("cup", "union", "u") or lower in ("infty", "union"):
        return [Token("set", "union")] if lower != "infty" else [Token("name", "infty")]
    if lower in ("sqrt", "sin", "cos", "tan", "ln", "log", "exp"):
        return [Token("name", lower)]
    if len(word) <= 3 and not _NAMES.search(word):
        return [Token("name", letter) for letter in word]
    parts = _split_names(word)
    return parts if parts else [Token("text", word)]


def _split_names(word: str) -> list[Token]:
    """Returns the names that a run of letters is made of, as in "xsin"; or nothing.

    >>> [token.value for token in _split_names("pir")]
    ['pi', 'r']
    """
    parts, at = [], 0
    for found in _NAMES.finditer(word):
        parts += [*word[at : found.start()], found[0]]
        at = found.end()
    letters = [part for part in [*parts, *word[at:]] if len(part) == 1]
    known = [part for part in parts if len(part) > 1]
    if not known or len(letters) > 2 * len(known) or len(letters) > 3:
        return []
    return [Token("name", part) for part in [*parts, *word[at:]]]
