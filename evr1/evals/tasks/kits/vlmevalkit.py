"""VLMEvalKit: how it reads an option before it would ask a judge."""

import re
from collections.abc import Collection, Mapping

FAILED = "Failed to obtain answer via API"  # what the kit stores for a request that failed
NO_OPTION = "Z"

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# Any first letter of a word will do: "answer is based on" says B. Options stop at D.
_ANSWER_IS = re.compile(r"(?i)answer\s+is\s+\**([ABCD])")


def can_infer(
    answer: str, options: Mapping[str, str], *, is_wary: bool = False, is_limited: bool = True
) -> str:
    """Returns the letter that a rule reads; "Z": a refusal; "": none, a judge would be asked.

    Args:
        answer: the response.
        options: letter to text.
        is_wary: whether the word A in an answer of four words and more stops the search for
            letters, as it may be an article (the kit: where the environment sets VERBOSE).
        is_limited: whether a letter counts only among the last four words, and a text only in a
            short answer, as in later versions of the kit.
    """
    return _letter(answer, options, is_wary, is_limited) or _text(answer, options, is_limited)


def _letter(answer: str, letters: Collection[str], is_wary: bool, is_limited: bool) -> str:
    if FAILED in answer:
        return ""
    if any(refusal in answer for refusal in _REFUSALS):
        return NO_OPTION
    words = answer.translate(_MARKS).split()
    found = [letter for letter in letters if letter in words]
    if len(found) == 1:
        if is_wary and "A" in words and len(words) > 3:
            return ""
        if not is_limited or words.index(found[0]) > len(words) - 5:
            return found[0]
    elif not found and NO_OPTION in words:
        return NO_OPTION
    phrase = _ANSWER_IS.search(answer) if is_limited else None
    letter = phrase.group(1).upper() if phrase else ""
    return letter if letter in letters else ""


def _text(answer: str, options: Mapping[str, str], is_limited: bool) -> str:
    lower = answer.lower()
    if is_limited and len(lower) > 2 * sum(map(len, options.values())):
        return ""
    found = [letter for letter, text in options.items() if text.lower() in lower]
    return found[0] if len(found) == 1 else ""
