"""Numbers in English and Chinese words."""

import re
from fractions import Fraction

MAGNITUDES = {
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
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4, "third": 3, "thirds": 3}
_PARTS |= {"fourth": 4, "fourths": 4, "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6}
_PARTS |= {"eighth": 8, "eighths": 8, "tenth": 10, "tenths": 10}
_CHINESE = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"两": 2, "〇": 0}
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_LIST = re.compile(rf"\b(?!{'|'.join(MAGNITUDES)})[a-z]+\s?[,;]")  # "one thousand, two" is no list
MAX_WORDS = 30


def has_number_word(text: str) -> bool:
    """Whether one of the words of a text counts something."""
    return any(w in _WORDS for w in re.findall(r"[a-z]+", text.lower()))


def read(text: str) -> tuple[Fraction, str] | None:
    """The number that a text starts with, in words, and the words behind it.

    >>> read("minus twenty-one cars")
    (Fraction(-21, 1), 'cars')
    """
    text = text.casefold().strip(" .。!")
    bare = re.sub(r"^(?:minus|negative|负)\s?", "", text)
    found = _read_chinese(bare) or _read_english(bare)
    if found is None:
        return None
    value, rest = found
    return (value if bare == text else -value), rest


def _read_chinese(text: str) -> tuple[Fraction, str] | None:
    digits = "".join(_CHINESE)
    match = re.match(rf"^([{digits}十百千万]{{1,12}})(?:点([{digits}]{{1,12}}))?(\w{{0,4}})$", text)
    value = _chinese_value(match[1]) if match else None
    if value is None or not match:
        return None
    part = "".join(str(_CHINESE[c]) for c in match[2] or "")
    return value + Fraction(int(part or 0), 10 ** len(part)), match[3]


def _read_english(text: str) -> tuple[Fraction, str] | None:
    words = re.findall(r"[a-z]+", text.replace("-", " "))
    if re.search(r"\d", text) or not 0 < len(words) <= MAX_WORDS or _LIST.search(text):
        return None
    if words[0] in ("a", "an") and words[1:2] and (words[1] in MAGNITUDES or words[1] in _PARTS):
        words[0] = "one"
    if words[0] == "half":
        return Fraction(1, 2), " ".join(words[1:])
    used = 0
    while used < len(words) and (
        words[used] in _WORDS
        or words[used] in MAGNITUDES
        or (words[used] == "and" and 0 < used < len(words) - 1 and words[used + 1] in _WORDS)
    ):
        used += 1
    if used == 0 or words[0] in MAGNITUDES:
        return None
    value = _english_value(words[:used])
    return None if value is None else _with_part(Fraction(value), words[used:])


def _with_part(value: Fraction, rest: list[str]) -> tuple[Fraction, str]:
    """A whole number with what may follow: "point five", "thirds", "and a half"."""
    if rest[:1] == ["point"]:
        digits = [str(_WORDS[w]) for w in rest[1:] if _WORDS.get(w, 10) < 10]
        if digits and len(digits) == len(rest) - 1:
            return value + Fraction(int("".join(digits)), 10 ** len(digits)), ""
    if rest[:1] and rest[0] in _PARTS and value:
        return value / _PARTS[rest[0]], " ".join(rest[1:])
    if rest[:2] in (["and", "a"], ["and", "one"]) and rest[2:3] in (["half"], ["quarter"]):
        return value + Fraction(1, _PARTS[rest[2]]), " ".join(rest[3:])
    return value, " ".join(rest)


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
        elif word in MAGNITUDES:
            power = 10 ** MAGNITUDES[word]
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
