"""MINERVA: five options a question about long videos, with the reasoning that leads to each.

Source: `minerva.json` of google-deepmind/neptune's bucket, also at lmms-lab-eval/minerva; the
videos are YouTube's. The authors publish no scorer.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    RANDOM,
    Doc,
    Finding,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, tables

_LETTERS = "ABCDE"
_ENDINGS = ("mp4", "webm", "mkv", "mov")
_STATED = re.compile(r"(?i)(?:answer|option)\s*(?:is|:)\s*([ABCDE])")
_DIRECTLY = "\nAnswer with the option's letter from the given choices directly."
_OLD_TYPE = "question type"


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    for where, row in files.rows(folder, "minerva.json", "data/*.parquet"):
        for name in ("question", *(f"answer_choice_{i}" for i in range(5))):
            files.field(row, name, where)
        files.check_letter(_gold(row), len(_LETTERS), where)
        video = files.field(row, "video_id", where)
        types = str(row.get("question_type") or row.get(_OLD_TYPE) or "")
        paths = [f"videos/{video}.{ending}" for ending in _ENDINGS]
        yield Sample(
            id=str(files.field(row, "key", where)),
            doc=row,
            media=(Media(files.first(folder, *paths)),),
            tags={
                "question_type": tuple(name.strip() for name in types.split(",") if name.strip()),
                "split": str(row.get("split", "")),
                "category": str(row.get("category", "")),
            },
        )


def _options(doc: Doc) -> list[str]:
    return [str(doc.get(f"answer_choice_{i}", "")).strip() for i in range(5)]


def _gold(doc: Doc) -> str:
    """Returns the letter of a place, or of the option that equals the answer; "": none."""
    place = doc.get("answer_id")
    if isinstance(place, str) and place.isdecimal():
        place = int(place)
    if isinstance(place, int) and 0 <= place < len(_LETTERS):
        return _LETTERS[place]
    answer, options = str(doc.get("answer", "")).strip(), _options(doc)
    return _LETTERS[options.index(answer)] if answer in options else ""


def _question(doc: Doc) -> str:
    return "\n".join([str(doc.get("question", "")).strip(), *ours.lettered(_options(doc))])


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval."""
    return Show(), _question(sample.doc) + _DIRECTLY


def _row(doc: Doc) -> dict[str, Any]:
    return easyvideor1.choice_row(doc["question"], _options(doc), _gold(doc))


def by_option(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    return ours.choice(response, doc["question"], _options(doc), _gold(doc))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the last stated letter, else the last capital A-E wherever it stands; else a draw."""
    stated = [found[1].upper() for found in _STATED.finditer(response)]
    # The kit deletes phrases first; they hold no capital A-E but that of "Answer:", which with a
    # letter behind it has been stated.
    capitals = [char for char in response.replace("Answer:", "") if char in _LETTERS]
    letter = (stated or capitals or [""])[-1]
    return Verdict(letter, float(letter == _gold(doc))) if letter else Verdict(RANDOM, None)


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(_gold(doc), response)


def accuracy_of_lmms_eval(doc: Any, _: Any) -> Finding:
    """Returns the percentage over all rows; those of types, splits and categories are logged."""
    rows = tables.rows_of(doc)
    return Finding(None, tables.percent(tables.score_of(row, by_lmms_eval) == 1 for row in rows))


def gold_of_lmms_eval(doc: Doc, _: Any) -> Verdict:
    """Returns the right letter; a row with the old name of a field only brings a warning."""
    if _OLD_TYPE in doc and "question_type" not in doc:
        return Verdict(None, None, "old_field")
    return Verdict(_gold(doc), None)


TASK = Task(
    name="minerva",
    source=Source(
        hub=("lmms-lab-eval/minerva",),
        n=1515,
        chance=20.0,
        frames="minerva",
        licence="cc-by-4.0",
    ),
    load=load,
    prompts={
        "lmms_eval": ask,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={"evr1": by_option, "lmms_eval": by_lmms_eval, "easyvideor1": by_reference},
    aggregates={"evr1": metrics.with_tags("question_type", "split", "category")},
    facts={
        ("aggregate", "lmms_eval"): accuracy_of_lmms_eval,
        ("load", "lmms_eval"): gold_of_lmms_eval,
        ("prompt", "lmms_eval"): lambda doc, _: _question(doc),
    },
    differs={"old_field": "the kit logs a warning about an old name of a field; ours reads it"},
)
