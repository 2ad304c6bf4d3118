"""Yes or no."""

import re

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_WORDS = {"yes": True, "true": True, "no": False, "false": False}
_WORDS |= {"是": True, "对": True, "正确": True, "否": False, "不是": False, "错误": False}
_OTHERS: dict[str, bool] = dict.fromkeys(
    ("y", "t", "yeah", "yep", "yup", "correct", "right", "sure", "affirmative", "absolutely")
    + (
        "definitely",
        "certainly",
        "indeed",
        "of course",
        "i think so",
        "i believe so",
        "是的",
        "对的",
    )
    + ("有", "有的", "肯定的", "会", "能", "会的", "可以", "正确的", "没错", "当然", "当然是"),
    True,
)
_OTHERS |= dict.fromkeys(
    (
        "n",
        "f",
        "nope",
        "negative",
        "not at all",
        "by no means",
        "no way",
        "in no way",
        "i think not",
    )
    + ("i don't think so", "i do not think so", "i don't believe so", "i do not believe so")
    + ("of course not", "absolutely not", "certainly not", "definitely not", "不", "不对", "不正确")
    + (
        "不是的",
        "没有",
        "否定的",
        "没",
        "不会",
        "不能",
        "不可以",
        "错",
        "错的",
        "错误的",
        "当然不",
        "当然不是",
    ),
    False,
)
_CHINESE = {k: v for k, v in (_WORDS | _OTHERS).items() if not k.isascii()}
_DIGITS = {"1": True, "0": False}
_WORD = "yes|no|true|false"
_ASKED = re.compile(r"(?i)\s*(yes|no)\s*")
_EXACT = re.compile(rf"(?i)^[^\w?？❌✗✘]*({_WORD})[^\w?？❌✗✘]*$")
_LEADING = re.compile(rf"(?i)^\W*({_WORD})\b\s?(?P<mark>[,.;:!-]?)\s?(?P<rest>.*)$", re.DOTALL)
_SECOND = re.compile(
    r"(?i)(?:^|[,.;:!?/|(\[-]|\b(?:or|and|but|maybe|perhaps|actually|rather|is|wait|mean|so|then"
    r"|thus|hence"
    r"|therefore|otherwise|else|vs|versus)\b)"
    rf"\s*(?:\d+\s?%\s?)?({_WORD})\b\s*(?:$|[,.;:!?/|)\]*]|\d|(?:{_WORD}|if|otherwise|to|for|in|on|at|when|after|before)\b)"
)
_OPINION = re.compile(
    r"(?i)^(?:well|sure|of course|in short|so|thus|hence|therefore|overall"
    r"|(?:most )?(?:definitely|certainly|clearly"
    r"|likely)|absolutely"
    r"|undoubtedly|indeed|no (?:doubt|question)(?: about (?:it|that|this))?|(?:without"
    r"|beyond) (?:a |any )?doubt"
    r"|i(?:'d| would)? (?:think|believe|guess|say)|in my opinion|(?:it|that|this)(?: is|'s)"
    r"|(?:based on|according to|in) [^,]{1,60}(?=,))\b\s?[,:]?\s?(?:that )?"
)
_JUDGED = re.compile(  # "it isn't true", "the statement is not false", "untrue"
    r"(?i)^(?:(?:it|that|this|(?:the|that|this) (?:statement|claim|sentence|assertion|description))"
    r"(?:'s|s| is| was|(?: is|'s|s)?(?P<isnt>n't))\s)?(?P<no>not )?(?:actually |indeed "
    r"|definitely |clearly )?"
    r"(?P<word>true|correct|right|accurate|false|wrong|incorrect|untrue|inaccurate)\b"
    r"(?:\s(?:because|since|as|that)\b[^?]*)?$"
)
_CLAUSE = re.compile(  # behind yes or no: "Yes, it is false"
    r"(?i)^(?:it|that|this|the (?:statement|claim|sentence|answer))(?:'s| is| was)(?P<no> not|n't)?"
    r" (?P<word>true|correct|right|accurate|false|wrong|incorrect|untrue|inaccurate)\b"
)
_GOOD = frozenset(("true", "correct", "right", "accurate"))
_ONLY_WORDS = re.compile(rf"(?i)^(?:\W*\b(?:{_WORD})\b)+\W*$")
_CONCLUDED = re.compile(
    rf"(?i)^[^?]{{0,300}}(?:[,;.]\s(?:so|thus|hence|therefore),?"
    rf"|[;.])\s(?:the\sanswer\sis\s)?({_WORD})\W*$"
)
_UNSURE = re.compile(
    r"(?i)(?:\bnot|n't) (?:sure|certain|know)\b|\b(?:unsure|maybe|might|perhaps)\b"
)
_DENIAL = re.compile(
    r"(?i)^(?:it|he|she|they|there|that|this|i|we)\s+"
    r"(?:is|are|was|were|does|do|did|can|has|have|will)(?:\s+not\b|n't\b)"
)
_TAKEN_BACK = re.compile(  # "Yes is wrong", "Yes if it rains", "No, not sure"
    r"(?i)^(?:(?:is|was|would|could|can|cannot|may|might|must|should|has|seems|looks)\b"
    r"|\w{2,6}n't\b"
    r"|(?:is|was|would be) |if\b|❌|✗|✘|in part\b|partly\b|partially\b|and also\b|unless\b"
    r"|provided\b|depend|maybe\b|perhaps\b|possibly\b"
    r"|n't|not\W*$|not (?:really|sure|quite|exactly"
    r"|necessarily|always|certain)\b|\d|but\b|or\b|vs\b|versus\b|[/|&+=])"
)
_CLAUSE_WORDS = (
    r"(?:it|he|she|they|there|this|that|these|those|the|because|since|as|i|we|you|not|no|his|her"
    r"|their|its|an?|false|true"
    r"|and|none|nobody|nothing|neither|never|only|both)"
)
_DETERMINED = re.compile(rf"(?i)^(?!{_CLAUSE_WORDS}\b)\w")  # "No entry", "no doubt he does"
_EVASION = re.compile(
    r"(?i)^(?:idea|clue|comment|answer|opinion|information|way (?:to|of)|one knows|doubt|question"
    r"|evidence)\b"
)
_CROSSED = re.compile(r"^\W*[❌✗✘]")  # "❌ yes"; "❌ No" is a no
_UNTRUE = re.compile(r"(?i)^\(?(?:wrong|incorrect|untrue|inaccurate|rejected)\b")  # "Yes (wrong)"
_DECORATION = re.compile(r"[$*`\"“”<>\[\]{}]|\\(?:text|mathrm|textbf)\b")


