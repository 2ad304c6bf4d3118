"""Multiple choice: the letter of one option, or the set of letters where the truth has several."""

import re
from collections.abc import Mapping

from evr1.formats import problem_types
from evr1.rewards import numbered, parse, statements
from evr1.rewards.base import Reading, Task, Verdict

_OPEN, _CLOSE = r"(\[{<\"'*`$_【「『《", r")\]}>\"'*`$_】」』》"
_ALONE = re.compile(rf"^[\s{_OPEN}]*([A-Za-z])[\s{_CLOSE}.,:;、。!✅✓✔☑]*$")
_NAMED = re.compile(
    r"(?i)^(?:(?:option|choice|answer|letter|solution|response|correct|ans\.?"
    r"|final answer)\s?(?:[:：-]\s?)?|(?:选项"
    r"|答案)\s?(?:[:：]\s?)?)(?=[(\[\"'*]*[a-z]\b)"
)
_MARK = re.compile(  # of a list, or of a conclusion
    r"^(?:[-*>#•✅✓☑]+\s+|(?i:so|hence|thus|therefore|it is|it's)[,:]?\s+(?=\W?[A-Z]\W*$))+"
)
_OPINION = re.compile(  # "I think it is B", "It should be B"; a sentence, not the asked form
    r"(?i)^(?:(?:i (?:think|believe|guess|would say|'d say)|i'd say"
    r"|i(?:'d| would) (?:answer|choose|pick|select|go with)"
    r"|i(?:'m| am) (?:confident"
    r"|sure|certain)"
    r"|(?:among|of|from|given|based on) the (?:given |available |provided |above )?(?:options"
    r"|choices"
    r"|video|frames|image|information|evidence|context)"
    r"|in my opinion|so|hence|thus"
    r"|therefore"
    r"|overall|in (?:summary|conclusion)|finally|clearly|obviously|probably|likely|most likely"
    r"|definitely"
    r"|certainly)\b,?(?: that\b)?\s|(?:it|that|this) (?:(?:appears|seems) to be|corresponds to"
    r"|matches|is|should be|must be|would be|has to be"
    r"|will be)\s"
    r"|(?:it|that)'s\s|我(?:认为|觉得|想)|应该?|本题|故|所以|因此|是|为|选择?|(?:→|=>|=)\s?)"
)
_CONCLUDED = re.compile(  # "A is wrong, so B"
    r"(?i)^[^?？]{0,300}[,;.]\s(?:so|hence|thus|therefore),?\s(?P<rest>.{1,60})$", re.DOTALL
)
_NAMED_BY = re.compile(  # "The value is 12, which is option A"
    r"(?i)^(?P<before>[^?？\n]{0,300}?)(?:(?:[,;.]\s|^)(?:which|that|and this|this)\s"
    r"(?:is|corresponds\sto|matches)\s|,\s(?:corresponding\sto|matching|i\.e\.,?|namely|so)\s|\s?[(])"
    r"(?P<rest>(?:the\s)?(?:option|choice|answer)\s[^)]{1,60})[)]?$"
)
_LETTER_BEHIND = re.compile(r"^(?P<option>.{1,200}?)\.?\s?[(\[]\s?(?P<letter>[A-Z])\s?[)\]]\.?$")
_FIELD = re.compile(
    r"""^\{\s?["'](?:choice|option|(?:selected|correct|chosen)_(?:choice|option)|letter)["']\s?:\s?"""
    r"""["']([^"'{}]{1,200})["']\s?\}$"""
)
_NOT_SO = re.compile(r"(?i)\b(?:not?|nor|neither|wrong|incorrect|false|never|or|unlikely)\b|n't\b")
_LATEX_TEXT = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|textit)\s?\{([^{}]{0,200})\}|\\[ ,;:]|~"
)
_LEADING = re.compile(
    r"^[(\[\"'*]*(?P<letter>[A-Z]|[a-z](?=[).:]))(?P<close>[)\]\"'*]*)"
    r"(?P<after>[.,:;、。]|\s|$|(?<=[)\]])|(?=[㐀-鿿]))(?P<rest>.*)$",
    re.DOTALL,
)
_OTHER = re.compile(
    r"(?:^|(?<!\bnot)(?<!\bthan)(?<!\bof)[\s,;/&|+>]|\.\.|\b(?:or|and|或|和"
    r"|与)\b)\s*[(\[\"'*]{0,9}([A-Z])"
    r"[)\]\"'*]*(?=$|[\s,.;:/)&|+])(?!\s+(?:is|are)\s+(?:wrong|incorrect|false|not)\b)"
)
_CONTRASTED = re.compile(  # "B, not A or C"
    r"(?i)(?:\b(?:not|rather than|instead of|unlike|over)|而不是"
    r"|不是)\s?(?:option\s)?[(\[\"'*]{0,3}(?-i:[A-Z])\b"
    r"(?:[)\]\"'*]{0,3}(?:,| or| and| nor|/|或|和|、){1,2}\s?[(\[\"'*]{0,3}(?-i:[A-Z])\b){0,8}"
)
_HEDGE = re.compile(
    r"(?i)^\W*(?:(?:or|and|but|unless|if|maybe|perhaps|possibly|vs|versus)\b|[&/|+]|或|和|与|0{1,3}(?:\.0{1,6})?\s?%)"
)
_ONLY_LETTERS = re.compile(r"^(?:[\s,;/&|+()<>=*{}.:\[\]-]|\b(?:or|and)\b|\b[A-Z]\b)*$")
_DENIED = re.compile(
    r"(?i)^\W*(?:(?:is|was|are|has|have|can|could|does|did|may|might|must|should|would|will"
    r"|seems?|looks?"
    r"|appears?|be|been|being|to|also|an?|the|only|clearly|definitely|probably|obviously|just"
    r"|very)\s){0,6}"
    r"(?:(?:not|never|no|wrong|incorrect|false|untrue|ruled|excluded|eliminated|rejected"
    r"|discarded|dismissed"
    r"|unlikely|impossible|implausible|out|worst|bad|invalid|inaccurate|irrelevant|mistaken"
    r"|unsupported"
    r"|doubtful|fails?|hardly|cannot)\b|\w{2,6}n't\b)"
)
_IS_RIGHT = re.compile(  # what makes a sentence of "B ..." a choice of B
    r"(?i)^(?:(?:is|was|must be|should be|would be|has to be|seems|appears|looks)(?: to be)?\s"
    r"(?:(?:the|my|clearly|definitely|obviously|probably|likely|only|single|most|best|final"
    r"|correct|right"
    r"|more|better|indeed|therefore)\s){0,4}(?:correct|right|best|true|answer|option|choice|one"
    r"|response"
    r"|match|fit|pick|accurate|appropriate|likely|suitable|plausible|reasonable)\b"
    r"|(?:fits|matches|describes|answers|works|wins|applies|holds)\b|(?:because|since|as|due to"
    r"|based on|for|given)\s"
    r"|(?:not|rather than|instead of|over)\b|[=→(-]|[-–—]>|选项?$|项$|(?:选项|项)?(?:应该)?(?:是"
    r"|为)?(?:最)?(?:正确|对|合适|佳))"
)
_TURN = re.compile(
    r"(?i)\b(?:but|however|although|unless|maybe|perhaps|actually|wait|if not)\b|但|不过|也许"
)
_REASON = re.compile(r"(?i)^\W*(?:because|since|as|due|for|given|the|this|it|in|i|we|that)\b")
_NO_SET = re.compile(
    r"(?i)\b(?:or|nor|not|neither|either|maybe|perhaps|possibly|except|but|to|between|wrong"
    r"|incorrect"
    r"|ruled|false|versus|vs|if)\b|n't\b|[?？或不除错><–~～]|and/|(?<=[A-Za-z]) ?- ?(?=[A-Za-z]\b)"
)
_SET_FRAME = re.compile(
    r"(?i)^(?:(?:both|all of|options?|choices?|the|correct|right|answers?|are|is|choose|select|it"
    r"|should be"
    r"|i|would|pick)\b[:：]?\s?|(?:应该|故|选项|选择|选|答案|是|为|[:：])\s?)+"
)
_SET_END = re.compile(
    r"(?i)(?:选项)?\s?(?:都|均|是|are|is)?\s?(?:(?:both|all|the)\s){0,2}"
    r"(?:correct|right|正确|对|true)?(?:的|\s(?:answers?|options?|choices?))?\W*$"
)
_JOINT = re.compile(r"(?:[,;/&|+、和与及\n]|\b(?:and|plus|as well as)\b)+", re.IGNORECASE)
_ITEM = re.compile(r"^(?:[-*•]\s|\d{1,2}[.)]\s)?\s?(?:[Oo]ptions?\s)?(?P<item>.*)$", re.DOTALL)
_ROUND = re.compile(rf"[\s{_OPEN}{_CLOSE}.]+")
MAX_ITEMS = 26
_ARTICLES = "AI"  # "A dog", "I see": capital words, not options


