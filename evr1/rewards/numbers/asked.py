"""What a problem asks for: a percentage, or a number of some unit."""

import re

from evr1.rewards import parse
from evr1.rewards.numbers import numerals, units

MAX_CHARS = 4000  # of a problem that is looked at: its end, where the question stands

_SENTENCE = re.compile(r"[^.?!。？！\n]*(?:\.(?=\d)[^.?!。？！\n]*)*[.?!。？！\n]?")
_PERCENT = r"(?:%|percent(?:age)?s?\b|per\s?cents?\b|pct\b)"
_TASK_WORD = r"what|which|how|find|give|calculate|compute|determine|estimate|state|report"
_ASKS_PERCENT = re.compile(
    rf"""(?ix)
    \b(?:{_TASK_WORD})\s(?P<between>(?:[a-z'-]{{1,20}}\s){{0,5}}){_PERCENT}
    | \b(?:in|as|to|into|nearest|using)
        \s(?:an?\s|the\s|whole\s|terms\sof\s|units\sof\s|nearest\s)*{_PERCENT}(?!\s?signs?)
    | ^\W*(?:the\s)?(?:approximate\s)?{_PERCENT}[^?]{{0,200}}\?
    | [(（]\s?(?:in\s|unit:\s?|单位[:：]?)?\s?{_PERCENT}\s?[)）]
    | (?:unit|单位)\s?[:：]\s?{_PERCENT}
    | 百分之(?:几|多少) | (?:几|多少)\s?(?:个百分点|%)
    | 百分[比率数](?=[^.。]{{0,20}}(?:多少|几|表示|[?？])) | [用以]百分[比率数]
    """
)
_IS_TASK = re.compile(  # elsewhere, "in percent" tells of something
    rf"(?i)[?？]|\b(?:{_TASK_WORD}|express|answer|write|round|convert|reply|respond|unit)\b"
    r"|单位|几|多少|[用以]百分"
)
_DENIED = re.compile(
    r"(?i)\b(?:not|n't|no|without|instead of|rather than|never|except|neither|nor)\s"
    r"(?:[a-z]{1,12}\s){0,3}$|不"
)
_KIND = r"(?:(?:square|cubic|fluid|nautical|light|degrees)\s)?"
_PER = r"(?:\sper\s[a-z]{1,12})?"
_SIGNS = r"[a-z°²³/^23一-鿿]{1,14}"
_UNIT = re.compile(
    rf"""(?ix)
    \bhow\smany\s(?P<counted>{_KIND}[a-z]{{1,16}}{_PER})\b
    | \bin\s(?P<named>{_KIND}[a-z]{{3,16}}{_PER})\s?(?=[?.,)）]|$)
    | (?!(?<=[a-z])\(s\))  # of "chair(s)"
        [(（]\s?(?:in\s|unit:\s?|单位[:：]?\s?)?(?P<bracketed>{_SIGNS})\s?[)）]
    | (?:units?|单位)\s?(?:is|为|是)?\s?[:：]?\s?(?P<listed>{_SIGNS})
    | 多少(?P<chinese>平方米|立方米|[一-鿿]{{1,3}})
    """
)


def asks_percent(problem: str) -> bool:
    """Returns whether a problem asks for a percentage, so that a bare truth is one.

    >>> asks_percent("After 30% left, what share is free?"), asks_percent("How many percent left?")
    (False, True)
    """
    for sentence in _SENTENCE.findall(problem[-MAX_CHARS:]):
        if not _IS_TASK.search(sentence):
            continue
        for match in _ASKS_PERCENT.finditer(sentence):
            before = sentence[max(0, match.start() - 60) : match.start()]
            between = match["between"] or ""
            is_given = bool(re.search(r"\d\s?$", between)) or numerals.has_number_word(between)
            is_denied = _DENIED.search(before) or _DENIED.search(between)
            if not (is_given or is_denied):
                return True
    return False


def asked_unit(problem: str) -> str:
    """Returns the unit of measurement that a problem asks for, or nothing where it names no one.

    >>> asked_unit("How many seconds does it last?"), asked_unit("How many cars are there?")
    ('seconds', '')
    """
    found = set()
    for match in _UNIT.finditer(problem[-MAX_CHARS:]):
        name = next(filter(None, match.groups()))
        name = units.plain(parse.spell_powers(name.strip()))
        if units.meanings(name):
            found.add(name)
    return found.pop() if len(found) == 1 else ""
