"""Free text: ROUGE for open answers, error rates for text in pictures. Works in any script."""

import json
import numbers
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rapidfuzz.distance import LCSseq, Levenshtein

from evr1.rewards import parse, words
from evr1.rewards.base import Reading, Task, Verdict
from evr1.rewards.words import UNSPACED, tokens

_SPACELESS = re.compile(rf"\s+(?=[{UNSPACED}])|(?<=[{UNSPACED}])\s+")
_UNIT = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")

_ACCEPTED = ("answer", "answers", "text", "value", "aliases")
_WRAPPED = re.compile(
    r"""^(?:"([^"]+)"|'([^']+)'|“([^”]+)”|‘([^’]+)’|「([^」]+)」|`([^`]+)`|\*\*([^*]+)\*\*"""
    r"""|```\w{0,12}\n([^`]+)```)$"""
)
_ANNOUNCED = re.compile(  # The text in the picture is: STOP
    r"(?i)^(?:[^\W\d_]+ ){0,8}?(?:text|words?|signs?|captions?|labels?|titles?|letters?|writing"
    r"|it|characters?"
    r"|subtitles?|transcription|ocr)(?: [^\W\d_]+){0,6}:\s{0,4}(?=\S)"
    r"|^[^\W\d_]{0,12}(?:文字|文本|内容|字样|标题|字幕|识别结果)[^\W\d_]{0,8}:\s{0,4}(?=\S)"
)
_SAYS = r"(?:says?|reads?|is|are|states?|shows?)"
_QUOTED = re.compile(  # The sign says "STOP".
    rf"""(?i)^(?P<before>[^"“”:*`]{{1,80}}\b{_SAYS})\b[:,]?\s{{0,4}}(?P<said>["“'*`].*)$""",
    re.DOTALL,
)
_SAID = re.compile(  # The date is 3 May.
    rf"(?i)^(?P<before>(?:the|this|it|answer)\b[^\"“”:*`\n]{{0,60}}?\b{_SAYS}\b:?\s{{1,4}}"
    r"|[^\W\d_]{0,16}?(?:是|为|写着|写的是|显示):?\s{0,4})(?P<said>\S.*)$",
    re.DOTALL,
)
_ONE_QUOTE = re.compile(  # I can see the text "STOP" on the sign.
    r"""^(?P<before>[^"“”]{0,80}?)["“](?P<said>[^"“”]+)["”](?P<behind>[^"“”]{0,80})$""", re.DOTALL
)
_DENIED = re.compile(r"(?i)\b(?:not|never|no longer|cannot|wrong|hardly)\b|n't\b|不|没")
_MARK = re.compile(r"^[->*•#]\s{1,4}(?=\S)|\\(?=[$%&#_])")
_TEXT_KEYS = frozenset(("text", "ocr", "content", "transcription", "ocrtext", "words"))


def score_open(response: str, task: Task) -> Verdict | None:
    """Returns the mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L; 1 for the same text.

    Raises:
        ValueError: the ground truth is empty.
    """
    texts = read_truths(task.answer)
    count = tokens
    truths = [tokens(t) for t in texts]
    if not all(truths):  # a truth of punctuation alone has no words
        count = units
        truths = [units(t) for t in texts]
    reader = _read_words if count is tokens else _read_signs
    extraction = parse.extract(response, reader, parse.FREE_TEXT)
    if extraction is None:
        return None
    reading, candidate = extraction
    answers = [count(t) for t in {reading.value, parse.unwrap(reading.value)}]
    accuracy = max(rouge(answer, truth) for answer in answers for truth in truths)
    return Verdict(accuracy, reading.exact, candidate.text)


def score_ocr(response: str, task: Task) -> Verdict | None:
    """Returns 1 - word error rate, at least 0; characters are words in scripts without spaces.

    Raises:
        ValueError: the ground truth is empty.
    """
    truths = [units(t) for t in read_truths(task.answer)]
    extraction = parse.extract(response, _read_signs, parse.FREE_TEXT)
    if extraction is None:
        return None
    reading, candidate = extraction
    readings = [units(text) for text in dict.fromkeys(_writings(reading.value))]
    accuracy = max(1 - Levenshtein.distance(r, t) / len(t) for t in truths for r in readings)
    return Verdict(max(0.0, accuracy), reading.exact, candidate.text)


