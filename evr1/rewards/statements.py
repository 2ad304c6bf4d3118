"""Final-answer sentences: "the answer is …", "I choose …", "B is correct", in several languages.

A statement that is denied ("the wrong answer is B", "I doubt that B is correct") or one of several
("the answer is A or the answer is B") is none.
"""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

_SENTENCE = re.compile(
    r"""(?imx)
    (?: \b(?:answers?|conclusion|ans)
        (?:\s{1,4}(?:is|are|would\s+be|should\s+be|must\s+be)\b\s{0,4}[:：]?|[*_]{0,2}\s{0,4}[:：=])
      | ^[ \t]{0,4}[\#*]{1,6}\s{0,4}(?:(?:the|final|correct)\s){0,3}
          answer\s{0,4}[*:：]{0,3}[ \t]{0,4}\n
      | (?:答案|答え)[】*_]{0,2}\s{0,4}(?:应该|应)?(?:是|为|選|选)?\s{0,4}[:：]?
      | ^[ \t]{0,4}\#{4}[ \t]{1,4}(?=[^\n]{1,400}\s*\Z)  # the last line of a worked solution
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
    r"(?i)(?<!\S)(?!(?:it|this|that|which|what|everything|my|the|answer|work|result|reasoning|solution"
    r"|logic|approach|analysis|calculation)\s)(?P<tail>\S{1,20})\s{1,4}is\s{1,4}(?P<also>also\s{1,4})?(?:the\s{1,4})?"
    r"(?:(?:correct|right|best|final)\s{1,4})?(?:answer|option|choice|correct)\b"
)
_IS_CHOSEN_CHINESE = re.compile(
    r"(?<![A-Za-z])(?P<tail>[A-Z])\s?(?:选项)?(?P<also>也)?(?:是|为)?(?:正确|对)"
    r"(?:的|答案|选项|[。,，]|\s*$)"
)
_PATTERNS = (
    ("sentence", _SENTENCE),
    ("choice", _CHOICE),
    ("choice", _IS_CHOSEN),
    ("choice", _IS_CHOSEN_CHINESE),
)
MAX_STATEMENTS = 16  # of the last ones
_LOOK_BACK = 80  # characters before a statement that may deny it
_DENIED = re.compile(  # "I would not choose", "it is not true that the answer is"
    r"(?i)(?:\b(?:not|never|cannot|doubt|doubtful|unlikely|false|wrong|incorrect|untrue|reject"
    r"|refuse"
    r"|avoid|worst|worse|bad|rejected|discarded|eliminated|excluded|least[ \t]+[a-z]{1,12})|n't"
    r"|不|不能|不应|错误|错"
    r"|排除)的?"
    r"(?:[ \t]+(?:think|believe|say|that|the|an?|case|true|correct|right|final|would|to|be)){0,6}"
    r"[ \t]*$"
)
_OR = re.compile(
    r"(?i)(?:\b(?:or|nor)|或者?|或是)[ ,\t]+"
    r"(?:(?:maybe|perhaps|possibly|else|even|that|the|my|an?|final|correct|right|if|it"
    r"|is)[ ,\t]+){0,5}$"
)
_AND = re.compile(
    r"(?i)(?:\band|并且|和)[ \t]*(?:(?:also|the|my|final|correct|right|so|other"
    r"|second)[ \t]+){0,5}$"
)
_ONE_OF_TWO = re.compile(  # before the B of "A and B is correct"
    r"(?i)(?:(?:^|[\s(\[\"'*])\w{1,2}[)\]\"'*]{0,4}\s?(?:and|&|,|\+|和|与|及|、)|\b(?:or|nor"
    r"|both)|[/或])\s?$"
)
_NEGATION = re.compile(
    r"(?i)^(?:not|n't|never|neither|nor|(?!(?:不是?的?|不对|不正确|不会|不能|没有?)$)[不没])"
)
_CONTRAST = re.compile(
    r"(?is)^(?:(?:(?:it|that|this)(?:\sis|'s)\s|the\s(?:correct\s|right\s)?answer\sis\s)?"
    r"(?:not|neither)\s(?!sure|certain|clear|only|just).{1,40}?"
    r"(?:,?\sbut\s(?:rather\s)?|[,;.:—-]\s?(?:rather,?\s|instead,?\s)?"
    r"(?:(?:it|that)(?:\sis|'s)|the\s(?:correct\s|right\s)?answer\sis)\s)"
    r"|不是.{1,20}?[,，]?而是)(?P<kept>.+)$"
)
_HOPE = re.compile(r"(?i)[.,]?\s{1,4}I\shope\s(?:it|this|that)(?:\sis|'s)\s(?:correct|right)$")
_FIRST_SENTENCE = re.compile(r"(?P<first>.{1,120}?[\w)\]}$%*])[.。]\s{1,4}(?P<rest>(?=[A-Z\\]).+)$")
_TURN = re.compile(
    r"(?i)\b(?:not?|or|but|wait|actually|however|maybe|perhaps|alternatively|sorry|correction|instead"
    r"|if|unless|could|might|may|also|wrong|incorrect|else|either|another|answer)\b|n't\b|[?？]"
)


class Statement(NamedTuple):
    """What a final-answer sentence says."""

    tail: str
    how: str  # sentence (the answer is ...) or choice (I choose ...)
    behind: str  # the first line after it


class _Found(NamedTuple):
    start: int  # of the tail
    end: int
    match: re.Match[str]
    how: str


def statements(text: str) -> Iterator[Statement | None]:
    """Yields the final-answer sentences of a text, last first; None where one is denied.

    >>> [s and s.tail for s in statements("The answer is A. No, the answer is B.")]
    ['B', 'A. No, the answer is B']
    """
    matches = [
        _Found(m.start("tail"), m.end("tail"), m, how)
        for how, pattern in _PATTERNS
        for m in collections.deque(_overlapping(pattern, text), maxlen=MAX_STATEMENTS)
    ]
    found = sorted(matches, key=lambda f: (f.start, f.end))[-MAX_STATEMENTS:]
    for i, (_, end, match, how) in reversed(list(enumerate(found))):
        tail = match["tail"].strip().strip("*_ ").rstrip(" .;。；!！").rstrip("*_ ")
        tail = without_contrast(_HOPE.sub("", tail))
        earlier = [f.start for f in found[:i] if f.start < match.start()]
        if _is_denied(text, match, earlier) or _NEGATION.match(tail):
            yield None
            return
        if tail:
            whole = Statement(tail, how, "")
            first = _FIRST_SENTENCE.match(tail)
            behind = text[end : end + 500].strip().partition("\n")[0]
            behind = re.sub(r"(?i)^(?:or|and|或者?|和)\b\s?", "", behind.lstrip("-*>• "))
            yield whole._replace(behind=behind.strip())
            if first and how == "sentence" and not _TURN.search(first["rest"]):
                yield Statement(first["first"].strip(), how, "")


def without_contrast(text: str) -> str:
    """Returns what a text says in the end: "not A but B" says B."""
    contrast = _CONTRAST.match(text)
    return contrast["kept"].strip() if contrast else text


def _is_denied(text: str, match: re.Match[str], earlier: list[int]) -> bool:
    """Returns whether what stands before a statement denies it or makes it one of several.

    Args:
        text: the statement stands in it.
        match: the statement.
        earlier: where what earlier statements say starts.
    """
    before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
    if _DENIED.search(before) or _OR.search(before) or match.groupdict().get("also"):
        return True
    if match.re in (_IS_CHOSEN, _IS_CHOSEN_CHINESE) and _ONE_OF_TWO.search(before):
        return True
    joint = _AND.search(before) if earlier else None
    if joint is None:
        return False
    between = text[earlier[-1] : match.start()]  # "the answer is 3 and the answer is 4"
    return len(between) <= _LOOK_BACK and not re.search(r"[.!?。！？\n]", between)


def _overlapping(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Yields matches whose tails may hold further ones: one line may hold several statements."""
    at = 0
    while (match := pattern.search(text, at)) is not None:
        yield match
        at = max(match.start("tail"), match.start() + 1)
