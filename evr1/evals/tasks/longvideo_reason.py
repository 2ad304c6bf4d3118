"""LongVideo-Reason: questions about long videos whose options stand in the text.

Source: LongVideo-Reason/longvideo-reason, split test; the videos are in ten archives of
LongVideo-Reason/longvideo_eval_videos. The right letter stands in answer tags. B is right in 44.1 %
of the rows.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    Doc,
    Finding,
    Fingerprint,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, lmms_eval, tables, tags

_TYPES = {"temporal": 294, "goal": 288, "plot": 283, "spatial": 135}
_OPTION = re.compile(r"(?m)^[^\S\n]*([A-Z])\.\s(.*)$")
_BOXED = re.compile(r"\\boxed\{\s*([A-Za-z])\s*\}")
_THOUGHT_THEN_ANSWER = re.compile(r"</think>\s*<answer>")
_OPEN, _CLOSE = "<answer>", "</answer>"
_SHOWN_CHARS = 60  # of an answer that may be a whole reply
_PHRASE = "Therefore the final answer is:"
_ASK = (
    "You are a helpful assistant. The user asks a question, and then you solves it.\n\nPlease "
    "first think deeply about the question based on the given video, and then provide the final "
    "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> "
    "</answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> answer "
    "here </answer>.\n\n Question: {}"
)


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions; videos are looked for where the archives put them, too."""
    unpacked = {path.name: path for path in folder.glob("longvideo_eval_subset*/*")}
    patterns = ("data/test-*.parquet", "test-*.parquet", "*test*.jsonl", "*test*.json")
    for where, row in files.rows(folder, *patterns):
        problem, video = files.field(row, "problem", where), files.field(row, "videos", where)
        letter, letters = _gold(row), _options(row)
        if len(letter) != 1 or (letters and letter not in letters):
            answer = files.field(row, "answer", where)
            raise ValueError(f"{where}: answer {answer!r} is none of {', '.join(letters)}")
        path = unpacked.get(Path(video).name)
        whole = len(letters) == 4 and bool(problem)
        yield Sample(
            id=str(files.field(row, "problem_id", where)),
            doc=row,
            media=(Media(str(path.relative_to(folder)) if path else video),),
            tags={
                "problem_type": str(row.get("problem_type", "")),
                "options": "four" if whole else "broken",
            },
        )


def _options(doc: Doc) -> dict[str, str]:
    """Returns letter to text of the options, in alphabetical order; five rows have broken ones."""
    return dict(sorted((letter, text.strip()) for letter, text in _OPTION.findall(doc["problem"])))


def _gold(doc: Doc) -> str:
    answer = str(doc.get("answer", ""))
    return (tags.between(answer, _OPEN, _CLOSE, 1) or [answer.strip()])[0]


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    return Show(), _ASK.format(sample.doc["problem"])


def _row(doc: Doc) -> dict[str, Any]:
    options = [f"{letter}. {text}" for letter, text in _options(doc).items()]
    row = easyvideor1.choice_row(_OPTION.sub("", doc["problem"]).strip(), [], _gold(doc))
    return row | {"options": options}


