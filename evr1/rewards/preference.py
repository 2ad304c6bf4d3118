"""Preference between two responses: a label, compared with the row's."""

import re

from evr1.rewards import parse
from evr1.rewards.base import Reading, Task, Verdict

_FIRST, _SECOND, _TIE = "Response 1", "Response 2", "Tie"
_NAMES: dict[str, str] = dict.fromkeys(
    ("1", "a", "first", "1st", "one", "former", "一", "第一个", "第一"), _FIRST
)
_NAMES |= dict.fromkeys(
    ("2", "b", "second", "2nd", "two", "latter", "二", "第二个", "第二"), _SECOND
)
_OTHER = {_FIRST: _SECOND, _SECOND: _FIRST}
_ASKED = re.compile(r"(?i)\s*(?:response ([12])|tie)\s*")
_NOUNS = (
    r"(?:responses?|answers?|assistants?|models?|candidates?|options?|outputs?|captions?|repl(?:y"
    r"|ies)"
    r"|回答|回复|答案)"
)
_FILLER = re.compile(rf"\bthe\b|(?:'s )?{_NOUNS}(?![a-z])")
_ROUND = " .。,:;!\"'*`()[]{}【】「」<>"  # what may stand round a label
_BEFORE_NUMBER = re.compile(
    r"(?<=[a-z答复])(?:[\s#_]{0,3}|-|\s?-\s)(?=\d)|^#(?=\d)"
)  # "Response-1"
_VERDICT = re.compile(r"\[\[([^\[\]]{1,12})\]\]")  # [[A]], [[A>>B]]
_DENIED = re.compile(r"(?i)(?:\b(?:not|never|wrong|nor|or|maybe|perhaps)\b|n't\b|不)[^.\n]*$")
_GOOD = (
    r"(?:helpful|accurate|correct|complete|comprehensive|informative|precise|relevant"
    r"|concise"
    r"|clear|useful|honest|truthful|harmless|factual|coherent|appropriate|faithful|detailed|thorough)"
)
_BARE_TIES = frozenset(
    ("0", "c", "equal", "same", "tied", "a tie", "draw", "a draw", "no difference", "both equal")
    + ("equally good", "equally bad", "both bad", "both good", "a = b", "1 = 2", "a=b", "1=2")
    + (
        "平局",
        "平手",
        "打平",
        "一样好",
        "两个一样好",
        "两者一样好",
        "两者相当",
        "不相上下",
        "同样好",
        "一样",
        "两个回答一样好",
        "两个回复一样好",
        "两个答案一样好",
    )
)
_PAIR = rf"(?:{_NOUNS} )?(?:1|a|one) (?:and|&) (?:{_NOUNS} )?(?:2|b|two)"
_TIE_SENTENCE = re.compile(
    rf"(?:(?:both|they|these|the two|both {_NOUNS}|(?:the )?(?:two )?{_NOUNS}|{_PAIR}|it"
    rf"|this) (?:are|is) )"
    r"(?:(?:about|all|both|roughly|basically|essentially|exactly|just) )?"
    r"(?:equal(?: in quality)?|equally [a-z]{1,12}|(?:the )?same|tied|a tie|a draw"
    r"|of equal quality)"
    rf"|neither(?: {_NOUNS})?(?: of them)? is better(?: than the other)?|there is no difference"
    rf"|it's a (?:tie|draw)"
)
_FRAME = re.compile(
    r"(?:overall|(?:based on|given|considering) [a-z ]{1,40}(?=,)|in summary|in conclusion"
    r"|to conclude|finally|all in all|so|thus|hence|therefore"
    r"|clearly"
    r"|ultimately|in my opinion|after [a-z ]{1,40}(?=,)|(?:while|although|though) [^,]{1,80}(?=,)"
    r"|both(?: [a-z]{1,12})? are [a-z ]{1,30}(?=, but)|(?:i|we) (?:think|believe|feel|would say"
    r"|'d say)(?: that)?"
    r"|i'd say(?: that)?|(?:it|this) (?:is|should be|must be|would be|has to be)(?! a (?:tie"
    r"|draw))|it's(?! a )"
    r"|(?:i|we) (?:would |'d )?(?:prefer|choose|pick|select|favou?r|go with|call it)"
    r"|i'd (?:prefer|choose|pick|go with)"
    rf"|my (?:choice|preference|pick|answer|verdict) is|the (?:better|best|preferred|winning"
    rf"|correct|final) (?:{_NOUNS}|one|verdict) is"
    r"|(?:the |my )?(?:final )?(?:winner|verdict|judge?ment|decision"
    r"|conclusion|preferred|preference|choice|better|best)"
    rf"(?:\s{_NOUNS})?\s?(?:is\b\s?:?|:)"
    rf"|not (?:{_NOUNS} )?(?:1|2|a|b),? but(?: rather)?|更好的(?:{_NOUNS})?是|我?(?:选择|选"
    rf"|更喜欢|认为))"
    r",?(?: but)?\s{0,2}"
)
_ADVERBS = (
    r"(?:(?:clearly|slightly|much|significantly|overall|definitely|far|a bit|a little|generally"
    r"|marginally"
    r"|substantially|the|by far|still|simply|thus|therefore|likely|probably|strongly|also|a lot"
    r"|way) ){0,3}"
)
_BETTER = re.compile(
    r"(?P<left>.{1,40}?)(?:\s?\b(?:is|was) "
    + _ADVERBS
    + rf"(?:more {_GOOD}(?:,? (?:and )?(?:more )?{_GOOD}){{0,4}}"
    + r"(?:,? and (?:hence|thus|therefore) better)?|better|best|preferred|preferable|superior"
    r"|stronger|winner|favou?red|correct|right)\b|\s(?:clearly |easily |slightly )?"
    r"(?:wins|should be (?:preferred|chosen)|(?:does|did|gives|provides|offers)"
    r" (?:a |the )?better|beats|outperforms|surpasses)\b"
    r"|\s(?:slightly |much )?better\b|\s?(?:更好|更优|更准确|更有帮助|更全面|更合适|优于"
    r"|胜出|获胜)|\s(?:over|rather than|to|not)(?=\s)|,\s?(?:not|rather than)(?=\s))"
    r"(?P<rest>.*)"
)
_WORSE = re.compile(
    r"(?P<left>.{1,40}?)(?:\s?\b(?:is|was) " + _ADVERBS + r"(?:worse|inferior|weaker)\b|\sloses\b"
    r"|\s(?:is|was) (?:not (?:quite )?as|less) (?:good|accurate|helpful|correct|detailed"
    r"|precise)(?: as|(?= than))"
    r"|\s?(?:不如|更差))(?P<rest>.*)"
)
_EQUAL = re.compile(
    r"(?P<left>[^!]{1,30}?)(?:\s?={1,2}\s?|\sis (?:just |exactly )?(?:as good as|equal to"
    r"|equally good as|tied with)\s)(?P<rest>.{1,30})"
)
_ORDER = re.compile(r"(?P<left>[^<>]{1,30}?)\s?(?P<sign>>{1,3}|<{1,3})\s?(?P<rest>[^<>]{1,30})")
_CHINESE = re.compile(r"(?P<left>.{1,12}?)比(?P<rest>.{1,12}?)(?P<sign>更?[好优强]|更?差)")
_REASON = re.compile(
    r"^(?P<left>.{1,40}?)(?:\s?[:(,-]\s?|\s(?=because\b|since\b|as\b|for\b|due\b))(?P<rest>.+)"
)
_CONCLUDED = re.compile(r".{0,200}[,;.] (?:so|hence|thus|therefore),? (.{1,40})")
_COMPARED = re.compile(
    rf"^\s?(?:{_NOUNS}|one|choice)?\s?(?:overall\s?)?(?:than|over|to"
    rf"|as)?\s?(?P<other>(?:the )?(?:{_NOUNS} )?[\w]{{1,6}})?\b"
)
_OTHER_CLAIM = re.compile(  # "… 2 is better", "1: 3, 2: 7"
    r"\b[12ab]\s?(?:(?:is|was)\s(?:\w{1,12}\s)?(?:better|best|more|preferred|correct|right)|wins|更好)"
    r"|\bequal|\btie\b"
    rf"|[,;.]\s?(?:and |but |while )?(?:{_NOUNS} )?[12ab]\s?"
    r"(?:[:=]|(?:for|in|on)\b(?! (?:contrast|comparison|general)))"
)
_BAD = re.compile(r"(?:no|bad|poor|weak|rejected|loser?|lost)\b[^a-z]*(?:$|[,;.])|-?\d")
_TURN = re.compile(
    r"\b(?:but|however|although|worse|or|if|unless|until|maybe|perhaps|might|could|would|may"
    r"|neither|hardly|barely"
    r"|never|no,? wait|doubt|ruled|wrong|incorrect)\b|n't\b|\bnot\s(?:better|the|as)\b|[?？或]"
)


