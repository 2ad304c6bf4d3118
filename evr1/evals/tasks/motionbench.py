"""MotionBench: short motions, two to six options a question.

Source: zai-org/MotionBench (before: THUDM/MotionBench), `MotionBench/video_info.meta.jsonl`, a
line a video with a question; options stand in it as lines "A. text". Half of the 8052 questions
have the answer "NA", as theirs is hidden: they are left out here.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import Doc, Media, Part, Sample, Show, Source, Task, Verdict
from evr1.evals.tasks.kits import easyvideor1, thudm

_LETTERS = "ABCDEF"
_HIDDEN = "NA"
_PLACES = ("self-collected", "public-dataset")
# An option on a line of its own; else wherever it is.
_FORMS = (
    re.compile(r"(?m)^[ \t]*\(?([A-F])[.):][ \t]*"),
    re.compile(r"(?:^|(?<=\s))\(?([A-F])[.):]\s+"),
)
_LETTER_ONLY = "Answer with only the option letter (A, B, C, D, E, or F)."


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions whose answer is known."""
    names = ("video_info.meta.jsonl", "MotionBench/video_info.meta.jsonl")
    for where, row in files.rows(folder, *reversed(names)):
        video = files.field(row, "video_path", where)
        places = [f"{root}{place}/{video}" for root in ("MotionBench/", "") for place in _PLACES]
        for question in files.field(row, "qa", where):
            answer = files.field(question, "answer", where)
            if answer == _HIDDEN:
                continue
            count = len(_split(files.field(question, "question", where))[1])
            files.check_letter(answer, count or len(_LETTERS), where)
            yield Sample(
                id=str(files.field(question, "uid", where)),
                doc=row | {"qa": [question]},
                media=(Media(files.first(folder, *places)),),
                tags={"question_type": str(files.field(row, "question_type", where))},
            )


def _split(text: str) -> tuple[str, list[str]]:
    """Returns the question and its options; no options where fewer than two are found."""
    for form in _FORMS:
        marks: list[re.Match[str]] = []
        for mark in form.finditer(text):
            if mark[1] == _LETTERS[len(marks) : len(marks) + 1]:
                marks.append(mark)
        if len(marks) > 1:
            ends = [mark.start() for mark in marks[1:]] + [len(text)]
            spans = zip((mark.end() for mark in marks), ends, strict=True)
            return _fold(text[: marks[0].start()]), [_fold(text[a:b]) for a, b in spans]
    return _fold(text), []


def _fold(text: str) -> str:
    return " ".join(text.split())


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval; the authors state none."""
    question, options = _split(sample.doc["qa"][0]["question"])
    return Show(), "\n".join([question, *ours.lettered(options), _LETTER_ONLY])


def _row(doc: Doc) -> dict[str, Any]:
    question, options = _split(doc["qa"][0]["question"])
    kind = easyvideor1.MULTIPLE_CHOICE
    return {"problem_type": kind, "problem": question, "options": ours.lettered(options)}


def _gold(doc: Doc) -> str:
    return doc["qa"][0]["answer"]


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    question, options = _split(doc["qa"][0]["question"])
    return ours.choice(response, question, options, _gold(doc))


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores by the reader that LVBench has, too."""
    letter = thudm.read_letter(response)
    return Verdict(letter, float(letter == _gold(doc)))


