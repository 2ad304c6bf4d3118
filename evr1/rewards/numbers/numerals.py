"""Numbers in English and Chinese words, and the words that scale or divide a number."""

import re
from collections.abc import Iterable
from fractions import Fraction

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {w: i for i, w in enumerate(_SMALL)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALES = {word: 10**power for word, power in _MAGNITUDES.items()}
_SCALES |= {"dozen": 12, "dozens": 12, "grand": 1000}
_SCALES |= {f"{word}s": 10**power for word, power in _MAGNITUDES.items() if power > 3}
_SCALES |= {"lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7}
_SHORT_SCALES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "b": 10**9, "T": 10**12}
_SHORT_SCALES |= {"mn": 10**6, "mln": 10**6, "mio": 10**6, "bn": 10**9, "bln": 10**9, "tn": 10**12}
_PARTS = {"half": 2, "quarter": 4, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "sixteenth": 16, "twentieth": 20}
_PARTS |= {"hundredth": 100, "thousandth": 1000, "millionth": 10**6, "billionth": 10**9}
_PARTS |= {f"{word}s": n for word, n in _PARTS.items()} | {"halves": 2}
_FOLDS = {"once": 1, "twice": 2, "thrice": 3}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_WORD = re.compile(rf"({_any_of(_WORDS)}|{_any_of(_MAGNITUDES)})\b")
_JOINT = re.compile(r"(?P<comma>,)?(?:\s{1,4}|-)(?P<and>and\s{1,4})?")
_PART = re.compile(rf"(?:\s{{1,4}}|-)({_any_of(_PARTS)})\b")
_AND_PART = re.compile(
    rf"(?:\s{{1,4}}|-)and\s{{1,4}}(an?|[a-z]{{3,5}}|\d)(?:\s{{1,4}}|-)({_any_of(_PARTS)})\b"
)
_LEADING_PART = re.compile(
    rf"(?:(?:an?|one)(?:\s{{1,4}}|-)(?P<part>{_any_of(_PARTS)})|half|(?P<bare>quarter)(?=\sof\sa))\b"
    r"(?P<of>\s{1,4}(?:of\s{1,4})?(?:an?\s{1,4}|(?=(?:million|billion|dozen)\b)))?"
)
_POINT = re.compile(rf"(?:\s{{1,4}}point)((?:\s{{1,4}}(?:{'|'.join(_SMALL[:10])}|oh)\b){{1,12}})")
_SCALE = re.compile(
    rf"(?i:\s{{0,4}}({_any_of(_SCALES)})\b)|\s?(mn|mln|mio|bn|bln|tn|k|M)(?![\w/^°])"
    r"|(K|B|b|T)(?![\w/^°])|\s?((?:[十百万亿打]|千(?![米克卡瓦帕焦])){1,4})|(‰)|(成)(?!\w)"
)
_POWER = re.compile(r"\s(squared|cubed)\s*$")

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {
    "两": 2,
    "〇": 0,
    "俩": 2,
    "仨": 3,
}
_DIGITS |= {c: i for i, c in enumerate("零壹贰叁肆伍陆柒捌玖")}
_UNITS = {"十": 10, "百": 100, "千": 1000, "拾": 10, "佰": 100, "仟": 1000}
_MYRIADS = {"万": 10**4, "亿": 10**8}
_NUMERAL = rf"[{''.join(_DIGITS)}{''.join(_UNITS)}万亿]{{1,16}}"
_QUOTIENT = re.compile(
    rf"(?:(?P<whole>{_NUMERAL}|\d{{1,9}})又)?(?P<bottom>{_NUMERAL}|\d{{1,9}})分之"
    rf"(?P<top>{_NUMERAL}|\d{{1,9}}(?:\.\d{{1,9}})?)(?:点(?P<decimals>[{''.join(_DIGITS)}]{{1,12}}))?"
)
_CHINESE = re.compile(rf"({_NUMERAL})(?:点([{''.join(_DIGITS)}]{{1,12}}))?")
_HALF = re.compile(r"一?半")
_COUNTED_HALF = re.compile(r"(?P<unit>个|小时|分钟?|天|年|米|秒|周|点)半")
_SEVERAL = re.compile(  # "三到五", "二十多", "十几", "三个以上"
    r"[到至或和与跟多几余来、]|以[上下内外]|不|之|[一二两三四五六七八九十]个?$"
)


def has_number_word(text: str) -> bool:
    """Returns whether one of the words of a text counts something."""
    return any(w in _WORDS for w in re.findall(r"[a-z]+", text.lower()))


def read(text: str) -> tuple[Fraction, str] | None:
    """Returns the number that a text starts with, in words, and the text behind it.

    >>> read("minus twenty-one cars"), read("五分之一")
    ((Fraction(-21, 1), ' cars'), (Fraction(1, 5), ''))
    """
    bare = re.sub(r"(?i)^(?:(?:minus|negative)\s{1,4}|负|零下)", "", text)
    number = _read_chinese(bare) or _read_english(bare)
    if number is None:
        return None
    value, rest = number
    return (value if bare == text else -value), rest


def grow(value: Fraction, text: str) -> tuple[Fraction, Fraction, str] | None:
    """Returns a number with the scales and parts behind it, by what they scale it, and the rest.

    None where they make no number: "two million and a half", "3 half".

    >>> grow(Fraction(3), " hundredths")
    (Fraction(3, 100), Fraction(1, 100), '')
    """
    scaled = Fraction(1)
    for _ in range(4):
        joined, part = _AND_PART.match(text), _PART.match(text)
        if joined:
            count = _count(joined[1])
            if scaled != 1 or count is None or count >= _PARTS[joined[2]]:
                return None
            value, text = value + Fraction(count, _PARTS[joined[2]]), text[joined.end() :]
        elif part:
            if not _is_share(value, part[1]):
                return None
            value, scaled = value / _PARTS[part[1]], scaled / _PARTS[part[1]]
            text = re.sub(r"^\s(?:of\s)?an?\s", " ", text[part.end() :])
        elif (factor := _factor(text)) is not None:
            value, scaled, text = value * factor[0], scaled * factor[0], factor[1]
        else:
            break
    half = _COUNTED_HALF.match(text)
    if half and scaled == 1:
        return value + Fraction(1, 2), scaled, text[half.end() :] or half["unit"].removeprefix("个")
    power = _POWER.match(text)
    if power and scaled == 1:
        return value ** (2 if power[1] == "squared" else 3), scaled, ""
    return value, scaled, text


def _count(word: str) -> int | None:
    return int(word) if word.isdecimal() else 1 if word in ("a", "an") else _WORDS.get(word)


def _is_share(value: Fraction, part: str) -> bool:
    """Returns whether so many parts make sense: "3 quarters" do, "4 quarters" and "3 half" not.

    "Twenty third" is an ordinal.
    """
    if value <= 0 or value.denominator != 1:
        return False
    if not part.endswith("s"):
        return value == 1 or (value < 10 and _PARTS[part] > 10)
    return value < _PARTS[part] or part in ("halves", "thirds")


def _factor(text: str) -> tuple[Fraction, str] | None:
    """Returns what the scale at the start of a text multiplies by, and the text behind it."""
    match = _SCALE.match(text)
    if not match:
        return None
    if match[1]:
        factor = Fraction(_SCALES[match[1].lower()])
    elif match[4]:
        factor = Fraction(1)
        for c in match[4]:
            factor *= (_UNITS | _MYRIADS | {"打": 12})[c]
    elif match[5] or match[6]:
        factor = Fraction(1, 1000 if match[5] else 10)
    else:
        factor = Fraction(_SHORT_SCALES[match[2] or match[3]])
    return factor, text[match.end() :]


def _read_chinese(text: str) -> tuple[Fraction, str] | None:
    quotient = _QUOTIENT.match(text)
    if quotient:
        value = _read_quotient(quotient)
        return None if value is None else (value, text[quotient.end() :])
    half = _HALF.match(text)
    if half:
        return Fraction(1, 2), text[half.end() :].removeprefix("个")
    match = _CHINESE.match(text)
    value = chinese_value(match[1]) if match else None
    if value is None or not match:
        return None
    value += _decimals(match[2])
    rest = text[match.end() :]
    if len(rest) > 8 or _SEVERAL.search(rest):
        return None
    return value, rest


def _read_quotient(match: re.Match[str]) -> Fraction | None:
    parts = [_chinese_or_digits(match[name]) for name in ("whole", "bottom", "top")]
    whole, bottom, top = parts
    if not bottom or top is None or (match["whole"] and (whole is None or top >= bottom)):
        return None
    return (whole or 0) + (top + _decimals(match["decimals"])) / bottom


def _chinese_or_digits(text: str | None) -> Fraction | None:
    if not text:
        return None
    if text[0].isdecimal():
        return Fraction(text)
    value = {"百": 100, "千": 1000, "万": 10**4}.get(text) or chinese_value(text)
    return None if value is None else Fraction(value)


def _decimals(text: str | None) -> Fraction:
    part = "".join(str(_DIGITS[c]) for c in text or "")
    return Fraction(int(part or 0), 10 ** len(part))


def chinese_value(text: str) -> Fraction | None:
    """Returns the value of a Chinese numeral, or None where it is not one number.

    >>> [int(chinese_value(n)) for n in ("两百零五", "十二", "一万二", "三亿")]
    [205, 12, 12000, 300000000]
    """
    if len(text) > 1 and all(c in _DIGITS for c in text):
        return None  # digit by digit: a name, a year, or "three or four"
    total = section = 0
    digit: int | None = None
    last = 0  # the size of the last unit, which a digit right behind it counts tenths of
    for c in text:
        if c in _DIGITS:
            if digit:
                return None  # "二三十" is twenty or thirty
            digit, last = _DIGITS[c], (0 if _DIGITS[c] == 0 else last)
        elif c in _UNITS:
            size = _UNITS[c]
            if section % (10 * size):
                return None  # sizes fall within a numeral
            section, digit, last = section + (digit or 1) * size, None, size
        else:
            if not (section or digit or total):
                return None
            size = _MYRIADS[c]
            whole = section + (digit or 0)
            total = (total + whole) * size if total < size else total + whole * size
            section, digit, last = 0, None, size
    tail = digit or 0
    if tail and last >= 100:
        return Fraction(total + section + tail * last // 10)
    return Fraction(total + section + tail)


def _read_english(written: str) -> tuple[Fraction, str] | None:
    """Returns the number in English words and the rest in its own case: "M" is a million."""
    text = written.lower() if written.isascii() else written  # lower() may change the length
    fold = re.match(r"(once|twice|thrice)\b", text)
    if fold:
        return Fraction(_FOLDS[fold[1]]), written[fold.end() :]
    part = _LEADING_PART.match(text)
    if part:
        rest = written[part.end() :]
        return Fraction(1, _PARTS[part["part"] or part["bare"] or "half"]), f" {rest}" if part[
            "of"
        ] else rest
    article = re.match(r"an?(?=\s{1,4}(?:hundred|thousand|million|billion|trillion|dozen)\b)", text)
    for implied, end in (
        ("one", article and article.end()),
        ("zero ", text.startswith("point ") and 0),
    ):
        if end is not None and end is not False:
            text, written = implied + text[end:], implied + written[end:]
    words, at = [], 0
    while match := _WORD.match(text, at):
        words.append(match[1])
        end, joint = match.end(), _JOINT.match(text, match.end())
        if not joint or _AND_PART.match(text, end) or (joint["comma"] and match[1] in _WORDS):
            at = end
            break
        at = joint.end() if _WORD.match(text, joint.end()) else end
        if at == end:
            break
        words += ["and"] if joint["and"] else []
    if not words or words[0] in _MAGNITUDES:
        return None
    value = _english_value(words)
    if value is None:
        return None
    point = _POINT.match(text, at)
    if point:
        digits = [str(_WORDS.get(w, 0)) for w in point[1].split()]
        value, at = value + Fraction(int("".join(digits)), 10 ** len(digits)), point.end()
    return Fraction(value), written[at:]


def _english_value(words: list[str]) -> int | None:
    """Returns the value of number words, or None where they do not form one number."""
    total, group, last = 0, 0, 10**15
    for word in words:
        if word == "and":
            if group % 100 or not (group or total):
                return None  # "three and four" are two numbers
        elif word == "hundred":
            if not 0 < group < 100 or last == 1000:
                return None
            group, last = group * 100, 1000
        elif word in _MAGNITUDES:
            power = 10 ** _MAGNITUDES[word]
            if group == 0 or (total and total % (power * 1000) and total < power * 1000):
                return None
            total, group, last = total + group * power, 0, 1000
        else:
            value = _WORDS[word]
            size = 100 if value >= 20 else 10
            if group and (size >= last or (group % 100 and not (group % 10 == 0 and value < 10))):
                return None
            group, last = group + value, size
    return total + group
