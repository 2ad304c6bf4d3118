"""Finding the answer in a response, for rewards and benchmarks; linear in the text, no guesses.

A candidate comes with how it was found. The order is: the last answer tag after the reasoning;
without a tag, the last `\\boxed{}`, the last final-answer sentence, the last bold text, and the
whole text. A JSON object `{"answer": ...}` in them stands for what it holds. A reader, which knows
the problem type, says which of these is an answer.
"""

import collections
import json
import re
import unicodedata
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from evr1.formats import think_block
from evr1.rewards import statements
from evr1.rewards.base import MAX_CHARS, Reading

KINDS = frozenset(("tag", "json", "boxed", "sentence", "choice", "bold", "whole", "end"))
DATA = KINDS - {"end"}  # spans and boxes, which sentences do not sum up
FREE_TEXT = frozenset(("tag", "json", "boxed", "sentence", "whole"))  # emphasis is no answer there

MAX_NORMALIZED_CHARS = 50_000
MAX_JSON_CHARS = 50_000
MAX_LABEL_CHARS = 5_000  # of a letter, a yes, a preference, with what may stand round it
MAX_JSON_DEPTH = 12
MAX_EXPLANATION, MAX_SENTENCES = 4_000, 20  # in front of an answer without any mark
MAX_SENTENCE = 400  # of a conclusion at the end
MAX_FRAMES = 8  # phrases in front of an answer

_TAG = re.compile(r"<\s{0,4}(/?)\s{0,4}answer\s{0,4}>", re.IGNORECASE)
_BROKEN_TAG = re.compile(r"<?\s{0,4}/?\s{0,4}answer\s{0,4}>", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w*])\*\*([^*\n]{1,400})\*\*(?![\w*])")
_OR_BEFORE = re.compile(r"(?i)(?:\b(?:or|nor|not)|[/&|或和不])\s*$")
_OR_BEHIND = re.compile(r"(?i)^\s*(?:or\b|[/&|或和])")
_SPECIAL = re.compile(r"<\|[A-Za-z0-9_]{1,30}\|>")  # of a tokenizer: <|im_end|>, <|begin_of_box|>
_ANSWER_KEYS = frozenset(("answer", "final_answer", "final answer", "correct_answer"))
_REASON_KEYS = frozenset(
    ("reason", "reasoning", "explanation", "rationale", "analysis", "thought", "confidence")
)
_FENCE = re.compile(r"```[a-zA-Z]{0,12}(.*?)```", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=\S)[.!?]\s+|(?<=\S)[。!?！？]|\n")
_CONCLUSION = re.compile(
    r"(?is)(?:(?:so|thus|hence|therefore|consequently|overall|finally|altogether"
    r"|in (?:total|all|conclusion|summary|short)|(?:the )?(?:grand )?total|to sum up|as a result)\b"
    r"|因此|所以|故|总共|一共|综上|总之).+"
)
_BETWEEN_SENTENCES = re.compile(r"(?<=\S[.!?])\s+|(?<=\S[。!?！？])|\n")
_DOUBT = re.compile(
    r"(?i)\b(?:sure|unsure|cannot|can't|guess|may|maybe|might|perhaps|possibly|probably|could|or|unclear"
    r"|know|doubt|if|wait|hmm|answers?|alternatively|either|unless|wrong|false|hard to)\b"
    r"|[?？]|或|可能|也许|不确定|不知道"
)
_DENIED_BEFORE = re.compile(
    r"(?i)\b(?:wrong|incorrect|false|worst|not)\s(?:(?:answer|option|choice|one)\s?(?:is|:)?)?\W*$"
)
DENYING = re.compile(r"^[^\w!~¬≠]*(?:[!~¬≠]|\\(?:neg|lnot|not|neq?)(?![a-z]))")  # "!yes", "~~yes~~"
_FRAME = re.compile(  # what may stand round an answer in the asked form: "The correct answer is"
    r"(?i)(?:\W|\b(?:so|thus|hence|therefore|the|my|final|correct|right|best|answers?|options?|choice"
    r"|conclusion|is|are|boxed|fbox|text|textbf|mathrm)\b|最终|正确|答案|选项|选择|是|为|选|故|所以|应该?)*"
)


class Candidate(NamedTuple):
    """A stretch of text that may be the answer."""

    text: str
    how: str  # tag, json, boxed, sentence (the answer is), choice (I choose), bold, whole or end
    behind: str = ""  # the first line after a sentence


