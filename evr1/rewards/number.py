"""Numbers as people write them, and the two numeric scores: numerical and regression.

All arithmetic is exact (fractions of bounded size), so nothing here can hang or overflow.
"""

import re
from fractions import Fraction
from typing import Any, NamedTuple

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

RELATIVE_TOLERANCE = Fraction(1, 1000)
ROUNDING_TOLERANCE = Fraction(1, 100)  # of the truth: how far its own rounding may reach
MAX_DIGITS = 500
MAX_EXPONENT = 400
MAX_CHARS = 2000


class Number(NamedTuple):
    """A number with what its writing says about it."""

    value: Fraction
    percent: bool = False
    unit: str = ""  # lower case, as written
    step: Fraction | None = None  # one unit in the last decimal place written; None for integers


_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d+)?|\.\d+"
_EUROPEAN = r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}"
_POWER = (
    r"(?:[eE]([+-]?\d{1,6})"
    r"|\s?(?:[x×*·]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\(?([+-]?\d{1,6})\)?\}?)"
)
_NUMBER = re.compile(rf"(?P<sign>[+-]?)\s?(?P<body>{_EUROPEAN}|{_PLAIN}){_POWER}?(?![\d.,]*\d)")
_FRACTION = re.compile(
    r"^(?P<sign>[+-]?)\s?(?:(?P<whole>\d{1,50})[ -]\s?)?"
    r"(?:(?P<a>\d{1,50})\s?/\s?(?P<b>\d{1,50})|\\[dt]?frac\{(?P<c>-?\d{1,50})\}\{(?P<d>\d{1,50})\})$"
)
_POWER_OF_TEN = re.compile(r"^(?P<sign>[+-]?)10\s?(?:\^|\*\*)\s?\{?(?P<e>[+-]?\d{1,3})\}?$")
_CURRENCY = "$€£¥₹"
_PREFIX = re.compile(
    r"(?i)^(?:about|around|approximately|approx\.?|roughly|nearly|almost|exactly|circa|ca\.?|~|≈|≃"
    r"|约|大约|it is|it's|there are|there is|a total of)\s*"
)
_STATEMENT = re.compile(
    r"^(?P<words>[A-Za-z' ]{1,60}?)(?:\s(?:is|are|was|were|equals)(?:\s(?:equal\s)?to)?\s|:\s)"
)
_LHS = re.compile(r"^[A-Za-z]\w{0,15}\s{0,4}=\s{0,4}")
_UNIT = re.compile(r"^\s*(?:\\?text\{)?\s?([^\W\d_][^\d,;:?!=+*]{0,40}|°[CF]?|[²³]|)\}?\s*$")
_HEDGE_UNIT = re.compile(
    r"(?i)\b(?:or|to|and|but|not|plus|minus|times|than|maybe)\b|[-±/](?=\s*\d)"
)
_MAGNITUDES = {
    **{"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12},
    **{"百": 2, "千": 3, "万": 4, "亿": 8},
}
_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {w: i for i, w in enumerate(_SMALL)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
_CHINESE = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_SCALES = {
    "s": {"s": 1, "sec": 1, "second": 1, "ms": "1/1000", "millisecond": "1/1000", "min": 60},
    "m": {"m": 1, "meter": 1, "metre": 1, "cm": "1/100", "centimeter": "1/100", "mm": "1/1000"},
    "g": {"g": 1, "gram": 1, "kg": 1000, "kilogram": 1000, "mg": "1/1000"},
}
_SCALES["s"] |= {"minute": 60, "h": 3600, "hr": 3600, "hour": 3600}
_SCALES["m"] |= {"centimetre": "1/100", "millimeter": "1/1000", "km": 1000, "kilometer": 1000}
_SCALES["m"] |= {"kilometre": 1000}
_UNITS = {u: (d, Fraction(f)) for d, units in _SCALES.items() for u, f in units.items()}


def score_numerical(response: str, task: Task) -> Verdict | None:
    """1 where the response's number is the truth's, within its tolerance (see `is_close`).

    Raises:
        ValueError: the ground truth is no number.
    """
    truth = read_truth(task.answer)
    found = parse.extract(response, read_number)
    if found is None:
        return None
    reading, where = found
    return Verdict(float(is_close(reading.value, truth)), reading.exact, where.text)


def score_regression(response: str, task: Task) -> Verdict | None:
    """Mean relative accuracy of the response's number.

    Raises:
        ValueError: the ground truth is no number.
    """
    truth = read_truth(task.answer)
    found = parse.extract(response, read_number)
    if found is None:
        return None
    reading, where = found
    accuracy = max(mean_relative_accuracy(p, t) for p, t in _comparable(reading.value, truth))
    return Verdict(accuracy, reading.exact, where.text)


def mean_relative_accuracy(prediction: Fraction, truth: Fraction) -> float:
    """The share of thresholds 0.50, 0.55, ... 0.95 with |p - t| / |t| <= 1 - threshold.

    A truth of 0 is met by 0 alone.

    >>> [mean_relative_accuracy(Fraction(p), Fraction(10)) for p in (10, 11, 12, 15, 20)]
    [1.0, 0.9, 0.7, 0.1, 0.0]

    Source: Yang et al. 2024, Thinking in Space (VSI-Bench), equation 1.
    """
    if truth == 0:
        return float(prediction == 0)
    error = abs(prediction - truth) / abs(truth)
    return sum(error <= Fraction(k, 20) for k in range(1, 11)) / 10


def is_close(given: Number, truth: Number) -> bool:
    """Whether a number answers for the truth.

    Integers must be equal. Otherwise the difference may reach 0.1 % of the truth, or half a unit in
    the last place that the truth was written with, as long as that is no more than 1 % of it.
    """
    for p, t in _comparable(given, truth):
        if p == t:
            return True
        integers = given.step is None and truth.step is None
        if integers and not (given.percent or truth.percent or p % 1 or t % 1):
            continue
        tolerance = RELATIVE_TOLERANCE * abs(t)
        if truth.step is not None:
            tolerance = max(tolerance, min(truth.step / 2, ROUNDING_TOLERANCE * abs(t)))
        if abs(p - t) <= tolerance:
            return True
    return False


def _comparable(given: Number, truth: Number) -> list[tuple[Fraction, Fraction]]:
    """The pairs (given, truth) by which the two may agree: units and percent signs taken in."""
    a, b = _UNITS.get(given.unit), _UNITS.get(truth.unit)
    if a and b:
        if a[0] != b[0]:
            return [(truth.value + abs(truth.value) + 1, truth.value)]  # metres are no seconds
        return [(given.value * a[1] / b[1], truth.value)]
    pairs = [(given.value, truth.value)]
    if given.percent != truth.percent:
        scale = Fraction(1, 100) if given.percent else Fraction(100)
        pairs.append((given.value * scale, truth.value))
    return pairs


def read_truth(answer: Any) -> Number:
    """The number of a ground truth.

    Raises:
        ValueError: it is none.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    reading = read_number(repr(answer) if isinstance(answer, float) else str(answer))
    if reading is None or isinstance(answer, bool):
        raise ValueError(f"the answer {answer!r} is no number; correct the row")
    return reading.value


def read_number(text: str) -> Reading | None:
    """The one number that a text states; ranges, lists, NaN and infinities state none.

    In the asked form are digits with a sign, separators, exponent, fraction, percent sign, currency
    or unit; words ("about", "twenty-one") are read but are not in the asked form.
    """
    if len(text) > MAX_CHARS:
        return None
    text = parse.normalize(text)
    boxed = re.fullmatch(r"\$*\\(?:boxed|text|mathrm)\{(.{1,500})\}\$*", text)
    text = (boxed[1] if boxed else text).strip().strip("*`").strip()
    number = _read_digits(text)
    if number is not None:
        return Reading(number)
    plain = _LHS.sub("", text)
    statement = _STATEMENT.match(plain)
    if statement and not _has_number_word(statement["words"]):
        plain = plain[statement.end() :]
    while (shorter := _PREFIX.sub("", plain, count=1)) != plain:
        plain = shorter
    number = _read_digits(plain) or _read_words(plain)
    return None if number is None else Reading(number, exact=False)


def _read_digits(text: str) -> Number | None:
    """A number written with digits that makes up the whole text but for currency and unit."""
    text = text.strip().rstrip("。,;")
    text = re.sub(r"\.$", "", text).strip()
    text = re.sub(r"\\([%$,! ])", lambda m: m[1] if m[1] in "%$" else "", text)
    sign = re.match(rf"^([+-]?)\s?[{_CURRENCY}]\s?", text)
    if sign:
        text = sign[1] + text[sign.end() :]
    text = re.sub(r"^\((.*)\)$", r"\1", text.strip("$ "))
    percent = re.match(r"^(.*?)\s?(?:%|percent|per cent|pct)$", text, re.IGNORECASE)
    if percent:
        text = percent[1]
    number = _read_fraction(text) or _read_decimal(text)
    return number._replace(percent=True) if number and percent else number


def _read_fraction(text: str) -> Number | None:
    power = _POWER_OF_TEN.match(text)
    if power:
        value = Fraction(10) ** int(power["e"])
        return Number(-value if power["sign"] == "-" else value)
    match = _FRACTION.match(text)
    if not match:
        return None
    top, bottom = int(match["a"] or match["c"]), int(match["b"] or match["d"])
    if bottom == 0:
        return None
    value = Fraction(top, bottom) + int(match["whole"] or 0)
    return Number(-value if match["sign"] == "-" else value, step=Fraction(0))


def _read_decimal(text: str) -> Number | None:
    match = _NUMBER.match(text)
    if not match or len(match["body"]) > MAX_DIGITS:
        return None
    body = match["body"]
    if re.fullmatch(_EUROPEAN, body):
        body = body.replace(".", "").replace(",", ".")
    body = body.replace(",", "").replace(" ", "")
    power = int(match[3] or match[4] or 0)
    if abs(power) > MAX_EXPONENT:
        return None
    rest = text[match.end() :]
    magnitude = re.match(r"^\s?([a-z]+|[百千万亿])", rest)
    if magnitude and magnitude[1] in _MAGNITUDES:
        power += _MAGNITUDES[magnitude[1]]
        rest = rest[magnitude.end() :]
    unit = _UNIT.match(rest)
    if not unit or _HEDGE_UNIT.search(rest) or _has_number_word(rest):
        return None
    value = Fraction(body) * Fraction(10) ** power
    decimals = len(body.partition(".")[2])
    step = Fraction(10) ** (power - decimals) if decimals > max(power, 0) else None
    name = unit[1].strip().lower().rstrip(".")
    name = name if name in _UNITS or name[:-1] not in _UNITS else name[:-1]  # plural s
    return Number(-value if match["sign"] == "-" else value, unit=name, step=step)


def _has_number_word(text: str) -> bool:
    return any(w in _WORDS for w in re.findall(r"[a-z]+", text.lower()))


def _read_words(text: str) -> Number | None:
    """A number in English or Chinese words, with at most a unit behind it."""
    text = text.casefold().strip(" .。!")
    sign = -1 if re.match(r"^(?:minus|negative|负)\s?", text) else 1
    text = re.sub(r"^(?:minus|negative|负)\s?", "", text)
    chinese = re.match(rf"^([{''.join(_CHINESE)}十百千万]{{1,12}})\w{{0,4}}$", text)
    if chinese:
        return _signed(_chinese_value(chinese[1]), sign)
    words = re.findall(r"[a-z]+", text.replace("-", " "))
    if re.search(r"\d", text) or not words or len(words) > 30:
        return None
    used = 0
    while used < len(words) and (
        words[used] in _WORDS
        or words[used] in _MAGNITUDES
        or (words[used] == "and" and 0 < used < len(words) - 1 and words[used + 1] in _WORDS)
    ):
        used += 1
    rest = " ".join(words[used:])
    if used == 0 or words[0] in _MAGNITUDES or len(rest) > 40:
        return None
    if _HEDGE_UNIT.search(rest) or _has_number_word(rest):
        return None
    return _signed(_english_value(words[:used]), sign)


def _signed(value: int | None, sign: int) -> Number | None:
    return None if value is None else Number(Fraction(sign * value))


def _english_value(words: list[str]) -> int | None:
    """The value of number words, or None where they do not form one number."""
    total, group, last = 0, 0, 10**15
    for word in words:
        if word == "and":
            if group % 100 or not (group or total):
                return None  # "three and four" are two numbers
        elif word == "hundred":
            if not 0 < group < 20:
                return None
            group, last = group * 100, 100
        elif word in _MAGNITUDES:
            power = 10 ** _MAGNITUDES[word]
            if group == 0 or (total and total % (power * 1000) and total < power * 1000):
                return None
            total, group, last = total + group * power, 0, 100
        else:
            value = _WORDS[word]
            size = 100 if value >= 20 else 10
            if group and (size >= last or (group % 100 and not (group % 10 == 0 and value < 10))):
                return None
            group, last = group + value, size
    return total + group


def _chinese_value(text: str) -> int | None:
    """The value of a Chinese numeral below 100,000,000.

    >>> _chinese_value("两百零五"), _chinese_value("十二")
    (205, 12)
    """
    if len(text) > 1 and all(c in _CHINESE for c in text):
        return None  # digit by digit: a name or a year, not surely a count
    total = group = digit = 0
    for c in text:
        if c in _CHINESE:
            digit = _CHINESE[c]
        elif c in _CHINESE_UNITS:
            group, digit = group + (digit or 1) * _CHINESE_UNITS[c], 0
        else:
            total, group, digit = (total + group + digit) * 10_000, 0, 0
    return total + group + digit