def score(response: str, task: Task) -> Verdict | None:
    """Returns 1 for the right label, else 0; None where no single label is given.

    Raises:
        ValueError: the ground truth is no label.
    """
    truth = read_truth(task.answer)
    extraction = parse.extract(response, read_label)
    if extraction is None:
        return None
    reading, candidate = extraction
    return Verdict(float(reading.value == truth), reading.exact, candidate.text)


def read_truth(answer: object) -> str:
    """Returns the label of a ground truth.

    Raises:
        ValueError: it is none.
    """
    reading = read_label(str(parse.ground_truth(answer)))
    if reading is None:
        raise ValueError(
            f"the answer {answer!r} is not Response 1, Response 2 or Tie; correct the row"
        )
    return reading.value


def read_label(text: str) -> Reading | None:
    """Returns the label that a text gives: "Response 1", "B", "the second response", "Tie".

    In the asked form is a label alone; a sentence is read, but not in the asked form.
    """
    label = _verdict(text)
    if label is not None:
        return Reading(label, exact=False)
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    asked = _ASKED.fullmatch(text)
    if asked:
        return Reading({"1": _FIRST, "2": _SECOND, None: _TIE}[asked[1]])
    text = parse.unwrap(parse.squeeze(parse.normalize(text)))
    if parse.DENYING.match(text):
        return None
    text = text.casefold().strip(_ROUND)
    if re.match(r"[a-z_ ]{1,20}[\"']\s?:", text):  # {"winner": "Response 1"}
        text = re.sub(r"[\"'{}]", "", text).replace("_", " ")
    text = _BEFORE_NUMBER.sub(" ", text).strip()
    label = _name(text)
    if label is not None:
        return Reading(label, exact=label != _TIE or text == "tie")
    first, *reasons = (line.strip(_ROUND) for line in text.split("\n"))
    label = _name(first) or _sentence(first)
    if label is None or not reasons:
        return None if label is None else Reading(label, exact=False)
    if _TURN.search(text.partition("\n")[2]):
        return None
    labels = {_name(line) or _sentence(line) for line in reasons}
    return None if labels - {None, label} else Reading(label, exact=False)


