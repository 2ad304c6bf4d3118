"""Numbers as people write them, and the two numeric scores: numerical and regression.

All arithmetic is exact (fractions of bounded size), so nothing here can hang or overflow.
"""

import re
from fractions import Fraction
from typing import Any, NamedTuple

from evr1.rewards import numerals, parse
from evr1.rewards.base import Reading, Task, Verdict

RELATIVE_TOLERANCE = Fraction(1, 1000)
ROUNDING_TOLERANCE = Fraction(1, 100)  # of the truth: how far its own rounding may reach
MAX_DIGITS = 500
MAX_EXPONENT = 400
MAX_CHARS = 2000
UNIT_WORDS = 3  # of a unit in the asked form: "metres per second"; more is a sentence


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
    r"^(?P<sign>[+-]?)\s?(?:(?P<whole>\d{1,50})(?:[ -]\s?|(?=\\)))?"
    r"(?:(?P<a>\d{1,50})\s?/\s?(?P<b>\d{1,50})|\\[dt]?frac\{(?P<c>-?\d{1,50})\}\{(?P<d>\d{1,50})\})$"
)
_POWER_OF_TEN = re.compile(r"^(?P<sign>[+-]?)10\s?(?:\^|\*\*)\s?\{?(?P<e>[+-]?\d{1,3})\}?$")
_CURRENCY = "$€£¥₹"
_PERCENT = re.compile(r"(?i)^(.*?)\s?(?:%|percent|per cent|pct)(?: of [^\d]{1,40})?$")
_GLOSS = re.compile(r"^(?P<number>.{1,60}?)\s?\((?P<gloss>[^()]{1,60})\)\.?$")
_PREFIX = re.compile(
    r"(?i)^(?:(?:so|thus|hence|therefore)\b,?|only|just|estimated|about|around|approximately|approx\.?|roughly|nearly|almost|exactly|circa|ca\.?|~|≈|≃"
    r"|约|大约|大概|共有|共|总共|一共|有|it is|it's|there are|there is|(?:a )?total(?: of)?"
    r"|(?:i|we) (?:can )?(?:see|counted|count)|usd|eur|rmb|us(?=\$)|=)\s*"
)
_STATEMENT = re.compile(
    r"^(?P<words>[A-Za-z' ]{1,60}?)(?:\s(?:is|are|was|were|equals)(?:\s(?:equal\s)?to)?\s|:\s)"
)
_LHS = re.compile(
    r"^(?:[A-Za-z]\w{0,15}|[\d\s.()]{1,40}[+*/×÷-][\d\s.+*/×÷()-]{1,40})\s{0,4}=\s{0,4}"
)
_MENTION = re.compile(  # "The man jumps 3 times."
    r"(?i)^(?:the|a|an|in|he|she|they|it|this|that|there|we|i|year|you)\b[a-z', ]{0,80} "
    r"(?P<number>-?[$€£¥]?\d[\d,]{0,20}(?:\.\d{1,20})?\s?%?(?: [a-z' ]{1,60})?)\.?$"
)
_VAGUE = re.compile(  # a bound, a doubt, or a number that names something
    r"(?i)\b(?:no|least|most|over|under|above|below|more|less|fewer|between|beyond|within|up|if"
    r"|unless|except|without|every|each|cannot|sure|unsure|unclear|frame|option|step|figure|choice"
    r"|number|question|image|scene)\b"
)
_ESTIMATED = re.compile(r"(?i)\s?\((?:approximately|approx\.?|estimated|estimate|about|rounded)\)$")
_LATEX = [
    (re.compile(r"\s?\^\s?\{?\s?\\circ\s?\}?"), "°"),
    (re.compile(r"(?<=\d)~(?=\\)|\\[ ,;:]"), " "),
    (re.compile(r"\\(?:mathrm|textrm|mbox|operatorname)(?=\{)"), r"\\text"),
]
_UNIT = re.compile(
    r"^\s*(?:\\?text\{)?\s?"
    r"([^\W\d_][^\d,;:?!=+*^]{0,40}(?:(?<=[^\W\d_])\^?[23])?(?:\}\^\{?[23]\}?)?|°[CF]?|)\}?\s*$"
)
_HEDGE_UNIT = re.compile(
    r"(?i)\b(?:or|to|and|but|not|plus|minus|than|maybe|cannot|unless|doubt|if|unlikely|hardly|wrong|incorrect|false|never)\b|n't\b"
    r"|[-±/](?=\s*\d)"
)
_SCALES = {
    "s": {"s": 1, "sec": 1, "second": 1, "ms": "1/1000", "millisecond": "1/1000", "min": 60},
    "m": {"m": 1, "meter": 1, "metre": 1, "cm": "1/100", "centimeter": "1/100", "mm": "1/1000"},
    "g": {"g": 1, "gram": 1, "kg": 1000, "kilogram": 1000, "mg": "1/1000"},
}
_SCALES["s"] |= {"minute": 60, "h": 3600, "hr": 3600, "hour": 3600}
_SCALES["m"] |= {"centimetre": "1/100", "millimeter": "1/1000", "km": 1000, "kilometer": 1000}
_SCALES["m"] |= {"kilometre": 1000}
UNITS = {u: (d, Fraction(f)) for d, units in _SCALES.items() for u, f in units.items()}


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
    right = is_close(reading.value, truth, asks_percent(task))
    return Verdict(float(right), reading.exact, where.text)


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
    pairs = _comparable(reading.value, truth, asks_percent(task))
    accuracy = max(mean_relative_accuracy(p, t) for p, t in pairs)
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


