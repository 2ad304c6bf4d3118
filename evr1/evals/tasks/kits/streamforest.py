"""StreamForest's readers, of its ODV-Bench and OVO-Bench tasks."""

import re
from typing import Any

_LABELLED = re.compile(r"([A-E])\.\s*", re.IGNORECASE)
_LETTER = re.compile(r"\b([A-E])\b", re.IGNORECASE)
_NUMBER_COMMA = re.compile(r"\d,\d")
_DOT = re.compile(r"\.(?!\d)")
_MAX_DOTS = 32  # so many are removed
_INTEGER = re.compile(r"\b\d++\b")
_MAX_DIGITS = 4000
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def read_letter(response: str) -> str:
    """Returns the letter of "X. text", else the first lone letter A to E, else the whole text.

    Articles are letters, in either case, and so is what stands in the reasoning.

    >>> read_letter("(c)"), read_letter("A car."), read_letter("F. van")
    ('C', 'A', 'f van')
    """
    text = response.strip()
    label = _LABELLED.match(text)
    rest = text[label.end() :] if label else ""
    if label and rest and "\n" not in rest:
        return label[1].upper()
    text = _bare(_without_punctuation(text.replace("\n", " ").replace("\t", " ")))
    found = _LETTER.search(text)
    return found[1].upper() if found else text


def read_phrase(response: str) -> str:
    """Returns a text in lower case, without quotes and brackets around it."""
    return _bare(response.replace("\n", " ").replace("\t", " ").strip())


def read_count(response: str) -> int | None:
    """Returns the integer that stands in a text; None for none, or for several."""
    found = _INTEGER.findall(read_phrase(response))
    return int(found[0]) if len(found) == 1 and len(found[0]) < _MAX_DIGITS else None


def answered_percent(doc: Any, response: Any) -> float:
    """Returns the mean score of its rows in percent; an empty reply leaves the denominator."""
    rows = response if isinstance(response, list) else doc
    scores = [row["score"] for row in rows if row["pred_answer"] != ""]
    return 100 * sum(scores) / len(scores) if scores else 0.0


def _bare(text: str) -> str:
    return text.strip("'").strip('"').strip(")").strip("(").strip().lower()


def _without_punctuation(text: str) -> str:
    """Returns a text without marks that stand beside a blank; other marks become blanks."""
    has_number_comma = _NUMBER_COMMA.search(text) is not None
    kept = text
    for mark in _PUNCTUATION:
        is_beside = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if is_beside or has_number_comma else " ")
    return _DOT.sub("", kept, count=_MAX_DOTS)