def extract(
    response: str, read: Callable[[str], Reading | None], kinds: Container[str] = KINDS
) -> tuple[Reading, Candidate] | None:
    """Returns the first candidate that the reader accepts, as read and as found; or None.

    A reading is exact only if it was found in a tag and the reader says so.

    Args:
        response: the model's whole text.
        read: turns a text into a value, or None where it is none.
        kinds: the ways of finding an answer that make sense for this type.
    """
    for candidate in candidates(response):
        reading = read(candidate.text) if candidate.how in kinds else None
        if reading is not None:
            # "Answer: B", and on the next line "or A": a second answer, plainly written
            second = read(candidate.behind) if candidate.behind and kinds is not FREE_TEXT else None
            if second is not None and second.exact and second.value != reading.value:
                return None
            return Reading(reading.value, reading.exact and candidate.how == "tag"), candidate
    return _at_the_end(response, read) if "end" in kinds else None


def _at_the_end(
    response: str, read: Callable[[str], Reading | None]
) -> tuple[Reading, Candidate] | None:
    """Returns what the last sentence of an explanation says, if no other one doubts or differs."""
    after = None if answer_tag(response) is not None else after_reasoning(response)
    parts = _BETWEEN_SENTENCES.split(_BROKEN_TAG.sub(" ", after or "")[-MAX_EXPLANATION:])
    *before, last = [part for part in parts if part.strip()][-MAX_SENTENCES:] or [""]
    if not before or any(_DOUBT.search(part) for part in before):
        return None
    reading = read(last)
    if reading is None or any((other := read(p)) and other.value != reading.value for p in before):
        return None
    return Reading(reading.value, exact=False), Candidate(last.strip(), "end")


def candidates(response: str) -> Iterator[Candidate]:
    """Yields where the answer may stand, best first. A tag excludes everything outside of it."""
    text = response[-MAX_CHARS:]
    if "<|" in text:
        text = _SPECIAL.sub("", text)
    tagged = answer_tag(text)
    if tagged is not None:
        content = tagged.strip()
        if content:
            yield from _keyed(content)
            yield Candidate(content, "tag")
            # Several emphasised answers in one tag are no answer; one of them is.
            if len(_BOLD.findall(content)) < 2 and content.count("boxed{") < 2:
                yield from (_in_tag(candidate, content) for candidate in _inside(content))
        return
    after = after_reasoning(text)
    if after is None:
        return
    after = _BROKEN_TAG.sub(" ", after).strip()
    if after:
        yield from _keyed(after)
        yield from _inside(after)
        yield Candidate(after, "whole")
        conclusion = _CONCLUSION.match(after, _last_sentence(after))
        if conclusion:
            yield Candidate(conclusion[0].strip(), "end")


def _last_sentence(text: str) -> int:
    """Returns where the last sentence or line of a text starts."""
    start = max(0, len(text) - MAX_SENTENCE)
    return max((m.end() for m in _SENTENCE_END.finditer(text, start, len(text) - 1)), default=0)


def _in_tag(candidate: Candidate, content: str) -> Candidate:
    """Returns a candidate in a tag as found in the tag itself, if only its sentence is round it."""
    before, _, behind = content.rpartition(candidate.text)
    is_all = _FRAME.fullmatch(before) and not re.search(r"\w", behind)
    return candidate._replace(how="tag") if is_all else candidate


def answer_tag(text: str) -> str | None:
    """Returns the content of the last whole answer tag after the reasoning, if there is one.

    >>> answer_tag("<think><answer>A</answer></think> so <answer>B</answer>")
    'B'
    """
    span = answer_span(text)
    return text[span[0] : span[1]] if span else None


def answer_span(text: str) -> tuple[int, int] | None:
    """Returns where the content of `answer_tag` starts and ends."""
    after = after_reasoning(text)
    offset = 0 if after is None else len(text) - len(after)
    last = _last_tag(text if after is None else after)
    if last is None:
        return None
    start, end, stop = last
    # Reasoning that was never closed hides its tags, unless one ends the response.
    if after is None and text[stop:].strip():
        return None
    return offset + start, offset + end


def _last_tag(text: str) -> tuple[int, int, int] | None:
    """Returns (content start, content end, tag end) of the last open tag that is closed."""
    start, last = None, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            last, start = (start, tag.start(), tag.end()), None
    return last


def after_reasoning(text: str) -> str | None:
    """Returns what follows the last closed think block; None inside a block that never ends."""
    closed, is_open = 0, False
    for tag in think_block.TAG.finditer(text):
        is_open = not tag[1]
        if tag[1]:
            closed = tag.end()
    return None if is_open else text[closed:]


