"""ODV-Bench: questions about clips that a driving car has filmed.

Source: MCG-NJU/ODV-Bench; the questions are in Lanxingxuan/StreamForest-Annodata under
`anno/eval/ODVBench`, in three files of static objects, dynamic objects, and scenes of several. A
row has a video, the clip's start and end, candidates without letters, and the answer's text.
"""

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import Doc, Media, Part, Record, Sample, Show, Source, Task, Verdict
from evr1.evals.tasks.kits import easyvideor1, streamforest

CONFIGS = {
    "static": "targeting_single_static_objects_v4",
    "dynamic": "targeting_single_dynamic_objects_v4",
    "multi_agent": "targeting_multi_object_interaction_scenarios_or_events_v4",
}
_PLACES = ("", "anno/eval/ODVBench/", "ODVBench/", "json/")
_TAGS = ("task", "subtask", "subsubtask")
_ASK = "Respond with only the letter of the correct option."


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions, file by file; the third tag is there for some only."""
    for config, name in CONFIGS.items():
        files_of_it = [f"{place}{name}*" for place in _PLACES]
        for number, (where, row) in enumerate(files.rows(folder, *files_of_it)):
            video, options, answer = (
                files.field(row, field, where) for field in ("video", "candidates", "answer")
            )
            if answer not in options:
                raise ValueError(f"{where}: answer {answer!r} is none of {', '.join(options)}")
            media = Media(f"videos/{video}", start_s=row.get("start"), end_s=row.get("end"))
            tags = {tag: str(row[tag]) for tag in _TAGS if row.get(tag) is not None}
            yield Sample(f"{config}_{number}", row, (media,), {"config": config, **tags})


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns a question with its options and the wish for a letter, as StreamForest has it."""
    options = "\n".join(ours.lettered(sample.doc["candidates"]))
    return Show(), f"{sample.doc['question']}\n{options}\n{_ASK}"


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files."""
    return {
        "problem_type": easyvideor1.MULTIPLE_CHOICE,
        "problem": doc["question"],
        "options": ours.lettered(doc["candidates"]),
        "solution": f"<answer>{gold(doc)}</answer>",
    }


def gold(doc: Doc) -> str:
    """Returns the letter of the first candidate that is the answer; "" if none is."""
    options = list(doc["candidates"])
    is_there = doc["answer"] in options
    return string.ascii_uppercase[options.index(doc["answer"])] if is_there else ""


def by_ours(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    return ours.choice(response, doc["question"], doc["candidates"], gold(doc))


def by_streamforest(doc: Doc, response: str) -> Verdict:
    """Scores the authors' reading; what they tell is the right letter, not what they read."""
    letter = gold(doc)
    read = streamforest.read_letter(response)
    is_right = letter != "" and read == streamforest.read_letter(letter)
    return Verdict(letter or None, float(is_right))


def aggregate(records: Sequence[Record]) -> metrics.Means:
    """Returns the mean over all, and of each file, task, subtask and subsubtask."""
    return metrics.with_tags("config", *_TAGS)(records)


TASK = Task(
    name="odv_bench",
    source=Source(
        hub=("MCG-NJU/ODV-Bench", "Lanxingxuan/StreamForest-Annodata"),
        n=7896,
        chance=25.0,
        frames="train",
    ),
    load=load,
    prompts={
        "evr1": ask,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_ours,
        "official": by_streamforest,
        "easyvideor1": easyvideor1.rule(as_reference),
        "streamforest": by_streamforest,
    },
    aggregates=dict.fromkeys(("evr1", "official", "easyvideor1", "streamforest"), aggregate),
    facts={
        ("aggregate", "streamforest"): streamforest.answered_percent,
        ("aggregate", "official"): streamforest.answered_percent,
    },
)
