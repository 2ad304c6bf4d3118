"""Video-MME-v2: eight options a question; the four questions on a video are scored as a group.

Source: MME-Benchmarks/Video-MME-v2, `test.parquet`; videos in zip archives, subtitles word by word
in `subtitle/<id>.jsonl`. Options stand in one text, as lines "A. text".

A relevance group earns (right/4)². A logic group earns by how far its chain is right without a
gap; its structure says which questions may be answered in either order.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    Doc,
    Media,
    Part,
    Record,
    Sample,
    Show,
    Source,
    Subtitles,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import capitals, easyvideor1, vlmevalkit

_LETTERS = "ABCDEFGH"
_HEADS = ("level", "second_head", "third_head")
_FIELDS = ("video_id", "question_id", "question", "options", "answer")
_KINDS = ("relevance", "logic")
_OPTION = re.compile(r"(?m)^([A-H])\.[ \t]*(.*)$")

# Percent by the number of questions that are right without a gap.
_QUADRATIC = (0.0, 100 / 16, 400 / 16, 900 / 16, 100.0)
_CHAINS: dict[str, tuple[float, ...]] = {
    "[1, 2, 3, 4]": _QUADRATIC,
    "[1, [2, 3], 4]": (0.0, 100 / 12, 400 / 12, 700 / 12, 100.0),
    "[[1, 2], 3, 4]": (0.0, 100 / 10, 200 / 10, 500 / 10, 100.0),
}

_FRAMES = "These are the frames of a video."
_CHOOSE = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, D, E, F, G, or H) of the correct option."
)
# The quotation mark is not closed in the original.
_REASON = (
    "Please perform a detailed reasoning based on the provided video frames to answer the "
    "following multiple-choice question selecting the best option from A through H and providing "
    "your final response strictly in the format: 'Final Answer: <letter>."
)
_LISTED = "This video's subtitles are listed below:\n"
_PHRASES = (
    "Final Answer:",
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
    "Answer:",
    "Option:",
)


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    for where, row in files.rows(folder, "test.parquet", "data/test-*.parquet"):
        fields = {name: files.field(row, name, where) for name in _FIELDS}
        files.check_letter(fields["answer"], len(_OPTION.findall(fields["options"])), where)
        kind, structure = row.get("group_type"), row.get("group_structure")
        if kind not in _KINDS or (kind == "logic" and _chain(str(structure)) not in _CHAINS):
            raise ValueError(f"{where}: no rule for a {kind} group of structure {structure}")
        name = str(fields["video_id"]).zfill(3)
        yield Sample(
            id=str(fields["question_id"]),
            doc=row,
            media=(Media(files.first(folder, f"videos/{name}.mp4", f"video/{name}.mp4")),),
            tags={"group_type": kind} | {h: str(row[h]) for h in _HEADS if _is_given(row.get(h))},
            group=name,
            subtitles=f"subtitle/{name}.jsonl",
        )


def _is_given(label: Any) -> bool:
    return label is not None and str(label) not in ("None", "nan", "")


def _ask(sample: Sample, wish: str = _CHOOSE) -> str:
    return f"Question: {sample.doc['question']}\n{sample.doc['options']}\n{wish}"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt; what says that these are frames is a part of its own."""
    return Show(), _FRAMES, _ask(sample)


def ask_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt with all words that are said."""
    said = Subtitles(f"{_FRAMES} {_LISTED}", joiner=" ", shown_only=False)
    return Show(), said, _ask(sample)


def ask_to_reason(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt that asks for reasoning."""
    return Show(), _FRAMES, _ask(sample, _REASON)


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval."""
    return Show(), _ask(sample)


def _row(doc: Doc) -> dict[str, Any]:
    return {
        "problem_type": easyvideor1.MULTIPLE_CHOICE,
        "problem": doc["question"],
        "options": doc["options"].split("\n"),
    }


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [text.strip() for _, text in _OPTION.findall(doc["options"])]
    return ours.choice(response, doc["question"], options, doc["answer"])


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the first capital A-H; -1 without one, which a chain takes for right."""
    letter = capitals.read_letter(response, _LETTERS, _PHRASES)
    return Verdict(letter, float(letter == doc["answer"]) if letter else -1.0)


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores as the authors, but 0 without a letter."""
    letter = capitals.read_letter(response, _LETTERS, _PHRASES)
    return Verdict(letter, float(letter == doc["answer"].upper()))


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores as the authors, but 0 without a letter, which it calls Z."""
    letter = capitals.read_letter(response, _LETTERS, _PHRASES) or vlmevalkit.NO_OPTION
    return Verdict(letter, float(letter == doc["answer"]))


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(doc["answer"], response)


