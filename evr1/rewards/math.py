"""Mathematics: texts and exact numbers first, then formulas by their structure and values."""

import functools
import re
from collections.abc import Callable

from evr1.rewards import choice, number, parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.formulas import expressions, formula, notation, structures, symbolic, tokens
from evr1.rewards.numbers import units

MAX_WRAPPERS = 20  # of an expression, one in another
MAX_WORDS = 6  # of an answer that is no prose
_WRAPPER = re.compile(
    r"^(?:\\(?:boxed|fbox|text|mathrm|textbf|mathbf|mbox)\s?\{(?P<inner>.*)\}"
    r"|\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`)$",
    re.DOTALL,
)
_BOXED = re.compile(r"\\f?boxed\s?\{")
_LEADING = re.compile(
    r"^(?:(?:[Ss]o|[Tt]hus|[Hh]ence|[Tt]herefore|[Tt]hen)\b[,:]?|=|\\approx(?![a-z])|~|\\therefore|\\implies|\\Rightarrow|因此|所以|故"
    r"|[Ww]e (?:get|have|obtain|find)(?: that)?\b[,:]?)\s*"
)
_TEXT = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+){0,4}")
_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_RELATED = re.compile(r"[=<>~]|\\(?:approx|simeq|sim|neq?|[lg]eq?|[lg]t|equiv|in)(?![a-z])")
_NO_NUMBER = re.compile(r"\d-\s?\d|^[(\[].*,")  # 7-1/2 is not mixed, and (1,234) is a pair
_SYMBOL = re.compile(r"\b(?:pi|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|[A-Za-z])\b")
_JOINED = re.compile(r"\d([A-Za-z]+)$")
_NAME_OF_RESULT = re.compile(
    r"^(?:[A-Za-z](?:\d{1,2}|_\w{1,9}|_\{[\w,+ -]{1,9}\})?'?|[A-Za-z]'?\s?\(\s?[A-Za-z0-9]\s?\)"
    r"|[PE]\s?\([^()=]{1,40}\)|[A-Z]{2,3}|[A-Za-z]{4,15}|\\text\s?\{[A-Za-z ]{1,40}\}"
    r"|\\(?!frac|sqrt|sin|cos|tan|ln|log|pi)[a-z]{2,10}(?:\s?[A-Z]{1,3}|\s?\{[A-Z]{1,3}\})?(?:_(?:\{\w{1,9}\}|\w))?)"
    r"\s*=(?!=)\s*"
)
_POINT = re.compile(r"^(?:[Pp]oint )?[A-Z]'?\s?=?\s?(?=\()")  # P(3, -4)
_SPACING = re.compile(r"\\[,;:!]|(?<![A-Za-z0-9])\s+|\s+(?![A-Za-z0-9])")  # not that of "1 2"


def score(
    response: str, task: Task, equal: Callable[[str, str], bool] = symbolic.equal_in_child
) -> Verdict | None:
    """Returns 1 where the response's result equals the truth, else 0.

    Args:
        response: the model's whole text.
        task: the row's; with options, the truth may be a letter.
        equal: decides equality with a truth that holds integrals, sums or limits.

    Raises:
        ValueError: the ground truth is no expression.
        TimeoutError: symbolic comparison had to be stopped.
    """
    if task.options:
        return choice.score(response, task)
    truth = read_truth(task.answer)
    extraction = parse.extract(response, lambda text: _read_expression(text, truth))
    if extraction is None:
        return None
    reading, candidate = extraction
    return Verdict(float(_equal(reading.value, truth, equal)), reading.exact, candidate.text)


