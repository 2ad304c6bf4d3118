"""VSI-Bench: what a walk through a home shows of its space, by letters and by numbers.

Source: nyu-visionx/VSI-Bench, split test (`test-00000-of-00001.parquet`, before: `test.jsonl`), and
a zip of videos for each of arkitscenes, scannet and scannetpp. Six types of questions have lettered
options, four ask for a number. The headline is the mean over eight types, where the three levels
of relative direction are one.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    KIT_STOPS,
    STOPS,
    Doc,
    Fingerprint,
    Media,
    Part,
    Record,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, vlmevalkit_spatial

NUMERIC = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
)
DIRECTIONS = tuple(f"object_rel_direction_{level}" for level in ("easy", "medium", "hard"))
CHOICES = ("object_rel_distance", *DIRECTIONS, "route_planning", "obj_appearance_order")
_DIRECTION = "object_rel_direction"
_EIGHT = (*NUMERIC, "object_rel_distance", _DIRECTION, "route_planning", "obj_appearance_order")
_MRA = "MRA:.5:.95:.05"

_PREFACE = "These are frames of a video."
_LETTER = "Answer with the option's letter from the given choices directly."
_NUMBERS = {  # how a number is asked for, by the kind of model
    "default": "Please answer the question using a single word or phrase.",
    "gemini_api": "Do not response anything other than a single number!",
    "gpt4v": "Do not response anything other than a single number!",
    "vlmevalkit": "Answer briefly and directly in one float number.",
}


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    for where, row in files.rows(folder, "test*.parquet", "*/test*.parquet", "test.jsonl"):
        names = ("id", "dataset", "scene_name", "question_type", "question", "ground_truth")
        number, dataset, scene, kind, _, truth = (files.field(row, n, where) for n in names)
        if kind in CHOICES:
            files.check_letter(truth, len(files.field(row, "options", where) or ()), where)
        elif kind not in NUMERIC:
            raise ValueError(f"{where}: question_type {kind!r} is none of {', '.join(_EIGHT)}")
        elif _float(truth) is None:
            raise ValueError(f"{where}: ground_truth {truth!r} is no number")
        tags = {"question_type": kind, "dataset": dataset}
        yield Sample(str(number), row, (Media(f"{dataset}/{scene}.mp4"),), tags)


def _text(doc: Doc, style: str = "default", header: tuple[str, ...] = ("Options:",)) -> str:
    if doc["question_type"] in NUMERIC:
        return "\n".join([_PREFACE, doc["question"], _NUMBERS[style]])
    return "\n".join([_PREFACE, doc["question"], *header, *doc["options"], _LETTER])


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    return Show(), _text(sample.doc)


def ask_as_vlmevalkit(sample: Sample) -> tuple[Part, ...]:
    """Returns VLMEvalKit's prompt."""
    return Show(), _text(sample.doc, "vlmevalkit", ())


def fingerprint(doc: Doc, response: Any) -> Fingerprint:
    """Returns that of the authors' text, for a kind of model as its variant."""
    return Fingerprint.of(_text(doc, doc["variant"]))


def fingerprint_of_vlmevalkit(doc: Doc, response: Any) -> Fingerprint:
    """Returns that of VLMEvalKit's text."""
    return Fingerprint.of(_text(doc, "vlmevalkit", ()))


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files."""
    kind = "regression" if doc["question_type"] in NUMERIC else easyvideor1.MULTIPLE_CHOICE
    return {
        "problem_type": kind,
        "problem": doc["question"],
        "options": doc.get("options"),
        "solution": f"<answer>{doc['ground_truth']}</answer>",
    }


# Rules.


def by_ours(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    if doc["question_type"] in NUMERIC:
        return ours.verdict(
            response, "regression", str(doc["ground_truth"]), problem=doc["question"]
        )
    options = [files.without_letter(option) for option in doc["options"]]
    return ours.choice(response, doc["question"], options, doc["ground_truth"])


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the text before the first blank: a letter in either case, or a bare number."""
    word = _first_word(response)
    if doc["question_type"] in NUMERIC:
        return _numeric(_float(word), doc, _by_gold)
    return Verdict(word, float(word.lower() == doc["ground_truth"].lower()))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores letters as the authors, and the first number of the text, or number in words."""
    if doc["question_type"] in NUMERIC:
        return _numeric(_first_number(response), doc, _by_gold)
    return by_authors(doc, response)


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores by its readers for benchmarks of space."""
    truth = str(doc["ground_truth"])
    if doc["question_type"] in NUMERIC:
        return _numeric(vlmevalkit_spatial.read_number(response), doc, _by_size)
    letter = vlmevalkit_spatial.read_letter(response)
    return Verdict(letter or False, float(letter == vlmevalkit_spatial.read_letter(truth) != ""))


def _first_word(response: str) -> str:
    return response.split(" ")[0].rstrip(".").strip()