def score(response: str, task: Task) -> Verdict | None:
    """Returns 1 for the right letter (or letters), else 0; None where no single choice is made.

    Raises:
        ValueError: the ground truth is not a letter or one of the options.
    """
    options = problem_types.label_options(task.options)
    truth = read_truth(task.answer, options)
    if len(truth) > 1:
        extraction = parse.extract(response, lambda text: _read_set(text, options))
    else:
        extraction = parse.extract(response, lambda text: read_choice(text, options))
    if extraction is None:
        return None
    reading, candidate = extraction
    letters = reading.value if len(truth) > 1 else {reading.value}
    return Verdict(float(set(letters) == truth), reading.exact, candidate.text)


def read_truth(answer: object, options: Mapping[str, str]) -> set[str]:
    """Returns the right letters of a row.

    Raises:
        ValueError: they cannot be read.
    """
    answer = parse.ground_truth(answer)
    if isinstance(answer, list) and answer:
        return set().union(*(read_truth(a, options) for a in answer))
    letter = numbered.letter_of(str(answer), options)
    if letter is not None and not isinstance(answer, bool):
        return {letter}
    if isinstance(answer, str):
        reading = read_choice(answer, options) or _read_set(answer, options)
        if reading is not None:
            return set(reading.value)
    raise ValueError(f"the answer {answer!r} is no option letter or option text; correct the row")


