"""Numbers as people state them, and the two numeric scores: numerical and regression."""

import re
from fractions import Fraction
from typing import Any

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.numbers import asked, numerals, units
from evr1.rewards.numbers.quantities import Number, read_quantity

RELATIVE_TOLERANCE = Fraction(1, 1000)
ROUNDING_TOLERANCE = Fraction(1, 100)  # of the truth: how far its own rounding may reach
MAX_CHARS = 2000

_SIMPLE = re.compile(r"[+-]?[0-9]{1,15}(?:\.([0-9]{1,15}))?")
_GLOSS = re.compile(r"^(?P<number>.{1,60}?)\s?\((?P<gloss>[^()]{1,60})\)\.?$")
_PREFIX = re.compile(
    r"(?i)^(?:(?:so|thus|hence|therefore)\b,?|only|just|estimated(?: to be| at)?|about|around"
    r"|approximately|approx\.?|roughly|nearly"
    r"|almost|exactly|at|circa|ca?\.|~|∼|≈|≃|≒|probably|precisely|altogether"
    r"|约|大约|大概|共有|共|总共|一共|有|it is|it's|there are|there is|(?:a )?total(?: of)?"
    r"|(?:i|we) (?:can )?(?:see|counted|count)|usd|eur|rmb|us(?=\$)|=)\s*"
)
_STATEMENT = re.compile(
    r"^(?P<words>[A-Za-z' ]{1,60}?)(?:\s(?:is|are|was|were|equals"
    r"|to\sbe)(?:\s(?:equal\s)?to)?\s|:\s)"
)
_LHS = re.compile(
    r"^(?:[A-Za-z]\w{0,15}|[\d\s.()]{1,40}[+*/×÷-][\d\s.+*/×÷()-]{1,40})\s{0,4}=\s{0,4}"
)
_MENTION = re.compile(  # "The man jumps 3 times."
    r"(?i)^(?:the|a|an|in|he|she|they|it|this|that|there|we|i|year|you)\b[a-z', ]{0,80} "
    r"(?P<number>-?[$€£¥]?\d[\d,]{0,20}(?:\.\d{1,20})?\s?%?(?: [a-z' ]{1,60})?)\.?$"
)
_CLAUSE = re.compile(  # "3 men and 4 women, so 7 people", "3 men + 4 women = 7 people"
    r"(?is)^(?:[^?？]{1,200},\s(?:so|giving|making|for a total of|totall?ing|(?:i|we) get"
    r"|which (?:gives|makes))|[^?？=]{1,200}\+[^?？=]{1,200}\s=)\s(?P<rest>[^=]{1,80})$"
)
_SAID_TWICE = re.compile(  # "seven (7) people"
    r"^(?P<number>[A-Za-z]{3,9}(?:-[a-z]{3,5})?\s\(\d{1,3}\))(?P<rest>\s[A-Za-z ]{1,40}\.?)$"
)
_BOLD = re.compile(r"(?<=[:：])\*\*|\*\*(?=[:：])")  # of "**Count:** 7"
_FIELD = re.compile(
    r"""(?i)^\{\s?["']?[a-z_ ]{0,20}(?:count|total|number|value|result|distance|length|size"
    r"|area|height"""
    r"""|width|time|estimate|prediction|percentage|quantity)["']?\s?:\s?["']?(?P<number>[^"'{}:,]{1,40})["']?\s?\}$"""
)
_THE_TWO = re.compile(  # of "the distance between the two", "between the bed and the desk"
    r"(?i)\b(?:the|these|between) two\b|\bbetween\b.{1,60}?\band\b"
)
_SOURCE = re.compile(  # "Based on the video, "
    r"(?i)^(?:based on|according to|in|from|looking at|after)"
    r" (?:[a-z]{1,12} ){0,4}[a-z]{1,12}, (?=\D)"
    r"|^(?:i|we)(?: would|'d)? estimate (?:that )?(?=[a-z])"
)
_CHINESE = re.compile(  # 视频中一共出现了4把椅子。
    r"^[一-鿿,，、\s]{2,40}?(?P<number>-?\d[\d,]{0,20}(?:\.\d{1,20})?\s?%?\s?[一-鿿a-zA-Z°²³]{0,8})[。.]?$"
)
_CHINESE_VAGUE = re.compile(
    r"[不没非无第或至到超以内外每几余多可也除如若否错]|(?<!一)[低高大小]于|或许|之前|之后|[帧步图题选](?=\d)|[二三四五六七八九十]|两(?!者)"
)
_VAGUE = re.compile(  # a bound, a doubt, or a number that names something
    r"(?i)\b(?:no|least|most|over|under|above|below|more|less|fewer|between|beyond|within|up|if"
    r"|unless|except|without|every|each|cannot|sure|unsure|unclear|perhaps|possibly|doubtfully"
    r"|answer is|(?:none|root|square|cube) of|(?:log|ln|sin|cos|tan|exp|page|line)(?=\s\d)"
    r"|(?:half|twice|double|triple)(?=\s(?:of\s)?\d)|frame|option|step|figure|choice"
    r"|number|question|image|scene)\b"
)
_ESTIMATED = re.compile(r"(?i)\s?\((?:approximately|approx\.?|estimated|estimate|about|rounded)\)$")
_DEGREES = str.maketrans("º˚", "°°")
_MARKS = re.compile(r"^[✅✓✔☑•#>]+\s+|\s*[✅✓✔☑]+$")
_LATEX = [
    (re.compile(r"\s?\^\s?\{?\s?\\circ\s?\}?"), "°"),
    (re.compile(r"\{([,.'])\}|\\!"), r"\1"),  # 1{,}234
    (re.compile(r"\^\{(-?\d)\}(?=$|\D)"), r"^\1"),
    (re.compile(r"(?<=\d)(?:~|\\[ ,;:])(?=\d{3})"), " "),
    (re.compile(r"(?<=\d)~(?=\\)|\\[ ,;:]"), " "),
    (re.compile(r"\\(?:text|mathrm|textrm|mbox|operatorname)\s?\{([^{}]{0,80})\}"), r"\1"),
    (re.compile(r"\\(?=[%$,!])"), ""),
    (re.compile(r"\$([^$]{1,200})\$"), r"\1"),
]
# what mathematics takes for a unit; "5t" is a product there
UNITS = frozenset(name for name in units.NAMES if len(name) > 1 or name in "smgh")
_HEDGE = re.compile(
    r"(?i)\b(?:or|to|and|but|not|plus|minus|than|maybe|cannot|unless|doubt|if|unlikely|hardly|wrong"
    r"|incorrect|false|never|could|might|may)\b|n't\b|[-±/](?=\s*\d)"
)


