"""Reading intervals of seconds, one or several, from JSON or prose; never one of several."""

import re
from collections.abc import Mapping
from typing import Any

from evr1.rewards.base import Reading
from evr1.rewards.geometry import literals
from evr1.rewards.geometry.overlap import Interval

MAX_PROSE = 2_000  # characters of prose that spans are read from

TIME_KEYS = ("time", "times", "timestamp", "timestamps", "span", "spans", "interval", "intervals")
TIME_KEYS += ("timerange", "timeranges", "timespan", "timespans", "timeinterval", "timeintervals")
TIME_KEYS += ("segment", "segments", "window", "windows", "relevantwindows", "moment", "moments")
TIME_KEYS += ("timewindow", "timewindows", "timesegment", "timesegments", "temporalspan")
TIME_KEYS += ("predrelevantwindows", "temporalwindow", "temporal", "range", "ranges")
TIME_KEYS += ("seconds", "t")
WRAPPERS = ("answer", "result", "results", "output", "prediction", "predictions", "event", "events")
WRAPPERS += ("response", "grounding", "objects", "object", "detections", "data")
_ENDS = (("start", "end"), ("starttime", "endtime"), ("starts", "ends"), ("startsec", "endsec"))
_ENDS += (("startseconds", "endseconds"), ("startsecond", "endsecond"), ("begin", "end"))
_ENDS += (("from", "to"), ("tstart", "tend"), ("starttimestamp", "endtimestamp"))
_ENDS += (("startat", "endat"), ("begintime", "endtime"), ("starttimes", "endtimes"))
_ENDS += (("开始", "结束"), ("开始时间", "结束时间"))

_CLOCK = r"(?:(\d{1,2}):)?(\d{1,3}):(\d{2}(?:\.\d{1,6})?)"
_CLOCK_TIME = re.compile(_CLOCK)
_SECONDS = r"(\d{1,7}(?:\.\d{1,6})?)"
_JOIN = (
    r"\s{0,4}(?:s|sec|secs|second|seconds|秒)?[.,;|]{0,2}\s{0,4}"
    r"(?:-{1,2}>?|→|=>|[≤<]\s?t?\s?[≤<]|结束(?:于|时间)?\s?:?|(?:up\s)?to|and|until|till|through|thru|到|至|~|\.\.|"
    r"(?:(?:and\s)?(?:(?:it\s)?(?:ends?|ending|ended|finishe[sd]|finishing|stops?|stopping)|last(?:s|ing)?\suntil)\b"
    r"(?:\stime)?(?:\s(?:at|is|around|by))?\s?[:=]?))\s{0,4}"
)
_NO_MORE = r"(?!\.?\d|:|\s?(?:[-~]|to)\s?\d|\s?(?:%|(?:percent|hours?|hrs?|ms|milliseconds?)\b))"
_SPAN = re.compile(rf"(?<![\d.:_]){_SECONDS}{_JOIN}{_SECONDS}{_NO_MORE}")
_NUMBER = re.compile(r"\d+")
_CHAIN = re.compile(rf"{_SECONDS}{_JOIN}{_SECONDS}{_JOIN}\d")
_CLOCK_SPAN = re.compile(rf"(?<![\d.:_]){_CLOCK}{_JOIN}{_CLOCK}{_NO_MORE}")
_MINUTES = r"(?:m|mins?|minutes?|分钟?)"
_IN_MINUTES = re.compile(rf"{_SECONDS}\s?{_MINUTES}(?![a-z])")
_SHARED_MINUTES = re.compile(  # 1 to 2 min
    rf"{_SECONDS}(?=\s?(?:-|to|and|到|至|~)\s?{_SECONDS}\s?(?:mins?|minutes?|分钟?)(?![a-z]))"
)
_SECONDS_BEFORE = re.compile(r"\bseconds?\s(?=\d)")
_AND_SECONDS = re.compile(
    rf"(\d{{1,4}})\s?{_MINUTES},?\s?(?:and\s)?{_SECONDS}\s?(?:s|secs?|seconds?|秒)(?![a-z])"
)
_MOMENT = r"\d{1,7}(?::\d{2}){0,2}(?:\.\d{1,6})?"
_UNIT = r"\s?(?:s|secs?|seconds?|秒)?"
_IN_BRACKETS = re.compile(rf"[\[(<]\s?({_MOMENT}{_UNIT})\s?,\s?({_MOMENT}{_UNIT})\s?[\])>]")
_IN_ANGLES = re.compile(rf"<({_MOMENT}{_UNIT})>")
_NAMED = re.compile(r"\b(?:t|time|start(?:[ _]?time)?)\s?=\s?(?=\d)")
_BESIDE = re.compile(  # what stands beside a moment
    r"(?m)\((?:start|end|begin)(?:ing)?(?:\stime)?\)|[*`]|第(?=\d)|^[ \t]{0,8}[-•]\s"
)
_NAMED_MOMENT = re.compile(r"(?<=[^\W\d]):(?=\d)")  # start:3
_LISTED_ENDS = re.compile(rf"\s{{0,4}}({_MOMENT}{_UNIT})\s?,\s?({_MOMENT}{_UNIT})\.?\s{{0,4}}")
_TAGS = re.compile(r"<\s?(/?)\s?(start|end)(?:[ _]?time)?\s?>")
_TIME_NAME = re.compile(r"\b(start|end)_time\b")
_MILLIS = re.compile(r"(?<=:\d\d),(?=\d{3}(?!\d))")  # 00:00:03,500 of subtitles
_DENIED = re.compile(
    r"\b(?:not|never|frames?|or\s\d)\b|n't\b|不|帧|(?:^|is\s|[:=]\s?)-\d"
)  # frames are no seconds
_KEY_UNIT = re.compile(r"\s?(?:s|secs?|seconds?|秒)$")
_KEY_NAME = re.compile(r"^(?:第|seconds?|secs?|frame|time|t|s|at)(?:[\s_:=#]{0,3}|-)(?=\d)")
_MARK = re.compile(r"(?m)^[ \t]{0,8}(?:\d{1,3}[.):]\s|[-*•]\s)[ \t]{0,4}")
_COUNTED = re.compile(
    r"\b(?:spans?|segments?|intervals?|events?|clips?|moments?|times?|parts?|occurrences?|windows?)"
    r"\s?#?\d{1,3}\s?(?:[:.)]|is\b)"
)
_ONE = rf"{_SECONDS}{_UNIT}"
_DASH = r"(?:-{1,2}>?|→|to|until|till|through|到|至|~)"
_ONE_SPAN = re.compile(rf"(?<![\d.:_]){_ONE}\s{{0,4}}{_DASH}\s{{0,4}}{_ONE}(?!\.?\d|:)(?![a-z])")
_BETWEEN = re.compile(rf"\bbetween\s{{1,4}}({_ONE})\s{{1,4}}and\s{{1,4}}(?={_SECONDS})")
_GAP = re.compile(r"(?:[^\d-]|-(?!\s{0,4}(?:\d|$)))*")
_OR = re.compile(r"\b(?:or|nor|either|maybe|perhaps)\b|或|/")


