"""Yes or no."""

import re

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_WORDS |= {"是": True, "对": True, "正确": True, "否": False, "不是": False, "错误": False}
_OTHERS: dict[str, bool] = dict.fromkeys(
    ("y", "t", "yeah", "yep", "correct", "right", "是的", "对的", "有"), True
)
_OTHERS |= dict.fromkeys(("n", "f", "nope", "incorrect", "wrong", "not correct", "not true"), False)
_OTHERS |= dict.fromkeys(("不", "不对", "不正确", "不是的", "没有", "没"), False)
_OTHERS |= dict.fromkeys(("absolutely", "definitely", "certainly", "indeed", "会", "能"), True)
_OTHERS |= dict.fromkeys(("会的", "可以", "正确的"), True)
_OTHERS |= dict.fromkeys(("不会", "不能", "不可以", "错", "错的", "错误的"), False)
_OTHERS |= {"i think so": True, "i believe so": True, "of course": True, "i think not": False}
_OTHERS |= dict.fromkeys(("i don't think so", "i do not think so", "of course not"), False)
_OTHERS |= dict.fromkeys(("absolutely not", "certainly not", "definitely not"), False)
_CHINESE = {k: v for k, v in (_WORDS | _OTHERS).items() if not k.isascii()}
_DIGITS = {"1": True, "0": False}
_WORD = "yes|no|true|false"
_EXACT = re.compile(rf"(?i)^\W*({_WORD})\W*$")
_LEADING = re.compile(rf"(?i)^\W*({_WORD})\b\s*[,.;:!-]?\s*(?P<rest>.*)$", re.DOTALL)
_SECOND = re.compile(
    r"(?i)(?:^|[,.;:!?/|(\[-]|\b(?:or|and|but|maybe|perhaps|actually|rather|is|wait|mean|so|then|thus|hence"
    r"|therefore|otherwise|else)\b)"
    rf"\s*({_WORD})\b\s*(?:$|[,.;:!?/|)\]*]|(?:{_WORD}|if|otherwise)\b)"
)
_OPINION = re.compile(
    r"(?i)^(?:well|so|thus|hence|therefore|i(?:'d|\s+would)?\s+(?:think|believe|guess|say)|"
    r"in\s+my\s+opinion|it\s+is|it's|that\s+is|that's"
    r"|the\s+(?:statement|claim|sentence)\s+is|definitely|certainly|absolutely|clearly|indeed|(?:based\s+on|according\s+to|in)\s+[^,]{1,60}(?=,))\s*[,:]?\s*(?:that\s+)?"
)
_ONLY_WORDS = re.compile(rf"(?i)^(?:\W*\b(?:{_WORD})\b\W*)+$")
_CONCLUDED = re.compile(
    rf"(?i)^[^?]{{0,300}}[,;.]\s(?:so|thus|hence|therefore),?\s(?:the\sanswer\sis\s)?({_WORD})\W*$"
)
_DENIAL = re.compile(
    r"(?i)^(?:it|he|she|they|there|that|this)\s+"
    r"(?:is|are|was|were|does|do|did|can|has|have|will)(?:\s+not\b|n't\b)"
)
_EVASION = re.compile(
    r"(?i)^(?:idea|clue|comment|answer|opinion|information|way\s+to|one\s+knows)\b"
)


def score(response: str, task: Task) -> Verdict | None:
    """1 for the right polarity, else 0; None where no polarity is stated, or both are.

    Raises:
        ValueError: the ground truth is not yes or no.
    """
    truth = read_truth(task.answer)
    found = parse.extract(response, read_boolean)
    if found is None:
        return None
    reading, where = found
    return Verdict(float(reading.value == truth), reading.exact, where.text)


def read_truth(answer: object) -> bool:
    """The polarity of a ground truth: yes, true, 1, True, ...

    Raises:
        ValueError: it has none.
    """
    answer = parse.ground_truth(answer)
    reading = read_boolean(str(int(answer)) if answer in (0, 1) else str(answer))
    if reading is None:
        raise ValueError(f"the answer {answer!r} is not yes or no; correct the row")
    return reading.value


def read_boolean(text: str) -> Reading | None:
    """The polarity that a text states; "No, yes" and "not yes" state none."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    text = parse.unwrap(parse.normalize(text))
    exact = _EXACT.match(text)
    if exact:
        return Reading(_WORDS[exact[1].lower()])
    bare = text.strip(" .。!")
    if bare in _WORDS:
        return Reading(_WORDS[bare])
    if bare in _DIGITS:
        return Reading(_DIGITS[bare], exact=False)
    phrase = _OTHERS.get(" ".join(bare.casefold().split()))
    if phrase is not None:
        return Reading(phrase, exact=False)
    plain = text
    while (shorter := _OPINION.sub("", plain, count=1)) != plain:
        plain = shorter
    phrase = _OTHERS.get(" ".join(plain.strip(" .。!").casefold().split()))
    if phrase is not None:
        return Reading(phrase, exact=False)
    phrase = _read_chinese(text)
    if phrase is not None:
        return Reading(phrase, exact=False)
    concluded = _CONCLUDED.match(text)
    if concluded and len(re.findall(rf"(?i)\b(?:{_WORD})\b", text)) == 1:
        return Reading(_WORDS[concluded[1].lower()], exact=False)
    leading = _LEADING.match(plain)
    if leading and plain != text and not leading["rest"]:
        return Reading(_WORDS[leading[1].lower()], exact=False)
    if leading and leading["rest"] and not _contradicts(leading[1], leading["rest"]):
        return Reading(_WORDS[leading[1].lower()], exact=False)
    return None


def _read_chinese(text: str) -> bool | None:
    """The polarity of "是的，他开了门"; None where a later clause takes it back."""
    first, *rest = (clause.strip() for clause in re.split(r"[,，.。;；!！?？\n]", text))
    polarity = _CHINESE.get(first)
    if polarity is None or not rest or re.search(r"[?？]", text):
        return None
    if any(
        _CHINESE.get(c.lstrip("也又都却"), polarity) != polarity or re.match("但|不过|也许|或", c)
        for c in rest
    ):
        return None
    return polarity


def _contradicts(first: str, rest: str) -> bool:
    polarity = _WORDS[first.lower()]
    if _ONLY_WORDS.match(rest):
        return len({_WORDS[w.lower()] for w in re.findall(r"\w+", rest)} | {polarity}) > 1
    if re.match(r"(?i)\s*(?:or\b|[/|])", rest) or _EVASION.match(rest):
        return True
    if polarity and _DENIAL.match(rest):
        return True
    return any(_WORDS[m[1].lower()] != polarity for m in _SECOND.finditer(rest))