# Groups.


class _Group(NamedTuple):
    kind: str
    score: float  # percent
    linear: float  # percent of the questions that are right
    heads: dict[str, str]  # of its last question


def score_group(kind: str, structure: str, scores: Sequence[float]) -> float:
    """Returns a group's score in percent.

    Args:
        kind: "relevance" or "logic".
        structure: of a logic group, e.g. "[1, [2, 3], 4]".
        scores: 1, 0, or -1 for an answer that was not read, in the order of the questions.

    Raises:
        ValueError: there is no such kind or structure.

    >>> score_group("logic", "[[1, 2], 3, 4]", [0, 1, 1, 1])
    10.0
    """
    if kind == "relevance":
        return _points(_QUADRATIC, sum(scores))
    chain = _chain(structure)
    if kind != "logic" or chain not in _CHAINS:
        raise ValueError(f"no rule for a {kind} group of structure {structure}")
    right = next((i for i, score in enumerate(scores) if not score), len(scores))
    # The other order of a pair counts only for the first step of the pair.
    is_swapped = (chain == "[1, [2, 3], 4]" and right == 1 and any(scores[2:3])) or (
        chain == "[[1, 2], 3, 4]" and right == 0 and any(scores[1:2])
    )
    return _points(_CHAINS[chain], right + is_swapped)


def _chain(structure: str) -> str:
    try:
        return json.dumps(json.loads(structure))
    except ValueError:
        return ""


def _points(points: Sequence[float], right: float) -> float:
    return points[int(right)] if 0 <= right < len(points) else 0.0


def _group(rows: Sequence[Doc], scores: Sequence[float]) -> _Group:
    """Returns a group of rows in order; a label that its last row lacks is that of one before."""
    kind = rows[-1]["group_type"]
    heads = {h: str(row[h]) for row in rows for h in _HEADS if _is_given(row.get(h))}
    value = score_group(kind, str(rows[-1]["group_structure"]), scores)
    return _Group(kind, value, 25.0 * sum(scores), heads)


