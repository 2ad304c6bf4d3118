"""Units of measurement: what a unit's name means, and whether two quantities can be compared.

A name may mean several things ("pound" is a mass and a currency); two names agree where any of
their meanings do.
"""

import functools
import itertools
import re
from fractions import Fraction
from typing import NamedTuple


class Meaning(NamedTuple):
    """One meaning of a unit: value · factor + offset counts base units of the dimension."""

    dimension: frozenset[tuple[str, int]]  # base unit and its power: {("m", 1), ("s", -1)}
    factor: Fraction
    offset: Fraction = Fraction(0)


# base unit → its multiples: names in lower case, without a plural s
_TABLE: dict[str, dict[str, str]] = {
    "s": {
        "1/1000": "ms millisecond msec 毫秒",
        "1": "s sec second 秒 秒钟",
        "60": "min minute 分 分钟",
        "3600": "h hr hour 小时 钟头",
        "86400": "d day 天 日",
        "604800": "wk week 周 星期 礼拜",
        "1209600": "fortnight",
    },
    "month": {
        "1": "mo month 月",
        "12": "yr year 年 岁",
        "120": "decade",
        "1200": "century centurie",
    },
    "m": {
        "1/1000000000": "nm nanometer nanometre 纳米",
        "1/1000000": "um μm micron micrometer micrometre 微米",
        "1/1000": "mm millimeter millimetre 毫米",
        "1/100": "cm centimeter centimetre 厘米 公分",
        "1/10": "dm decimeter decimetre 分米",
        "1": "m meter metre 米",
        "1000": "km kilometer kilometre 公里 千米",
        "127/5000": 'in inch inche " 英寸',
        "381/1250": "ft foot feet ' 英尺",
        "1143/1250": "yd yard 码",
        "201168/125": "mi mile 英里",
        "1852": "nmi",
        "500": "里",
        "1/3": "尺",
        "1/30": "寸",
        "201168/1000": "furlong",
        "9460730472580800": "ly lightyear 光年",
    },
    "g": {
        "1/1000000": "μg ug mcg microgram 微克",
        "1/1000": "mg milligram 毫克",
        "1": "g gram gramme gm 克",
        "1000": "kg kilogram kilogramme kilo 千克 公斤",
        "1000000": "t tonne ton 吨",
        "500": "斤",
        "50": "两",
        "28349523125/1000000000": "oz ounce 盎司",
        "45359237/100000": "lb pound 磅",
        "45359237/7142.857142857142857142857": "stone",
        "907184.74": "ton",
    },
    "K": {"1": "k kelvin 开尔文"},
    "degree": {"1": "° degree deg 度", "57.29577951308232": "rad radian 弧度", "1/60": "arcminute"},
    "Hz": {
        "1": "hz hertz 赫兹",
        "1000": "khz kilohertz",
        "1000000": "mhz megahertz",
        "1000000000": "ghz gigahertz",
    },
    "B": {
        "1/8": "bit",
        "1": "byte 字节",
        "1000": "kb kilobyte",
        "1000000": "mb megabyte",
        "1000000000": "gb gigabyte",
        "1000000000000": "tb terabyte",
    },
    "J": {
        "1": "j joule 焦耳",
        "1000": "kj kilojoule 千焦",
        "4.184": "cal calorie 卡",
        "4184": "kcal kilocalorie 千卡 大卡",
        "3600000": "kwh",
    },
    "W": {
        "1": "w watt 瓦",
        "1000": "kw kilowatt 千瓦",
        "1000000": "mw megawatt",
        "745.7": "hp horsepower",
    },
    "N": {"1": "n newton 牛", "1000": "kn kilonewton"},
    "V": {"1/1000": "mv millivolt", "1": "v volt 伏 伏特", "1000": "kv kilovolt"},
    "A": {"1/1000": "ma milliamp", "1": "a amp ampere 安 安培"},
    "Pa": {
        "1": "pa pascal 帕",
        "1000": "kpa kilopascal 千帕",
        "1000000": "mpa megapascal",
        "100000": "bar",
        "101325": "atm atmosphere",
        "6894.757": "psi",
    },
    "USD": {"1": "$ dollar usd buck 美元", "1/100": "¢ cent 美分"},
    "EUR": {"1": "€ euro eur 欧元", "1/100": "cent"},
    "GBP": {"1": "£ gbp pound quid 英镑", "1/100": "pence penny"},
    "CNY": {"1": "¥ yuan cny rmb renminbi 元 块 块钱 人民币", "1/10": "角 毛", "1/100": "分"},
    "JPY": {"1": "¥ yen jpy 日元 円"},
    "INR": {"1": "₹ rupee inr 卢比"},
    "KRW": {"1": "₩ won krw 韩元"},
}
_LITRE = {  # cubic metres
    "1/1000000": "ml milliliter millilitre cc 毫升",
    "1/100000": "cl centiliter centilitre",
    "1/10000": "dl deciliter decilitre",
    "1/1000": "l liter litre 升 公升",
    "473176473/125000000000": "gal gallon 加仑",
    "473176473/500000000000": "qt quart",
    "473176473/1000000000000": "pt pint",
    "473176473/2000000000000": "cup",
    "473176473/16000000000000": "oz ounce floz",
    "473176473/32000000000000": "tbsp tablespoon",
    "473176473/96000000000000": "tsp teaspoon",
}
_AREA = {"10000": "ha hectare 公顷", "4046.8564224": "acre 英亩", "2000/3": "亩"}
_SPEED = {"5/18": "kph kmh kmph", "0.44704": "mph", "463/900": "knot kn kt", "0.3048": "fps"}
_CELSIUS = "°c c celsius ℃ degc centigrade 摄氏度 ° degree 度"
_FAHRENHEIT = "°f f fahrenheit ℉ degf 华氏度 ° degree"
_PHRASES = [
    (re.compile(r"(?:degrees?|deg\.?|°)\s?(celsius|fahrenheit|centigrade|[cfk])\b"), r"°\1"),
    (re.compile(r"°(celsius|fahrenheit|centigrade)"), r"\1"),
    (re.compile(r"\bu\.?s\.?(?:\sdollars?|\$)"), "usd"),
    (re.compile(r"\b(?:us|american|fluid|fl\.?)\s(?=oz|ounce)"), "fl"),
    (re.compile(r"\bfl(?:oz|ounces?)\b"), "floz"),
    (re.compile(r"\bnautical\smiles?\b"), "nmi"),
    (re.compile(r"\blight[- ]years?\b"), "lightyear"),
    (re.compile(r"\b(?:squared?|sq\.?)\s?([a-z]+)|平方(\w{1,2})"), r"\1\2^2"),
    (re.compile(r"\b(?:cubic|cu\.?)\s?([a-z]+)|立方(\w{1,2})"), r"\1\2^3"),
    (re.compile(r"\b([a-z]+)\ssquared\b"), r"\1^2"),
    (re.compile(r"\b([a-z]+)\scubed\b"), r"\1^3"),
    (re.compile(r"^个(?=小时|星期|礼拜|月|钟头)"), ""),
    (re.compile(r"\s(?:per|an?|each)\s|每"), "/"),
]
_TAIL = re.compile(  # "metres away", "s in total", "L of water"
    r"(?<=\S)(?:\s(?:of|in|away|long|tall|wide|high|deep|old|apart|from|ago|later|total|approximately"
    r"|on|at|for|each|only|left|remaining|is|are|was|were)\b.*|\s?\(.*|左右|多长|长|高|宽)$"
)
_ONLY_TAIL = re.compile(
    r"(?:of|in|on|at|for|from|is|are|was|were)\s|(?:left|only|each|total|remaining)$"
)
_LATEX = re.compile(r"\\(?:text|mathrm|textrm|rm)\s?|[{}]|\\,")
_FACTOR = re.compile(r"([^\W\d_]+\.?|[°¢$€£¥₹₩'\"](?:[cfk]\b)?|℃|℉)(?:\^?(-?[123]))?")
_COUNTERS = frozenset("个只条辆张次名位头匹本件把座台棵朵颗架艘家间栋层步遍回下趟场人")