def _float(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


_DIGITS = re.compile(r"-?\d+(?:\.\d+)?")
_UNITS = vlmevalkit_spatial.WORDS[:20]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_IN_WORDS = re.compile(
    rf"\b(?:({'|'.join(_TENS)})(?:[\s-]({'|'.join(_UNITS[1:10])}))?|({'|'.join(_UNITS)}))\b",
    re.IGNORECASE,
)


def _first_number(response: str) -> float | None:
    """Returns the first number in digits, or else the first in words.

    >>> _first_number("About 4,000"), _first_number("Twenty-one chairs.")
    (4.0, 21.0)
    """
    if found := _DIGITS.search(response):
        return float(found[0])
    if not (found := _IN_WORDS.search(response)):
        return None
    tens, more, unit = (word and word.lower() for word in found.groups())
    if tens:
        return 20.0 + 10 * _TENS.index(tens) + (_UNITS.index(more) if more else 0)
    return float(_UNITS.index(unit or ""))


def _numeric(number: float | None, doc: Doc, error: Callable[[float, float], float]) -> Verdict:
    gold = _float(doc["ground_truth"])
    shown = number if number is None or math.isfinite(number) else str(number)
    if number is None or gold is None:
        return Verdict(shown, 0.0)
    stops = STOPS if gold == 0 and error is _by_gold else ""
    return Verdict(shown, relative_accuracy(error(number, gold)), stops)


def _by_gold(number: float, gold: float) -> float:
    """Returns the relative error; with a negative gold it is negative, so anything is right."""
    return abs(number - gold) / gold if gold else math.inf


def _by_size(number: float, gold: float) -> float:
    return abs((number - gold) / gold) if gold else abs(number)


def relative_accuracy(error: float) -> float:
    """Returns the share of ten bounds that a relative error keeps.

    At the bounds double precision decides, so the operations and their order are the authors'.

    >>> relative_accuracy(0.0), relative_accuracy(0.2), relative_accuracy(0.51)
    (1.0, 0.6, 0.0)
    """
    return float(np.mean(error <= 1 - np.linspace(0.5, 0.95, 10)))


# Aggregates.


def aggregate(records: Sequence[Record]) -> metrics.Means:
    """Returns the mean over the types that are there, each of them, and each video source."""
    by_type: dict[str, list[float]] = {}
    for record in records:
        kind = record.sample.doc["question_type"]
        by_type.setdefault(kind, []).append(metrics.score(record))
    means = {kind: metrics.mean(values) for kind, values in by_type.items()}
    types = _eight(means)
    levels = {kind: means[kind] for kind in DIRECTIONS if kind in means}
    return {
        "overall": metrics.macro(types),
        **{f"question_type/{kind}": value for kind, value in {**types, **levels}.items()},
        **metrics.by_tag(records, "dataset"),
    }


def _eight(means: Mapping[str, float]) -> dict[str, float]:
    """Returns the means of the types that are there, in order; the levels of direction are one."""
    levels = [means[kind] for kind in DIRECTIONS if kind in means]
    merged = {**means, _DIRECTION: metrics.mean(levels)} if levels else means
    return {kind: merged[kind] for kind in _EIGHT if kind in merged}


def aggregate_as_reference(records: Sequence[Record]) -> metrics.Means:
    """Returns the reference's two means, over all letters and over all numbers."""
    numbers = [r for r in records if r.sample.doc["question_type"] in NUMERIC]
    letters = [r for r in records if r.sample.doc["question_type"] in CHOICES]
    return {
        "mean_acc": metrics.mean(map(metrics.score, letters)),
        "mean_mra": metrics.mean(map(metrics.score, numbers)),
    }


def aggregate_scores(doc: Any, response: Any) -> dict[str, float]:
    """Returns the authors' table in percent over scored rows; VLMEvalKit has the same."""
    by_type: dict[str, list[float]] = {}
    for row in doc:
        by_type.setdefault(row["question_type"], []).append(row.get("accuracy", row.get(_MRA)))
    types = _eight({kind: metrics.mean(values) for kind, values in by_type.items()})
    named = {f"{k}_{_MRA if k in NUMERIC else 'accuracy'}": 100 * v for k, v in types.items()}
    return {"overall": 100 * metrics.macro(types), **named}


def aggregate_as_lmms_eval(doc: Any, response: Any) -> float | Verdict:
    """Returns its overall mean; it stops where a level of direction is missing."""
    if not set(DIRECTIONS) <= {row["question_type"] for row in doc}:
        return Verdict(None, None, STOPS)
    return round(aggregate_scores(doc, response)["overall"] / 100, 6)


TASK = Task(
    name="vsi_bench",
    source=Source(
        hub=("nyu-visionx/VSI-Bench",),
        n=5130,
        counts={
            "question_type": {
                "object_size_estimation": 953,
                "object_abs_distance": 834,
                "object_rel_distance": 710,
                "obj_appearance_order": 618,
                "object_counting": 565,
                "object_rel_direction_medium": 378,
                "object_rel_direction_hard": 373,
                "object_rel_direction_easy": 217,
                "room_size_estimation": 288,
                "route_planning": 194,
            },
            "dataset": {"arkitscenes": 1601, "scannet": 2071, "scannetpp": 1458},
        },
        chance=28.7,
        metric="mean over 8 types",
        frames="vsi_bench",
        licence="apache-2.0",
    ),
    load=load,
    prompts={
        "official": ask,
        "lmms_eval": ask,
        "vlmevalkit": ask_as_vlmevalkit,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_ours,
        "official": by_authors,
        "easyvideor1": easyvideor1.rule(as_reference),
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
    },
    aggregates={
        **dict.fromkeys(("evr1", "official", "lmms_eval", "vlmevalkit"), aggregate),
        "easyvideor1": aggregate_as_reference,
    },
    facts={
        ("prompt", "official"): fingerprint,
        ("prompt", "lmms_eval"): fingerprint,
        ("prompt", "vlmevalkit"): fingerprint_of_vlmevalkit,
        ("aggregate", "official"): aggregate_scores,
        ("aggregate", "vlmevalkit"): aggregate_scores,
        ("aggregate", "lmms_eval"): aggregate_as_lmms_eval,
    },
    differs=KIT_STOPS,
)
