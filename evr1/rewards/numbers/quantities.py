"""Quantities: a number in digits or words with its scale, its percent sign and its unit.

All arithmetic is exact (fractions of bounded size), so nothing here can hang or overflow.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from evr1.rewards.numbers import numerals, units

MAX_DIGITS = 500
MAX_EXPONENT = 400
UNIT_WORDS = 3  # of a unit in the asked form: "metres per second"; more is a sentence


class Number(NamedTuple):
    """A number with what its writing says about it."""

    value: Fraction
    percent: bool = False
    unit: str = ""  # lower case, as written; see units.plain
    resolution: Fraction | None = None  # one unit in the last decimal place; None for integers


class _Head(NamedTuple):
    """A number at the start of a text, and what stands behind it."""

    value: Fraction
    resolution: Fraction | None
    rest: str
    is_plain: bool = True  # written in digits, as asked


_EUROPEAN = r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?: \d{3})+,\d{1,2}(?!\d)|0,\d+"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+(?!\d)|\d{1,3}(?:'\d{3})+|\d+)(?:\.\d+)?|\.\d+"
_POWER = (
    r"(?:\s?[eE]([+-]?\d{1,6})(?!\d)"
    r"|\s?(?:[x×*·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\(?([+-]?\d{1,6})\)?\}?)"
)
_DECIMAL = re.compile(
    rf"(?P<sign>[+-]?)\s?(?P<body>{_EUROPEAN}|{_PLAIN}){_POWER}?(?![\d.,]*\d)(?!'\d{{3}})"
)
_SIDE = r"(?:\{\s?(%s)\s?\}|\s?(\d))"
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s?(?:(?P<whole>\d{1,50})(?:[ -]\s?|\s?and\s|(?=\\)))?"
    r"(?:(?P<a>\d{1,50})\s?/\s?(?P<b>\d{1,50})(?![.,]?\d)|\\[dtc]?frac"
    + _SIDE % r"-?\d{1,50}(?:\.\d{1,50})?"
    + _SIDE % r"\d{1,50}(?:\.\d{1,50})?"
    + ")"
)
_POWER_OF_TEN = re.compile(r"(?P<sign>[+-]?)10\s?(?:\^|\*\*)\s?(?:\{?([+-]?\d{1,3})\}?)(?!\d)")
_CURRENCY = "$€£¥₹₩"
_PRICE = re.compile(
    rf"^(?:(?P<code>US|usd|eur|gbp|rmb|cny)\s?)?(?P<sign>[+-]?)\s?(?P<symbol>[{_CURRENCY}])\s?"
)
_CODE = re.compile(r"^(?P<code>USD|EUR|GBP|RMB|CNY|JPY|INR)\s?(?=\d)", re.IGNORECASE)
_PERCENT = re.compile(
    r"(?i)^\s?-?\s?(?:%|percent|per cent|pct)(?P<of>\s(?:of|in|for) [^\d]{1,40})?$"
)
_EXPONENT = re.compile(r"(?<=[^\W\d_xX])\^?(?:[23]|-[123])(?![\w.])")
_UNIT = re.compile(r"""^[\s-]?\s?(/?(?:[^\W\d_]|[°¢'"℃℉$€£¥₹₩])[^\d,;:?!=+*^|]{0,60})$""")
_DOUBT = re.compile(
    r"(?i)\b(?:or|to|and|but|not|plus|minus|than|maybe|perhaps|possibly|might|could|would|may|cannot"
    r"|unless|doubt|if|unlikely|hardly|wrong|incorrect|false|never|most|least|max|maximum|minimum|tops"
    r"|until|till|through|thru|versus|vs|odd|something|several|few|factorial|score|gross|mil"
    r"|otherwise|nan|inf|infinity|negative(?=\W*$)"
    r"|either|neither|nor|seems|too (?:many|few|high|low|much|small|large)|been|excluded"
    r"|out of|upwards?|over \w+|beyond|within|ish)\b|n't\b|[-±/](?=\s*\d)"
    r"|^\s*(?:over|under|above|below)\b|[到至或几余、]|来[个只条人次位天岁]|以[上下内外]|多(?!边)|[不吗]"
    r"|^\s?(?:π|(?:pi|(?-i:[eij]))(?![\w^/])|[折成](?!\w))|\bno\W*$"  # 5π, 5i, 五折
)
_HALF = re.compile(
    r"^\s{0,2}(?P<unit>[a-z]{1,12}) and (?:an?|one) (?P<part>half|quarter)$", re.IGNORECASE
)
_REASON = re.compile(r"(?i)\b(?:because|since|i|we|probably|roughly)\b")
_JOINT = re.compile(r"^(?:\s?,)?\s{0,2}(?:and\s|&\s|零|又|和)?")
_PAIR_UNIT = re.compile(r"""^\s?((?:[^\W\d_]|['"]){1,12}\.?)""")
_MINUTES = {"m": "min", "分": "min"}
MAX_PARTS = 4


def read_quantity(text: str) -> tuple[Number, bool] | None:
    """Returns the number that a whole text is, and whether it is in digits, as asked.

    >>> read_quantity("1 min 30 s")[0].value, read_quantity("3 dozen eggs")[0].value
    (Fraction(90, 1), Fraction(36, 1))
    """
    text, currency = _strip_currency(text.strip())
    text = re.sub(r"^\((.*)\)$", r"\1", text)
    head = _read_head(text)
    if head is None:
        return _read_one(text)
    unit = _PERCENT.match(head.rest)
    if unit:
        doubt = unit["of"] and (_DOUBT.search(unit["of"]) or numerals.has_number_word(unit["of"]))
        number = Number(head.value, percent=True, resolution=head.resolution)
        return None if doubt else (number, head.is_plain)
    half = _HALF.match(head.rest)
    if half and units.meanings(half["unit"].lower()):  # "two hours and a half"
        part = Fraction(1, 2 if half["part"].lower() == "half" else 4)
        return Number(head.value + part, unit=half["unit"].lower()), False
    name = _read_unit(head.rest)
    if name is None:
        return _read_compound(head)
    is_unit = len(name.split()) <= UNIT_WORDS and not _REASON.search(name)
    is_plain = head.is_plain and is_unit and not currency.isalpha()
    unit_name = units.plain(name)
    if re.search("[一二两三四五六七八九十]", name) and not units.meanings(unit_name):
        compound = _read_compound(head)  # "一小时二十分钟"
        if compound:
            return compound
    if currency and not units.meanings(unit_name):
        unit_name = units.plain(f"{currency} {unit_name}") if unit_name[:4] == "per " else currency
    return Number(head.value, unit=unit_name, resolution=head.resolution), is_plain


def _strip_currency(text: str) -> tuple[str, str]:
    """Returns a text without the currency in front, and that currency."""
    if len(text) > 2 and text[0] == text[-1] == "$":
        return text.strip("$ "), ""  # LaTeX
    price = _PRICE.match(text)
    if price:
        code = price["code"] or price["symbol"]
        return price["sign"] + text[price.end() :], "usd" if code == "US" else code.lower()
    code = _CODE.match(text)
    return (text[code.end() :], code["code"].lower()) if code else (text, "")


def _read_head(text: str) -> _Head | None:
    """Returns the number that a text starts with, its scales multiplied in."""
    head = _read_fraction(text) or _read_power(text) or _read_decimal(text)
    if head is None:
        number = numerals.read(text)
        if number is None or re.search(r"\d", number[1][:3]):
            return None
        head = _Head(number[0], None, number[1], is_plain=False)
    sum_ = Fraction(0)
    while more := re.match(r"^(\d{1,9}(?:\.\d{1,9})?)([千万亿]{1,2})(?=\d)", text):  # "3万5千"
        grown = numerals.grow(Fraction(more[1]), more[2])
        if grown is None or (sum_ and grown[0] >= sum_):
            return None
        sum_, text = sum_ + grown[0], text[more.end() :]
        later = _read_decimal(text)
        if later is None:
            return None
        head = later
    grown = numerals.grow(abs(head.value), head.rest)
    if grown is None:
        return None
    value, scale, rest = grown
    value = sum_ + (-value if head.value < 0 else value)
    resolution = None if head.resolution is None else head.resolution * abs(scale)
    if scale >= 1 and resolution is not None and value.denominator == 1 and resolution >= 1:
        resolution = None
    if len(rest) < len(head.rest) and scale < 1 and resolution is None:
        resolution = Fraction(0)
    plain_scales = scale.numerator % 10 == 0 or scale == 1  # millions, not dozens or tenths
    return _Head(
        value,
        resolution,
        rest,
        head.is_plain and plain_scales and (value == head.value or scale != 1),
    )


def _read_fraction(text: str) -> _Head | None:
    match = _FRACTION.match(text)
    if not match:
        return None
    top = Fraction(match["a"] or match[5] or match[6])
    bottom = Fraction(match["b"] or match[7] or match[8])
    if bottom == 0:
        return None
    value = top / bottom + int(match["whole"] or 0)
    value = -value if match["sign"] == "-" else value
    return _Head(value, Fraction(0), text[match.end() :])


def _read_power(text: str) -> _Head | None:
    match = _POWER_OF_TEN.match(text)
    if not match or abs(int(match[2])) > MAX_EXPONENT:
        return None
    value = Fraction(10) ** int(match[2])
    return _Head(-value if match["sign"] == "-" else value, None, text[match.end() :])


def _read_decimal(text: str) -> _Head | None:
    match = _DECIMAL.match(text)
    if not match or len(match["body"]) > MAX_DIGITS:
        return None
    body = match["body"]
    if re.fullmatch(_EUROPEAN, body):
        body = body.replace(".", "").replace(",", ".")
    body = re.sub(r"[, ']", "", body)
    power = int(match[3] or match[4] or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    value = Fraction(body) * Fraction(10) ** power
    decimals = len(body.partition(".")[2])
    resolution = Fraction(10) ** (power - decimals) if decimals > max(power, 0) else None
    value = -value if match["sign"] == "-" else value
    return _Head(value, resolution, text[match.end() :])


def _read_unit(rest: str) -> str | None:
    """Returns the unit that a text is, "" where it is blank, or None where it is something else."""
    rest = re.sub(r"(?:左右|上下)\s*$", "", rest)
    if not rest.strip():
        return ""
    plain = _EXPONENT.sub("", rest)
    unit = _UNIT.match(plain)
    is_doubtful = _DOUBT.search(plain) or numerals.has_number_word(rest)
    if not unit or is_doubtful or re.match(r"(?i)\s*-?(?:an? )?(?:half|quarter|third)\b", rest):
        return None
    return rest.strip().lstrip("-")


def _read_one(text: str) -> tuple[Number, bool] | None:
    """Returns 1 for "an hour", and 1.5 for "an hour and a half"."""
    article = re.match(r"(?i)^an? (?=[a-z])", text)
    if not article:
        return None
    rest = text[article.end() :]
    half = _HALF.match(rest)
    unit = (half["unit"] if half else rest).lower()
    if not units.meanings(unit):
        return None
    part = Fraction(0) if not half else Fraction(1, 2 if half["part"].lower() == "half" else 4)
    return Number(1 + part, unit=unit), False


def _read_compound(head: _Head) -> tuple[Number, bool] | None:
    """Returns "1 min 30 s" or "5'3\\"" in its smallest unit; units must fall."""
    parts: list[tuple[Fraction, str]] = []
    rest, is_plain = head.rest, head.is_plain
    value = head.value
    while True:
        unit = _PAIR_UNIT.match(rest)
        if not unit or len(parts) == MAX_PARTS or abs(value) != value:
            return None
        name = _name_of_part(unit[1])
        if not name:
            return None
        parts.append((value, name[0]))
        rest = unit[1][len(name[1]) :] + rest[unit.end() :]
        if not rest.strip(" ."):
            break
        following = _JOINT.sub("", rest, count=1)
        number = _read_decimal(following)
        if number is None:
            words = numerals.read(following)
            number = words and _Head(words[0], None, words[1], is_plain=False)
        if number is None:
            return None
        value, rest, is_plain = number.value, number.rest, is_plain and number.is_plain
    total = _sum(parts)
    return None if total is None else (total, is_plain)


def _name_of_part(text: str) -> tuple[str, str] | None:
    """Returns the longest unit that a text starts with, and how it is written there."""
    for end in range(len(text), 0, -1):
        if units.meanings(text[:end].lower().rstrip(".")):
            return text[:end].lower().rstrip("."), text[:end]
    return None


def _sum(parts: list[tuple[Fraction, str]]) -> Number | None:
    """Returns the sum of "1 h", "20 min" in the last unit; each is a part of the one before."""
    names = [name for _, name in parts]
    if not ({"cm", "mm", "dm"} & set(names)):
        names = [_MINUTES.get(name, name) for name in names]
    smallest, total = names[-1], Fraction(0)
    above: Fraction | None = None  # one of the unit before, in the smallest unit
    for (value, _), name in zip(parts, names, strict=True):
        one = units.convert(Fraction(1), name, smallest)
        if not one or len(parts) < 2:
            return None
        size = one[0]
        if above is not None and (size >= above or value * size >= above):
            return None
        total, above = total + value * size, size
    return Number(total, unit=smallest)
