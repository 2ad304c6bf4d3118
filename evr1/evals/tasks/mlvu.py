"""MLVU: seven kinds of questions with four options (dev), nine with six (test).

Source: MLVU/MVLU, `json/1_plotQA.json` to `7_topic_reasoning.json` and `video/<kind>/` (dev), and
MLVU/MLVU_Test, `test-ground-truth/test_mcq_gt.json` (test). The mirrors sy1998/MLVU_dev and
sy1998/MLVU_Test hold the options in the question, as "(A) text". The two kinds that ask for free
text are a task of their own, `mlvu_generation`.
"""

import dataclasses
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    KIT_STOPS,
    STOPS,
    Doc,
    Media,
    Part,
    Record,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, lmms_eval, vlmevalkit

_DEV = {
    "plotQA": 539,
    "needle": 355,
    "ego": 352,
    "count": 206,
    "order": 259,
    "anomaly_reco": 200,
    "topic_reasoning": 264,
}
_TEST = {
    "topic_reasoning": 91,
    "order": 70,
    "needleQA": 60,
    "count": 60,
    "ego": 53,
    "plotQA": 50,
    "tutorialQA": 43,
    "anomaly_reco": 39,
    "sportsQA": 36,
}
_RENAMED = {"findNeedle": "needle"}  # the name of the same kind inside of the files
FOLDERS = ("json", "MLVU/json", "data", ".")
VIDEOS = ("MLVU/video", "video")
_OPTION = re.compile(r"(?m)^\(([A-Z])\)[ \t]*(.*)$")
_LOOK = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, "
    "select the best option that accurately addresses the question."
)
_ONLY, _CUE = "Only give the best option.", "Best option: ("
_POINTS = (("score_accuracy", "score_relevance"), ("score_completeness", "score_reliability"))


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions of the dev split; one row of the files is empty and is left out."""
    kinds = list(enumerate(_DEV, 1))
    place = next(
        (p for p in FOLDERS if any((folder / p / f"{i}_{k}.json").exists() for i, k in kinds)),
        None,
    )
    if place is None:
        yield from _load_mirror(folder, "json/1_plotQA.json")
        return
    videos = files.first(folder, *VIDEOS)
    for number, kind in kinds:
        name = f"{number}_{kind}"
        for where, row in files.rows(folder, f"{place}/{name}.json"):
            if row.get("question") and row.get("candidates"):
                yield _sample(
                    row, kind, f"{kind}/{where.rpartition(' ')[2]}", f"{videos}/{name}", where
                )


def load_test(folder: Path) -> Iterator[Sample]:
    """Yields the questions of the test split from the file that holds the answers."""
    names = ("test-ground-truth/test_mcq_gt.json", "test_mcq_gt.json", "test_question.json")
    if not any((folder / name).exists() for name in names):
        yield from _load_mirror(folder, names[0])
        return
    videos = files.first(folder, "MLVU_Test/video", "video", "MLVU_Test")
    for where, row in files.rows(folder, *names):
        kind = files.field(row, "question_type", where)
        yield _sample(row, kind, str(files.field(row, "question_id", where)), videos, where)


def _load_mirror(folder: Path, official: str) -> Iterator[Sample]:
    # The official file is not there; it is named for the message that nothing is.
    for where, row in files.rows(folder, official, "data/*.parquet", "*.parquet"):
        kind = str(files.field(row, "task_type", where))
        name = files.field(row, "video_name", where)
        files.check_letter(row.get("answer"), len(_options(row)), where)
        id_ = f"{kind}/{where.rpartition(' ')[2]}"
        yield Sample(id_, row, (Media(f"video/{name}"),), {"kind": _RENAMED.get(kind, kind)})


def _sample(row: dict[str, Any], kind: str, id_: str, videos: str, where: str) -> Sample:
    answer, options = files.field(row, "answer", where), files.field(row, "candidates", where)
    # Two rows about needles ask for something that is none of their options.
    if answer not in options and row.get("question_type") not in _RENAMED:
        raise ValueError(f"{where}: answer {answer!r} is none of {', '.join(map(repr, options))}")
    video = files.field(row, "video", where)
    return Sample(id_, row, (Media(f"{videos}/{video}"),), {"kind": kind})


def _options(doc: Doc) -> list[str]:
    if "candidates" in doc:
        return [str(each) for each in doc["candidates"]]
    return [text.strip() for _, text in _OPTION.findall(doc["question"])]


def _question(doc: Doc) -> str:
    return _OPTION.sub("", doc["question"]).strip()


def _right(doc: Doc) -> list[str]:
    """Returns the letters of the right option; equal options are right together."""
    if "candidates" not in doc:
        return [doc["answer"]]
    options = _options(doc)
    return [
        letter
        for letter, text in zip(string.ascii_uppercase, options, strict=False)
        if text == doc["answer"]
    ]


def _lines(doc: Doc) -> str:
    return "\n".join(ours.lettered(_options(doc), "({letter}) {text}"))


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt; its cue begins the answer of their models."""
    question = f"Question: {_question(sample.doc)}\nOptions:\n{_lines(sample.doc)}"
    return Show(), f"{_LOOK}\n{question}\n{_ONLY}\nBest Option: ("


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval for the dev split."""
    return Show(), f"{_question(sample.doc)}\n{_lines(sample.doc)}\n{_ONLY}\n{_CUE}"


def _row(doc: Doc) -> dict[str, Any]:
    return easyvideor1.choice_row(_question(doc), _options(doc), (_right(doc) or [""])[0])


def by_option(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule; where no option is right, nothing is."""
    question, options = _question(doc), _options(doc)
    right = _right(doc)
    verdicts = [ours.choice(response, question, options, letter) for letter in right or ["A"]]
    best = max(verdicts, key=lambda verdict: verdict.score or 0.0)
    return best if right else best._replace(score=0.0)


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the character before the first bracket, else the whole text; six options: see below.

    What they send to their server for the test split is the text before the first bracket.
    """
    right = (_right(doc) or [None])[-1]
    before, bracket, _ = response.partition(")")
    if len(_options(doc)) > 4:
        text = before.strip() if bracket else response
        return Verdict(text, float(text == right))
    letter = before[-1:] if bracket else response
    accepted = [letter] if letter and letter in tuple(string.ascii_uppercase) else []
    return Verdict(accepted, float(letter == right))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores by lmms-eval's shared reader, which knows A-D only, whatever the options are."""
    letter = lmms_eval.read_letter(response, "ABCD")
    return Verdict(letter, float(letter == (_right(doc) or [None])[0]))


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores by the authors' rule for the last of equal options, else by its own for the first.

    A doc that names a `task` stands for the reply of the judge of free text, and one of `options`
    alone for the reader of options.
    """
    if "task" in doc:
        points = read_points(response)
        if points is None:
            return Verdict(None, None, "unreadable_judge")
        return Verdict(points, float(sum(points)))
    options = dict(zip(string.ascii_uppercase, doc.get("options") or _options(doc), strict=False))
    if "question" not in doc:
        is_wary = bool(doc.get("environment_VERBOSE"))
        read: Any = vlmevalkit.can_infer(response, options, is_wary=is_wary) or False
        return Verdict(read, None)
    if not response:
        return Verdict(None, 0.0, STOPS)
    if f"{vlmevalkit.FAILED}." in response:
        return Verdict(None, -1.0)
    right = _right(doc)
    is_right = bool(right) and (
        by_authors(doc, response).score == 1.0
        or vlmevalkit.can_infer(response, options) == right[0]
    )
    return Verdict(None, float(is_right))


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice((_right(doc) or [""])[0], response)


def read_points(reply: str) -> list[float] | None:
    """Returns the scores that a judge of free text names; None: one of them is no number.

    A score stands two characters behind the first colon after its name, up to a comma.
    """
    points = []
    for name in next((names for names in _POINTS if any(n in reply for n in names)), ()):
        place = reply.find(name)
        if place >= 0:
            start = reply.find(":", place) + 2
            try:
                points.append(float(reply[start : reply.find(",", start)]))
            except ValueError:
                return None
    return points


# Averages.


def average(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over kinds of questions (M-Avg), that over all of them, and each kind's."""
    kinds = metrics.by_tag(records, "kind")
    return {"m_avg": metrics.macro(kinds)} | metrics.overall(records) | kinds


