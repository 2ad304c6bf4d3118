"""Porter's stemmer, so that "jumped" and "jumps" count as one word in ROUGE.

Source: M. F. Porter, An algorithm for suffix stripping, Program 14(3), 1980. As in Google's
rouge_score, words of up to three letters stay as they are.
"""

import functools
import re

_STEP2 = {
    **{"ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize"},
    **{"abli": "able", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous"},
    **{"ization": "ize", "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive"},
    **{"fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble"},
}
_STEP3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic"}
_STEP3 |= {"ful": "", "ness": ""}
_STEP4 = [
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion"),
    *("ou", "ism", "ate", "iti", "ous", "ive", "ize"),
]


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Returns the stem of a lower-case English word; other words come back unchanged.

    >>> [stem(w) for w in ("jumped", "ponies", "relational", "sky", "是")]
    ['jump', 'poni', 'relat', 'sky', '是']
    """
    if len(word) <= 3 or len(word) > 60 or not (word.isascii() and word.isalpha()):
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    for suffixes in (_STEP2, _STEP3):
        suffix = _longest(word, suffixes)
        if suffix and _measure(word[: -len(suffix)]) > 0:
            word = word[: -len(suffix)] + suffixes[suffix]
    suffix = _longest(word, _STEP4)
    if suffix:
        head = word[: -len(suffix)]
        if _measure(head) > 1 and (suffix != "ion" or head[-1:] in ("s", "t")):
            word = head
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_cvc(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        head = word[: -len(suffix)]
        if word.endswith(suffix) and _has_vowel(head):
            if head.endswith(("at", "bl", "iz")):
                return head + "e"
            if re.search(r"([^aeiouylsz])\1$", head):
                return head[:-1]
            if _measure(head) == 1 and _ends_cvc(head):
                return head + "e"
            return head
        if word.endswith(suffix):
            return word
    return word


def _longest(word: str, suffixes: "dict[str, str] | list[str]") -> str | None:
    return max((s for s in suffixes if word.endswith(s)), key=len, default=None)


def _shape(word: str) -> str:
    """Returns c for a consonant, v for a vowel; y is a vowel after a consonant."""
    shape = ""
    for i, letter in enumerate(word):
        vowel = letter in "aeiou" or (letter == "y" and i > 0 and shape[-1] == "c")
        shape += "v" if vowel else "c"
    return shape


def _measure(word: str) -> int:
    """Returns how often a run of vowels is followed by a run of consonants."""
    return len(re.findall("v+c+", _shape(word)))


def _has_vowel(word: str) -> bool:
    return "v" in _shape(word)


def _ends_cvc(word: str) -> bool:
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"