def by_group(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over groups, by kind and label, then the accuracy over questions."""
    grouped: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda each: _place(each.sample.doc)):
        grouped.setdefault(record.sample.group, []).append(record)
    groups = [
        _group([r.sample.doc for r in each], [metrics.score(r) for r in each])
        for each in grouped.values()
    ]
    means = {"score": _mean(groups) / 100}
    for kind in _KINDS:
        means[f"group_type/{kind}"] = _mean(g for g in groups if g.kind == kind) / 100
    linear = metrics.mean(g.linear for g in groups if g.kind == "relevance")
    means["relevance_linear"] = linear / 100
    for head in _HEADS:
        for label in sorted({g.heads[head] for g in groups if head in g.heads}):
            found = (g for g in groups if g.heads.get(head) == label)
            means[f"{head}/{label}"] = _mean(found) / 100
    return means | {"accuracy": metrics.mean(float(metrics.score(r) == 1) for r in records)}


def _place(doc: Doc) -> int:
    return int(str(doc["question_id"]).rpartition("-")[2])


def _mean(groups: Iterable[_Group]) -> float:
    return metrics.mean(group.score for group in groups)


# Facts: tables of files of predictions, in percent.


def rate_group(doc: Doc, _: Any) -> Verdict:
    """Returns a group's score, and how many are right in a relevance group without failures."""
    scores = doc["scores"]
    value = score_group(doc["group_type"], doc["group_structure"], scores)
    is_counted = doc["group_type"] == "relevance" and min(scores) >= 0
    return Verdict(sum(scores) if is_counted else None, value)


def rate_by_position(rule: Callable[[Doc, str], Verdict]) -> Callable[[Doc, Any], Any]:
    """Returns the authors' table of a file; each four rows are a group, whatever their video."""

    def table(doc: Doc, _: Any) -> dict[str, dict[str, float]]:
        rows = doc["rows"]
        scores = [rule(row, row["prediction"]).score or 0.0 for row in rows]
        groups = []
        for start in range(0, len(rows), 4):
            part = rows[start : start + 4]
            if not _is_given(part[-1].get("level")):
                raise ValueError(f"row {start + len(part)}: no level; the kit stops there")
            groups.append(_group(part, scores[start : start + 4]))
            last = part[-1]
            # Recorded rows leave the third head out; it counts on like the second.
            third = last.get("third_head") or f"T{last['second_head'][1:]}"
            groups[-1].heads.update(second_head=last["second_head"], third_head=third)
            groups[-1].heads["level"] = str(last["level"])
        relevance = [g for g in groups if g.kind == "relevance"]
        rating = {f"level_{k}": _mean_of(groups, "level", k) for k in "123"}
        rating["relevance_score"] = _mean(relevance) if relevance else 0.0
        rating["relevance_linear_score"] = _or_zero(g.linear for g in relevance)
        rating["logic_score"] = _or_zero(g.score for g in groups if g.kind == "logic")
        rating["total"] = _or_zero(g.score for g in groups)
        heads = {
            f"{head}_rating": {g.heads[head]: _mean_of(groups, head, g.heads[head]) for g in groups}
            for head in _HEADS[1:]
        }
        return {"final_rating": rating} | heads

    return table


def rate_by_video(doc: Doc, _: Any) -> dict[str, float]:
    """Returns lmms-eval's table of a file; accuracies by level go by the level of each row."""
    rows = sorted(doc["rows"], key=_place)
    if not all(_is_given(row.get("level")) for row in rows):
        raise ValueError("a row has no level; the kit stops there")
    scores = [by_lmms_eval(row, row["prediction"]).score or 0.0 for row in rows]
    videos: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        videos.setdefault(row["video_id"], []).append(place)
    groups = [
        _group([rows[i] for i in each], [scores[i] for i in each]) for each in videos.values()
    ]

    def accuracy(name: str, label: str) -> float:
        return 100 * _or_zero(s for r, s in zip(rows, scores, strict=True) if r[name] == label)

    out = {"overall_score": _or_zero(g.score for g in groups)}
    out |= {f"{k}_score": _or_zero(g.score for g in groups if g.kind == k) for k in _KINDS}
    out |= {f"level_{k}_score": _mean_of(groups, "level", k) for k in "123"}
    out["overall_acc"] = 100 * _or_zero(scores)
    out |= {f"{k}_acc": accuracy("group_type", k) for k in _KINDS}
    return out | {f"level_{k}_acc": accuracy("level", k) for k in "123"}


def _mean_of(groups: Sequence[_Group], head: str, label: str) -> float:
    return _or_zero(g.score for g in groups if g.heads.get(head) == label)


def _or_zero(values: Iterable[float]) -> float:
    listed = list(values)
    return metrics.mean(listed) if listed else 0.0


TASK = Task(
    name="video_mme_v2",
    source=Source(
        hub=("MME-Benchmarks/Video-MME-v2",),
        n=3200,
        chance=12.5,
        metric="group score",
    ),
    load=load,
    prompts={
        "official": ask,
        "official_subtitles": ask_with_subtitles,
        "official_reasoning": ask_to_reason,
        "lmms_eval": ask_as_lmms_eval,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_letter,
        "official": by_authors,
        "easyvideor1": by_reference,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
    },
    aggregates={
        "evr1": by_group,
        "official": by_group,
        "lmms_eval": by_group,
        "vlmevalkit": by_group,
    },
    facts={("group", profile): rate_group for profile in ("official", "lmms_eval", "vlmevalkit")}
    | {
        ("aggregate", "official"): rate_by_position(by_authors),
        ("aggregate", "vlmevalkit"): rate_by_position(by_vlmevalkit),
        ("aggregate", "lmms_eval"): rate_by_video,
    },
)
