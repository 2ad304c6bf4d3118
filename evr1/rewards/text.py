"""Free text: ROUGE for open answers, error rates for text in pictures. Works in any script."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq, Levenshtein

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.stem import stem

# Scripts written without spaces: one character is one token.
UNSPACED = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Han
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
)
_TOKEN = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:[\u0300-\u036f][^\W_{UNSPACED}]*)*")
_SPACELESS = re.compile(rf"\s+(?=[{UNSPACED}])|(?<=[{UNSPACED}])\s+")
_UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")

_WRAPPED = re.compile(
    r"""^(?:"([^"]+)"|'([^']+)'|“([^”]+)”|‘([^’]+)’|「([^」]+)」|`([^`]+)`|\*\*([^*]+)\*\*"""
    r"""|```\w{0,12}\n([^`]+)```)$"""
)
_QUOTED = re.compile(  # The sign says "STOP".
    r"""(?i)^[^"“”:]{1,60}\b(?:says?|reads?|is|states|shows)[:,]?\s?["“]([^"“”]+)["”]\.?$"""
)


def score_open(response: str, task: Task) -> Verdict | None:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L; 1 for the same text.

    Raises:
        ValueError: the ground truth is empty.
    """
    texts = read_truths(task.answer)
    has_words = all(map(tokens, texts))
    count = tokens if has_words else units  # a truth of signs alone has no words
    truths = [count(t) for t in texts]
    found = parse.extract(response, _read_words if has_words else _read_signs, parse.FREE_TEXT)
    if found is None:
        return None
    reading, where = found
    given = count(reading.value)
    return Verdict(max(rouge(given, truth) for truth in truths), reading.exact, where.text)


def score_ocr(response: str, task: Task) -> Verdict | None:
    """1 - word error rate, at least 0; characters count as words in scripts without spaces.

    Raises:
        ValueError: the ground truth is empty.
    """
    truths = [units(t) for t in read_truths(task.answer)]
    found = parse.extract(response, _read_signs, parse.FREE_TEXT)
    if found is None:
        return None
    reading, where = found
    plain = _unwrap(reading.value)
    quoted = _QUOTED.match(plain)
    readings = [units(reading.value), units(plain), *([units(quoted[1])] if quoted else [])]
    accuracy = max(1 - Levenshtein.distance(r, t) / len(t) for t in truths for r in readings)
    return Verdict(max(0.0, accuracy), reading.exact, where.text)


def read_truths(answer: object) -> list[str]:
    """The accepted texts of a ground truth: one, or a list of them.

    Raises:
        ValueError: one of them is empty.
    """
    answer = parse.ground_truth(answer)
    texts = [str(parse.ground_truth(a)) for a in (answer if isinstance(answer, list) else [answer])]
    if not texts or not all(units(t) for t in texts):
        raise ValueError(f"the answer {answer!r} is empty; correct the row")
    return texts


def tokens(text: str) -> list[str]:
    """Words of a text, case folded and stemmed; single characters in scripts without spaces.

    >>> tokens("The cats jumped. 停车")
    ['the', 'cat', 'jump', '停', '车']
    """
    return [stem(t) for t in _TOKEN.findall(parse.normalize(text).casefold())]


def units(text: str) -> list[str]:
    """What an error rate counts: words with their punctuation, or characters, case folded.

    >>> units("STOP! 停 车")
    ['stop!', '停', '车']
    """
    text = " ".join(parse.normalize(text).casefold().split())
    return _UNIT.findall(_SPACELESS.sub("", text))


def rouge(given: Sequence[str], truth: Sequence[str]) -> float:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L of two token lists; equal lists give 1.

    Source: Lin 2004; the mean of the three is EasyVideoR1's.
    """
    if given == truth:
        return 1.0  # one word has no pairs, so the mean alone would not reach 1
    pairs = [list(zip(t, t[1:], strict=False)) for t in (given, truth)]
    one = _f1(_overlap(given, truth), len(given) + len(truth))
    two = _f1(_overlap(*pairs), len(pairs[0]) + len(pairs[1]))
    longest = _f1(LCSseq.similarity(given, truth), len(given) + len(truth))
    return (one + two + longest) / 3


def _overlap(a: Sequence, b: Sequence) -> int:
    return (Counter(a) & Counter(b)).total()


def _f1(common: int, total: int) -> float:
    return 2 * common / total if total else 0.0


def _unwrap(text: str) -> str:
    """A text without the quotes, emphasis, fence or LaTeX that wrap all of it."""
    text = parse.unwrap(text)
    wrapped = _WRAPPED.match(text)
    return next(part for part in wrapped.groups() if part is not None) if wrapped else text


def _read_signs(text: str) -> Reading | None:
    """A text that is not blank."""
    return Reading(text) if units(text) else None


def _read_words(text: str) -> Reading | None:
    """A text that says something: punctuation, spaces and what is not seen do not."""
    return None if all(unicodedata.category(c)[0] in "PZC" for c in text) else Reading(text)
