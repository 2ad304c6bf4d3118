"""Mathematics: exact numbers first, then letters and texts, then symbolic equality."""

import re
from collections.abc import Callable

from evr1.rewards import choice, number, parse, symbolic
from evr1.rewards.base import Reading, Task, Verdict

_WRAPPER = re.compile(r"^\\(?:boxed|text|mathrm|textbf|mbox)\{(.*)\}$", re.DOTALL)
_ROOT = re.compile(r"√\s?(\d+(?:\.\d+)?|[A-Za-z]|\([^()]{1,200}\)|\{[^{}]{1,200}\})")
_PLAIN_SIGNS = [
    (re.compile(r"(?<!\\)\$"), ""),
    (re.compile(r"(?<=[\w)}])\s?\*\*\s?(?=[\w(-])"), "^"),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile("∞"), r"\\infty "),
    (re.compile("[·⋅]"), r"\\cdot "),
]
_UNCLEAR = re.compile(r"\.\.\.|…|\\[lc]?dots|\\\\(?!.*\\end)|^[^|]*\|[^|]*$")
_BOUND = re.compile(r"^\s*(?:[<>≤≥]|\\(?:le|leq|ge|geq|lt|gt|neq?)\b)")
_SYMBOL = re.compile(r"\b(?:pi|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|[A-Za-z])\b")
_JOINED = re.compile(r"\d([A-Za-z]+)$")
_NAME_OF_RESULT = re.compile(r"^[A-Za-z]\w{0,9}\s*=(?!=)\s*")
_SPACING = re.compile(r"\\(?:left|right|displaystyle|,|;|!|quad|qquad)|\s+")


def score(
    response: str, task: Task, equal: Callable[[str, str], bool] = symbolic.equal_in_child
) -> Verdict | None:
    """1 where the response's result equals the truth, else 0.

    Args:
        response: the model's whole text.
        task: the row's; with options, the truth may be a letter.
        equal: decides symbolic equality of two expressions.

    Raises:
        ValueError: the ground truth is no expression.
        TimeoutError: symbolic comparison had to be stopped.
    """
    if task.options:
        return choice.score(response, task)
    truth = read_truth(task.answer)
    found = parse.extract(response, _read_expression)
    if found is None:
        return None
    reading, where = found
    return Verdict(float(_equal(reading.value, truth, equal)), reading.exact, where.text)


def read_truth(answer: object) -> str:
    """The expression of a ground truth, cleaned.

    Raises:
        ValueError: it is empty, or neither a text nor a number.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, list) and len(answer) == 1:
        answer = parse.ground_truth(answer[0])
    truth = clean(str(answer)) if isinstance(answer, str | int | float) else ""
    if not truth:
        raise ValueError(f"the answer {answer!r} is no expression; correct the row")
    return truth


def clean(text: str) -> str:
    r"""An expression without dollar signs, \boxed{}, \text{} and a leading "x =".

    >>> clean(r"$x = \boxed{5}$.")
    '5'
    """
    text = _ROOT.sub(r"\\sqrt{\1}", parse.normalize(parse.spell_powers(text)))
    for pattern, plain in _PLAIN_SIGNS:
        text = pattern.sub(plain, text)
    while True:
        shorter = text.strip().rstrip(".").strip("$ ")
        shorter = shorter.removeprefix("\\(").removesuffix("\\)")
        shorter = shorter.removeprefix("\\[").removesuffix("\\]").strip()
        wrapped = _WRAPPER.match(shorter)
        if wrapped and parse.last_boxed(r"\boxed{" + wrapped[1] + "}") == wrapped[1]:
            shorter = wrapped[1]
        if shorter.count("=") == 1:  # "x = 1, y = 2" needs its names
            shorter = _NAME_OF_RESULT.sub("", shorter)
        if shorter == text:
            return text
        text = shorter


def _read_expression(text: str) -> Reading | None:
    """An expression; prose of many words is none."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    expression = clean(text)
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", expression)
    if not expression or len(expression) > symbolic.MAX_CHARS or len(words) > 6:
        return None
    return Reading(expression)


def _equal(given: str, truth: str, equal: Callable[[str, str], bool]) -> bool:
    if _SPACING.sub("", given).casefold() == _SPACING.sub("", truth).casefold():
        return True
    a, b = _read_number(given), _read_number(truth)
    if a is not None and b is not None:
        return number.is_close(a, b)
    if re.fullmatch(r"[A-Za-z]", truth):
        reading = choice.read_choice(given, {})
        return reading is not None and reading.value == truth.upper()
    # The algebra picks one of several parts, so what is not one expression must not reach it.
    if _UNCLEAR.search(given) or (_BOUND.match(given) and not _BOUND.match(truth)):
        return False
    if b is not None and (_JOINED.search(given) or not re.search(r"[\d\\]", given)):
        return False  # "4ab" is no number, nor is a text without digits and macros
    return equal(given, truth)


def _read_number(text: str) -> number.Number | None:
    """The number that a text is, perhaps with a unit; "4x", "4 sin x" and "4ab" are none."""
    reading = number.read_number(text)
    if reading is None:
        return None
    unit = reading.value.unit
    if unit and unit not in number.UNITS and _SYMBOL.search(unit):
        return None
    joined = _JOINED.search(text)
    return None if joined and joined[1].lower() not in number.UNITS else reading.value
