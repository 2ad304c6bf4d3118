"""Finding the answer in a response, for rewards and benchmarks; linear in the text, no guesses.

What is found comes with how it was found. The order is: the last answer tag after the reasoning;
without a tag, the last `\\boxed{}`, the last final-answer sentence, the last bold text, and the
whole text. A JSON object `{"answer": ...}` in them stands for what it holds. A reader, which knows
the problem type, says which of these is an answer.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

from evr1.rewards.base import MAX_CHARS, Reading

KINDS = frozenset(("tag", "json", "boxed", "sentence", "choice", "bold", "whole"))
FREE_TEXT = frozenset(("tag", "json", "boxed", "sentence", "whole"))  # emphasis is no answer there

MAX_NORMALIZED_CHARS = 50_000
MAX_JSON_CHARS = 50_000
MAX_LABEL_CHARS = 5_000  # of a letter, a yes, a preference, with what may stand round it
MAX_JSON_DEPTH = 12

_TAG = re.compile(r"<\s{0,4}(/?)\s{0,4}answer\s{0,4}>", re.IGNORECASE)
_BROKEN_TAG = re.compile(r"<?\s{0,4}/?\s{0,4}answer\s{0,4}>", re.IGNORECASE)
_THINK = re.compile(r"<\s{0,4}(/?)\s{0,4}think(?:ing)?\s{0,4}>", re.IGNORECASE)
_SENTENCE = re.compile(
    r"""(?imx)
    (?: \b(?:answers?|conclusion|ans)
        (?:\s{1,4}(?:is|are|would\s+be|should\s+be|must\s+be)\b\s{0,4}[:：]?|[*_]{0,2}\s{0,4}[:：=])
      | ^[ \t]{0,4}[\#*]{1,6}\s{0,4}(?:(?:the|final|correct)\s){0,3}
          answer\s{0,4}[*:：]{0,3}[ \t]{0,4}\n
      | (?:答案|答え)[*_]{0,2}\s{0,4}(?:应该|应)?(?:是|为|選|选)?\s{0,4}[:：]?
      | (?:答|ответ|\brespuesta|\bresposta|\bréponse|\bantwort)\s{0,4}[:：]
    )[\s*_]{0,8}(?P<tail>[^\n]{1,400})"""
)
_CHOICE = re.compile(
    r"""(?ix)
    (?: \b(?:option|choice|(?:correct|right)\s(?:options|choices))
        (?:\s{1,4}(?:is|are|would\s+be|should\s+be|must\s+be)\b\s{0,4}[:：]?|\s{0,4}[:：=])
      | \b(?:choose|select|pick|go\s+with)\b\s{0,4}[:：]?
      | 选项\s{0,4}(?:应该|应)?(?:是|为)?\s{0,4}[:：]?
      | (?:应该|应当|应)?(?:选择|选)\s{0,4}[:：]?
    )\s{0,4}(?P<tail>[^\n]{1,400})"""
)
_IS_CHOSEN = re.compile(
    r"(?i)(?P<tail>\S{1,20})\s{1,4}is\s{1,4}(?:the\s{1,4})?"
    r"(?:(?:correct|right|best|final)\s{1,4})?(?:answer|option|choice|correct)\b"
)
_IS_CHOSEN_CHINESE = re.compile(
    r"(?<![A-Za-z])(?P<tail>[A-Z])\s?(?:选项)?(?:是|为)?(?:正确|对)(?:的|答案|选项|[。,，]|\s*$)"
)
_STATEMENTS = {"sentence": (_SENTENCE,), "choice": (_CHOICE, _IS_CHOSEN, _IS_CHOSEN_CHINESE)}
_BOLD = re.compile(r"(?<![\w*])\*\*([^*\n]{1,400})\*\*(?![\w*])")
_OR_BEFORE = re.compile(r"(?i)(?:\b(?:or|nor|not)|[/&|或和不])\s*$")
_OR_BEHIND = re.compile(r"(?i)^\s*(?:or\b|[/&|或和])")
_SPECIAL = re.compile(r"<\|[A-Za-z0-9_]{1,30}\|>")  # of a tokenizer: <|im_end|>, <|begin_of_box|>
_ANSWER_KEYS = frozenset(("answer", "final_answer", "final answer"))
_REASON_KEYS = frozenset(
    ("reason", "reasoning", "explanation", "rationale", "analysis", "thought", "confidence")
)
_FENCE = re.compile(r"```[a-zA-Z]{0,12}\s*\n?(.*?)```", re.DOTALL)
_DENIED = re.compile(  # "I would not choose", "it is not true that the answer is"
    r"(?i)(?:\b(?:not|never|cannot)|n't|不|不能|不应)"
    r"(?:\s+(?:think|believe|say|that|the|case|true|correct|right|final|would|to)){0,6}\s*$"
)
_NEGATION = re.compile(
    r"(?i)^(?:not|n't|never|neither|nor|(?!(?:不是?的?|不对|不正确|不会|不能|没有?)$)[不没])"
)


class Found(NamedTuple):
    """A stretch of text that may be the answer."""

    text: str
    how: str  # tag, json, boxed, sentence (the answer is ...), choice (I choose ...), bold or whole
    behind: str = ""  # the first line after a sentence


def extract(
    response: str, read: Callable[[str], Reading | None], kinds: Container[str] = KINDS
) -> tuple[Reading, Found] | None:
    """The first candidate that the reader accepts, or None: nothing that is an answer.

    A reading is exact only if it was found in a tag and the reader says so.

    Args:
        response: the model's whole text.
        read: turns a text into a value, or None where it is none.
        kinds: the ways of finding an answer that make sense for this type.
    """
    for found in candidates(response):
        reading = read(found.text) if found.how in kinds else None
        if reading is not None:
            # "Answer: B", and on the next line "or A": a second answer, plainly written
            second = read(found.behind) if found.behind and kinds is not FREE_TEXT else None
            if second is not None and second.exact and second.value != reading.value:
                return None
            return Reading(reading.value, reading.exact and found.how == "tag"), found
    return None


def candidates(response: str) -> Iterator[Found]:
    """Where the answer may stand, best first. A tag excludes everything outside of it."""
    text = _SPECIAL.sub("", response[-MAX_CHARS:])
    tagged = answer_tag(text)
    if tagged is not None:
        content = tagged.strip()
        if content:
            yield from _keyed(content)
            yield Found(content, "tag")
            # Several emphasised answers in one tag are no answer; one of them is.
            if len(_BOLD.findall(content)) < 2 and content.count("boxed{") < 2:
                yield from (found._replace(how="tag") for found in _inside(content))
        return
    after = after_reasoning(text)
    if after is None:
        return
    after = _BROKEN_TAG.sub(" ", after).strip()
    if after:
        yield from _keyed(after)
        yield from _inside(after)
        yield Found(after, "whole")


def answer_tag(text: str) -> str | None:
    """The content of the last answer tag after the reasoning; None where there is no whole tag.

    >>> answer_tag("<think><answer>A</answer></think> so <answer>B</answer>")
    'B'
    """
    after = after_reasoning(text)
    last = _last_tag(text if after is None else after)
    if last is None:
        return None
    start, end, stop = last
    source = text if after is None else after
    # Reasoning that was never closed hides its tags, unless one ends the response.
    if after is None and source[stop:].strip():
        return None
    return source[start:end]


def _last_tag(text: str) -> tuple[int, int, int] | None:
    """(content start, content end, tag end) of the last open tag that is closed."""
    start, found = None, None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            found, start = (start, tag.start(), tag.end()), None
    return found


def after_reasoning(text: str) -> str | None:
    """What follows the last closed think block; None inside a block that never ends."""
    closed, is_open = 0, False
    for tag in _THINK.finditer(text):
        is_open = not tag[1]
        if tag[1]:
            closed = tag.end()
    return None if is_open else text[closed:]


def _keyed(text: str) -> Iterator[Found]:
    """What the last JSON object in a text holds as its answer, beside at most its reasons."""
    if "answer" not in text.lower() or "{" not in text:
        return
    data = read_json(text)
    if data is None or not isinstance(data.value, dict):
        return
    held = {str(key).strip().lower(): value for key, value in data.value.items()}
    keys = held.keys() - _REASON_KEYS
    if len(keys) == 1 and keys <= _ANSWER_KEYS:
        value = held[keys.pop()]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)  # as it was written
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if written.strip() and value is not None:
            yield Found(written.strip(), "json")


def _inside(text: str) -> Iterator[Found]:
    """Boxed, concluding and bold stretches of a text, last first within each kind."""
    boxed = last_boxed(text)
    if boxed is not None and not _is_hedged(text, rf"\boxed{{{boxed}}}"):
        yield Found(boxed.strip(), "boxed")
    sentences = sorted(
        (
            m.start("tail"),
            m.end("tail"),
            m["tail"],
            how,
            bool(_DENIED.search(text[: m.start()][-60:])),
        )
        for how, patterns in _STATEMENTS.items()
        for pattern in patterns
        for m in _overlapping(pattern, text)
    )
    for _, end, tail, how, is_denied in reversed(sentences[-16:]):
        tail = tail.strip().strip("*_ ").rstrip(" .;。；!！").rstrip("*_ ")
        if is_denied or _NEGATION.match(tail):
            return
        if tail:
            behind = text[end : end + 500].strip().partition("\n")[0]
            behind = re.sub(r"(?i)^(?:or|and|或者?|和)\b\s?", "", behind.lstrip("-*>• "))
            yield Found(tail, how, behind.strip())
    bold = _BOLD.findall(text)
    if bold and not _is_hedged(text, f"**{bold[-1]}**"):
        yield Found(bold[-1].strip(), "bold")


def _is_hedged(text: str, part: str) -> bool:
    """Whether a second answer stands beside a part of a text: "**A** or B", "\\boxed{3} / 4"."""
    before, _, behind = text.rpartition(part)
    return bool(_OR_BEFORE.search(before[-20:]) or _OR_BEHIND.match(behind[:20]))


def _overlapping(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Matches whose tails may hold further matches: one line may hold several statements."""
    at = 0
    while (match := pattern.search(text, at)) is not None:
        yield match
        at = max(match.start("tail"), match.start() + 1)


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced \boxed{}.

    >>> last_boxed(r"so \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    """
    at = max(text.rfind(r"\boxed{"), text.rfind(r"\fbox{"))
    if at < 0:
        return None
    start = text.index("{", at) + 1
    depth = 1
    for brace in re.finditer(r"[{}]", text[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : start + brace.start()]
    return None


def read_json(text: str) -> Reading | None:
    """The JSON object or list that a text is, or else the last one fenced or embedded in it.

    Only the first is in the asked form. NaN, infinities, deep nesting and huge texts are no JSON.
    """
    text = text.strip()
    if len(text) > MAX_JSON_CHARS:
        return None
    value = _loads(text)
    if value is not None:
        return Reading(value)
    fenced = _FENCE.findall(text)
    for inner in [*fenced[-1:], *_last_object(text, "{["), *_last_object(text, "{")]:
        if inner and _is_hedged(text, inner):
            return None
        value = _loads(inner.strip()) or _loads(_relaxed(inner.strip()))
        if value is not None:
            return Reading(value, exact=False)
    return None


def _loads(text: str) -> Any:
    if text[:1] not in ("{", "["):
        return None
    depth = deepest = 0
    for bracket in re.finditer(r"[][{}]", text):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_JSON_DEPTH:
        return None
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=float)
    except ValueError:
        return None


def _relaxed(text: str) -> str:
    """A Python or JavaScript literal as JSON.

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


def _last_object(text: str, opening: str) -> list[str]:
    """The last balanced {...} of a text, in a list; empty where there is none.

    Args:
        text: may hold several; "[{...}, ...]" counts too if `opening` has both brackets.
        opening: the brackets that count.
    """
    depth, start, found = 0, 0, []
    for brace in re.finditer(r"[][{}]" if "[" in opening else r"[{}]", text):
        if brace[0] in opening:
            start = brace.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0 and re.match(r"\[?\s{0,80}\{", text[start : start + 90]):
                found = [text[start : brace.end()]]
    return found


def ground_truth(answer: Any) -> Any:
    """A row's ground truth without the answer tag or dollar signs that it may be wrapped in."""
    if not isinstance(answer, str):
        return answer
    tagged = answer_tag(answer)
    text = (answer if tagged is None else tagged).strip()
    for mark in ("$$", "$"):
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
    r"""A text without the LaTeX that wraps all of it.

    >>> unwrap(r"\(\boxed{\text{Yes}}\)")
    'Yes'
    """
    for _ in range(6):
        text = text.strip()
        wrapped = next(filter(None, (w.fullmatch(text) for w in _WRAPPINGS)), None)
        inner = next((part for part in wrapped.groups() if part is not None), "") if wrapped else ""
        if not inner or last_boxed(f"\\boxed{{{inner}}}") != inner:
            break
        text = inner
    return text


def spell_powers(text: str) -> str:
    """Raised digits and vulgar fractions, which `normalize` would merge with the digits before.

    >>> spell_powers("1½ m²")
    '1 ½ m^2'
    """
    text = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", text[:MAX_NORMALIZED_CHARS])
    return re.sub(r"(?<=[\w)}\]])(?=[⁻⁰¹²³⁴-⁹])(?<![⁻⁰¹²³⁴-⁹])", "^", text)


def normalize(text: str) -> str:
    """Compatibility forms (full-width letters, ligatures) folded, dashes and quotes made plain.

    What stands beyond MAX_NORMALIZED_CHARS is cut off: one character may unfold to eighteen.
    """
    text = unicodedata.normalize("NFKC", text[:MAX_NORMALIZED_CHARS])[:MAX_NORMALIZED_CHARS]
    return text.translate(_PLAIN).strip()


_PLAIN = str.maketrans(
    {**dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63", "-"), "\u2044": "/"}
    | dict.fromkeys("\u2018\u2019\u02bc", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f")  # no width
    | dict.fromkeys("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # writing direction
)
