"""Video-Holmes: six options a question about short films of suspense.

Source: TencentARC/Video-Holmes, `test_Video-Holmes.json` and `videos.zip`, which unpacks to
`videos_cropped/`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import RANDOM, Doc, Media, Part, Sample, Show, Source, Task, Verdict
from evr1.evals.tasks.kits import easyvideor1, tables, tags

_TYPES = {"SR": 292, "IMC": 276, "TCI": 273, "TA": 200, "MHR": 332, "PAR": 194, "CTI": 270}
_LETTERS = "ABCDEF"
_FOLDERS = ("videos_cropped", "videos", "video", "Benchmark/videos")
_UNREAD = "WRONG"


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    place = files.first(folder, *_FOLDERS)
    for where, row in files.rows(
        folder, "test_Video-Holmes.json", "Benchmark/test_Video-Holmes.json"
    ):
        options = files.field(row, "Options", where)
        if files.field(row, "Answer", where) not in options:
            raise ValueError(f"{where}: answer {row['Answer']!r} is none of {', '.join(options)}")
        video = files.field(row, "video ID", where)
        files.field(row, "Question", where)
        yield Sample(
            id=f"{video}/{files.field(row, 'Question ID', where)}",
            doc=row,
            media=(Media(f"{place}/{video}.mp4"),),
            tags={"question_type": str(row.get("Question Type", ""))},
        )


def _options(doc: Doc) -> list[str]:
    return [str(doc["Options"][letter]) for letter in sorted(doc["Options"])]


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt, which wants reasons and the answer in tags."""
    options = ", ".join(f"{letter}: {text}" for letter, text in sample.doc["Options"].items())
    return Show(), (
        "Based on the given video, reason and answer the single-choice question. Provide your "
        "reasoning between the <think> and </think> tags, and then give your final answer between "
        f"the <answer> and </answer> tags. The question is: {sample.doc['Question']}. "
        f"The options are: {options}. Your answer:"
    )


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval, which wants a letter only."""
    lines = "\n".join(ours.lettered(_options(sample.doc)))
    return Show(), (
        f"Question: {sample.doc['Question']}\n{lines}\nSelect the best answer to the following "
        "multiple-choice question based on the video. Respond with only the letter (A, B, C, D, "
        "E, or F) of the correct option."
    )


def _row(doc: Doc) -> dict[str, Any]:
    return easyvideor1.choice_row(doc["Question"], _options(doc), doc["Answer"])


def by_option(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    return ours.choice(response, doc["Question"], _options(doc), doc["Answer"])


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the letter of the last answer tag, or of the whole text where there is none."""
    letter = _letter((tags.between(response, "<answer>", "</answer>") or [response])[-1])
    return Verdict(letter, float(letter == doc["Answer"]))


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores the letter of the last answer tag; without one the answer is wrong."""
    tagged = tags.between(response, "<answer>", "</answer>")
    letter = _letter(tagged[-1]) if tagged else _UNREAD
    return Verdict(letter, float(letter == doc["Answer"]))


def _letter(text: str) -> str:
    """Returns the first in the alphabet that stands as "A ", "A:" or "[A", else anywhere.

    >>> _letter("F: he saw A dog"), _letter("F. USA flag"), _letter("none")
    ('A', 'A', 'WRONG')
    """
    marked = (
        each for each in _LETTERS if any(m in text for m in (f"{each} ", f"{each}:", f"[{each}"))
    )
    anywhere = (each for each in _LETTERS if each in text)
    return next(marked, None) or next(anywhere, _UNREAD)


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores as MMMU does: by the best form of letters, then by the options' texts; else a draw."""
    for mark in ",.!?;:'":
        response = response.strip(mark)
    letter = _letter_of_mmmu(f" {response} ", doc["Options"])
    if not letter:
        return Verdict(RANDOM, None)
    return Verdict(letter, float(letter.upper() == doc["Answer"].upper()))


def _letter_of_mmmu(text: str, options: dict[str, str]) -> str:
    letters = sorted(options)
    # Of several letters the last wins; the place looked for is not always of the form found.
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in letters if form.format(letter) in text]
        if found:
            return max(found, key=lambda each: text.rfind(place.format(each)))
    lower = text.lower()
    if len(text.split()) <= 5:
        return ""
    found = [letter for letter, option in options.items() if option.lower() in lower]
    return max(found, key=lambda each: lower.rfind(options[each].lower()), default="")


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(doc["Answer"], response)


def table_by_authors(doc: Doc, _: Any) -> Verdict:
    """Returns their letters and table for responses; a failed call ("__raise__") is wrong."""
    gold = {"Answer": doc["gold"]}
    letters = [
        by_authors(gold, "Wrong" if response == "__raise__" else response).extracted
        for response in doc["responses"]
    ]
    right = [letter == doc["gold"] for letter in letters]
    of_type = {
        name: [r for t, r in zip(doc["types"], right, strict=True) if t == name] for name in _TYPES
    }
    table: Any = {
        name: f"{metrics.mean(each) if each else 0:.2f}" for name, each in of_type.items()
    }
    table["Overall Accuracy"] = f"{metrics.mean(right) if right else 0:.2f}"
    return Verdict(letters, table | {"Total Questions": str(len(right))})


def accuracy_of_lmms_eval(doc: Any, _: Any) -> float:
    """Returns the percentage over all rows, or over those of the type that the scorer names."""
    scorer = str(doc.get("scorer", "")) if isinstance(doc, Mapping) else ""
    kind = scorer.rpartition("_")[2]
    rows = tables.rows_of(doc)
    if kind in _TYPES:
        rows = [row for row in rows if _type(row) == kind]
    return tables.percent(tables.score_of(row, by_lmms_eval) for row in rows)


def table_of_vlmevalkit(doc: Any, _: Any) -> dict[str, Any]:
    """Returns the counts and shares by type, and those of all."""
    scores: dict[str, list[bool]] = {}
    for row in tables.rows_of(doc):
        scores.setdefault(_type(row), []).append(tables.score_of(row, by_vlmevalkit) == 1)
    every = [score for each in scores.values() for score in each]
    return {
        "acc_by_type": {name: _counts(scores[name]) for name in sorted(scores)},
        "total": _counts(every),
    }


def _type(row: Doc) -> str:
    return row["question_type"] if "question_type" in row else row["Question Type"]


def _counts(right: Sequence[bool]) -> dict[str, float]:
    share = tables.percent(right) / 100
    return {"correct": sum(right), "total": len(right), "acc": share}


TASK = Task(
    name="video_holmes",
    source=Source(
        hub=("TencentARC/Video-Holmes",),
        n=1837,
        counts={"question_type": _TYPES},
        chance=16.7,
        frames="train",
        licence="apache-2.0, academic use only",
    ),
    load=load,
    prompts={
        "official": ask,
        "lmms_eval": ask_as_lmms_eval,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_option,
        "official": by_authors,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
        "easyvideor1": by_reference,
    },
    aggregates={"evr1": metrics.with_tags("question_type")},
    facts={
        ("aggregate", "official"): table_by_authors,
        ("aggregate", "lmms_eval"): accuracy_of_lmms_eval,
        ("aggregate", "vlmevalkit"): table_of_vlmevalkit,
    },
)