def asks_percent(task: Task) -> bool:
    """Whether the problem asks for a percentage, so that a bare truth is one."""
    return bool(re.search(r"(?i)%|percent|per cent|百分", task.problem))


def is_close(given: Number, truth: Number, in_percent: bool = False) -> bool:
    """Whether a number answers for the truth.

    Integers must be equal. Otherwise the difference may reach 0.1 % of the truth, or half a unit in
    the last place that the truth was written with, as long as that is no more than 1 % of it.

    Args:
        given: the response's number.
        truth: the row's.
        in_percent: a truth without a percent sign is a percentage all the same.
    """
    for p, t in _comparable(given, truth, in_percent):
        if p == t:
            return True
        is_percent = given.percent or truth.percent
        if truth.step is None and not (is_percent or p % 1 or t % 1):
            continue
        tolerance = RELATIVE_TOLERANCE * abs(t)
        if truth.step is not None:
            tolerance = max(
                tolerance, min(truth.step / 2, ROUNDING_TOLERANCE * max(abs(t), abs(p)))
            )
        if abs(p - t) <= tolerance:
            return True
    return False


def _comparable(given: Number, truth: Number, in_percent: bool) -> list[tuple[Fraction, Fraction]]:
    """The pairs (given, truth) by which the two may agree: units and percent signs taken in.

    For a truth without a sign, one writing with a sign is right: 50 % for 0.5, and 50 % for 50.
    Only a truth of 1 or -1 could be either, so 1 % and 100 % are.
    """
    a, b = UNITS.get(given.unit), UNITS.get(truth.unit)
    if a and b:
        if a[0] != b[0]:
            return [(truth.value + abs(truth.value) + 1, truth.value)]  # metres are no seconds
        return [(given.value * a[1] / b[1], truth.value)]
    as_written = (given.value, truth.value)
    if given.percent == truth.percent:
        return [as_written]
    if truth.percent:
        return [as_written, (given.value * 100, truth.value)]
    as_share = (given.value / 100, truth.value)
    if in_percent or abs(truth.value) > 1:
        return [as_written]
    return [as_written, as_share] if abs(truth.value) == 1 else [as_share]


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
    text = parse.normalize(parse.spell_powers(text))
    text = parse.unwrap(text).strip().strip("*`").strip()
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = re.sub(r"^\[(.{1,60})\]$", r"\1", text.strip("\"'")).strip("\"' ")
    number = _read_digits(text)
    if number is not None:
        return Reading(number, exact=len(number.unit.split()) <= UNIT_WORDS)
    gloss = _GLOSS.match(text)
    if gloss:  # "5 (five)" says one number twice
        said = read_number(gloss["number"]), read_number(gloss["gloss"])
        if said[0] and said[1] and said[0].value.value == said[1].value.value:
            return Reading(said[0].value, exact=False)
    plain = re.sub(r"(?i)^(?:(?:minus|negative)\s|负\s?)(?=\d)", "-", _ESTIMATED.sub("", text))
    plain = _LHS.sub("", re.sub(r"(?i)^(?:so|thus|hence|therefore)\b,?\s", "", plain))
    statement = _STATEMENT.match(plain)
    if (
        statement
        and not numerals.has_number_word(statement["words"])
        and (not _HEDGE_UNIT.search(statement["words"]))
    ):
        plain = plain[statement.end() :]
    while (shorter := _PREFIX.sub("", plain, count=1)) != plain:
        plain = shorter
    number = _read_digits(plain) or _read_words(plain) or _read_mention(text)
    return None if number is None else Reading(number, exact=False)