def read_choice(text: str, options: Mapping[str, str]) -> Reading | None:
    """Returns the one letter that a text chooses. Several letters are a hedge, not a choice.

    In the asked form are the letter, and the letter with its option's text; reasons are not.

    Args:
        text: e.g. "B", "(b)", "B. Blue", "option B", "Blue".
        options: letter → text; empty if unknown.
    """
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    text = _unwrap(parse.squeeze(parse.normalize(text)))
    reading = _read_plain(text, options)
    if reading is not None or text.rstrip().endswith(("?", "？")):
        return reading
    plain = statements.without_contrast(text)
    named = _NAMED_BY.match(plain)
    if named and not _NOT_SO.search(named["before"]):
        plain = re.sub(r"(?i)^the\s", "", named["rest"])
    concluded = _CONCLUDED.match(plain)
    plain = concluded["rest"] if concluded else plain
    plain = parse.strip_frames(_OPINION, plain)
    if plain == text:
        return None
    reading = _read_plain(_unwrap(plain), options)
    return reading and Reading(reading.value, exact=False)


def _read_plain(text: str, options: Mapping[str, str]) -> Reading | None:
    """Returns the letter that a text starts with, or the one whose option it is."""
    alone = _ALONE.match(text)
    if alone:
        return _among(alone[1].upper(), options)
    leading = _LEADING.match(text)
    if leading and leading["letter"].upper() in (options or leading["letter"].upper()):
        reading = _read_led(leading, options)
        if reading is not None:
            return reading
    letter = numbered.letter_of(text, options)
    if letter is not None:
        return Reading(letter, exact=False)
    behind = _LETTER_BEHIND.match(text)
    plain = _plain(behind["option"] if behind else text)
    if behind and plain != _plain(options.get(behind["letter"], "")):
        return None
    chosen = [letter for letter, option in options.items() if plain and plain == _plain(option)]
    return Reading(chosen[0], exact=False) if len(chosen) == 1 else None


