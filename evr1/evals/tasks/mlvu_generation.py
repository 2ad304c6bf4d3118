"""MLVU, dev split: the two kinds of questions that ask for free text.

Source: MLVU/MVLU, `json/8_sub_scene.json` and `json/9_summary.json`, `video/<number>_<kind>/`. A
doc is a row with its kind as "task". A judge gives two times 1 to 5 points; a tenth of their sum
counts.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from evr1.evals.tasks import files, metrics, mlvu
from evr1.evals.tasks.base import (
    JUDGE,
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
from evr1.evals.tasks.judging import verdicts
from evr1.rewards import parse

_FILES = {"sub_scene": "8_sub_scene", "summary": "9_summary"}
_POINTS = 10  # that a response can get
# What the points of each kind are for, by the name that they have in a reply.
_CRITERIA = {
    "sub_scene": {
        "score_accuracy": "how much of the right answer and of its points the answer tells, and "
        "whether what it tells is right",
        "score_relevance": "how much of the answer is about what was asked, and not about other "
        "scenes",
    },
    "summary": {
        "score_completeness": "how many of the main events of the right summary the answer tells",
        "score_reliability": "how much of what the answer tells is in the right summary, in the "
        "right order and without contradiction",
    },
}


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions about a scene, then those for a summary."""
    place = files.first(folder, *mlvu.FOLDERS)
    videos = files.first(folder, *mlvu.VIDEOS)
    for kind, name in _FILES.items():
        for where, row in files.rows(folder, f"{place}/{name}.json"):
            video, answer = files.field(row, "video", where), files.field(row, "answer", where)
            files.field(row, "question", where)
            if not str(answer).strip():
                raise ValueError(f"{where}: the answer is empty; download the file again")
            yield Sample(
                id=f"{kind}/{where.rpartition(' ')[2]}",
                doc={**row, "task": kind},
                media=(Media(f"{videos}/{name}/{video}"),),
                tags={"kind": kind},
            )


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the question as it is."""
    return Show(), sample.doc["question"]


def by_text(doc: Doc, response: str) -> Verdict:
    """Leaves every text to a judge, but for an empty one; the reasoning before it is none."""
    return by_judge(doc, parse.after_reasoning(response) or "")


def by_judge(doc: Doc, response: str) -> Verdict:
    """Leaves every text to a judge, but for an empty one."""
    return Verdict(JUDGE, None) if response.strip() else Verdict(None, 0.0)


# Judges.

_TASK = """\
You grade one answer to a question about a video that you do not see. The right answer is given, and
it is right whatever you know yourself."""


def _ask_for_points(doc: Doc, response: str, example: str) -> Generator[str, str, str]:
    blocks = {"question": doc["question"], "right answer": str(doc["answer"])}
    if points := doc.get("scoring_points"):
        listed = [points] if isinstance(points, str) else points
        blocks["points of the right answer"] = "\n".join(map(str, listed))
    criteria = "".join(f"{name}: {what}.\n" for name, what in _CRITERIA[doc["task"]].items())
    asked = (
        "Here the data end. Give two scores from 1, the least, to 5:\n"
        f"{criteria}Reply with one object and nothing else:\n{example}"
    )
    return (yield verdicts.prompt(_TASK, {**blocks, "answer": response}, asked))


def judge_text(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for two scores as a JSON object; the reasoning before the text is not shown."""
    response = (parse.after_reasoning(response) or "").strip()
    names = list(_CRITERIA[doc["task"]])
    example = f'{{"reason": "one short sentence", "{names[0]}": 1, "{names[1]}": 1}}'
    reply = yield from _ask_for_points(doc, response, example)
    said = verdicts.read_fields(reply, dict.fromkeys(names, (int, float)))
    points = [float(said[name]) for name in names]
    if not all(1 <= each <= 5 for each in points):
        raise ValueError(f"scores {points[0]:g} and {points[1]:g} are not from 1 to 5")
    return Verdict(points, sum(points) / _POINTS)


def judge_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for two scores, which are read behind their names; without the names they are 0."""
    first, second = _CRITERIA[doc["task"]]
    example = f"{{'{first}': 1, '{second}': 1, 'total_score': 2}}"
    points = mlvu.read_points((yield from _ask_for_points(doc, response, example)))
    if points is None:
        raise ValueError("a score is no number")
    return Verdict(points, sum(points) / _POINTS)


def judge_as_vlmevalkit(doc: Doc, response: str) -> verdicts.Asking:
    """Asks the same; the sum is cut to an integer."""
    verdict = yield from judge_as_authors(doc, response)
    return verdict._replace(score=int(sum(verdict.extracted)) / _POINTS)


def average(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over both kinds (a tenth of G-Avg), and each kind's."""
    kinds = metrics.by_tag(records, "kind")
    return {"g_avg": metrics.macro(kinds)} | kinds


def average_by_vlmevalkit(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over all questions, which the kit calls G-Avg, and each kind's."""
    return {"g_avg": metrics.overall(records)["accuracy"]} | metrics.by_tag(records, "kind")


TASK = Task(
    name="mlvu_generation",
    source=Source(
        hub=("MLVU/MVLU",),
        n=418,
        counts={"kind": {"sub_scene": 201, "summary": 217}},
        metric="mean over two kinds, of 10 points",
        judge="all",
        licence="academic research only",
    ),
    load=load,
    prompts={"question": ask},
    rules={"evr1": by_text, "official": by_judge, "vlmevalkit": by_judge},
    judges={
        "evr1": judge_text,
        "official": judge_as_authors,
        "vlmevalkit": judge_as_vlmevalkit,
    },
    aggregates={
        "evr1": average,
        "official": average,
        "vlmevalkit": average_by_vlmevalkit,
    },
)