def last_part(response: str | None, think_open: bool) -> tuple[str, bool]:
    """Returns the end of a response that is looked at, and whether it starts in the prompt's block.

    A block that the model opened before that end is opened again in it.

    Args:
        response: the model's whole text; None (nothing was generated) counts as empty.
        think_open: the prompt left a think block open, so that the response starts inside it.
    """
    text = response or ""
    start = len(text) - MAX_CHARS
    if start <= 0:
        return text, think_open
    is_open = False
    for tag in think_block.TAG.finditer(text):
        if tag.start() >= start:
            break
        is_open, think_open = not tag[1], think_open and not tag[1]
    if is_open and not think_open:
        return think_block.OPENING + text[len(think_block.OPENING) - MAX_CHARS :], False
    return text[start:], think_open


def _keyed(text: str) -> Iterator[Candidate]:
    """Yields what the last JSON object holds as its answer, beside at most its reasons."""
    if "{" not in text or "answer" not in text.lower():
        return
    data = read_json(text)
    if data is None or not isinstance(data.value, dict):
        return
    fields = {str(key).strip().lower(): value for key, value in data.value.items()}
    keys = fields.keys() - _REASON_KEYS
    if len(keys) == 1 and keys <= _ANSWER_KEYS:
        value = fields[keys.pop()]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)  # as it was written
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if written.strip() and value is not None:
            yield Candidate(written.strip(), "json")


def _inside(text: str) -> Iterator[Candidate]:
    """Yields boxed, concluding and bold stretches of a text, last first within each kind."""
    boxed = _last_box(text)
    content = text[boxed[0] : boxed[1]].partition("{")[2][:-1].strip() if boxed else ""
    if boxed and content and not _is_hedged(text, *boxed):
        yield Candidate(content, "boxed")
    for statement in statements.statements(text):
        if statement is None:
            return
        yield Candidate(*statement)
    bold = collections.deque(_BOLD.finditer(text), maxlen=1)
    if bold and bold[0][1].strip() and not _is_hedged(text, *bold[0].span()):
        yield Candidate(bold[0][1].strip(), "bold")


def _is_hedged(text: str, start: int, end: int) -> bool:
    """Returns whether a second answer stands beside a part: "**A** or B", "\\boxed{3} / 4"."""
    before, behind = text[max(0, start - 20) : start], text[end : end + 20]
    is_denied = _DENIED_BEFORE.search(text[max(0, start - 40) : start])
    return bool(is_denied or _OR_BEFORE.search(before) or _OR_BEHIND.match(behind))


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last balanced \boxed{}.

    >>> last_boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    box = _last_box(text)
    return text[box[0] : box[1]].partition("{")[2][:-1] if box else None


def _last_box(text: str) -> tuple[int, int] | None:
    """Returns where the last box starts and ends; None if it is not closed."""
    at = max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if at < 0:
        return None
    start = text.index("{", at) + 1
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return at, start + brace.end()
    return None


def read_json(text: str) -> Reading | None:
    """Returns the JSON object or list that a text is, or else the last one fenced or embedded.

    Only the first is in the asked form. NaN, infinities, deep nesting and huge texts are no JSON.
    """
    text = text.strip()
    if len(text) > MAX_JSON_CHARS:
        return None
    value = _loads(text)
    if value is not None:
        return Reading(value)
    places = [m.span(1) for m in _FENCE.finditer(text)][-1:] if "```" in text else []
    if "{" in text:
        places += _last_object(text, "{[") + _last_object(text, "{")
    for start, end in places:
        inner = text[start:end].strip()
        if inner and _is_hedged(text, start, end):
            return None
        value = _loads(inner) or _loads(_relaxed(inner))
        if value is not None:
            return Reading(value, exact=False)
    return None