def _read_mention(text: str) -> Number | None:
    """The number in a short sentence that states one, and nothing else that counts or doubts."""
    match = _MENTION.match(text)
    if not match or _VAGUE.search(text) or _HEDGE_UNIT.search(text):
        return None
    return None if numerals.has_number_word(text) else _read_digits(match["number"])


def _read_digits(text: str) -> Number | None:
    """A number written with digits that makes up the whole text but for currency and unit."""
    text = text.strip().rstrip("。,;")
    text = re.sub(r"\.$", "", text).strip()
    text = re.sub(r"\\([%$,! ])", lambda m: m[1] if m[1] in "%$" else "", text)
    sign = re.match(rf"^([+-]?)\s?[{_CURRENCY}]\s?", text)
    if sign:
        text = sign[1] + text[sign.end() :]
    text = re.sub(rf"(?<=\d)\s?[{_CURRENCY}]$", "", text)
    text = re.sub(r"^\((.*)\)$", r"\1", text.strip("$ "))
    percent = _PERCENT.match(text)
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
    if magnitude and magnitude[1] in numerals.MAGNITUDES:
        power += numerals.MAGNITUDES[magnitude[1]]
        rest = rest[magnitude.end() :]
    unit = _UNIT.match(rest)
    if not unit or _HEDGE_UNIT.search(rest) or numerals.has_number_word(rest):
        return None
    value = Fraction(body) * Fraction(10) ** power
    decimals = len(body.partition(".")[2])
    step = Fraction(10) ** (power - decimals) if decimals > max(power, 0) else None
    name = unit[1].strip().lower().rstrip(".")
    name = name if name in UNITS or name[:-1] not in UNITS else name[:-1]  # plural s
    return Number(-value if match["sign"] == "-" else value, unit=name, step=step)


def _read_words(text: str) -> Number | None:
    """A number in words, or a number and a half, with at most a unit behind it."""
    mixed = re.match(r"(?i)^(\d{1,9}) and an? (half|quarter)\b(.{0,40})$", text)
    share = re.match(r"^百分之(.{1,12}?)。?$", text)
    if share:
        part = numerals.read(share[1]) if not share[1].isdecimal() else (Fraction(share[1]), "")
        return Number(part[0], percent=True) if part and not part[1] else None
    found = numerals.read(text)
    if mixed:
        part = Fraction(1, 2 if mixed[2].lower() == "half" else 4)
        found = int(mixed[1]) + part, mixed[3].strip()
    if found is None:
        return None
    value, rest = found
    if len(rest) > 40 or _HEDGE_UNIT.search(rest) or numerals.has_number_word(rest):
        return None
    return Number(value, percent=bool(re.match(r"percent|per cent|pct", rest)))
