"""Rows that the tables of a kit are made of: with scores, or with responses for its rule."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evr1.evals.tasks.base import Rule

_LISTS = ("rows", "items", "results")
_TEXTS = ("response", "prediction")


def rows_of(doc: Any) -> Sequence[Mapping[str, Any]]:
    """Returns the rows of a doc that is a list of them, or holds one.

    Raises:
        ValueError: there is no such list.
    """
    if isinstance(doc, Mapping):
        doc = next((doc[name] for name in _LISTS if name in doc), None)
    if not isinstance(doc, list):
        raise ValueError(f"the doc has no rows; give a list, or one as {', '.join(_LISTS)}")
    return doc


def score_of(row: Mapping[str, Any], rule: Rule) -> float:
    """Returns the score that stands in a row, or that of its response; what has none counts as 0.

    Raises:
        KeyError: the row has neither.
    """
    if "score" in row:
        return float(row["score"] or 0.0)
    text = next((row[name] for name in _TEXTS if name in row), None)
    if text is None:
        raise KeyError("score")
    return rule(row, text).score or 0.0


def percent(scores: Iterable[float]) -> float:
    """Returns the mean in percent; 0 of nothing, as the kits have it.

    >>> percent([1.0, 0.0]), percent([])
    (50.0, 0.0)
    """
    listed = list(scores)
    return 100 * sum(listed) / len(listed) if listed else 0.0