def score_numerical(response: str, task: Task) -> Verdict | None:
    """Returns 1 where the response's number is the truth's, within its tolerance (see `is_close`).

    Raises:
        ValueError: the ground truth is no number.
    """
    truths = [_in_asked_unit(t, task) for t in read_truths(task.answer)]
    extraction = parse.extract(response, read_number)
    if extraction is None:
        return None
    reading, candidate = extraction
    in_percent = asked.asks_percent(task.problem)
    right = any(is_close(reading.value, truth, in_percent) for truth in truths)
    return Verdict(float(right), reading.exact, candidate.text)


def score_regression(response: str, task: Task) -> Verdict | None:
    """Returns the mean relative accuracy of the response's number.

    Raises:
        ValueError: the ground truth is no number.
    """
    truths = [_in_asked_unit(t, task) for t in read_truths(task.answer)]
    extraction = parse.extract(response, read_number)
    if extraction is None:
        return None
    reading, candidate = extraction
    in_percent = asked.asks_percent(task.problem)
    pairs = [p for truth in truths for p in _comparable(reading.value, truth, in_percent)]
    accuracy = max((mean_relative_accuracy(p, t) for p, t in pairs), default=0.0)
    return Verdict(accuracy, reading.exact, candidate.text)


def _in_asked_unit(truth: Number, task: Task) -> Number:
    """Returns a truth without unit or percent sign in the unit that the problem asks for."""
    if truth.unit or truth.percent or not task.problem:
        return truth
    return truth._replace(unit=asked.asked_unit(task.problem))


