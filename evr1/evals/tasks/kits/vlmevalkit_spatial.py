"""VLMEvalKit's readers for benchmarks of space: one for letters, one for numbers."""

import ast
import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile("[\u200b\u200c\u200d\ufeff]")
_THINK_END = re.compile(r"</\s*think\s*>", re.IGNORECASE)
_THINK_START = re.compile(r"<\s*think\s*>", re.IGNORECASE)
_ANSWER_END = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)
_ANSWER_START = r"<\s*answer\b[^>]{0,99}>\s*"
_TAIL, _LINES = 800, 6  # the last characters and the last lines that are looked at

_TAGGED_LETTER = re.compile(_ANSWER_START + r"([A-J])", re.IGNORECASE)
_BEFORE_END = [
    re.compile(rf"(?<![A-Za-z])([A-F])\s*[)\]}}）】]?\s*</\s*{tag}\s*>", re.IGNORECASE)
    for tag in ("answer", "think")
]
_AN_OPTION = re.compile(r"[*_>\-\s]*(?:option|选项)\s+[A-J]\s*[:：]", re.IGNORECASE)
_MARKS = r"[*_`（）\[\]【】()]"
_ALONE = re.compile(rf"[*_`>（）\[\]【】()]*+\s*+([A-F])\s*+{_MARKS}*+\s*+", re.IGNORECASE)
_LABEL = re.compile(r"([A-F])\s*[.．:：)\]】、-]\s+", re.IGNORECASE)
_IN_LINE = re.compile(
    r"(?<![A-Za-z])([A-F])(?=[*_`）\]})]*(?:$|[\s.,:;!?)\]】》」』，。；、：）]))"
)
_STATED = re.compile(
    r"(?:final\s*answer|the\s*answer\s*is|answer(?:\s*is)?|correct\s*answer|答案|最终答案|结论|"
    r"所以|因此|我选(?:择)?|选择|选)\s*+[:：>＝=]?+\s*+[(\[{（【]?+\s*+([A-F])\s*[)\]}）】]?"
    r"(?:\b|[.)、。])",
    re.IGNORECASE,
)
_CAPITAL = re.compile(r"(?<![A-Za-z])([A-F])(?![A-Za-z])")

_NUMBER = r"[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?"
_ANY_NUMBER = re.compile(_NUMBER)
_TAGGED_NUMBER = re.compile(
    rf"{_ANSWER_START}({_NUMBER})(?:[^\d<][^<]*)?<\s*/\s*answer\s*>", re.IGNORECASE
)
_NAMES = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|"
    "fifteen|sixteen|seventeen|eighteen|nineteen|twenty"
)
WORDS: Sequence[str] = _NAMES.split("|")
_WORD = re.compile(rf"\b({_NAMES})\b", re.IGNORECASE)
_MAX_LIST = 1000  # characters of a list of answers


def read_letter(response: str) -> str:
    """Returns the letter that the kit reads; "" for none."""
    text = _UNSEEN.sub("", response.strip())
    start, ends = _TAGGED_LETTER.search(text), list(_ANSWER_END.finditer(text))
    if start and ends and start.end() <= ends[-1].start():
        return start[1].upper()
    tail = text[-_TAIL:]
    for pattern in _BEFORE_END:
        if found := pattern.search(tail):
            return found[1].upper()
    letter = _in_last_lines(after_think(text)) or _in_last_lines(tail)
    if letter:
        return letter
    if found := _STATED.search(text):
        return found[1].upper()
    lines = (line for line in text.splitlines() if not _AN_OPTION.match(line))
    return _only(_CAPITAL.findall("\n".join(lines)))


def after_think(text: str) -> str:
    """Returns what follows the last end of a reasoning, or else its last start."""
    for pattern in (_THINK_END, _THINK_START):
        if tags := list(pattern.finditer(text)):
            return text[tags[-1].end() :].strip()
    return text


def _in_last_lines(text: str) -> str:
    for line in map(str.strip, reversed(text.splitlines()[-_LINES:])):
        if _AN_OPTION.match(line):
            continue
        found = _ALONE.fullmatch(line) or _LABEL.match(line)
        letter = found[1].upper() if found else _only(_IN_LINE.findall(line))
        if letter:
            return letter
    return ""


def _only(letters: Iterable[str]) -> str:
    """Returns the letter if it is the only one."""
    one = set(letters)
    return one.pop() if len(one) == 1 else ""


def read_number(response: str) -> float | None:
    """Returns the number in answer tags, else the last one, after the reasoning if there is one.

    Words are numbers up to twenty ("twenty-one" is 20-1, so -1), and so are the digits behind a
    dash ("3-5" is -5) or a comma.
    """
    listed = response.strip()
    if listed.startswith("[") and listed.endswith("]"):
        try:
            values = ast.literal_eval(response) if len(response) < _MAX_LIST else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        listed = str(values[0]) if isinstance(values, list) and values else response
    text = _WORD.sub(lambda found: str(WORDS.index(found[1].lower())), _UNSEEN.sub("", listed))
    if tagged := _TAGGED_NUMBER.search(text):
        return float(tagged[1])
    found = _ANY_NUMBER.findall(after_think(text)) or _ANY_NUMBER.findall(text)
    return float(found[-1]) if found else None