def score(response: str, task: Task) -> Verdict | None:
    """Returns 1 for the right polarity, else 0; None where no polarity is stated, or both are.

    Raises:
        ValueError: the ground truth is not yes or no.
    """
    truth = read_truth(task.answer)
    extraction = parse.extract(response, read_boolean)
    if extraction is None:
        return None
    reading, candidate = extraction
    return Verdict(float(reading.value == truth), reading.exact, candidate.text)


def read_truth(answer: object) -> bool:
    """Returns the polarity of a ground truth: yes, true, 1, True, ...

    Raises:
        ValueError: it has none.
    """
    answer = parse.ground_truth(answer)
    reading = read_boolean(str(int(answer)) if answer in (0, 1) else str(answer))
    if reading is None:
        raise ValueError(f"the answer {answer!r} is not yes or no; correct the row")
    return reading.value


def read_boolean(text: str) -> Reading | None:
    """Returns the polarity that a text states; "No, yes", "not yes" and "Yes?" state none."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    asked = _ASKED.fullmatch(text)
    if asked:
        return Reading(asked[1].lower() == "yes")
    text = parse.squeeze(parse.unwrap(parse.normalize(text)))
    if parse.DENYING.match(text):
        return None
    exact = _EXACT.match(text)
    if exact:
        return Reading(_WORDS[exact[1].lower()])
    bare = text.strip(" .。!\n")
    if bare in _WORDS:
        return Reading(_WORDS[bare])
    polarity = _DIGITS.get(bare)
    if polarity is None:
        polarity = _read_sentence(_DECORATION.sub("", text).strip())
    return None if polarity is None else Reading(polarity, exact=False)


def _read_sentence(text: str) -> bool | None:
    """Returns the polarity of a text of several words."""
    stated = parse.strip_frames(_OPINION, text)
    for plain in (text, stated):
        phrase = plain.strip(" .。!").casefold()
        if phrase in _OTHERS:
            return _OTHERS[phrase]
        judged = _JUDGED.match(phrase)
        if judged:
            return _judge(judged)
    chinese = _read_chinese(text)
    if chinese is not None:
        return chinese
    concluded = _CONCLUDED.match(text)
    if (
        concluded
        and not _UNSURE.search(text)
        and len(re.findall(rf"(?i)\b(?:{_WORD})\b", text)) == 1
    ):
        return _WORDS[concluded[1].lower()]
    leading = _LEADING.match(stated)
    if leading and _WORDS[leading[1].lower()] and _CROSSED.match(text):
        return None
    if leading and not _contradicts(leading[1], leading["mark"], leading["rest"]):
        return _WORDS[leading[1].lower()]
    return None


def _judge(match: re.Match[str]) -> bool:
    """Returns what "it is not false" says: an even number of denials."""
    is_good = match["word"].lower() in _GOOD
    denials = bool(match["no"]) + bool(match.groupdict().get("isnt"))
    return is_good != (denials == 1)


def _read_chinese(text: str) -> bool | None:
    """Returns the polarity of "是的，他开了门"; None where a later clause takes it back."""
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


def _contradicts(first: str, mark: str, rest: str) -> bool:
    """Returns whether what stands behind the first word takes it back, or makes it another word."""
    polarity = _WORDS[first.lower()]
    if _ONLY_WORDS.match(rest):
        return len({_WORDS[w.lower()] for w in re.findall(r"\w+", rest)} | {polarity}) > 1
    clause = _CLAUSE.match(rest)
    if clause:
        return _judge(clause) != polarity
    if _TAKEN_BACK.match(rest) or _EVASION.match(rest) or rest.startswith(("?", "？")):
        return True
    if polarity and (_DENIAL.match(rest) or _UNTRUE.match(rest)):
        return True
    if not polarity and not mark and _DETERMINED.match(rest):
        return True
    return any(_WORDS[m[1].lower()] != polarity for m in _SECOND.finditer(rest))