def _names() -> dict[str, tuple[Meaning, ...]]:
    """Returns name → its meanings."""
    rows = [(((base, 1),), f, n) for base, m in _TABLE.items() for f, n in m.items()]
    rows += [((("m", 3),), f, n) for f, n in _LITRE.items()]
    rows += [((("m", 2),), f, n) for f, n in _AREA.items()]
    rows += [((("m", 1), ("s", -1)), f, n) for f, n in _SPEED.items()]
    found: dict[str, tuple[Meaning, ...]] = {}
    for dimension, factor, names in rows:
        top, _, bottom = factor.partition("/")
        meaning = Meaning(frozenset(dimension), Fraction(top) / Fraction(bottom or 1))
        for name in names.split():
            found[name] = (*found.get(name, ()), meaning)
    kelvin = frozenset((("K", 1),))
    for names, factor, zero in (
        (_CELSIUS, Fraction(1), Fraction("273.15")),
        (_FAHRENHEIT, Fraction(5, 9), Fraction("273.15") - 32 * Fraction(5, 9)),
    ):
        for name in names.split():
            found[name] = (*found.get(name, ()), Meaning(kelvin, factor, zero))
    return found


NAMES = _names()


def plain(text: str) -> str:
    """Returns a unit as written, in lower case, without what only follows it or only counts.

    >>> plain("Metres away"), plain("个"), plain("km/h")
    ('metres', '', 'km/h')
    """
    text = _LATEX.sub("", text).strip().lower().rstrip(".")
    if _ONLY_TAIL.match(text):
        return ""
    text = _TAIL.sub("", text).strip().rstrip(".")
    return "" if text in _COUNTERS else text