_PHRASES = (
    "THE BEST ANSWER IS",
    "THE CORRECT ANSWER IS",
    "THE ANSWER IS",
    "BEST ANSWER:",
    "ANSWER:",
)
_PLACED = (re.compile(r"\b[A-F]\b"), re.compile(r"[A-F](?=[.):])"), re.compile(r"[A-F]"))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the first letter A-F of the upper-cased text: alone, before a mark, or anywhere."""
    text = response.rpartition("</think>")[2].strip().upper()
    for phrase in _PHRASES:
        text = text.replace(phrase, "")
    found = next(filter(None, (form.search(text) for form in _PLACED)), None)
    letter = found[0] if found else ""
    return Verdict(letter, float(letter == _gold(doc)))


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(_gold(doc), response)


# Facts.


def rate_authors(doc: Doc, _: Any) -> dict[str, float]:
    """Returns their table for `answers` (uid to letter) beside `meta`.

    A hidden question that was answered leaves the first count only, one that was not the second:
    so the two accuracies change places between a file of all answers and one of the known.

    Raises:
        ValueError: a video has several questions.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    hidden = 0
    for video in doc["meta"]:
        if len(video["qa"]) > 1:
            raise ValueError(f"video {video['key']} has several questions; the kit stops there")
        for question in video["qa"]:
            answer = doc["answers"].get(question["uid"])
            if answer is not None and question["answer"] == _HIDDEN:
                hidden += 1
            elif answer is not None:
                right[video["question_type"]].append(answer == question["answer"])
    count, answered = len(doc["meta"]) - hidden, len(doc["answers"])
    total = sum(map(sum, right.values()))
    return {
        **{kind: metrics.mean(each) for kind, each in right.items()},
        "acc": total / count if count else 0.0,
        "answered_acc": total / answered if answered else 0.0,
        "total_qa_num": count,
        "total_answered_num": answered,
        "right_num": total,
    }


_START = re.compile(r"\s*([A-F])[.):](.*)", re.DOTALL)


def load_as_lmms_eval(doc: Doc, _: Any) -> Verdict:
    """Returns the questions that lmms-eval keeps of a row, and how many these are."""
    kept = []
    names = ("key", "video_path", "video_type", "question_type")
    for question in doc["qa"]:
        answer = str(question["answer"]).strip().upper()
        stem, options = _split_lines(question["question"])
        if answer in [option["label"] for option in options]:
            row = {name: str(doc.get(name, "Unknown")) for name in names}
            uid = str(question.get("uid") or f"{row['key']}_{len(kept)}")
            kept.append({"id": uid, **row, "question": stem, "options": options, "answer": answer})
    return Verdict(kept, len(kept))


def _split_lines(text: str) -> tuple[str, list[dict[str, str]]]:
    """Returns the question and its options, which must begin a line with their letter."""
    stem: list[str] = []
    options: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines(keepends=True):
        mark = _START.match(line)
        # From the second on a blank must follow; an option without text takes the next line.
        is_next = not options or (line[mark.end(1) + 1 :][:1].isspace() if mark else False)
        if mark and is_next and (not options or "".join(options[-1][1]).strip()):
            options.append((mark[1], [mark[2]]))
        else:
            (options[-1][1] if options else stem).append(line)
    found = [{"label": label, "text": _fold("".join(parts))} for label, parts in options]
    return _fold("".join(stem)) or _fold(text), [each for each in found if each["text"]]


# Rows of the recorded file have no types.
_RECORDED = ("Action Order", "Action Order", "Camera Motion", "Repetition Count")


def rate_lmms_eval(doc: Doc, _: Any) -> Verdict:
    """Returns lmms-eval's rows and accuracy for pairs of gold and response."""
    rows = []
    for place, (gold, response, *kind) in enumerate(doc["rows"]):
        letter, score, _differs = by_lmms_eval({"qa": [{"answer": gold}]}, response)
        kind = kind[0] if kind else _RECORDED[place % len(_RECORDED)]
        answered = float(letter != "")
        rows.append({"question_type": kind, "score": score, "answered": answered, "total": 1.0})
    return Verdict(rows, metrics.mean(row["score"] for row in rows))


TASK = Task(
    name="motionbench",
    source=Source(
        hub=("zai-org/MotionBench", "THUDM/MotionBench"),
        n=4018,
        counts={
            "question_type": {
                "Motion Recognition": 1478,
                "Motion-related Objects": 690,
                "Location-related Motion": 546,
                "Action Order": 519,
                "Repetition Count": 400,
                "Camera Motion": 385,
            }
        },
        chance=25.6,
        frames="motionbench",
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
    aggregates={
        profile: metrics.with_tags("question_type") for profile in ("evr1", "official", "lmms_eval")
    },
    facts={
        ("aggregate", "official"): rate_authors,
        ("aggregate", "lmms_eval"): rate_lmms_eval,
        ("load", "lmms_eval"): load_as_lmms_eval,
    },
)