def average_by_lmms_eval(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over all kinds of a split; those that are absent count as 0."""
    kinds = metrics.by_tag(records, "kind")
    return {
        "m_avg": metrics.mean([*kinds.values(), *_absent(r.sample.tags["kind"] for r in records)])
    } | kinds


def average_by_vlmevalkit(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over all questions, which the kit calls M-Avg."""
    overall = metrics.overall(records)["accuracy"]
    return {"m_avg": overall} | metrics.by_tag(records, "kind")


def _absent(kinds: Any) -> list[float]:
    present = set(kinds)
    split = _DEV if present <= set(_DEV) else _TEST
    return [0.0] * len(set(split) - present)


def _percent(counts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {kind: 100 * right / all_ for kind, (right, all_) in counts.items()}


def averages_of_authors(doc: Doc, _: Any) -> Any:
    """Returns their percentages of `acc_dict`, or what they print of replies of their judge."""
    if "acc_dict" in doc:
        shares = _percent(doc["acc_dict"])
        return shares | {"Avg": metrics.macro(shares)}
    sums = [0.0, 0.0]
    for reply in doc["judge_replies"]:
        for place, points in enumerate(read_points(reply) or []):
            sums[place] += points
    first, second = (each / len(doc["judge_replies"]) for each in sums)
    return f"{first} {second} {first + second}"


def average_of_lmms_eval(doc: Doc, _: Any) -> float:
    """Returns their percentage of `acc_dict`."""
    shares = _percent(doc["acc_dict"])
    return metrics.mean([*shares.values(), *_absent(shares)])


def averages_of_vlmevalkit(doc: Doc, _: Any) -> Any:
    """Returns their percentages of `parts`; or the points, cut to integers, of judges' replies."""
    if "parts" in doc:
        chosen, free = doc["parts"]
        shares = _percent(chosen) | _percent(free)
        means = [
            sum(r for r, _ in part.values()) / sum(n for _, n in part.values())
            for part in (chosen, free)
        ]
        return shares | {"M-Avg": round(100 * means[0], 1), "G-Avg": round(means[1], 2)}
    points = [float(sum(read_points(reply) or [])) for reply in doc["judge_replies"]]
    table: Any = {}
    for kind, each in zip(doc["task_types"], points, strict=True):
        total, count = table.get(kind, (0, 0))
        table[kind] = (total + int(each), count + 1)
    return Verdict(points, table)


TASK = Task(
    name="mlvu",
    source=Source(
        hub=("MLVU/MVLU", "sy1998/MLVU_dev"),
        n=2174,
        counts={"kind": _DEV},
        chance=25.0,
        metric="mean over seven kinds",
        licence="academic research only",
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
    aggregates={
        "evr1": average,
        "official": average,
        "lmms_eval": average_by_lmms_eval,
        "vlmevalkit": average_by_vlmevalkit,
    },
    facts={
        ("aggregate", "official"): averages_of_authors,
        ("aggregate", "lmms_eval"): average_of_lmms_eval,
        ("aggregate", "vlmevalkit"): averages_of_vlmevalkit,
    },
    differs=KIT_STOPS
    | {"unreadable_judge": "the kit stops at a reply of its judge that it cannot read"},
)
TEST = dataclasses.replace(
    TASK,
    name="mlvu_test",
    source=Source(
        hub=("MLVU/MLVU_Test", "sy1998/MLVU_Test"),
        n=502,
        counts={"kind": _TEST},
        chance=16.7,
        metric="mean over nine kinds",
        licence="academic research only",
    ),
    load=load_test,
)