def read_truth(answer: object) -> str:
    """Returns the expression of a ground truth, cleaned.

    Raises:
        ValueError: it is empty, or neither a text nor a number.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, list) and len(answer) == 1:
        answer = parse.ground_truth(answer[0])
    is_given = isinstance(answer, str | int | float) and answer == answer  # NaN is not
    truth = clean(str(answer)) if is_given else ""
    if not truth:
        raise ValueError(f"the answer {answer!r} is no expression; correct the row")
    return truth


@functools.lru_cache(maxsize=1024)
def clean(text: str) -> str:
    r"""Returns an expression in one notation, without dollar signs, \boxed{} and \text{} round it.

    >>> clean(r"$x = \boxed{5}$.")
    'x = 5'
    """
    text = notation.unify(text)
    for _ in range(MAX_WRAPPERS):
        shorter = _strip_end(text)
        if _BOXED.search(shorter):
            shorter = _unbox(shorter)
        wrapped = _WRAPPER.match(shorter)
        if wrapped:
            inner = wrapped["inner"] or wrapped["bold"] or wrapped["code"] or ""
            if parse.last_boxed(r"\boxed{" + inner + "}") == inner:
                shorter = inner
        shorter = _LEADING.sub("", shorter).strip()
        if shorter == text:
            break
        text = shorter
    return text


def _strip_end(text: str) -> str:
    r"""Returns a text without space round it, and without dots, commas and \, at its end."""
    while True:
        shorter = text.strip().rstrip(".,;:。$ ")
        if shorter.endswith("\\") and not shorter.endswith("\\\\"):
            shorter = shorter[:-1]  # of a spacing macro
        if shorter == text:
            return text
        text = shorter


def _unbox(text: str) -> str:
    r"""Returns a text with what stands in the last \boxed{} in its place."""
    boxed = parse.last_boxed(text)
    if boxed is None:
        return text
    for macro in (r"\boxed{", r"\fbox{"):
        before, found, behind = text.rpartition(f"{macro}{boxed}}}")
        if found:
            return f"{before}{boxed}{behind}"
    return text


def _read_expression(text: str, truth: str) -> Reading | None:
    """Returns an expression; prose of many words is none.

    It is in the asked form if it is a formula, a number, or a text of few words for such a truth.
    """
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    expression = clean(text)
    words = _WORD.findall(expression)
    if not expression or len(expression) > formula.MAX_CHARS or len(words) > MAX_WORDS:
        return None
    is_text = _TEXT.fullmatch(expression) and _TEXT.fullmatch(truth)
    is_signs = not words and re.search(r"[A-Za-z0-9]", expression)
    if is_text or is_signs or formula.read(expression) is not None:
        return Reading(expression, exact="?" not in expression)
    digits = number.read_number(expression) if _read_number(expression) else None
    is_phrase = expression.lower() in expressions.ALIASES
    return Reading(expression, exact=is_phrase or (digits is not None and digits.exact))


def _equal(result: str, truth: str, equal: Callable[[str, str], bool]) -> bool:
    """Returns whether a cleaned result is a cleaned truth."""
    bare, bare_truth = _without_name(result), _without_name(truth)
    if _plain(bare) == _plain(bare_truth):
        return True
    if _TEXT.fullmatch(truth) or structures.read_clock(bare_truth):
        bare = expressions.said(bare)  # "The function is even"
        if _plain(bare) == _plain(bare_truth):
            return True
    if bare_truth[:1] == "(":
        bare = result = _POINT.sub("", bare)
    times = structures.read_clock(bare), structures.read_clock(bare_truth)
    if times[0] or times[1]:
        return bool(times[0] and times[1] and structures.are_same_time(times[0], times[1]))
    a, b = _read_number(bare), _read_number(bare_truth)
    if a is not None and b is not None:
        if structures.is_whole(b.value, b.resolution) and a.value % 1:
            return bool(a.unit or a.percent or b.percent) and number.is_close(a, b)  # 9.99 for 10
        is_whole = a.resolution is None and a.value.denominator == 1
        if is_whole and b.resolution == 0 and a.value != b.value and a.percent == b.percent:
            return bool(a.unit or b.unit) and number.is_close(a, b)  # 3333 is not 10000/3
        return number.is_close(a, b)
    if re.fullmatch(r"[A-Za-z]", truth):
        reading = choice.read_choice(result, {})
        if reading is not None:
            return reading.value == truth.upper()
    if expressions.CALCULUS.search(truth):
        return equal(bare, bare_truth)
    return expressions.are_equal(result, truth)


def _plain(text: str) -> str:
    return _SPACING.sub("", text).casefold()


def _without_name(text: str) -> str:
    """Returns "5" for "x = 5"; "x = 1, y = 2" needs its names."""
    if text.count("=") == 1 and "!" not in text:
        return _NAME_OF_RESULT.sub("", text)
    return text


@functools.lru_cache(maxsize=1024)
def _read_number(text: str) -> number.Number | None:
    """Returns the number that a text is, perhaps with a unit; "4x" and "4 sin x" are none."""
    if _RELATED.search(text) or _NO_NUMBER.search(text):
        return None
    reading = number.read_number(text)
    if reading is None:
        return None
    unit = reading.value.unit
    if tokens.is_no_unit(unit):
        return None
    if (
        _SYMBOL.search(unit)
        and unit not in number.UNITS
        and not (len(unit) > 1 and units.meanings(unit))
    ):
        return None
    joined = _JOINED.search(text)
    return None if joined and joined[1].lower() not in number.UNITS else reading.value
