"""TempCompass: four sub-tasks over five dimensions of time, on the same short videos.

Source: lmms-lab/TempCompass (now lmms-eval/TempCompass), `<sub-task>/test-*.parquet`; or the
authors' repository, `questions/<sub-task>.json` (video to dimension to rows) with `meta_info.json`.
A doc is a row with its sub-task as "task". Options stand in the question, a line each.

A caption is judged: a model answers a multiple-choice question from the caption alone.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    JUDGE,
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
from evr1.evals.tasks.judging import verdicts
from evr1.evals.tasks.kits import tempcompass as kit

CHOICE, YES_NO, MATCHING, CAPTIONING = _TASKS = (
    "multi-choice",
    "yes_no",
    "caption_matching",
    "captioning",
)
_SUFFIXES = {
    CHOICE: "\nPlease directly give the best option:",
    YES_NO: "\nPlease answer yes or no:",
    MATCHING: "\nPlease directly give the best option:",
    CAPTIONING: "",  # its question ends with a cue
}
_DIMENSIONS = ("action", "direction", "speed", "order", "attribute_change")
_LETTERS = "ABCD"
_OPTION = re.compile(r"(?m)^([A-D])\.[ \t]*(.*)$")
_COUNTS = (  # by sub-task and dimension
    (338, 335, 317, 302, 288),
    (592, 494, 537, 382, 448),
    (297, 327, 291, 300, 288),
    (396, 436, 388, 400, 384),
)


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions, sub-task by sub-task, tagged with a finer "type" where it is known."""
    meta = folder / "meta_info.json"
    types = files.read_json(meta) if meta.exists() else {}
    for task in _TASKS:
        counts: dict[tuple[str, str], int] = {}
        for where, row in _rows(folder, task):
            video, dim = (str(files.field(row, name, where)) for name in ("video_id", "dim"))
            _check(row, task, where)
            number = counts[video, dim] = counts.get((video, dim), -1) + 1
            fine = types.get(video, {}).get("eval_dim", {}).get(dim, {}).get("type", "")
            tags = {"task": task, "dim": dim, "task_dim": f"{task}.{dim}"}
            tags |= {"type": "order" if dim == "order" else fine} if types else {}
            yield Sample(
                id=f"{task}/{video}/{dim}/{number}",
                doc={"task": task, **row},
                media=(Media(f"videos/{video}.mp4"),),
                tags=tags,
            )


