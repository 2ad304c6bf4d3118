"""Terms beside accuracy and format: small functions of one completion, added up by weights.

overall = accuracy_weight * accuracy + format_weight * format + sum of weight * term. Penalties lie
in [-1, 0], bonuses in [0, 1]. `rewards.terms` names the terms and their weights; without any,
nothing changes.
"""

import collections
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from evr1.formats import think_block
from evr1.rewards import parse
from evr1.rewards.base import MAX_CHARS, RowLike, Score, Status, Task, make_task
from evr1.rewards.words import UNSPACED

WORD_CHARS = 30  # a longer run of letters counts by its characters: it may hide a loop
_JAPANESE = frozenset(("CJK", "HIRAGANA", "KATAKANA"))

_TAG = re.compile(r"<\s{0,4}/?\s{0,4}(?:think(?:ing)?|answer)\s{0,4}>", re.IGNORECASE)
_UNIT = re.compile(rf"{_TAG.pattern}|[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]", re.IGNORECASE)
_NO_LANGUAGE = re.compile(rf"{_TAG.pattern}|<(?:image|video)>|\\[a-zA-Z]+", re.IGNORECASE)
_THINK_FORM = ["<think>", "</think>", "<answer>", "</answer>"]


class Settings(NamedTuple):
    """The settings of the built-in terms."""

    max_length: int  # the limit of a completion's length, in its unit
    overlong_cache: int  # how far below the limit `overlong_penalty` begins
    repetition_words: int  # words that count as one phrase


class Completion(NamedTuple):
    """The part of a completion that a term may know."""

    text: str  # with the opening think tag, where the prompt ends with it
    task: Task
    length: int  # tokens, the end token included; characters where nobody counted tokens
    is_finished: bool  # false where the length limit cut it
    settings: Settings


Term = Callable[[Completion], float]
Outcome = tuple[str, "RowLike | Task", int, bool]  # text, row, length and whether it is finished


class Terms(NamedTuple):
    """The terms of a run."""

    parts: tuple[tuple[str, float, Term], ...]  # name, weight and function
    settings: Settings


def length_penalty(completion: Completion) -> float:
    """Returns minus the share of the limit that is used up."""
    return -min(1.0, completion.length / completion.settings.max_length)


def overlong_penalty(completion: Completion) -> float:
    """Returns 0 up to overlong_cache below the limit, and from there in a line down to -1 at it.

    A completion that was cut gets -1. With a limit of 100 and a cache of 20, length 90 gets -0.5.

    Source: DAPO, arXiv 2503.14476, equation 13.
    """
    if not completion.is_finished:
        return -1.0
    limit, cache = completion.settings.max_length, completion.settings.overlong_cache
    return -min(1.0, max(0.0, (completion.length - (limit - cache)) / cache))


def repetition_penalty(completion: Completion) -> float:
    """Returns minus the share of phrases (runs of repetition_words words) seen before.

    A JSON answer is left out: boxes over time repeat themselves. "a b a b a" has the 2-word phrases
    ab, ba, ab, ba: -0.5.
    """
    words = _words(_without_json(completion.text[-MAX_CHARS:]))
    n = completion.settings.repetition_words
    phrases = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(phrases)) / len(phrases) - 1 if phrases else 0.0


def language_consistency(completion: Completion) -> float:
    """Returns the share of letters outside of the answer in the script of the problem.

    Tags, media markers and LaTeX macros are no language. An empty response is in no language: 0.
    Otherwise, without letters on either side: 1.
    """
    if not completion.text.strip():
        return 0.0
    scripts = _scripts(_NO_LANGUAGE.sub(" ", completion.task.problem))
    text = completion.text[-MAX_CHARS:]
    letters = _count_scripts(_NO_LANGUAGE.sub(" ", _without(text, parse.answer_span(text))))
    if not scripts or not letters:
        return 1.0
    return sum(n for script, n in letters.items() if script in scripts) / sum(letters.values())


def think_format(completion: Completion) -> float:
    """Returns 1 for one think block and then one answer tag, neither empty, nothing else; or 0."""
    text = completion.text.strip()
    if _TAG.findall(text) != _THINK_FORM:
        return 0.0
    before, reasoning, between, answer, after = _TAG.split(text)
    return float(
        bool(reasoning.strip() and answer.strip()) and not (before + between + after).strip()
    )


