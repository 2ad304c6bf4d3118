"""VCR-Bench: seven dimensions of reasoning about videos, with the steps that lead to each answer.

Source: VLM-Reasoning/VCR-Bench, `v1/videos/meta_info_video.json` and `v1/videos/video/`. 510 rows
have options, 65 ask for a span of seconds, 144 for a box of pixels, the others for a short answer.
The steps of a response are weighed by a judge, under profiles of their own (`evr1_steps`).
"""

import ast
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import JUDGE, Doc, Media, Part, Sample, Show, Source, Task, Verdict
from evr1.evals.tasks.judging import steps, verdicts
from evr1.evals.tasks.kits import easyvideor1, tables

_DIMENSIONS = {
    "Fundamental Temporal Reasoning": 159,
    "Video Temporal Counting": 161,
    "Video Temporal Grounding": 143,
    "Video Knowledge Reasoning": 153,
    "Temporal Spatial Reasoning": 135,
    "Video Plot Analysis": 139,
    "Temporal Spatial Grounding": 144,
}
_ANNOTATIONS = ("v1/videos/meta_info_video.json", "meta_info_video.json")
_IOU_OF_SPANS, _IOU_OF_BOXES = 0.7, 0.5  # an overlap must be greater
_UNREADABLE = Verdict(None, None, "unreadable_judge")
_MAX_NUMBERS_CHARS = 200  # of a list of two numbers


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    for where, row in files.rows(folder, *_ANNOTATIONS):
        path, answer = files.field(row, "video_path", where), files.field(row, "answer", where)
        kind = _kind(row)
        if kind == "choice" and answer not in _choices(row):
            letters = ", ".join(_choices(row))
            raise ValueError(f"{where}: answer {answer!r} is none of {letters or 'no options'}")
        yield Sample(
            id=str(files.field(row, "id", where)),
            doc=row,
            media=(Media(path if path.startswith("v1/") else f"v1/videos/{path}"),),
            tags={
                "dimension": str(row.get("dimension", "")),
                "duration": _duration(float(row.get("duration") or 0)),
                "kind": kind,
            },
        )


def _duration(seconds: float) -> str:
    return "0-60" if seconds <= 60 else "60-300" if seconds <= 300 else "300+"


def _choices(doc: Doc) -> dict[str, str]:
    choices = doc.get("choices") or {}
    return {letter: choices[letter] for letter in sorted(choices) if choices[letter]}


def _kind(doc: Doc) -> str:
    if doc.get("multiple-choice"):
        return "choice"
    if _span(doc["answer"]):
        return "span"
    return "box" if _box(doc["answer"]) else "open"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of VLMEvalKit for video models: the question, then the video."""
    return sample.doc["question"], Show()


def _row(doc: Doc) -> dict[str, Any]:
    if _kind(doc) == "choice":
        return easyvideor1.choice_row(_stem(doc), list(_choices(doc).values()), doc["answer"])
    solution = f"<answer>{doc['answer']}</answer>"
    return {"problem_type": "open-ended", "problem": doc["question"], "solution": solution}


def _stem(doc: Doc) -> str:
    """Returns the question before its options, the first of which follows without a blank."""
    first = next(iter(_choices(doc).values()))
    return doc["question"].rpartition(f"A. {first}")[0].strip() or doc["question"]


# Our rule.


def by_answer(doc: Doc, response: str) -> Verdict:
    """Scores by our own rules; a short answer that is not the right one is left to a judge.

    A span or a box is right where it overlaps as much as the authors want.
    """
    kind, answer = _kind(doc), doc["answer"]
    if kind == "choice":
        return ours.choice(response, _stem(doc), list(_choices(doc).values()), answer)
    if kind == "span":
        verdict = ours.verdict(response, "temporal grounding", sorted(_span(answer)))
        return verdict._replace(score=float((verdict.score or 0) > _IOU_OF_SPANS))
    if kind == "box":
        verdict = ours.verdict(response, "spatial grounding", _box(answer))
        return verdict._replace(score=float((verdict.score or 0) > _IOU_OF_BOXES))
    return ours.short_answer(response, answer)


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule, for which spans and boxes are short answers, too."""
    if _kind(doc) == "choice":
        return easyvideor1.choice(doc["answer"], response)
    return easyvideor1.score(_row(doc), response)