@functools.lru_cache(maxsize=4096)
def meanings(text: str) -> tuple[Meaning, ...]:
    """Returns what a unit may mean; nothing where it is none of measurement.

    >>> [sorted(m.dimension) for m in meanings("km/h")]
    [[('m', 1), ('s', -1)]]
    """
    if not text or len(text) > 60:
        return ()
    for pattern, plainer in _PHRASES:
        text = pattern.sub(plainer, text)
    parts, sign = [], 1
    for i, part in enumerate(text.split("/")):
        sign = 1 if i == 0 else -1
        for factor in re.split(r"[\s·*]+", part.strip()):
            match = _FACTOR.fullmatch(factor)
            found = match and (_lookup(match[1]))
            if not match or not found:
                return ()
            parts.append([_power(m, sign * int(match[2] or 1)) for m in found])
    if not parts or len(parts) > 4:
        return ()
    if len(parts) == 1 and sign == 1:
        return tuple(parts[0])
    return tuple(functools.reduce(_product, choice) for choice in itertools.product(*parts))[:16]


def _lookup(name: str) -> tuple[Meaning, ...]:
    name = name.rstrip(".")
    return NAMES.get(name) or NAMES.get(name.removesuffix("s")) or ()


def _power(unit: Meaning, power: int) -> Meaning:
    if power == 1:
        return unit
    return Meaning(frozenset((b, p * power) for b, p in unit.dimension), unit.factor**power)


def _product(a: Meaning, b: Meaning) -> Meaning:
    powers = dict(a.dimension)
    for base, power in b.dimension:
        powers[base] = powers.get(base, 0) + power
    return Meaning(frozenset((b, p) for b, p in powers.items() if p), a.factor * b.factor)


def convert(value: Fraction, unit: str, wanted: str) -> list[Fraction] | None:
    """Returns what a value of one unit is in another: one for each pair of meanings that agree.

    None where one of the units is no unit of measurement.

    >>> convert(Fraction(250), "cm", "m"), convert(Fraction(3), "feet", "s")
    ([Fraction(5, 2)], [])
    """
    ours, theirs = meanings(unit), meanings(wanted)
    if not ours or not theirs:
        return None
    return [
        (value * a.factor + a.offset - b.offset) / b.factor
        for a in ours
        for b in theirs
        if a.dimension == b.dimension
    ]


def do_conflict(unit: str, other: str) -> bool:
    """Returns whether two units, as written, cannot be the same: a foot and a metre, a kg and s.

    What counts things ("cars", "people") conflicts with measures, not with one another.
    """
    if not unit or not other or unit == other:
        return False
    return bool(meanings(unit)) != bool(meanings(other))