TERMS: Mapping[str, Term] = {
    "length_penalty": length_penalty,
    "overlong_penalty": overlong_penalty,
    "repetition_penalty": repetition_penalty,
    "language_consistency": language_consistency,
    "think_format": think_format,
}


NEED_LIMIT = ("length_penalty", "overlong_penalty")  # they go by max_length


def find_terms(
    weights: Iterable[tuple[str, float]], own: Mapping[str, Term], settings: Settings
) -> Terms:
    """Returns the terms of these names.

    Args:
        weights: name and weight of each.
        own: terms of the user's; one of the same name replaces a built-in one.
        settings: of the built-in ones.

    Raises:
        ValueError: no such term.
    """
    available = {**TERMS, **own}
    for name, _ in weights:
        if name not in available:
            raise ValueError(f"rewards.terms names {name!r}; there are {', '.join(available)}")
    return Terms(tuple((name, weight, available[name]) for name, weight in weights), settings)


def add_terms(scores: Sequence[Score], outcomes: Iterable[Outcome], terms: Terms) -> list[Score]:
    """Returns the scores with each term's value, and their weighted sum in overall.

    A score that timed out or failed stays as it is. A term that fails makes it one of status error.

    Args:
        scores: as the scorers gave them.
        outcomes: text, row, length and end of each completion, in the same order.
        terms: of the run.
    """
    if not terms.parts:
        return list(scores)
    return [
        _add(score, _completion(outcome, terms.settings), terms)
        if score.status in (Status.OK, Status.UNPARSED)
        else score
        for score, outcome in zip(scores, outcomes, strict=True)
    ]


def _completion(outcome: Outcome, settings: Settings) -> Completion:
    text, row, length, finished = outcome
    task = make_task(row)
    if task.think_open and text:
        text = think_block.OPENING + text
    return Completion(text, task, int(length), bool(finished), settings)


def _add(score: Score, completion: Completion, terms: Terms) -> Score:
    values, added = [], 0.0
    for name, weight, term in terms.parts:
        try:
            value = float(term(completion)) + 0.0  # -0.0 is shown as 0.0
        # A user's term may fail in any way; it is a counted outcome of this completion.
        except Exception as e:  # noqa: BLE001
            return _failed(f"term {name}: {type(e).__name__}: {e}")
        if not math.isfinite(value):
            return _failed(f"term {name} gave {value}; give a finite number")
        values.append((name, value))
        added += weight * value
    return score._replace(overall=score.overall + added, terms=tuple(values))


def _failed(detail: str) -> Score:
    return Score(0.0, 0.0, 0.0, Status.ERROR, detail=detail)


def _words(text: str) -> list[str]:
    """Returns words, tags, punctuation marks, and single characters of scripts without spaces."""
    words: list[str] = []
    for unit in _UNIT.findall(parse.normalize(text).casefold()):
        words += [unit] if len(unit) <= WORD_CHARS else unit
    return words


def _without_json(text: str) -> str:
    span = parse.answer_span(text)
    return _without(text, span) if span and parse.read_json(text[slice(*span)]) else text


def _without(text: str, span: tuple[int, int] | None) -> str:
    """Returns the text without what stands at a span of it."""
    return text[: span[0]] + text[span[1] :] if span else text


def _scripts(text: str) -> frozenset[str]:
    """Returns the script of most letters of a text; for Japanese, all three of its scripts."""
    counts = _count_scripts(text)
    if not counts:
        return frozenset()
    most = max(counts, key=lambda script: counts[script])
    is_japanese = most in _JAPANESE and counts.keys() & (_JAPANESE - {"CJK"})
    return _JAPANESE if is_japanese else frozenset((most,))


def _count_scripts(text: str) -> dict[str, int]:
    """Returns script → how many letters of the text are in it, full-width letters as plain ones."""
    counts: dict[str, int] = {}
    for character, n in collections.Counter(unicodedata.normalize("NFKC", text)).items():
        if character.isalpha():
            script = re.split("[ -]", unicodedata.name(character, "?"), maxsplit=1)[0]
            script = "CJK" if script == "IDEOGRAPHIC" else script
            counts[script] = counts.get(script, 0) + n
    return counts
