"""Multiple choice: the letter of one option, or the set of letters where the truth has several."""

import re
from collections.abc import Mapping

from evr1 import problems
from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_ALONE = re.compile(r"^[\s(\[{<\"'*`$]*([A-Za-z])[\s)\]}>\"'*`$.,:;、。!]*$")
_NAMED = re.compile(
    r"(?i)^(?:option|choice|answer|letter|选项|答案)\s*[:：]?\s*(?=[(\[\"'*]*[a-z]\b)"
)
_MARK = re.compile(  # of a list, or of a conclusion
    r"^(?:[-*>#•✅✓☑]+\s+|(?i:so|hence|thus|therefore|it is|it's)[,:]?\s+(?=\W?[A-Z]\W*$))+"
)
_LEADING = re.compile(
    r"^[(\[\"'*]*(?P<letter>[A-Z]|[a-z](?=[).:]))(?P<close>[)\]\"'*]*)"
    r"(?P<after>[.,:;、。]|\s|$|(?<=[)\]])|(?=[㐀-鿿]))(?P<rest>.*)$",
    re.DOTALL,
)
_OTHER = re.compile(
    r"(?:^|(?<!\bnot)(?<!\bthan)(?<!\bof)[\s,;/&|+>]|\.\.|\b(?:or|and|或|和|与)\b)\s*[(\[\"'*]*([A-Z])"
    r"[)\]\"'*]*(?=$|[\s,.;:/)&|+])(?!\s+(?:is|are)\s+(?:wrong|incorrect|false|not)\b)"
)
_HEDGE = re.compile(r"(?i)^\W*(?:or|and|&|/|[|+]|或|和|与)\b")
_ONLY_LETTERS = re.compile(r"^(?:[\s,;/&|+()<>=*{}.:\[\]-]|\b(?:or|and)\b|\b[A-Z]\b)*$")
_DENIED = re.compile(
    r"(?i)^\W*(?:(?:is|was|can|could|does|may|seems)\s{0,2}(?:not|n't|wrong|incorrect|false|never)"
    r"|isn't|wasn't|doesn't|cannot|can't|wrong|incorrect)\b"
)
_ARTICLES = "AI"  # "A dog", "I see": capital words, not options


def score(response: str, task: Task) -> Verdict | None:
    """1 for the right letter (or set of letters), else 0; None where no single choice is made.

    Raises:
        ValueError: the ground truth is not a letter or one of the options.
    """
    options = problems.label_options(task.options)
    truth = read_truth(task.answer, options)
    if len(truth) > 1:
        found = parse.extract(response, lambda text: _read_set(text, options))
    else:
        found = parse.extract(response, lambda text: read_choice(text, options))
    if found is None:
        return None
    reading, where = found
    given = reading.value if len(truth) > 1 else {reading.value}
    return Verdict(float(set(given) == truth), reading.exact, where.text)


def read_truth(answer: object, options: Mapping[str, str]) -> set[str]:
    """The right letters of a row.

    Raises:
        ValueError: they cannot be read.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, list) and answer:
        return set().union(*(read_truth(a, options) for a in answer))
    if isinstance(answer, str):
        reading = read_choice(answer, options) or _read_set(answer, options)
        if reading is not None:
            return set(reading.value)
    raise ValueError(f"the answer {answer!r} is no option letter or option text; correct the row")


def read_choice(text: str, options: Mapping[str, str]) -> Reading | None:
    """The one letter that a text chooses. Several letters are a hedge, not a choice.

    Args:
        text: e.g. "B", "(b)", "B. Blue", "option B", "Blue".
        options: letter → text; empty if unknown.
    """
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    text = _unwrap(parse.normalize(text))
    alone = _ALONE.match(text)
    if alone:
        return _among(alone[1].upper(), options)
    leading = _LEADING.match(text)
    if leading and not _hedged(leading["rest"], options):
        letter, rest = leading["letter"].upper(), leading["rest"].strip()
        same = _plain(rest) == _plain(options.get(letter, ""))
        if same or _may_lead(letter, leading["close"] + leading["after"], rest, options):
            return _among(letter, options)
    for letter, option in options.items():
        if _plain(text) and _plain(text) == _plain(option):
            others = [o for k, o in options.items() if k != letter]
            if all(_plain(o) != _plain(option) for o in others):
                return Reading(letter, exact=False)
    return None


def _may_lead(letter: str, after: str, rest: str, options: Mapping[str, str]) -> bool:
    """Whether a capital letter with more text behind it is a choice and not a word."""
    contradicted = any(_plain(rest) == _plain(o) for k, o in options.items() if k != letter)
    if contradicted or (rest and not after):
        return False
    if after.strip() or after == "\n":  # a letter on a line of its own
        return True
    return letter not in _ARTICLES and not rest[:1].isupper()


def _hedged(rest: str, options: Mapping[str, str]) -> bool:
    """Whether a second option is named right behind the first."""
    if any(_plain(rest) == _plain(o) for o in options.values()):
        return False
    if _HEDGE.match(rest) or _DENIED.match(rest):
        return True
    others = [m[1] for m in _OTHER.finditer(rest)]
    return any(o not in _ARTICLES or _ONLY_LETTERS.match(rest) for o in others)


def _among(letter: str, options: Mapping[str, str]) -> Reading | None:
    return Reading(letter) if not options or letter in options else None


def _unwrap(text: str) -> str:
    """Without LaTeX or tags that wrap all of it, list marks, and the word "option" in front."""
    inner = re.fullmatch(r"<(b|strong|em|i|u)>(.{1,200})</\1>", parse.unwrap(text), re.DOTALL)
    text = inner[2] if inner else parse.unwrap(text)
    return _NAMED.sub("", _MARK.sub("", text), count=1)


def _read_set(text: str, options: Mapping[str, str]) -> Reading | None:
    """Several letters: "A, C", "A and C", "AC"."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    letters = re.sub(
        r"(?i)\b(?:and|options?)\b|[\s,;&/和与、.()\[\]\"']", "", parse.normalize(text)
    )
    if not re.fullmatch(r"[A-Z]{1,26}", letters) or len(set(letters)) != len(letters):
        return None
    if options and not set(letters) <= set(options):
        return None
    return Reading(frozenset(letters))


def _plain(text: str) -> str:
    """Letters and digits of a text, case folded: what two writings of an option share."""
    return " ".join(
        re.findall(
            r"\w+|[^\w\s]+(?=\s*$)", parse.normalize(text).casefold().rstrip(".").strip("\"'*`")
        )
    )
