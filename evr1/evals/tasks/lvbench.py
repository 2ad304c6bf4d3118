"""LVBench: four options a question, asked about videos of half an hour and more.

Source: zai-org/LVBench (before: THUDM/LVBench), `video_info.meta.jsonl`, a line a video; the
videos are YouTube's, or those of the mirror lmms-lab/LVBench. Options stand in the question, as
"(A) text".
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    KIT_STOPS,
    STOPS,
    Doc,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, lmms_eval, thudm

_OPTION = re.compile(r"(?m)^\(([A-Z])\)[ \t]*(.*)$")


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions, video by video."""
    path = files.find(folder, "video_info.meta.jsonl")
    for number, video in enumerate(files.read_jsonl(path), 1):
        where = f"{path}:{number}"
        key = files.field(video, "key", where)
        for row in files.field(video, "qa", where):
            uid, labels = files.field(row, "uid", where), files.field(row, "question_type", where)
            files.check_letter(files.field(row, "answer", where), 4, where)
            yield Sample(
                id=str(uid),
                doc=row,
                media=(Media(f"videos/{key}.mp4"),),
                tags={"capability": tuple(labels), "video_type": str(video.get("type", ""))},
            )


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt: the question with its options, then the wish for a letter."""
    return Show(), _ask(sample.doc)


def _ask(doc: Doc, _: Any = None) -> str:
    return f"{doc['question']}\nAnswer the question with the option letter"


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the first character between the first brackets, or of the text without any."""
    letter = thudm.read_letter(response)
    return Verdict(letter, float(letter == doc["answer"]))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores by lmms-eval's shared reader."""
    letter = lmms_eval.read_letter(response, "ABCD")
    return Verdict(letter, float(letter == doc["answer"]))


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(doc["answer"], response)


def _row(doc: Doc) -> dict[str, Any]:
    # In its file options stand below the question, as "A. text".
    options = ours.lettered([text for _, text in _OPTION.findall(doc["question"])])
    stem = _OPTION.sub("", doc["question"]).strip()
    kind = easyvideor1.MULTIPLE_CHOICE
    return {"problem_type": kind, "problem": stem, "options": options}


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [text for _, text in _OPTION.findall(doc["question"])]
    stem = _OPTION.sub("", doc["question"]).strip()
    return ours.choice(response, stem, options, doc["answer"])


def accuracy_by_authors(doc: Doc, response: Any) -> dict[str, float] | Verdict:
    """Returns their table for `answers` (uid to raw text) beside `meta`; they stop without one.

    Only questions with an answer count, and an answer must be the very letter.
    """
    right: dict[str, list[bool]] = {}
    every: list[bool] = []
    for row in (row for video in doc["meta"] for row in video["qa"]):
        if row["uid"] not in doc["answers"]:
            continue
        is_right = doc["answers"][row["uid"]] == row["answer"]
        every.append(is_right)
        for label in row["question_type"]:
            right.setdefault(label, []).append(is_right)
    if not every:
        return Verdict(None, None, STOPS)
    return {**{k: sum(v) / len(v) for k, v in right.items()}, "acc": sum(every) / len(every)}


TASK = Task(
    name="lvbench",
    source=Source(
        hub=("zai-org/LVBench", "THUDM/LVBench", "lmms-lab/LVBench", "lmms-eval/LVBench"),
        n=1549,
        chance=25.0,
        frames="lvbench",
        licence="cc-by-nc-sa-4.0",
    ),
    load=load,
    prompts={
        "lmms_eval": ask,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_letter,
        "official": by_authors,
        "easyvideor1": by_reference,
        "lmms_eval": by_lmms_eval,
    },
    aggregates={"evr1": metrics.with_tags("capability", "video_type")},
    facts={
        ("aggregate", "official"): accuracy_by_authors,
        ("prompt", "lmms_eval"): _ask,
    },
    differs=KIT_STOPS,
)