def mean_relative_accuracy(prediction: Fraction, truth: Fraction) -> float:
    """Returns the share of thresholds 0.50, 0.55, ... 0.95 with |p - t| / |t| <= 1 - threshold.

    A truth of 0 is met by 0 alone.

    >>> [mean_relative_accuracy(Fraction(p), Fraction(10)) for p in (10, 11, 12, 15, 20)]
    [1.0, 0.9, 0.7, 0.1, 0.0]

    Source: Yang et al. 2024, Thinking in Space (VSI-Bench), equation 1.
    """
    if truth == 0:
        return float(prediction == 0)
    error = abs(prediction - truth) / abs(truth)
    return sum(error <= Fraction(k, 20) for k in range(1, 11)) / 10


def is_close(answer: Number, truth: Number, in_percent: bool = False) -> bool:
    """Returns whether a number answers for the truth.

    Integers must be equal. Otherwise the difference may reach 0.1 % of the truth, or half a unit in
    the last place that the truth was written with, as long as that is no more than 1 % of it.

    Args:
        answer: the response's number.
        truth: the row's.
        in_percent: a truth without a percent sign is a percentage all the same.
    """
    for p, t in _comparable(answer, truth, in_percent):
        if p == t:
            return True
        is_percent = answer.percent or truth.percent
        if truth.resolution is None and not (is_percent or p % 1 or t % 1):
            continue
        tolerance = RELATIVE_TOLERANCE * abs(t)
        if truth.resolution is not None:
            tolerance = max(
                tolerance, min(truth.resolution / 2, ROUNDING_TOLERANCE * max(abs(t), abs(p)))
            )
        if abs(p - t) <= tolerance:
            return True
    return False


def _comparable(answer: Number, truth: Number, in_percent: bool) -> list[tuple[Fraction, Fraction]]:
    """Returns the pairs (answer, truth) that may agree, units and percent signs resolved.

    There are none for two units that cannot be converted: metres are no seconds.
    For a truth without a sign, one writing with a sign is right: 50 % for 0.5, and 50 % for 50.
    Only a truth of 1 or -1 could be either, so 1 % and 100 % are.
    """
    if answer.percent != truth.percent and units.meanings(answer.unit or truth.unit):
        return []
    if answer.unit == "k" and not truth.unit:
        answer = answer._replace(value=answer.value * 1000, unit="")  # "12 K" of a bare truth
    converted = units.convert(answer.value, answer.unit, truth.unit)
    if converted is not None:
        return [(value, truth.value) for value in converted]
    if units.do_conflict(answer.unit, truth.unit):
        return []
    as_written = (answer.value, truth.value)
    if answer.percent == truth.percent:
        return [as_written]
    if truth.percent:
        return [as_written, (answer.value * 100, truth.value)]
    as_share = (answer.value / 100, truth.value)
    if in_percent or abs(truth.value) > 1:
        return [as_written]
    return [as_written, as_share] if abs(truth.value) == 1 else [as_share]


def read_truth(answer: Any) -> Number:
    """Returns the number of a ground truth.

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


def read_truths(answer: Any) -> list[Number]:
    """Returns the accepted numbers of a ground truth: one, or a list of which any is right.

    Raises:
        ValueError: one of them is none.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, str) and "," in answer and answer[:1] == "[":
        data = parse.read_json(answer)
        answer = data.value if data and data.exact else answer
    if isinstance(answer, list | tuple) and answer:
        return [read_truth(a) for a in answer]
    return [read_truth(answer)]


