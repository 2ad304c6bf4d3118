"""Video-MMMU: what a lecture teaches, in three tracks, and what was known before it.

Source: lmms-lab/VideoMMMU (now lmms-eval/VideoMMMU), configs Perception, Comprehension and
Adaptation, or `data/*_video.json` of EvolvingLMMs-Lab/VideoMMMU. Videos are in folders by
discipline. The questions of Adaptation are asked a second time about the question's image alone
(`question_only/`): the gain is the knowledge that the lecture gave. These 300 count for that only.
"""

import re
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    Doc,
    Finding,
    Fingerprint,
    Media,
    Part,
    Record,
    Rule,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, lmms_eval, mmmu

_TRACKS = ("perception", "comprehension", "adaptation")
_BEFORE = "question_only"
_CHOICE = "multiple-choice"
_LETTERS = "ABCDEFGHIJ"
_SUBJECTS = {
    "Art": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Medicine": (
        "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
        "Public_Health"
    ),
    "Humanities": "History Literature Sociology Psychology",
    "Engineering": (
        "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
        "Materials Mechanical_Engineering"
    ),
}
_DISCIPLINES = {name: group for group, names in _SUBJECTS.items() for name in names.split()}


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions track by track, each of Adaptation also with its image alone."""
    for track in _TRACKS:
        for where, row in _rows(folder, track):
            doc = _doc(row, track, where)
            subject = _subject(doc["id"], where)
            tags = {"track": track, "discipline": _DISCIPLINES[subject], "subject": subject}
            video = f"{_DISCIPLINES[subject]}/{doc['id']}.mp4"
            media = (Media(files.first(folder, video, f"videos/{video}")),)
            if doc.get("image"):
                media = (*media, Media(doc["image"], "image"))
            yield Sample(f"{track}/{doc['id']}", doc, media, tags)
            if track == "adaptation":
                image = (Media(f"{_BEFORE}/{doc['id']}_image.mp4"),)
                before = tags | {"track": _BEFORE}
                yield Sample(f"{_BEFORE}/{doc['id']}", doc, image, before, video=media[0].path)


def embedded(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the images of the questions, whose bytes stand in the rows of Adaptation."""
    for where, row in _rows(folder, "adaptation"):
        image = row.get("image")
        if isinstance(image, dict) and image.get("bytes"):
            yield _image_path(image, files.field(row, "id", where)), image["bytes"]


