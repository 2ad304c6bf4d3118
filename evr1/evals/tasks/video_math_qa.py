"""VideoMathQA: mathematics in 420 videos, with five options (mcq) and as four pairs each (mbin).

Source: MBZUAI/VideoMathQA, configs mcq and multi_binary; `videos/` and `subtitles/` beside them.
Options stand as "A. text". Of the four pairs of a question, all must be answered right. Its
authors have no scorer of their own: lmms-eval's is the official one.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    JUDGE,
    KIT_STOPS,
    STOPS,
    Doc,
    Fingerprint,
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
from evr1.evals.tasks.judging import verdicts
from evr1.evals.tasks.kits import capitals, easyvideor1

_FORMATS = {
    "mcq": ("mcq/*.parquet", "data/mcq*.parquet", "mcq*.parquet", "mcq*.json*"),
    "mbin": (
        "multi_binary/*.parquet",
        "data/multi_binary*.parquet",
        "multi_binary*.parquet",
        "multi_binary*.json*",
    ),
}
_PAIRS = 4  # of a question
_TAGS = ("length", "category")
_FIELDS = ("question_id", "videoID", "question", "options", "answer", *_TAGS)
_ENDINGS = ("mp4", "MP4", "mkv")


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions with five options, then the pairs."""
    for form, names in _FORMATS.items():
        pairs: dict[str, int] = {}
        for where, row in files.rows(folder, *names):
            fields = {name: files.field(row, name, where) for name in _FIELDS}
            files.check_letter(row["answer"], len(row["options"]), where)
            question, video = str(fields["question_id"]), fields["videoID"]
            pairs[question] = pairs.get(question, 0) + 1
            yield Sample(
                id=f"{form}/{question}" + f"/{pairs[question]}" * (form == "mbin"),
                doc=row,
                media=(Media(files.first(folder, *(f"videos/{video}.{end}" for end in _ENDINGS))),),
                tags={"format": form, **{tag: str(fields[tag]) for tag in _TAGS}},
                group=question if form == "mbin" else "",
                subtitles=files.optional(folder, f"subtitles/{video}.srt"),
            )


# Prompts.

_CHOOSE = (
    "Select the best answer to the following multiple-choice question based on the video{}. "
    "Respond with the letter ({}) of the correct option."
)
_DIRECT = "\nAnswer with the option's letter ({}) from the given choices directly."
_COT = (
    "First please perform reasoning, and think step by step to provide best answer to the "
    "following question with the option's letter ({}) from the given choices."
)
_LISTED = Subtitles("This video's subtitles are listed below: \n")


def _text(doc: Doc, post: str, where: str = "") -> str:
    letters = "A or B" if len(doc["options"]) == 2 else "A, B, C, D or E"
    lines = [_CHOOSE.format(where, letters), doc["question"], *doc["options"], post.format(letters)]
    return "\n".join(lines)


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt that wants a letter at once."""
    return Show(), _text(sample.doc, _DIRECT)


def ask_for_reasons(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt that wants reasons first."""
    return Show(), _text(sample.doc, _COT)


def ask_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt with the lines of the frames that wants a letter at once."""
    return Show(), _LISTED, _text(sample.doc, _DIRECT, " and the subtitles")


def ask_for_reasons_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt with the lines of the frames that wants reasons first."""
    return Show(), _LISTED, _text(sample.doc, _COT, " and the subtitles")


def _row(doc: Doc) -> dict[str, Any]:
    options = [files.without_letter(option) for option in doc["options"]]
    return easyvideor1.choice_row(doc["question"], options, doc["answer"])


# Rules.


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [files.without_letter(option) for option in doc["options"]]
    return ours.choice(response, doc["question"], options, doc["answer"])


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the first capital A-E, also of a pair, once some phrases are deleted."""
    letter = capitals.read_letter(response, "ABCDE")
    return Verdict(letter, float(letter == doc["answer"]))


def by_lmms_eval_or_reply(doc: Doc, response: str) -> Verdict:
    """Scores as lmms-eval; of a doc with "mcq", reads the reply of its extraction model."""
    if "mcq" not in doc:
        return by_lmms_eval(doc, response)
    return Verdict(_letter_of_reply(response, doc["mcq"]), None)


# Judges.

_LEFT_OUT = Verdict("<LEFT OUT>", None)
_WEIGH = """\
You weigh the reasoning of a response to a question of mathematics about a video that you do not
see. The reference steps and the right answer are right, whatever you know yourself."""
_WEIGH_ASKED = """\
Here the data end. How much of the reference reasoning does the response follow, or replace by other
steps that are as right? 10: all of it; 0: none. Wrong steps, and an answer that does not follow
from the steps, take points away. Reply with one JSON object and nothing else:
{"reason": "one short sentence", "score": 0}"""
_LETTER_ASKED = """\
Here the data end. Which option does the reply choose in the end? Reply with its letter alone, or
with the word none if it chooses none."""


def by_steps(doc: Doc, response: str) -> Verdict:
    """Leaves the reasoning to a judge; pairs, and rows without reference steps, are left out."""
    is_weighed = len(doc["options"]) > 2 and doc.get("steps")
    return Verdict(JUDGE, None) if is_weighed else _LEFT_OUT


def by_reply(doc: Doc, response: str) -> Verdict:
    """Leaves every response to a judge, who reads the letter."""
    return Verdict(JUDGE, None)


def _problem(doc: Doc) -> str:
    return "\n".join([doc["question"], *doc["options"]])


def judge_steps(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for points from 0 to 10 for the steps of a response; they are divided by 10."""
    blocks = {
        "question": _problem(doc),
        "right answer": doc["answer"],
        "reference steps": str(doc["steps"]),
        "response": response,
    }
    reply = yield verdicts.prompt(_WEIGH, blocks, _WEIGH_ASKED)
    points = verdicts.read_fields(reply, {"score": (int, float)})["score"]
    if not 0 <= points <= 10:
        raise ValueError(f"score {points} is not from 0 to 10")
    return Verdict(points, points / 10)