def _rows(folder: Path, task: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = folder / "questions" / f"{task}.json"
    if not path.exists():
        yield from files.rows(folder, f"{task}/test-*.parquet", f"questions/{task}.json")
        return
    # The judge of captions is given the first multiple-choice question of video and dimension.
    choices = files.read_json(path.with_name(f"{CHOICE}.json")) if task == CAPTIONING else {}
    for video, dims in files.read_json(path).items():
        for dim, rows in dims.items():
            for number, row in enumerate(rows, 1):
                extra = {}
                if first := choices.get(video, {}).get(dim):
                    extra = {"mc_question": first[0]["question"], "mc_answer": first[0]["answer"]}
                yield (
                    f"{path}: {video}, {dim}, {number}",
                    {"video_id": video, "dim": dim} | row | extra,
                )


def _check(row: dict[str, Any], task: str, where: str) -> None:
    question = files.field(row, "question", where)
    answer = files.field(row, "mc_answer" if task == CAPTIONING else "answer", where)
    allowed = ["yes", "no"] if task == YES_NO else question.split("\n")[1:]
    if task == CAPTIONING:
        allowed = files.field(row, "mc_question", where).split("\n")[1:]
    if answer not in allowed:
        raise ValueError(f"{where}: answer {answer!r} is none of {', '.join(map(repr, allowed))}")


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    return Show(), f"{sample.doc['question']}{_SUFFIXES[sample.doc['task']]}"


# What the kits' rules read: a rating, or None where no rule fits.


def _rate(doc: Doc, response: str) -> int | None:
    task, gold = doc["task"], doc["answer"]
    if task == YES_NO:  # "North" is no
        said = next((w for w in ("yes", "no") if response.lower().startswith(w)), None)
        return None if said is None else int(said == gold)
    if task == MATCHING:
        return _rate_matching(doc["question"], gold, response)
    if response == gold:
        return 1
    is_letter = response[:1] in tuple(_LETTERS) and response[1:2] in ("", ".", ")")
    return int(response[0] == gold[0]) if is_letter else None


def _rate_matching(question: str, gold: str, response: str) -> int | None:
    """Rates a whole line, its sentence, its head ("Option 2") or its label ("2"), the last first.

    A sentence ends where it has a colon.
    """
    lines = question.split("\n")[1:]
    heads = [line.split(": ")[0] for line in lines]
    sentences = [line.split(": ")[1] for line in lines]
    labels = [re.sub("Sentence |Option |Caption ", "", head) for head in heads]
    behind = response.split(") ")[1] if ") " in response else response
    said = [text for text in heads + labels if text in (response, response.replace(".", ""))]
    said = said or [text for text in sentences if text in (response, behind)]
    said = said or [line for line in lines if line == response]
    if not said:
        return None
    head, sentence = gold.split(":")[0], gold.split(": ")[1]
    return int(said[-1] in (gold, head, sentence, head.split()[1]))


# What the kits read in a judge's reply.


def rate_caption(reply: str, gold: str) -> tuple[str | None, int]:
    """Returns what a judge answers to the question about a caption, and whether it is right.

    Exactly one of "A." to "D." must occur; -1: there is no reply.
    """
    if not reply or reply == "invalid_request_error":
        return None, -1
    lines = [line.strip() for line in reply.split("\n")]
    answers = [line.replace("Answer:", "").strip() for line in lines if "Answer" in line]
    answer = answers[-1] if answers else reply
    count = sum(answer.count(f"{letter}.") for letter in _LETTERS)
    return answer, int(count == 1 and answer.split(". ")[0] == gold.split(". ")[0])


def rate_verdict(reply: str) -> int:
    """Returns whether a judge calls an answer right; no such word is 0 in the end.

    >>> rate_verdict("Correct."), rate_verdict("It is Incorrect"), rate_verdict("It is not Correct")
    (1, 0, 1)
    """
    if reply.startswith("Correct"):
        return 1
    return int("Correct" in reply and "Incorrect" not in reply)


def _of_judge(doc: Doc, reply: str) -> Verdict | None:
    """Returns the verdict of a loose row whose response is a judge's reply."""
    if doc["task"] == "judge verdict":
        is_said = "Correct" in reply or "Incorrect" in reply
        return Verdict(None, rate_verdict(reply), "" if is_said else STOPS)
    if doc["task"] == CAPTIONING and "question" not in doc:
        return Verdict(*rate_caption(reply, doc["mc_answer"]))
    return Verdict(JUDGE, None) if doc["task"] == CAPTIONING else None


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores by the authors' rules; 0 where none fits, as without their judge."""
    if judged := _of_judge(doc, response):
        return judged
    rating = _rate(doc, response.replace("</s>", "").strip())
    return Verdict(JUDGE, 0.0) if rating is None else Verdict("rule", rating)


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores by the same rules, blanks and all; a judge is asked where none fits."""
    if judged := _of_judge(doc, response):
        return judged
    rating = _rate(doc, response)
    return Verdict(JUDGE, None) if rating is None else Verdict("rule", rating)


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores by the same rules, blanks and all; 0 where none fits."""
    if judged := _of_judge(doc, response):
        return judged._replace(differs="")  # it does not stop at what it cannot read
    rating = _rate(doc, response)
    return Verdict("<NONE>", 0.0) if rating is None else Verdict("rule", rating)


def by_our_rule(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule; a caption waits for a judge."""
    task = doc["task"]
    if task == CAPTIONING:
        return Verdict(JUDGE, None)
    question, answer = doc["question"], doc["answer"]
    if task == YES_NO:
        return ours.verdict(response, "boolean", answer, problem=question)
    if task == CHOICE:
        options = [text.strip() for _, text in _OPTION.findall(question)]
        return ours.choice(response, question.split("\n")[0], options, answer[0])
    stem, *lines = question.split("\n")
    rating = _rate_matching(question, answer, response.strip())
    if rating is not None:
        return Verdict(response.strip(), float(rating))
    captions = [line.partition(": ")[2] for line in lines]
    letter = _LETTERS[lines.index(answer)]
    return ours.choice(_with_letters(response, lines), stem, captions, letter)


def _with_letters(response: str, lines: Sequence[str]) -> str:
    """Returns a response with "Option A" for "Sentence A", "Option 1" or a bare 1.

    Bare numbers stay where a caption holds them, too.
    """
    captions = " ".join(line.partition(": ")[2] for line in lines)
    for letter, line in zip(_LETTERS, lines, strict=False):
        word, _, label = line.partition(": ")[0].partition(" ")
        response = re.sub(rf"(?i)\b{word} {label}\b", f"Option {letter}", response)
        if label.isdigit() and label not in captions:
            response = re.sub(rf"(?<![\w.,]){label}(?![\w,]|\.\d)", letter, response)
    return response


# Judges.

_CAPTION = """\
You answer a multiple-choice question about a video that you do not see, from a caption of it alone.
Where the caption does not tell, do not guess."""
_CAPTION_ASKED = """\
Here the data end. Which option does the caption say? Reply with one JSON object and nothing else,
where answer is the letter of the option, or none if the caption does not tell:
{"reason": "one short sentence", "answer": "none"}"""
_CAPTION_ASKED_BY_AUTHORS = """\
Here the data end. Which option does the caption say? Reply with one line that begins with Answer:
and goes on with the whole line of the option, its letter and its full stop first. If the caption
does not tell, write Answer: none."""


def _ask_of_caption(doc: Doc, response: str, asked: str) -> str:
    return verdicts.prompt(_CAPTION, {"question": doc["mc_question"], "caption": response}, asked)


def judge_caption(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the option that a caption says."""
    reply = yield _ask_of_caption(doc, response, _CAPTION_ASKED)
    said = verdicts.read_fields(reply, {"answer": str})["answer"].strip()
    letters = [letter for letter, _ in _OPTION.findall(doc["mc_question"])]
    if said.casefold() not in ("none", *map(str.casefold, letters)):
        raise ValueError(f"answer {said[:40]!r} is none of {', '.join(letters)} and not none")
    return Verdict(said, float(said.upper() == doc["mc_answer"][0]))


def judge_as_authors(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the option that a caption says; of what no rule reads, for the word Correct."""
    if doc["task"] == CAPTIONING:
        said, rating = rate_caption(
            (yield _ask_of_caption(doc, response, _CAPTION_ASKED_BY_AUTHORS)), doc["mc_answer"]
        )
        if rating < 0:
            raise ValueError("the reply is empty")
        return Verdict(said, float(rating))
    asked = verdicts.CORRECT_OR_INCORRECT
    reply = yield from verdicts.grade(doc["question"], doc["answer"], response, asked)
    return Verdict(response.strip(), float(rate_verdict(reply)))


def by_subtask(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean of the sub-tasks that a rule scores, then each, and each dimension of it.

    The mean of all four, with its name, is there once captions are judged. Neither is a kit's.
    """
    tasks = metrics.by_tag(records, "task")
    judged = [
        r for r in records if r.sample.tags["task"] == CAPTIONING and r.verdict.score is not None
    ]
    ruled = [value for name, value in tasks.items() if name != f"task/{CAPTIONING}"]
    means = {"mean_of_3": metrics.mean(ruled)}
    if judged:
        means["mean_of_4"] = metrics.macro(tasks)
    for tag in ("task_dim", "dim", "type"):
        tasks |= metrics.by_tag(records, tag)
    return means | tasks


def by_subtask_as_lmms_eval(records: Sequence[Record]) -> dict[str, float]:
    """Returns the same, but a failed judge's -1 is no point."""
    counted = [
        Record(r.sample, r.verdict._replace(score=float(r.verdict.score == 1))) for r in records
    ]
    return by_subtask(counted)


def by_subtask_as_vlmevalkit(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean over all rows first."""
    return metrics.overall(records) | by_subtask(records)


def of_released_file(doc: Doc, _: Any) -> Verdict:
    """Says that the predictions, which such a case is about, are not here."""
    return Verdict(None, None, "released_predictions")


TASK = Task(
    name="tempcompass",
    source=Source(
        hub=("lmms-eval/TempCompass", "lmms-lab/TempCompass"),
        n=7540,
        counts={
            "task": {task: sum(counts) for task, counts in zip(_TASKS, _COUNTS, strict=True)},
            "task_dim": {
                f"{task}.{dim}": count
                for task, counts in zip(_TASKS, _COUNTS, strict=True)
                for dim, count in zip(_DIMENSIONS, counts, strict=True)
            },
        },
        metric="accuracy by sub-task",
        frames="train",
        judge="captioning (official, lmms_eval: also what no rule reads)",
    ),
    load=load,
    prompts={"official": ask},
    rules={
        "evr1": by_our_rule,
        "official": by_authors,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
    },
    judges={
        "evr1": judge_caption,
        "official": judge_as_authors,
        "lmms_eval": judge_as_authors,
        "vlmevalkit": judge_as_authors,
    },
    aggregates={
        "evr1": by_subtask,
        "official": by_subtask,
        "lmms_eval": by_subtask_as_lmms_eval,
        "vlmevalkit": by_subtask_as_vlmevalkit,
    },
    facts={
        ("aggregate", "official"): kit.rate_authors,
        ("aggregate", "lmms_eval"): kit.rate_lmms_eval,
        ("aggregate", "vlmevalkit"): kit.rate_vlmevalkit,
        ("public_file", "official"): of_released_file,
    },
    differs=KIT_STOPS
    | {
        "released_predictions": "the row is about predictions that the authors have released, and "
        "that are in a file of their repository"
    },
)
