"""TempCompass's tables, as its authors, lmms-eval and VLMEvalKit make them."""

from typing import Any

from evr1.evals.tasks.base import STOPS, Doc, Verdict
from evr1.evals.tasks.kits import tables

# How many finer types each dimension has.
_TYPES = {"action": 2, "direction": 2, "speed": 2, "order": 1, "attribute_change": 4}


def rate_authors(doc: Doc, _: Any) -> Verdict:
    """Returns the authors' percentages by dimension, and their mean over all ratings.

    A failed judge's -1 is added. The kit divides by the questions of each finer type; where the doc
    has too few videos for all types of a dimension, it stops.
    """
    ratings: dict[str, list[float]] = {name: [] for name in _TYPES}
    videos = dict.fromkeys(_TYPES, 0)
    for of_video in doc["eval_results"].values():
        for name, results in of_video.items():
            ratings[name] += [result["rating"] for result in results]
            videos[name] += bool(results)
    if any(videos[name] < count for name, count in _TYPES.items()):
        return Verdict(None, None, STOPS)
    every = [rating for each in ratings.values() for rating in each]
    table: Any = {name: round(tables.percent(each), 1) for name, each in ratings.items()}
    return Verdict(None, table | {"avg": round(tables.percent(every), 1)})


def rate_lmms_eval(doc: Doc, _: Any) -> float:
    """Returns lmms-eval's percentage of ratings."""
    return tables.percent(rating == 1 for rating in doc["ratings"])


def rate_vlmevalkit(doc: Doc, _: Any) -> dict[str, float] | Verdict:
    """Returns VLMEvalKit's percentages of [right, rows] by "dimension. sub-task".

    Of a file of predictions it stops at an empty one, which comes back as a number.
    """
    if any(row["prediction"] == "" for row in doc.get("rows", ())):
        return Verdict(None, None, STOPS)
    sums: dict[str, list[int]] = {}
    for part in doc["parts"]:
        for name, counts in part.items():
            for key in (name, *name.split(". "), "overall"):
                old = sums.get(key, [0, 0])
                sums[key] = [a + b for a, b in zip(old, counts, strict=True)]
    return {key: round(100 * right / count, 2) for key, (right, count) in sums.items()}