def read_number(text: str) -> Reading | None:
    """Returns the one number that a text states; ranges, lists, NaN and infinities state none.

    In the asked form are digits with a sign, separators, exponent, fraction, percent sign, currency
    or unit; words ("about", "twenty-one") are read but are not in the asked form.
    """
    if len(text) > MAX_CHARS:
        return None
    simple = _SIMPLE.fullmatch(text.strip())
    if simple:
        decimals = len(simple[1] or "")
        resolution = Fraction(1, 10**decimals) if decimals else None
        return Reading(Number(Fraction(text.strip()), resolution=resolution))
    text = parse.normalize(parse.spell_powers(text.translate(_DEGREES)))
    text = _MARKS.sub("", parse.unwrap(text).strip().strip("*`")).strip()
    if re.search(r"[\\${~^]", text):
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    text = _plain_answer(_BOLD.sub("", text))
    text = re.sub(r"^\[(.{1,60})\]$", r"\1", _unquote(text)).strip()
    number = _read(text)
    if number is not None:
        return Reading(*number)
    gloss = _GLOSS.match(text)
    if gloss:  # "5 (five)" says one number twice
        readings = read_number(gloss["number"]), read_number(gloss["gloss"])
        if readings[0] and readings[1] and is_close(readings[1].value, readings[0].value):
            return Reading(readings[0].value, exact=False)
        if readings[0] and units.meanings(gloss["gloss"].lower()) and not readings[0].value.unit:
            with_unit = _read(f"{gloss['number']} {gloss['gloss']}")  # "3.2 (meters)"
            return with_unit and Reading(with_unit[0], exact=False)
    plain = re.sub(
        r"(?i)^(?:(?:minus|negative)\s|(?:负|零下)\s?)(?=\d)", "-", _ESTIMATED.sub("", text)
    )
    plain = _SOURCE.sub("", plain)
    plain = _LHS.sub("", re.sub(r"(?i)^(?:so|thus|hence|therefore)\b,?\s", "", plain))
    statement = _STATEMENT.match(plain)
    words = _THE_TWO.sub("", statement["words"]) if statement else ""
    if statement and not (numerals.has_number_word(words) or _HEDGE.search(words)):
        plain = plain[statement.end() :]
    plain = parse.strip_frames(_PREFIX, plain)
    clause = _CLAUSE.match(plain)
    if clause and not _VAGUE.search(clause["rest"]):
        plain = parse.strip_frames(_PREFIX, clause["rest"])
    stated = _read(plain) or _read_mention(text) or _read_chinese(text)
    return None if stated is None else Reading(stated[0], exact=False)


def _plain_answer(text: str) -> str:
    """Returns the number of {"count": 7}, and of "seven (7) people" where both are the same."""
    field = _FIELD.match(text)
    if field:
        return field["number"].strip()
    twice = _SAID_TWICE.match(text)
    if twice and read_number(twice["number"]) is not None:
        return twice["number"].partition(" (")[0] + twice["rest"]
    return text


def _unquote(text: str) -> str:
    """Returns a text without the quotes around it; 36" is a length."""
    while len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def _read(text: str) -> tuple[Number, bool] | None:
    """Returns the quantity that is the whole text but for what may end a sentence."""
    return read_quantity(re.sub(r"\.$", "", text.strip().rstrip("。,;")).strip())


def _read_chinese(text: str) -> tuple[Number, bool] | None:
    """Returns the number that a short Chinese sentence ends with."""
    match = _CHINESE.match(text)
    return None if not match or _CHINESE_VAGUE.search(text) else _read(match["number"])


def _read_mention(text: str) -> tuple[Number, bool] | None:
    """Returns the number of a short sentence that neither counts nor doubts anything else."""
    match = _MENTION.match(text)
    if not match or _VAGUE.search(text) or _HEDGE.search(text):
        return None
    return None if numerals.has_number_word(text) else _read(match["number"])