def interval_of(data: Any) -> Reading | None:
    """Returns the interval in decoded JSON, or in prose if it is a text."""
    if isinstance(data, str):
        return _span_of(data)
    if isinstance(data, Mapping):
        pair = literals.numbers_of(data.get("time"), 2)
        if pair:
            return Reading(pair)
        inner = _within(data)
        reading = None if inner is None else interval_of(inner)
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], list | Mapping | str):
        inner = interval_of(data[0])
        return inner and Reading(inner.value, exact=False)
    pair = _pair(data)
    return Reading(pair, exact=False) if pair else None


def spans_of(data: Any) -> Reading | None:
    """Returns the intervals in decoded JSON or prose, one or several, as a tuple."""
    one = interval_of(data)
    if one is not None:
        return Reading((one.value,), one.exact or _is_plain(data))
    if isinstance(data, str):
        return _spans_in(data)
    if isinstance(data, Mapping):
        inner = literals.counted(data) or _within(data)
        reading = None if inner is None else spans_of(inner)
        return reading and Reading(reading.value, _is_plain(data))
    if not isinstance(data, list) or not data:
        return None
    moments = [second_of(v) for v in data]
    if len(moments) % 2 == 0 and None not in moments:
        return Reading(tuple(zip(moments[::2], moments[1::2], strict=True)), exact=False)
    readings = [interval_of(v) if isinstance(v, list | Mapping | str) else None for v in data]
    spans = tuple(r.value for r in readings if r)
    return Reading(spans, exact=False) if len(spans) == len(data) else None


def is_listed(data: Any) -> bool:
    """Returns whether decoded JSON lists its intervals: [[1, 2]] does, [1, 2] does not."""
    if isinstance(data, Mapping):
        inner = data.get("time") or _within(data)
        return inner is not None and is_listed(inner)
    if isinstance(data, str):
        return _span_of(data) is None
    return isinstance(data, list) and _pair(data) is None


def _is_plain(data: Any) -> bool:
    """Returns whether intervals are written as asked: {"time": [[1, 2], [5, 7]]}."""
    listed = data.get("time") if isinstance(data, Mapping) else None
    return isinstance(listed, list) and all(literals.numbers_of(p, 2) for p in listed)


def _within(data: Mapping[Any, Any]) -> Any:
    """Returns what an object says of time: a pair, a list, a text, or another object."""
    fields = literals.fields_of(data)
    said = [fields[k] for k in TIME_KEYS if isinstance(fields.get(k), list | Mapping | str)]
    if said:  # the asked key, or the only one: several are a hedge
        return said[0] if "time" in fields or len(said) == 1 else None
    for names in _ENDS:
        start, end = (fields.get(name) for name in names)
        if isinstance(start, list) and isinstance(end, list) and len(start) == len(end):
            return [[s, e] for s, e in zip(start, end, strict=True)]
        if start is not None and end is not None:
            return [start, end]
    wrapped = [fields[k] for k in WRAPPERS if isinstance(fields.get(k), list | Mapping)]
    return wrapped[0] if len(wrapped) == 1 else None