def _writings(text: str) -> Iterator[str]:
    """Yields a text as it is, and without what may announce it or stand round it; may repeat one.

    >>> sorted(set(_writings('The sign says "STOP."')))
    ['STOP', 'STOP.', 'The sign says "STOP."']
    """
    yield text
    data = parse.read_json(text) if text[:1] == "{" else None
    if data and isinstance(data.value, Mapping) and len(data.value) == 1:
        [(key, value)] = data.value.items()
        if str(key).casefold().replace("_", "") in _TEXT_KEYS and isinstance(value, str):
            yield value
    plain = _unwrap(_MARK.sub("", text))
    if plain != text:
        yield plain
    announced = _ANNOUNCED.match(parse.normalize(plain[:200]))
    if announced:
        yield _unwrap(parse.normalize(plain)[announced.end() :])
    quote = _ONE_QUOTE.match(plain)
    if quote and not _DENIED.search(f"{quote['before']} {quote['behind']}"):
        yield quote["said"]
        yield quote["said"].removesuffix(".")
    said = _QUOTED.match(plain) or _SAID.match(plain)
    if said and not _DENIED.search(said["before"] + said["said"][:10]):
        inner = _unwrap(said["said"].strip().rstrip("。").removesuffix("."))
        yield inner
        yield inner.removesuffix(".")


def read_truths(answer: object) -> list[str]:
    """Returns the accepted texts of a ground truth: one, or several of which any is right.

    Several stand in a list of texts or of {"answer": text}, as text or not, or in an object under
    `answers`, or under `value` and `aliases`.

    Raises:
        ValueError: one of them is empty.
    """
    texts = accepted_texts(answer)
    if not texts or not all(units(t) for t in texts):
        raise ValueError(f"the answer {answer!r} is empty; correct the row")
    return texts


def accepted_texts(answer: object) -> list[str]:
    """Returns the different texts that a ground truth accepts, in its order."""
    return list(dict.fromkeys(_texts(parse.ground_truth(answer))))


def _texts(answer: object) -> Iterator[str]:
    """Yields the texts in a ground truth; a text may be a list of texts as JSON."""
    if isinstance(answer, str) and answer[:1] == "[" and answer[-1:] == "]":
        data = parse.read_json(answer)
        listed = data.value if data and data.exact else None
        is_texts = isinstance(listed, list) and all(isinstance(v, str) for v in listed)
        answer = listed if is_texts and listed else answer
    found = [answer.get(k) for k in _ACCEPTED] if isinstance(answer, Mapping) else []
    fields = [value for value in found if value is not None]
    for value in fields or [answer]:
        for one in value if isinstance(value, list | tuple) else [value]:
            one = one["answer"] if isinstance(one, Mapping) and "answer" in one else one
            is_deep = isinstance(one, Mapping | list | tuple)
            if not (one if is_deep else isinstance(one, str | numbers.Number) and one == one):
                raise ValueError(f"the answer {answer!r} holds {one!r}, no text; correct the row")
            yield json.dumps(one, default=str) if is_deep else str(parse.ground_truth(one))


def units(text: str) -> list[str]:
    """Returns what an error rate counts: words with punctuation, or characters, case folded.

    >>> units("STOP! 停 车")
    ['stop!', '停', '车']
    """
    text = " ".join(parse.normalize(text).casefold().split())
    return _UNIT.findall(_SPACELESS.sub("", text))


def rouge(answer: Sequence[str], truth: Sequence[str]) -> float:
    """Returns the mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L of token lists; equal lists give 1.

    Source: Lin 2004; the mean of the three is EasyVideoR1's.
    """
    if answer == truth:
        return 1.0  # one word has no pairs, so the mean alone would not reach 1
    pairs = [list(zip(t, t[1:], strict=False)) for t in (answer, truth)]
    one = _f1(_overlap(answer, truth), len(answer) + len(truth))
    two = _f1(_overlap(*pairs), len(pairs[0]) + len(pairs[1]))
    longest = _f1(LCSseq.similarity(answer, truth), len(answer) + len(truth))
    return (one + two + longest) / 3


def _overlap(a: Sequence, b: Sequence) -> int:
    return (Counter(a) & Counter(b)).total()


def _f1(common: int, total: int) -> float:
    return 2 * common / total if total else 0.0


def _unwrap(text: str) -> str:
    """Returns a text without the quotes, emphasis, fence or LaTeX that wrap all of it."""
    text = parse.unwrap(text)
    wrapped = _WRAPPED.match(text)
    return next(part for part in wrapped.groups() if part is not None) if wrapped else text


def _read_signs(text: str) -> Reading | None:
    """Returns a text that is not blank."""
    return Reading(text) if units(text) else None


def _read_words(text: str) -> Reading | None:
    """Returns a text that says something."""
    return Reading(text) if words.has_words(text) else None
