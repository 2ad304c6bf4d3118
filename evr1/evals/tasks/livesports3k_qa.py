"""LiveSports-3K-QA: who, when and what in clips of sports, by letter logits or by generation.

Source: stdKonjac/LiveSports-3K, `LiveSports-3K-QA.json` (the evaluator reads `sports3k-qa.jsonl`),
and `videos.tar`. A row has four options as "A: text". The authors generate nothing: behind
"Answer:" they take the likeliest of four letters. The same prompt with a generated reply is a
profile of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    Choices,
    Doc,
    Fingerprint,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1

# The authors store the option of the letter, which begins with it.
CHOICES = Choices("Answer:", (" A", " B", " C", " D"))
_POSTFIX = "\nPlease select the correct answer."
_STARTS, _ENDS = ("video_start", "begin", "start"), ("video_end", "end")


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions; a question that comes again gets a number behind its id."""
    names = (
        "sports3k-qa.jsonl",
        "LiveSports-3K-QA.json*",
        "*/LiveSports-3K-QA.json*",
        "*QA*.parquet",
    )
    seen: dict[str, int] = {}
    for where, group in files.rows(folder, *names):
        for row in group.get("questions", [group]):
            doc = {**{k: v for k, v in group.items() if k != "questions"}, **row}
            video, number = (files.field(doc, name, where) for name in ("video_id", "question_id"))
            files.check_letter(files.field(doc, "answer", where), len(doc["options"]), where)
            start_s, end_s = (_seconds(doc, ends, where) for ends in (_STARTS, _ENDS))
            path = doc.get("video") or f"{video}.mp4"
            media = Media(path if "/" in path else f"videos/{path}", start_s=start_s, end_s=end_s)
            name = f"{video}_{start_s:g}_{number}"
            seen[name] = seen.get(name, 0) + 1
            again = "" if seen[name] == 1 else f"#{seen[name]}"
            is_text = "yes" if files.field(doc, "OCR", where) else "no"
            tags = {"q_type": str(files.field(doc, "q_type", where)), "OCR": is_text}
            yield Sample(f"{name}{again}", doc, (media,), tags, video=str(video))


def _seconds(doc: Doc, names: Sequence[str], where: str) -> float:
    for name in names:
        if doc.get(name) is not None:
            return float(doc[name])
    raise ValueError(f"{where}: no {' or '.join(names)}; it has {', '.join(map(str, doc))}")


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    options = "\n".join(sample.doc["options"])
    return Show(), f"{sample.doc['question']}\n{options}{_POSTFIX}"


def fingerprint(doc: Doc, response: Any) -> Fingerprint:
    """Returns that of what the authors put behind the head of the reply."""
    return Fingerprint.of(CHOICES.begin)


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files."""
    return {
        "problem_type": easyvideor1.MULTIPLE_CHOICE,
        "problem": doc["question"],
        "options": list(doc["options"]),
        "solution": f"<answer>{doc['answer']}</answer>",
    }


def by_ours(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [files.without_letter(option) for option in doc["options"]]
    return ours.choice(response, doc["question"], options, doc["answer"])


def by_first_character(doc: Doc, response: str) -> Verdict:
    """Scores the first character of the chosen option; of free text, too."""
    return Verdict(response[:1], float(response[:1] == doc["answer"]))


def best_letter(logits: Sequence[float], letter_ids: Sequence[int]) -> int:
    """Returns the place of the likeliest letter, whatever else is likelier; the first of equals.

    >>> best_letter([9.0, 1.0, 3.0, 3.0], [1, 2, 3])
    1
    """
    return max(range(len(letter_ids)), key=lambda place: logits[letter_ids[place]])


def by_authors(doc: Doc, response: Any) -> int | Verdict:
    """Returns a verdict, or the place of the letter where the response holds logits."""
    if isinstance(response, str):
        return by_first_character(doc, response)
    if isinstance(response, Mapping):
        return best_letter(response["last_position_logits"], doc["letter_ids"])
    return not_in_the_row(doc, response)


def not_in_the_row(doc: Any, response: Any) -> Verdict:
    """Returns no verdict on a fact whose responses or logits the row does not hold."""
    return Verdict(None, None, "not_in_the_row")


TASK = Task(
    name="livesports3k_qa",
    source=Source(
        hub=("stdKonjac/LiveSports-3K",),
        n=1174,
        counts={"q_type": {"Who": 374, "When": 335, "What": 465}, "OCR": {"yes": 298, "no": 876}},
        chance=25.0,
        frames="train",
    ),
    load=load,
    prompts={
        "official": ask,
        "official_generated": ask,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_ours,
        "official": by_first_character,
        "easyvideor1": easyvideor1.rule(as_reference),
    },
    choices={"official": CHOICES},
    aggregates=dict.fromkeys(
        ("evr1", "official", "easyvideor1"), metrics.with_tags("q_type", "OCR")
    ),
    facts={
        ("prompt", "official"): fingerprint,
        ("aggregate", "official"): not_in_the_row,
        ("case", "official"): by_authors,
    },
    differs={"not_in_the_row": "the row does not hold the responses or logits that it is about"},
)