def _rows(folder: Path, track: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from files.rows(folder, f"{track.capitalize()}/*.parquet", f"data/{track}_video.json")


def _image_path(image: dict[str, Any], name: str) -> str:
    return f"images/{image.get('path') or f'{name}.png'}"


def _doc(row: dict[str, Any], track: str, where: str) -> dict[str, Any]:
    doc = {name: files.field(row, name, where) for name in ("id", "question", "answer")}
    doc["options"] = list(row.get("options") or ())
    # The authors' own file tells the type in Adaptation only; elsewhere all have options.
    doc["question_type"] = row.get("question_type", _CHOICE if track != "adaptation" else None)
    if doc["question_type"] == _CHOICE:
        files.check_letter(doc["answer"], len(doc["options"]), where)
    image = row.get("image")
    if isinstance(image, dict) and (image.get("path") or image.get("bytes")):
        doc["image"] = _image_path(image, doc["id"])
    return doc


def _subject(name: str, where: str) -> str:
    """Returns what stands between split and number, e.g. "Art_Theory"."""
    subject = "_".join(name.split("_")[1:-1])
    if subject not in _DISCIPLINES:
        raise ValueError(f"{where}: id {name!r} is of no known subject; download the file again")
    return subject


def _options(doc: Doc) -> list[str]:
    """Returns the options without letters, which either all of them have or none."""
    options = [str(option) for option in doc["options"]]
    letters = string.ascii_uppercase
    if all(o.startswith(f"{letter}.") for o, letter in zip(options, letters, strict=False)):
        return [option[2:].strip() for option in options]
    return options


# Prompts.

_LEARN = "You should watch and learn the video content. Then apply what you learned to "
_ANSWER = (
    "answer the following {} question. The image for this question is at the end of the video.\n"
)
_IGNORE_QUIZ = "\nPlease ignore the Quiz question in last frame of the video."
_MARKED = "\nAdd `Answer: {Your final answer}` at the end of your reply."


def _listed(doc: Doc) -> str:
    options = [str(option) for option in doc["options"]]
    bare = _options(doc)
    return "\n".join([doc["question"], *(options if options != bare else ours.lettered(bare))])


def _text(doc: Doc, track: str) -> str:
    if track == _BEFORE:
        return _listed(doc)
    if track != "adaptation":
        return _listed(doc) + _IGNORE_QUIZ
    if doc["question_type"] == _CHOICE:
        return _LEARN + _ANSWER.format("multi-choice") + _listed(doc)
    return _LEARN + _ANSWER.format("open-ended") + doc["question"]


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt, for which the image is the last frame of the video."""
    return Show(), _text(sample.doc, str(sample.tags["track"]))


def ask_as_vlmevalkit(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of VLMEvalKit, which also shows the image and asks to mark the answer."""
    shown = tuple(Show(place) for place in range(len(sample.media)))
    return *shown, _text(sample.doc, str(sample.tags["track"])) + _MARKED


def _row(doc: Doc) -> dict[str, Any]:
    if doc["options"]:
        return easyvideor1.choice_row(doc["question"], _options(doc), doc["answer"])
    gold = f"<answer>{doc['answer']}</answer>"
    return {"problem_type": "numerical", "problem": doc["question"], "solution": gold}


# Rules.


def by_answer(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule: an option by what is stated, else any of the right answers."""
    options = _options(doc)
    if not options and doc["answer"] in tuple(_LETTERS):
        options = list(_LETTERS)  # two rows ask for a place in the picture, and give no options
    if options:
        return ours.choice(response, doc["question"], options, doc["answer"])
    verdicts = [ours.short_answer(response, gold) for gold in _golds(doc["answer"])]
    best = max(verdicts, key=lambda verdict: verdict.score or 0.0)
    return Verdict(best.extracted if best.score else response.strip() or None, best.score or 0.0)


def _golds(answer: Any) -> list[str]:
    """Returns the right answers, also those of the one row that holds the text of a list.

    >>> _golds("['24/7', '3.429', '3.43]")
    ['24/7', '3.429', '3.43']
    """
    if not isinstance(answer, str):
        return [str(each) for each in answer]
    is_list = answer.startswith("[") and answer.endswith("]")
    return re.findall(r"[^\s'\",\[\]][^'\",\[\]]*", answer) if is_list else [answer]


def _score(doc: Doc, response: str, letter: str) -> Verdict:
    """Scores a letter, or the open answer that a response holds."""
    if doc.get("question_type") == _CHOICE:
        return Verdict(letter, None if letter == mmmu.FAILED else float(letter == doc["answer"]))
    if response in ("", mmmu.FAILED):
        return Verdict(mmmu.FAILED, None)
    read = mmmu.read_open(response)
    # A row of type "perception" is compared as if a letter had been read.
    is_right = doc.get("question_type") != "perception" and mmmu.is_right(read, doc["answer"])
    return Verdict(sorted(map(str, read)), float(is_right))


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores by MMMU's readers; an empty response is left out of the mean."""
    return _score(doc, response, mmmu.read_letter(response, _options(doc)))


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores what follows the last "Answer:" as the authors do."""
    return by_authors(doc, response.rpartition("Answer:")[2].strip())


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores letters by lmms-eval's shared reader; open answers as the authors do."""
    letters = string.ascii_uppercase[: len(doc["options"])]
    letter = lmms_eval.read_letter(response, letters) if letters else ""
    return _score(doc, response, letter or "No Answer Found.")


# Aggregates.


def gain(before: float, after: float, best: float = 1.0) -> float:
    """Returns the share of what was not known before that is known after; below 0: of a loss.

    >>> gain(40.0, 55.0, best=100.0)
    0.25
    """
    return (after - before) / (best - before) if before != best else float("nan")


def of_tracks(records: Sequence[Record]) -> dict[str, float]:
    """Returns the means over the three tracks, and what was gained by the lectures."""
    counted = [record for record in records if record.sample.tags["track"] != _BEFORE]
    means = metrics.with_tags("track", "discipline", "subject")(counted)
    before, after = (
        {r.sample.id.partition("/")[2]: r for r in records if r.sample.tags["track"] == track}
        for track in (_BEFORE, "adaptation")
    )
    if not (before and after):
        return means
    scores = [metrics.mean(map(metrics.score, each.values())) for each in (before, after)]
    changes = [
        (metrics.score(before[k]), metrics.score(after[k])) for k in before.keys() & after.keys()
    ]
    return means | {
        f"track/{_BEFORE}": scores[0],
        "delta_knowledge": gain(*scores),
        "wrong_to_right": metrics.mean(b for a, b in changes if a < 1),
        "right_to_wrong": metrics.mean(1 - b for a, b in changes if a == 1),
    }


def of_answered(records: Sequence[Record]) -> dict[str, float]:
    """Returns the same over those responses only that have a score."""
    return of_tracks([record for record in records if record.verdict.score is not None])


# Facts.


def _left_out(rule: Rule) -> Callable[[Doc, Any], Any]:
    """Returns a rule that says in words what it leaves out, as the cases do."""

    def fact(doc: Doc, response: Any) -> Any:
        verdict = rule(doc, response or "")
        if verdict.score is not None:
            return verdict
        return Finding(verdict.extracted, "dropped from the denominator")

    return fact


def _accuracy(rule: Rule) -> Callable[[Any, Any], tuple[int, int]]:
    """Returns a function of (type, answer) pairs and responses: how many are right, of how many."""

    def count(doc: Any, responses: Any) -> tuple[int, int]:
        docs = [
            {"question_type": kind, "answer": answer, "options": list("abcdefghij")}
            for kind, answer in doc
        ]
        scores = [rule(each, text).score for each, text in zip(docs, responses, strict=True)]
        scored = [score for score in scores if score is not None]
        return int(sum(scored)), len(scored)

    return count


def accuracy_of(rule: Rule) -> Callable[[Any, Any], float]:
    """Returns a function that gives the share as authors and lmms-eval round it."""
    count = _accuracy(rule)

    def share(doc: Any, responses: Any) -> float:
        hit, total = count(doc, responses)
        return round(hit / total, 5) if total else 0.0

    return share


def table_of_vlmevalkit(doc: Any, responses: Any) -> Any:
    """Returns the row of VLMEvalKit's table."""
    hit, total = _accuracy(by_vlmevalkit)(doc, responses)
    return {"total": total, "hit": hit, "acc": 100 * hit / total if total else 0}


def delta_knowledge(doc: Doc, _: Any) -> float:
    """Returns the authors' formula, in percent."""
    return 100 * gain(doc["acc_question_only"], doc["acc_adaptation"], best=100.0)


def fingerprint_of_lmms_eval(doc: Doc, _: Any) -> Fingerprint:
    """Returns that of a prompt."""
    track = {"adaptation mc": "adaptation", "adaptation open": "adaptation"}
    by_name = track | {"question only": _BEFORE}
    return Fingerprint.of(_text(doc, by_name.get(doc["variant"], "perception")))


def fingerprint_of_vlmevalkit(doc: Doc, _: Any) -> Fingerprint:
    """Returns that of a prompt's text."""
    return Fingerprint.of(_text(doc, doc["category"].lower()) + _MARKED)


TASK = Task(
    name="video_mmmu",
    source=Source(
        hub=("lmms-eval/VideoMMMU", "lmms-lab/VideoMMMU"),
        n=1200,
        counts={
            "track": dict.fromkeys((*_TRACKS, _BEFORE), 300),
            "discipline": {
                "Engineering": 4 * 113,
                "Business": 4 * 44,
                "Science": 4 * 44,
                "Medicine": 4 * 43,
                "Humanities": 4 * 35,
                "Art": 4 * 21,
            },
        },
        chance=15.0,
        metric="accuracy over three tracks; share of the unknown that Adaptation gains",
        licence="gated",
    ),
    load=load,
    embedded=embedded,
    prompts={
        "official": ask,
        "vlmevalkit": ask_as_vlmevalkit,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_answer,
        "official": by_authors,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
        "easyvideor1": easyvideor1.rule(_row),
    },
    aggregates={
        "evr1": of_tracks,
        "official": of_answered,
        "lmms_eval": of_answered,
        "vlmevalkit": of_answered,
        "easyvideor1": of_tracks,
    },
    facts={
        ("case", "official"): _left_out(by_authors),
        ("case", "lmms_eval"): _left_out(by_lmms_eval),
        ("case", "vlmevalkit"): _left_out(by_vlmevalkit),
        ("aggregate", "official"): accuracy_of(by_authors),
        ("aggregate", "lmms_eval"): accuracy_of(by_lmms_eval),
        ("aggregate", "vlmevalkit"): table_of_vlmevalkit,
        ("formula", "official"): delta_knowledge,
        ("prompt", "lmms_eval"): fingerprint_of_lmms_eval,
        ("prompt", "vlmevalkit"): fingerprint_of_vlmevalkit,
    },
)