def by_judge(doc: Doc, response: str) -> Verdict:
    """Asks a judge, who reads the answer first and then weighs it."""
    return Verdict(JUDGE, None)


# The answer that the authors' judge has read.


def match(answer: str, read: str | None) -> Any:
    """Returns "1" or "0" where spans or boxes decide, 0 where their rule fails, else JUDGE.

    Args:
        answer: the right one.
        read: what the judge read in the response.
    """
    spans, boxes = (_span(answer), _span(read)), (_box(answer), _box(read))
    if all(spans):
        return "1" if _span_iou(*spans) > _IOU_OF_SPANS else "0"
    if boxes[0] and read is None:
        return 0
    if not all(boxes):
        return JUDGE
    try:
        return "1" if _box_iou(*boxes) > _IOU_OF_BOXES else "0"
    except ZeroDivisionError:  # neither box has an area
        return 0


def _span(text: Any) -> list[float]:
    """Returns the two numbers of a Python list; []: there is none."""
    if not isinstance(text, str) or len(text) > _MAX_NUMBERS_CHARS:
        return []
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return []
    is_span = isinstance(value, list) and len(value) == 2
    return value if is_span and all(isinstance(each, int | float) for each in value) else []


def _box(text: Any) -> list[int]:
    """Returns the four integers between square brackets; []: there are none."""
    if not isinstance(text, str) or not (text.startswith("[") and text.endswith("]")):
        return []
    parts = text[1:-1].split(",")
    try:
        return [int(part) for part in parts] if len(parts) == 4 else []
    except ValueError:
        return []


def _span_iou(a: Sequence[float], b: Sequence[float]) -> float:
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull else 0.0


