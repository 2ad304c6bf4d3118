"""Samples as the page of a run holds them: small enough for a browser, and in plain JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.evals import scoring, show
from evr1.evals.results import TaskResults
from evr1.evals.samples import Answer, Frames
from evr1.evals.scoring import Scored
from evr1.evals.tasks.base import Verdict
from evr1.report.spread import spread

MAX_BYTES = 40_000_000  # of all samples of a page
LIMITS = (20_000, 4_000, 1_000, 250)  # characters of a text: the first that fits is taken
_READ_LIMIT = 300  # of what a rule read
_MOST_TIMES = 64  # that are listed of a medium


class Kept(NamedTuple):
    """The samples that fit into a page.

    Attributes:
        answers: with the place of their task in the run.
        rows: as the page's script reads them, one an answer.
        shown: what was shown of media, which the rows refer to by place.
        total: samples of the run.
        limit: characters of a text.
    """

    answers: list[tuple[int, Answer]]
    rows: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    total: int
    limit: int


def keep(
    scored: Sequence[TaskResults],
    others: Mapping[str, TaskResults],
    max_bytes: int = MAX_BYTES,
) -> Kept:
    """Returns the samples of a run, with texts cut and samples left out as far as needed.

    Args:
        scored: tasks of the run.
        others: the same tasks of the run to compare with, by name.
        max_bytes: of all samples together, about.
    """
    kept, limit = Kept([], [], [], 0, 0), LIMITS[0]
    for limit in LIMITS:
        kept = _all(scored, others, limit)
        if sum(map(_size, kept.rows)) <= max_bytes:
            return kept
    chosen = []
    for place in spread(len(kept.rows)):
        max_bytes -= _size(kept.rows[place])
        if max_bytes < 0:
            break
        chosen.append(place)
    chosen.sort()
    return kept._replace(
        answers=[kept.answers[place] for place in chosen],
        rows=[kept.rows[place] for place in chosen],
    )


def _size(row: Mapping[str, Any]) -> int:
    """Returns about how many bytes a row takes up."""
    return len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))


def _all(scored: Sequence[TaskResults], others: Mapping[str, TaskResults], limit: int) -> Kept:
    answers, rows, shown = [], [], {}
    for place, each in enumerate(scored):
        verdicts = _by_id(each)
        other = others.get(each.task.name)
        other_answers = {answer.sample.id: answer for answer in other.answers} if other else {}
        other_verdicts = _by_id(other) if other else {}
        for answer in each.answers:
            id = answer.sample.id
            row = {"task": place} | _row(each, answer, limit, shown)
            row["verdicts"] = [_told(judged) for judged in verdicts[id].values()]
            if id in other_answers:
                row |= _flips(other_answers[id], verdicts[id], other_verdicts[id], limit)
            answers.append((place, answer))
            rows.append(row)
    return Kept(answers, rows, [_frames(each) for each in shown], len(rows), limit)


def _row(each: TaskResults, answer: Answer, limit: int, shown: dict[Frames, int]) -> dict[str, Any]:
    sample = answer.sample
    return {
        "id": sample.id,
        "status": answer.status,
        "reason": answer.reason,
        "detail": _cut(answer.detail, limit),
        "tags": {k: [v] if isinstance(v, str) else list(v) for k, v in sample.tags.items()},
        "prompt": _cut(show.asked(each.task, answer.prompt, answer.sample), limit),
        "doc": [[name, _cut(_text(value), limit)] for name, value in sample.doc.items()],
        "media": [
            [medium.path, medium.kind, _number(medium.start_s), _number(medium.end_s)]
            for medium in sample.media
        ],
        "shown": [shown.setdefault(frames, len(shown)) for frames in answer.frames],
        "subtitles": sample.subtitles,
        "responses": _responses(answer, limit),
        "seconds": _number(answer.seconds),
    }


def _responses(answer: Answer, limit: int) -> list[list[Any]]:
    listed = zip(answer.responses, answer.finishes, answer.tokens, strict=True)
    return [[_cut(text, limit), finish, tokens] for text, finish, tokens in listed]


def _frames(frames: Frames) -> dict[str, Any]:
    times = [_number(time) for time in frames.times]
    if len(times) > _MOST_TIMES:
        places = np.linspace(0, len(times) - 1, _MOST_TIMES).round().astype(int)
        times = [times[place] for place in places]
    return frames._asdict() | {"times": times}


# Verdicts.


class _Judged(NamedTuple):
    """What a profile makes of a sample.

    Attributes:
        score: mean over the responses; None: none.
        verdicts: one a response; [] where there is no score.
        why: there is no score.
    """

    score: float | None
    verdicts: Sequence[Verdict]
    why: str


def _by_id(each: TaskResults) -> dict[str, dict[str, _Judged]]:
    """Returns what each profile makes of each sample: id -> profile -> that."""
    found: dict[str, dict[str, _Judged]] = {answer.sample.id: {} for answer in each.answers}
    for result in each.results:
        for id, judged in _judged(each.answers, result.scored):
            found[id][result.scored.profile] = judged
    return found


def _judged(answers: Sequence[Answer], scored: Scored) -> Iterator[tuple[str, _Judged]]:
    verdicts: dict[str, list[Verdict]] = {}
    for each in scored.rounds:
        for record in each:
            verdicts.setdefault(record.sample.id, []).append(record.verdict)
    scores, problems = scored.scores(), iter(scored.problems)
    task, profile = scored.task.name, scored.profile
    problem = next(problems, "")
    for answer in sorted(answers, key=lambda each: each.sample.id):
        id = answer.sample.id
        starts = (
            f"{task}: {scoring.rule_of(profile)} cannot score {id}: ",
            f"{task}: {profile} cannot judge {id}: ",
        )
        if id in verdicts:
            yield id, _Judged(_number(scores[id], 4), verdicts[id], "")
        elif answer.reason:
            yield id, _Judged(None, [], "failed")
        elif problem.startswith(starts):  # they are in the order of the ids
            why = problem.removeprefix(starts[0]).removeprefix(starts[1])
            yield id, _Judged(None, [], why)
            problem = next(problems, "")
        else:
            yield id, _Judged(None, [], "waits for a judge")


def _told(judged: _Judged) -> dict[str, Any]:
    read = [
        [_cut(_text(each.extracted), _READ_LIMIT), _number(each.score, 4), each.differs]
        for each in judged.verdicts
    ]
    return {"score": judged.score, "read": read, "why": judged.why}


def _flips(
    other: Answer, ours: Mapping[str, _Judged], theirs: Mapping[str, _Judged], limit: int
) -> dict[str, Any]:
    """Returns whether a sample scores more or less than in the other run, by our profiles."""
    none = _Judged(None, [], "not in the other run")
    pairs = [(judged, theirs.get(profile, none)) for profile, judged in ours.items()]
    flips = [_flip(one.score, two.score) for one, two in pairs]
    if not any(flips):
        return {"flips": flips}
    told = {
        "responses": _responses(other, limit),
        "verdicts": [_told(each) for _, each in pairs],
        "reason": other.reason,
    }
    return {"flips": flips, "other": told}


def _flip(ours: float | None, theirs: float | None) -> int | None:
    if ours is None or theirs is None:
        return None
    return (ours > theirs) - (ours < theirs)


# Values.


def _text(value: Any) -> str:
    """Returns a value of a row, or what was read, as text; "" for nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + " […]"


def _number(value: float | None, digits: int = 2) -> float | None:
    """Returns a number that JSON can hold."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