def _pair(data: Any) -> Interval | None:
    """Returns the two moments of a list: numbers, "10s", "0:10"."""
    if not isinstance(data, (list, tuple)) or len(data) != 2:
        return None
    start, end = second_of(data[0]), second_of(data[1])
    return None if start is None or end is None else (start, end)


def second_of(value: Any) -> float | None:
    """Returns the second that a value names: 9, "9.0", "9 s", "00:09", "1 min 30 s", "t=9"."""
    number = literals.number_of(value)
    if number is not None or not isinstance(value, str) or len(value) > 60:
        return number
    text = _KEY_NAME.sub("", _in_seconds(_MILLIS.sub(".", value.strip().lower())))
    clock = _CLOCK_TIME.fullmatch(text) if ":" in text else None
    if clock:
        return _clock_seconds(*clock.groups("0"))
    return literals.number_of(_KEY_UNIT.sub("", text))


def _clock_seconds(hours: str, minutes: str, seconds: str) -> float:
    return 3600 * float(hours) + 60 * float(minutes) + float(seconds)


def _plain_prose(text: str) -> str | None:
    """Returns prose with its moments in plain seconds; None where nothing is to be read."""
    if len(text) > MAX_PROSE or "{" in text:
        return None
    text = text.lower()
    if "," in text:
        text = _MILLIS.sub(".", text)
    if _DENIED.search(text) or literals.is_denied_prose(text):
        return None
    if "<" in text:
        text = _TAGS.sub(lambda m: " to " if m.groups() == ("", "end") else " ", text)
    if ":" in text:
        text = _NAMED_MOMENT.sub(": ", text)
    if "_" in text:
        text = _TIME_NAME.sub(r"\1 time", text)
    if "=" in text:
        text = _NAMED.sub("", text)
    text = _BESIDE.sub("", text)
    if "," in text and _LISTED_ENDS.fullmatch(text):
        text = text.replace(",", " -")
    text = _in_seconds(text)
    if "," in text:
        text = _IN_BRACKETS.sub(r"\1 - \2", text)
    return _IN_ANGLES.sub(r"\1", text) if "<" in text else text


def _span_of(text: str) -> Reading | None:
    """Returns the one span of seconds that a text states; two different ones are none."""
    plain = _plain_prose(text)
    if plain is None or len(numbers := _NUMBER.findall(plain)) < 2:
        return None
    if len(numbers) > 2 and _CHAIN.search(plain):
        return None
    spans = {tuple(map(float, m.groups())) for m in _SPAN.finditer(plain)}
    for m in _CLOCK_SPAN.finditer(plain) if ":" in plain else ():
        groups = m.groups("0")
        spans.add((_clock_seconds(*groups[:3]), _clock_seconds(*groups[3:])))
    return Reading(spans.pop(), exact=False) if len(spans) == 1 else None


def _spans_in(text: str) -> Reading | None:
    """Returns the spans that a text lists; every number in it must be an end of one.

    >>> _spans_in("1 to 2 s and again from 5 to 7.5 s").value
    ((1.0, 2.0), (5.0, 7.5))
    """
    plain = _plain_prose(_COUNTED.sub(" ", _MARK.sub("", text.lower())))
    if plain is None or _OR.search(plain):
        return None
    plain = _CLOCK_TIME.sub(lambda m: f"{_clock_seconds(*m.groups('0')):.6f}", plain)
    plain = _BETWEEN.sub(r"\1 to ", plain)
    spans: list[Interval] = []
    at = 0
    for match in _ONE_SPAN.finditer(plain):
        gap = plain[at : match.start()]
        if not _GAP.fullmatch(gap) or re.fullmatch(_DASH, gap.strip()):
            return None  # a number that is no end, or a chain: 1 to 2 to 5 to 7
        spans.append((float(match[1]), float(match[2])))
        at = match.end()
    return Reading(tuple(spans), exact=False) if spans and _GAP.fullmatch(plain[at:]) else None


def _in_seconds(text: str) -> str:
    """Returns a text with its minutes in seconds; as it is if only one end has a unit.

    >>> _in_seconds("1 min 30 s to 2 minutes")
    '90.0 s to 120.0 s'
    """
    has_minutes = "m" in text or "分" in text
    if has_minutes:
        text = _AND_SECONDS.sub(lambda m: f"{60 * int(m[1]) + float(m[2])} s", text)
    if "second" in text:
        text = _SECONDS_BEFORE.sub("", text)
    if not has_minutes:
        return text
    text = _SHARED_MINUTES.sub(r"\1 min", text)
    return _IN_MINUTES.sub(lambda m: f"{60 * float(m[1])} s", text)