def _verdict(text: str) -> str | None:
    """Returns the label of a verdict after an explanation: "... so [[A]]"; of several, none."""
    text = text[-parse.MAX_LABEL_CHARS :].strip()
    marks = list(_VERDICT.finditer(text)) if "[[" in text else []
    if not marks or len({mark[1] for mark in marks}) > 1 or text == marks[0][0]:
        return None
    if text.endswith(("?", "？")) or _DENIED.search(text[: marks[-1].start()][-40:]):
        return None
    reading = read_label(marks[-1][1])
    return reading and reading.value


def _sentence(text: str) -> str | None:
    """Returns the label that a sentence prefers: "Overall, Response 1 is better"."""
    if re.search(r"[?？]", text):
        return None
    text = parse.strip_frames(_FRAME, text).strip(_ROUND)
    concluded = _CONCLUDED.fullmatch(text)
    end = concluded[1].strip(_ROUND) if concluded else ""
    label = _name(text) or _name(end) or _compared(end)
    if label:
        return label
    order = _ORDER.fullmatch(text) or _CHINESE.fullmatch(text)
    if order:
        left, right = _name(order["left"].strip(_ROUND)), _name(order["rest"].strip(_ROUND))
        if {left, right} != {_FIRST, _SECOND}:
            return None
        return right if "<" in order["sign"] or "差" in order["sign"] else left
    equal = _EQUAL.fullmatch(text)
    if equal:
        pair = {_name(equal[side].strip(_ROUND)) for side in ("left", "rest")}
        return _TIE if pair == {_FIRST, _SECOND} else None
    return _compared(text) or _reasoned(text)


def _compared(text: str) -> str | None:
    """Returns the better of two that a sentence compares, or None where it turns or denies."""
    for pattern, is_better in ((_WORSE, False), (_BETTER, True)):
        match = pattern.fullmatch(text)
        left = match and _name(match["left"].strip(_ROUND))
        if not match or left not in _OTHER:
            continue
        rest = match["rest"]
        compared = _COMPARED.match(rest)
        other = _name((compared["other"] or "").strip(_ROUND)) if compared else None
        if other == left or _TURN.search(rest) or _OTHER_CLAIM.search(rest):
            return None
        return left if is_better else _OTHER[left]
    return None


def _reasoned(text: str) -> str | None:
    """Returns the label in front of a reason: "Response 1: it is more accurate"."""
    match = _REASON.match(text)
    label = match and _name(match["left"].strip(_ROUND))
    if not match or not label or _TURN.search(match["rest"]):
        return None
    rest = match["rest"].strip(_ROUND)
    if _BAD.match(rest):
        return None
    mentioned = _name(rest) or _compared(rest)
    is_pair = mentioned not in (None, label) or re.match(rf"(?:and )?(?:{_NOUNS} )?[12ab]\b", rest)
    return None if is_pair or _OTHER_CLAIM.search(rest) else label


def _name(text: str) -> str | None:
    """Returns the label of "response 1", "the first one", "a tie"."""
    if len(text) > 80:
        return None
    if text == "tie" or text in _BARE_TIES or _TIE_SENTENCE.fullmatch(text):
        return _TIE
    bare = " ".join(_FILLER.sub(" ", text).split()).strip(_ROUND)
    return _NAMES.get(text) or _NAMES.get(bare) or _NAMES.get(bare.removesuffix(" one"))