def _box_iou(a: Sequence[int], b: Sequence[int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width < 0 or height < 0:
        return 0.0
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    union = sum(areas) - width * height
    return width * height / union


# Judges.


def judge_answer(doc: Doc, response: str) -> verdicts.Asking:
    """Asks whether a short answer says what the right one says."""
    return verdicts.by_truth(doc["question"], str(doc["answer"]), response)


def judge_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the answer, then whether it is right unless spans or boxes decide."""
    read = yield from verdicts.find_answer(doc["question"], response)
    decided = match(doc["answer"], read)
    if decided == JUDGE:
        decided = yield from _grade(doc, read)
    return Verdict(read, float(decided == "1"))


def judge_as_vlmevalkit(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the answer, then whether it is right."""
    read = yield from verdicts.find_answer(doc["question"], response)
    return Verdict(read, float((yield from _grade(doc, read)) == "1"))


def _grade(doc: Doc, read: str) -> Generator[str, str, str]:
    return verdicts.grade(doc["question"], doc["answer"], read, verdicts.ONE_OR_ZERO)


# Facts.


def verdict_of_authors(doc: Doc, response: Any) -> Verdict:
    """Returns what the authors' functions say of an answer that was read, or of judges' replies."""
    if "judge" in doc:
        return _shares_verdict(steps.fenced(response or ""), doc["judge"])
    if "judge_replies" in doc:
        return _all_verdicts(doc)
    return Verdict(response, match(doc["answer"], response))


def verdict_of_vlmevalkit(doc: Doc, response: Any) -> Verdict:
    """Returns what VLMEvalKit's functions say of a judge's reply, which stands without fences."""
    if "judge" in doc:
        return _shares_verdict(response or "", doc["judge"])
    return by_judge(doc, response or "")


def _shares_verdict(reply: str, kind: str) -> Verdict:
    found: Any = steps.shares(reply, kind)
    return _UNREADABLE if found is None else Verdict(None, found)


def table_of_authors(doc: Any, _: Any) -> dict[str, Any]:
    """Returns their table of rows with a judge's verdict, or of rows with shares of steps."""
    return _accuracies(doc) if _has_verdicts(doc) else steps.table_of_shares(doc)


def table_of_vlmevalkit(doc: Any, _: Any) -> dict[str, Any]:
    """Returns the same; a share of 0 is left out of the mean."""
    return _accuracies(doc) if _has_verdicts(doc) else steps.table_of_shares(doc, True)


def _has_verdicts(doc: Any) -> bool:
    is_of_steps = isinstance(doc, Mapping) and "cau_total" in str(doc.get("scorer"))
    return not is_of_steps and any("answer_scoring" in row for row in tables.rows_of(doc))


def _accuracies(doc: Any) -> dict[str, Any]:
    rows = tables.rows_of(doc)
    durations: dict[str, list[bool]] = {"0-60": [], "60-300": [], "300+": []}
    dimensions: dict[str, list[bool]] = {}
    for row in rows:
        is_right = row.get("answer_scoring") == "1"
        durations[_duration(row.get("duration", 0))].append(is_right)
        if row.get("dimension"):
            dimensions.setdefault(row["dimension"], []).append(is_right)
    every = [is_right for each in durations.values() for is_right in each]
    return {
        "overall_accuracy": tables.percent(every) / 100,
        "dimension_accuracy": {k: tables.percent(v) / 100 for k, v in dimensions.items()},
        "duration_accuracy": {k: tables.percent(v) / 100 for k, v in durations.items()},
    }


def _all_verdicts(doc: Doc) -> Verdict:
    """Returns the scores of a row by its judges' replies; after a bad one the next is read."""
    replies = iter(doc["judge_replies"])
    read = next(replies, None)
    decided = match(doc["answer"], read)
    scores: Any = {"extract_answer": read}
    scores["answer_scoring"] = next(replies, None) if decided == JUDGE else decided
    for kind in ("recall", "precision"):
        found = next(
            filter(None, (steps.shares(steps.fenced(reply), kind) for reply in replies)), None
        )
        if found is None:
            return _UNREADABLE
        scores[f"overall_{kind}"] = found[f"overall_{kind}"]
        scores |= {name: found[name] for name in ("efficiency",) if name in found}
    return Verdict(read, scores)


TASK = Task(
    name="vcr_bench",
    source=Source(
        hub=("VLM-Reasoning/VCR-Bench",),
        n=1034,
        counts={
            "dimension": _DIMENSIONS,
            "kind": {"choice": 510, "span": 65, "box": 144, "open": 315},
        },
        metric="accuracy; precision, recall and F1 of steps",
        frames="train",
        judge="short answers (official: all); steps",
    ),
    load=load,
    prompts={
        "vlmevalkit": ask,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_answer,
        "official": by_judge,
        "vlmevalkit": by_judge,
        "easyvideor1": by_reference,
        "evr1_steps": steps.by_weight,
        "official_steps": by_judge,
        "vlmevalkit_steps": by_judge,
    },
    judges={
        "evr1": judge_answer,
        "official": judge_as_authors,
        "vlmevalkit": judge_as_vlmevalkit,
        "evr1_steps": steps.weigh,
        "official_steps": steps.weigh_as_authors,
        "vlmevalkit_steps": steps.weigh_as_vlmevalkit,
    },
    aggregates={
        **dict.fromkeys(
            ("evr1", "official", "vlmevalkit", "easyvideor1"),
            metrics.with_tags("dimension", "duration", "kind"),
        ),
        "evr1_steps": steps.means,
        "official_steps": steps.means,
        "vlmevalkit_steps": steps.means_as_vlmevalkit,
    },
    facts={
        ("aggregate", "official"): table_of_authors,
        ("aggregate", "vlmevalkit"): table_of_vlmevalkit,
        ("case", "official"): verdict_of_authors,
        ("case", "vlmevalkit"): verdict_of_vlmevalkit,
    },
    differs={
        "unreadable_judge": "the authors ask a judge again without end; the kit drops the row"
    },
)