def _loads(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH and _depth(text) > MAX_JSON_DEPTH:
        return None
    try:
        return _DECODER.decode(text)
    except ValueError:
        return None


def _depth(text: str) -> int:
    """Returns how deep brackets stand in brackets."""
    depth = deepest = 0
    for bracket in re.finditer(r"[][{}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _relaxed(text: str) -> str:
    """Returns a Python or JavaScript literal as JSON.

    >>> _relaxed("{1: (2, 3), 'end': 4,}")
    '{"1": [2, 3], "end": 4}'
    """
    if '"' not in text:
        text = text.replace("'", '"')
    text = re.sub(r"([{,]\s{0,80})(\w[\w.]{0,39})(\s{0,4}:)", r'\1"\2"\3', text)
    text = re.sub(r"\(([-+\d.,\s]{1,200})\)", r"[\1]", text)
    return re.sub(r",(\s{0,80}[]}])", r"\1", text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=float)


def _last_object(text: str, opening: str) -> list[tuple[int, int]]:
    """Returns where the last balanced {...} of a text is, in a list; empty where there is none.

    Args:
        text: may hold several; "[{...}, ...]" counts too if `opening` has both brackets.
        opening: the brackets that count.
    """
    depth, start, last = 0, 0, []
    for brace in re.finditer(r"[][{}]" if "[" in opening else r"[{}]", text):
        if brace[0] in opening:
            start = brace.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0 and re.match(r"\[?\s{0,80}\{", text[start : start + 90]):
                last = [(start, brace.end())]
    return last


def ground_truth(answer: Any) -> Any:
    """Returns a row's ground truth without the answer tag or dollar signs that may wrap it.

    Reasons in front of it, as in the responses that models are first taught by, are left out.

    >>> ground_truth("<think>Not A.</think> <answer>B</answer>"), ground_truth("<think>2</think>3")
    ('B', '3')
    """
    if not isinstance(answer, str):
        return answer
    tagged = answer_tag(answer) if "<" in answer else None
    text = answer if tagged is None else tagged
    if tagged is None and think_block.closes(answer):
        text = after_reasoning(answer) or answer
    text = text.strip() or answer.strip()
    for mark in ("$$", "$") if text[:1] == "$" else ():
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            inner = text[len(mark) : -len(mark)]
            if "$" not in inner:
                return inner.strip()
    return text


_WRAPPINGS = (
    re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|mbox|fbox)\s?\{(.*)\}", re.DOTALL),
    re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$?([^$]*)\$?\$", re.DOTALL),
)


def unwrap(text: str) -> str:
    r"""Returns a text without the LaTeX that wraps all of it.

    >>> unwrap(r"\(\boxed{\text{Yes}}\)")
    'Yes'
    """
    for _ in range(6):
        text = text.strip()
        if text[:1] not in ("\\", "$"):
            break
        wrapped = next(filter(None, (w.fullmatch(text) for w in _WRAPPINGS)), None)
        inner = next((part for part in wrapped.groups() if part is not None), "") if wrapped else ""
        if not inner or not _is_balanced(inner):
            break
        text = inner
    return text


def _is_balanced(text: str) -> bool:
    """Returns whether every brace of a text is closed in it: "a} {b" is not balanced."""
    depth = 0
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace[0] == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def spell_powers(text: str) -> str:
    """Returns a text with raised digits as powers and vulgar fractions apart from whole numbers.

    Otherwise `normalize` would merge them with the digits before.

    >>> spell_powers("1½ m²")
    '1 ½ m^2'
    """
    text = text[:MAX_NORMALIZED_CHARS]
    if text.isascii():  # has neither
        return text
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text)
    return _RAISED.sub(lambda m: "^" + m[0].translate(_LOWERED), text)


def strip_frames(frame: re.Pattern[str], text: str) -> str:
    """Returns a text without the phrases that lead to its answer: "I think that it is"."""
    for _ in range(MAX_FRAMES):
        match = frame.match(text)
        if not match or not match.end() or match.end() == len(text):
            break
        text = text[match.end() :]
    return text


_RAISED = re.compile(r"(?<=[\w)}\]])(?<![⁻⁰¹²³⁴-⁹])[⁻⁰¹²³⁴-⁹]+")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def squeeze(text: str) -> str:
    """Returns a text with each run of blanks as one, a line end if there is one in it.

    A pattern may then look for blanks anywhere without looking at a run again from each of its
    places.
    """
    return _BLANKS.sub(lambda m: "\n" if "\n" in m[0] else " ", text)


def normalize(text: str) -> str:
    """Returns a text with full-width letters and ligatures folded, dashes and quotes made plain.

    What stands beyond MAX_NORMALIZED_CHARS is cut off: one character may unfold to eighteen.
    """
    text = text[:MAX_NORMALIZED_CHARS]
    if text.isascii():  # is plain as it is
        return text.strip()
    text = unicodedata.normalize("NFKC", text)[:MAX_NORMALIZED_CHARS]
    return text.translate(_PLAIN).strip()


_BLANKS = re.compile(r"\s{2,}")
_PLAIN = str.maketrans(
    {**dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63", "-"), "\u2044": "/"}
    | dict.fromkeys("\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f")  # no width
    | dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # writing direction
)