def judge_letter(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the letter that a response chooses; a reply that is more than a letter is none."""
    reply = yield verdicts.prompt(
        verdicts.FIND, {"question": _problem(doc), "reply": response}, _LETTER_ASKED
    )
    letter = _letter_of_reply(reply, len(doc["options"]) > 2)
    return Verdict(letter, float(letter == doc["answer"]))


def _letter_of_reply(reply: str, is_mcq: bool) -> str | None:
    letter = reply.strip().upper()
    return letter if len(letter) == 1 and letter in ("ABCDE" if is_mcq else "AB") else None


# Aggregates.


def of_steps(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean of the scores of steps over the questions with five options."""
    weighed = [record for record in records if record.verdict.extracted != _LEFT_OUT.extracted]
    means = metrics.with_tags(*_TAGS)(weighed)
    return {"steps": means.pop("accuracy")} | means


def _of_groups(records: Iterable[Record], pairs: int) -> list[Record]:
    """Returns a record a question: right if all its pairs are, and there are enough of them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.sample.group, []).append(record)
    return [
        group[0]._replace(
            verdict=Verdict(
                None,
                float(len(group) >= pairs and all(metrics.score(record) == 1 for record in group)),
            )
        )
        for group in groups.values()
    ]


def _aggregate(records: Sequence[Record], pairs: int) -> dict[str, float]:
    forms: dict[str, list[Record]] = {form: [] for form in _FORMATS}
    for record in records:
        forms[str(record.sample.tags["format"])].append(record)
    forms["mbin"] = _of_groups(forms["mbin"], pairs)
    means = {form: metrics.overall(listed)["accuracy"] for form, listed in forms.items()}
    for form, listed in forms.items():
        for tag in _TAGS:
            means |= {f"{form}/{k}": v for k, v in metrics.by_tag(listed, tag).items()}
    return means


def of_complete_questions(records: Sequence[Record]) -> dict[str, float]:
    """Returns both accuracies; a question of which a pair is missing is wrong."""
    return _aggregate(records, _PAIRS)


def of_given_pairs(records: Sequence[Record]) -> dict[str, float]:
    """Returns both accuracies as lmms-eval, where a lost pair helps its question."""
    return _aggregate(records, 1)


def accuracy_of_lmms_eval(doc: Any, _: Any) -> Verdict:
    """Returns the percentage of questions of which all results are right."""
    known = _COUNTS["category"]
    stops = "" if all(row.get("category") in (None, *known) for row in doc) else STOPS
    right: dict[str, bool] = {}
    for row in doc:
        name, is_right = row["question_id"], row["pred_answer"] == row["answer"]
        right[name] = right.get(name, True) and is_right
    return Verdict(None, 100 * metrics.mean(right.values()), stops)


def fingerprint_of_lmms_eval(doc: Doc, _: Any) -> Fingerprint:
    """Returns that of a prompt without subtitles."""
    return Fingerprint.of(_text(doc, _COT if "cot" in doc["variant"] else _DIRECT))


_COUNTS = {
    "format": {"mcq": 420, "mbin": 1680},
    # Of 420 questions; each stands in the files once with five options and four times as a pair.
    "length": {"short": 5 * 132, "medium": 5 * 156, "long": 5 * 132},
    "category": {
        "Chart": 5 * 75,
        "Geometry Area": 5 * 71,
        "Puzzle": 5 * 54,
        "Arithmetic": 5 * 52,
        "Geometry Length": 5 * 51,
        "Counting": 5 * 38,
        "Geometry Angle": 5 * 23,
        "Statistics": 5 * 23,
        "Graph Theory": 5 * 18,
        "Topology": 5 * 15,
    },
}

TASK = Task(
    name="video_math_qa",
    source=Source(
        hub=("MBZUAI/VideoMathQA",),
        n=2100,
        counts=_COUNTS,
        chance=20.0,
        metric="accuracy with five options; share of questions with all four pairs right",
        frames="video_math_qa",
        judge="steps (official_steps); letters of long responses (official_cot)",
    ),
    load=load,
    prompts={
        "official": ask,
        "official_cot": ask_for_reasons,
        "official_subtitles": ask_with_subtitles,
        "official_cot_subtitles": ask_for_reasons_with_subtitles,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_letter,
        "official": by_lmms_eval,
        "lmms_eval": by_lmms_eval,
        "easyvideor1": easyvideor1.rule(_row),
        "official_cot": by_reply,
        "official_steps": by_steps,
    },
    judges={"official_cot": judge_letter, "official_steps": judge_steps},
    aggregates={
        "evr1": of_complete_questions,
        "official": of_given_pairs,
        "lmms_eval": of_given_pairs,
        "official_cot": of_given_pairs,
        "official_steps": of_steps,
        # EasyVideoR1 pools both forms in one mean: guessing scores 44 %.
        "easyvideor1": metrics.with_tags("format", *_TAGS),
    },
    facts={
        ("case", "lmms_eval"): by_lmms_eval_or_reply,
        ("aggregate", "lmms_eval"): accuracy_of_lmms_eval,
        ("prompt", "lmms_eval"): fingerprint_of_lmms_eval,
    },
    differs=KIT_STOPS,
)