def _read_led(leading: re.Match[str], options: Mapping[str, str]) -> Reading | None:
    """Returns the letter in front of a text, if the text behind it does not speak against it."""
    letter, after = leading["letter"].upper(), leading["close"] + leading["after"]
    rest = leading["rest"].strip()
    plain = _plain(rest)
    same = [key for key, option in options.items() if plain and plain == _plain(option)]
    if same:
        return Reading(letter) if letter in same else None
    is_hedged = _is_hedged(_CONTRASTED.sub("", rest))
    if (
        is_hedged
        or rest.endswith(("?", "？"))
        or (rest and not after and not _IS_RIGHT.match(rest))
    ):
        return None
    if not rest:
        return Reading(letter)
    is_apart = bool(after.strip()) or after == "\n"  # a letter with its mark, or on its own line
    if not is_apart and (not _IS_RIGHT.match(rest) or _TURN.search(rest)):
        return None
    if not is_apart and letter in _ARTICLES and re.match(r"(?i)(?:matches|works|for|as)\b", rest):
        return None
    return Reading(letter, exact=_may_be_option(after, rest, options))


def _may_be_option(after: str, rest: str, options: Mapping[str, str]) -> bool:
    """Returns whether the text behind a letter may be its option, where options are not known."""
    is_marked = after.strip()[-1:] in tuple(".:)、")
    return not options and is_marked and not _REASON.match(rest)


def _is_hedged(rest: str) -> bool:
    """Returns whether a first option is denied, or a second one named, right behind it."""
    if _HEDGE.match(rest) or _DENIED.match(rest):
        return True
    further = {m[1] for m in _OTHER.finditer(rest)}
    return bool(further - set(_ARTICLES)) or bool(further and _ONLY_LETTERS.match(rest))


def _among(letter: str, options: Mapping[str, str]) -> Reading | None:
    return Reading(letter) if not options or letter in options else None


def _unwrap(text: str) -> str:
    """Returns a text without wrapping LaTeX or tags, list marks, and the word "option" in front."""
    field = _FIELD.match(text)
    text = field[1] if field else text
    if "\\" in text:  # \textbf{(B) }12
        text = _LATEX_TEXT.sub(lambda m: m[1] or " ", text).strip()
    inner = re.fullmatch(r"<(b|strong|em|i|u)>(.{1,200})</\1>", parse.unwrap(text), re.DOTALL)
    text = inner[2] if inner else parse.unwrap(text)
    return _NAMED.sub("", _MARK.sub("", text), count=1)


def _read_set(text: str, options: Mapping[str, str]) -> Reading | None:
    """Returns several letters: "A, C", "both A and C", "AC", "A. red, C. green"."""
    if len(text) > parse.MAX_LABEL_CHARS:
        return None
    text = parse.squeeze(parse.unwrap(parse.normalize(text))).replace("**", "").strip(" $.。")
    text = re.sub(r'^[\[{(]"?(.{1,200}?)"?[\]})]$', r"\1", text)
    if _NO_SET.search(text):
        return None
    plain = _SET_END.sub("", _SET_FRAME.sub("", text, count=1), count=1)
    parts = [part.strip() for part in _JOINT.split(plain) if part.strip()]
    if len(parts) > MAX_ITEMS:
        return None
    letters = [letter for part in parts for letter in _read_items(part, options)]
    if not letters or len(set(letters)) != len(letters) or not all(letters):
        return None
    if options and not set(letters) <= set(options):
        return None
    return Reading(frozenset(letters), exact=plain == text and not re.search(r"[a-z]{4}", plain))


def _read_items(part: str, options: Mapping[str, str]) -> list[str]:
    """Returns the letters of one part of a list: of "- A. red", of "AC"; [""] where it is none."""
    item = _ITEM.sub(r"\g<item>", part)
    alone = _ALONE.match(item)
    if alone:
        return [alone[1].upper()]
    compact = _ROUND.sub("", item)
    if re.fullmatch(r"[A-Z]{2,26}", compact):
        return list(compact)
    reading = _read_plain(item, options)
    leading = _LEADING.match(item)
    is_option = reading is not None and (
        not leading or _plain(leading["rest"]) in map(_plain, options.values())
    )
    return [reading.value if reading is not None and is_option else ""]


def _plain(text: str) -> str:
    """Returns the letters and digits that two writings of an option share, case folded."""
    text = parse.normalize(text).casefold().rstrip(".").strip("\"'*`").rstrip()
    at = len(text)
    while at and not (text[at - 1].isalnum() or text[at - 1] == "_" or text[at - 1].isspace()):
        at -= 1
    signs = [text[at:]] if at < len(text) else []  # C++ is not C#
    return " ".join(re.findall(r"\w+", text) + signs)