def by_option(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [f"{letter}. {text}" for letter, text in _options(doc).items()]
    stem = _OPTION.sub("", doc["problem"]).strip()
    return ours.verdict(response, "multiple choice", _gold(doc), problem=stem, options=options)


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the very text of the first answer tag on one line, or of the whole reply without."""
    answer, gold = _of_line(response), _of_line(str(doc["answer"]))
    # The kit asks a verifier of formulas first; the right answers of the benchmark are letters.
    is_formula = not re.fullmatch("[A-Z]", gold) and answer != gold
    shown = answer[:_SHOWN_CHARS]
    return Verdict(shown, float(answer == gold), "formula" if is_formula else "")


def _of_line(text: str) -> str:
    start = f"{_OPEN}{_PHRASE} " if _PHRASE in text else _OPEN
    found = (tags.between(line, start, _CLOSE, 1) for line in text.split("\n"))
    return next((each[0] for each in found if each), text.strip())


def by_form(doc: Doc, response: str) -> Verdict:
    """Scores whether reasons and answer stand in their tags, from the start."""
    return Verdict(None, float(_is_in_form(response)))


def _is_in_form(text: str) -> bool:
    """Returns whether "<think>", "</think>" with blanks and "<answer>", "</answer>" follow."""
    found = _THOUGHT_THEN_ANSWER.search(text) if text.startswith("<think>") else None
    return found is not None and text.find(_CLOSE, found.end()) >= 0


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the letter that lmms-eval reads from the answer tag, else from the whole reply."""
    letter = _lenient(response, list(_options(doc)))
    return Verdict(letter, float(letter == re.sub("[^A-Za-z]", "", _gold(doc)).upper()))


def by_lmms_eval_strictly(doc: Doc, response: str) -> Verdict:
    """Scores the very text of the first answer tag."""
    answer = _tagged(response)
    return Verdict(answer, float(answer == _gold(doc)))


def _tagged(text: str) -> str:
    start = f"{_OPEN}{_PHRASE} " if _PHRASE in text else _OPEN
    return (tags.between(text, start, _CLOSE, 1) or [text.strip()])[0]


def _lenient(response: str, letters: list[str]) -> str:
    tagged = _tagged(response)
    only = re.sub("[^A-Za-z]", "", tagged).upper()
    if only in letters:
        return only
    for text in (tagged, response.rpartition("</think>")[2]):
        boxed = _BOXED.findall(text)
        if boxed and boxed[-1].upper() in letters:
            return boxed[-1].upper()
        letter = lmms_eval.read_letter(text, letters)
        if letter:
            return letter
    return ""


def scores_of_lmms_eval(doc: Doc, response: Any) -> Verdict:
    """Returns the three scores of lmms-eval together."""
    text = response or ""
    lenient, strict = by_lmms_eval(doc, text), by_lmms_eval_strictly(doc, text)
    scores: Any = {
        "lenient": lenient.score,
        "strict": strict.score,
        "format": float(_is_in_form(text)),
    }
    return Verdict(lenient.extracted, scores)


def accuracy_of_authors(doc: Any, _: Any) -> Finding:
    """Returns the mean score of the outputs; a sample that failed is in none of them."""
    scores = [tables.score_of(row, by_authors) for row in tables.rows_of(doc) if not _failed(row)]
    return Finding(None, tables.percent(scores) / 100)


def _failed(row: Doc) -> bool:
    return "response" in row and row["response"] is None


def accuracies_of_lmms_eval(doc: Any, _: Any) -> dict[str, float]:
    """Returns its percentages: lenient, strict, of whole rows, of the form, and by type."""
    rows = [_record(row) for row in tables.rows_of(doc)]
    whole = [row["score"] for row in rows if row["wellformed"]]
    return {
        "overall": tables.percent(row["score"] for row in rows),
        "strict": tables.percent(row["strict_score"] for row in rows),
        "wellformed": tables.percent(whole),
        "format": tables.percent(row["format_score"] for row in rows),
        **{
            kind: tables.percent(row["score"] for row in rows if row["problem_type"] == kind)
            for kind in _TYPES
        },
    }


def _record(row: Doc) -> dict[str, Any]:
    """Returns a row with lmms-eval's scores, which may stand in it."""
    if "score" in row:
        return {"wellformed": True, "strict_score": 0.0, "format_score": 0.0, **row}
    text = row["response"] or ""
    return {
        "problem_type": row["problem_type"],
        "wellformed": len(_options(row)) == 4,
        "score": by_lmms_eval(row, text).score,
        "strict_score": by_lmms_eval_strictly(row, text).score,
        "format_score": float(_is_in_form(text)),
    }


TASK = Task(
    name="longvideo_reason",
    source=Source(
        hub=("LongVideo-Reason/longvideo-reason",),
        n=1000,
        counts={"problem_type": _TYPES, "options": {"four": 995, "broken": 5}},
        chance=24.8,
        frames="longvideo_reason",
    ),
    load=load,
    prompts={
        "official": ask,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_option,
        "official": by_authors,
        "official_format": by_form,
        "lmms_eval": by_lmms_eval,
        "lmms_eval_strict": by_lmms_eval_strictly,
        "easyvideor1": easyvideor1.rule(_row),
    },
    aggregates={
        name: metrics.with_tags("problem_type", "options")
        for name in ("evr1", "official", "lmms_eval", "lmms_eval_strict", "easyvideor1")
    },
    facts={
        ("aggregate", "official"): accuracy_of_authors,
        ("aggregate", "lmms_eval"): accuracies_of_lmms_eval,
        ("case", "lmms_eval"): scores_of_lmms_eval,
        ("prompt", "official"): lambda doc, _: Fingerprint.of(_ASK.format(doc["problem"])),
    },
    differs={"formula": "the kit compares formulas first; no right answer of the benchmark is one"},
)
