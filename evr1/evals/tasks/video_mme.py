"""Video-MME: four options a question, three questions a video, with and without subtitles.

Source: lmms-lab/Video-MME (now lmms-eval/Video-MME), `videomme/test-00000-of-00001.parquet`; the
videos and the subtitles are in zip archives beside it. Options stand as "A. text".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    JUDGE,
    Doc,
    Finding,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Subtitles,
    Task,
    Verdict,
)
from evr1.evals.tasks.judging import verdicts
from evr1.evals.tasks.kits import capitals, easyvideor1, lmms_eval, qwen3vl, vlmevalkit

_TAGS = ("duration", "domain", "sub_category", "task_type")
_DURATIONS = ("short", "medium", "long")
_FIELDS = ("question_id", "videoID", "question", "options", "answer", *_TAGS)
_FOLDERS, _ENDINGS = ("data", "video", "videos"), ("mp4", "MP4", "mkv")

_CHOOSE = (
    "Select the best answer to the following multiple-choice question based on the video{}. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
_CUE = "The best answer is:"
_LISTED = "This video's subtitles are listed below:\n"


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions."""
    for where, row in files.rows(folder, "videomme/test-*.parquet", "test-*.parquet"):
        fields = {name: files.field(row, name, where) for name in _FIELDS}
        files.check_letter(row["answer"], len(row["options"]), where)
        name = fields["videoID"]
        videos = [f"{place}/{name}.{end}" for place in _FOLDERS for end in _ENDINGS]
        subtitles = f"subtitle/{name}.srt"
        yield Sample(
            id=str(fields["question_id"]),
            doc=row,
            media=(Media(files.first(folder, *videos)),),
            tags={tag: str(fields[tag]) for tag in _TAGS}
            | {"subtitles": "yes" if (folder / subtitles).exists() else "no"},
            subtitles=files.optional(folder, subtitles),  # 156 of 900 videos have none
        )


def _ask(sample: Sample, label: str = "", where: str = "") -> str:
    options = "\n".join(sample.doc["options"])
    return f"{_CHOOSE.format(where)}\n{label}{sample.doc['question']}\n{options}\n{_CUE}"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt."""
    return Show(), _ask(sample)


def ask_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt with the lines of the frames."""
    return Show(), Subtitles(_LISTED), _ask(sample)


def ask_as_qwen(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of Qwen3-VL's scripts."""
    return Show(), _ask(sample, label="Question: ")


def ask_as_qwen_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of Qwen3-VL's scripts with the lines of the frames, in one line."""
    return Show(), Subtitles(_LISTED, joiner=" "), _ask(sample, label="Question: ")


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval, which speaks of subtitles that it does not give."""
    return Show(), _ask(sample, where=" and the subtitles")


def _row(doc: Doc) -> dict[str, Any]:
    return {
        "problem_type": easyvideor1.MULTIPLE_CHOICE,
        "problem": doc["question"],
        "options": doc["options"],
    }


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    options = [files.without_letter(option) for option in doc["options"]]
    return ours.choice(response, doc["question"], options, doc["answer"])


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the first capital A-D; a response without one is left out."""
    return _of_read(doc, capitals.read_letter(response, "ABCD"))


def by_authors_later(doc: Doc, response: str) -> Verdict:
    """Scores as the authors' present script, which also deletes "Answer:" first."""
    return _of_read(doc, capitals.read_letter(response, "ABCD", capitals.VIDEO_MME_LATER))


def _of_read(doc: Doc, letter: str) -> Verdict:
    return Verdict(letter, float(letter == doc["answer"]) if letter else None)


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores as the authors' present script, but counts what it cannot read."""
    letter = capitals.read_letter(response, "ABCD", capitals.VIDEO_MME_LATER)
    return Verdict(letter or vlmevalkit.NO_OPTION, float(letter == doc["answer"]))


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores by lmms-eval's shared reader."""
    letter = lmms_eval.read_letter(response, "ABCD")
    return Verdict(letter, float(letter == doc["answer"]))


def by_qwen(doc: Doc, response: str) -> Verdict:
    """Scores by the rule of Qwen3-VL's scripts, else asks a judge."""
    options = {option[0]: files.without_letter(option) for option in doc["options"]}
    return qwen3vl.choice(response, options, doc["answer"])


def judge_as_qwen(doc: Doc, response: str) -> verdicts.Asking:
    """Asks for the option that a response means; the reply is read by the same rule."""
    problem = "\n".join([doc["question"], *doc["options"]])
    said = response.rpartition("</think>")[2].strip()
    reply = yield verdicts.prompt(
        verdicts.FIND, {"question": problem, "reply": said}, qwen3vl.ASKED_OF_JUDGE
    )
    verdict = by_qwen(doc, reply)
    if verdict.extracted == JUDGE:
        raise ValueError(f"no option is read in {reply[:40]!r}")
    return verdict


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(doc["answer"], response)


def _verdicts(items: Any, rule: Any) -> list[tuple[str, Verdict]]:
    """Returns duration and verdict of the questions of a result file."""
    return [
        (item["duration"], rule(question, question["response"]))
        for item in items["items"]
        if not item["missing"]
        for question in item["questions"]
    ]


def print_authors(doc: Doc, _: Any) -> Finding:
    """Returns what their script prints of a result file: each duration, then all of them."""
    found = _verdicts(doc, by_authors_later)
    lines = []
    for durations in (*((each,) for each in _DURATIONS), _DURATIONS):
        scores = [v.score for d, v in found if d in durations and v.score is not None]
        lines.append(f"Overall: {100 * metrics.mean(scores) if scores else 0: .1f}%")
    return Finding(lines, lines[-1])


def print_lmms_eval(doc: Doc, _: Any) -> Verdict:
    """Returns lmms-eval's letters and percentage of a result file."""
    found = [verdict for _, verdict in _verdicts(doc, by_lmms_eval)]
    return Verdict([v.extracted for v in found], 100 * metrics.mean(v.score or 0 for v in found))


def print_vlmevalkit(doc: Doc, _: Any) -> Finding:
    """Returns VLMEvalKit's scores and rounded shares of a result file."""
    found = [(duration, v.score or 0.0) for duration, v in _verdicts(doc, by_vlmevalkit)]
    shares = {d: metrics.mean(s for each, s in found if each == d) for d in _DURATIONS}
    shares["overall"] = metrics.mean(score for _, score in found)
    rounded = {name: f"{share:.3f}" for name, share in shares.items()}
    return Finding([score for _, score in found], rounded)


TASK = Task(
    name="video_mme",
    source=Source(
        hub=("lmms-eval/Video-MME", "lmms-lab/Video-MME"),
        n=2700,
        counts={
            "duration": dict.fromkeys(_DURATIONS, 900),
            "domain": {
                "Knowledge": 810,
                "Life Record": 630,
                "Sports Competition": 450,
                "Film & Television": 360,
                "Artistic Performance": 360,
                "Multilingual": 90,
            },
            "task_type": {
                "Object Reasoning": 454,
                "Object Recognition": 354,
                "Information Synopsis": 323,
                "Action Recognition": 313,
                "Action Reasoning": 285,
                "Counting Problem": 268,
                "Attribute Perception": 222,
                "Temporal Reasoning": 177,
                "OCR Problems": 139,
                "Spatial Reasoning": 56,
                "Temporal Perception": 55,
                "Spatial Perception": 54,
            },
            "subtitles": {"yes": 2232, "no": 468},
        },
        chance=25.0,
        judge="qwen3vl: what its rule does not read",
        licence="academic research only",
    ),
    load=load,
    prompts={
        "official": ask,
        "official_subtitles": ask_with_subtitles,
        "qwen3vl": ask_as_qwen,
        "qwen3vl_subtitles": ask_as_qwen_with_subtitles,
        "lmms_eval": ask_as_lmms_eval,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_letter,
        "official": by_authors,
        "official_parse_answer": by_authors_later,
        "easyvideor1": by_reference,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
        "qwen3vl": by_qwen,
    },
    judges={"qwen3vl": judge_as_qwen},
    aggregates={
        "evr1": metrics.with_tags(*_TAGS),
        "official": metrics.of_answered(*_TAGS),
        "official_parse_answer": metrics.of_answered(*_TAGS),
        "lmms_eval": metrics.with_tags(*_TAGS),
        "vlmevalkit": metrics.with_tags(*_TAGS),
        "qwen3vl": metrics.with_tags(*_TAGS),
    },
    facts={
        ("aggregate", "official_parse_answer"): print_authors,
        ("aggregate", "lmms_eval"): print_lmms_eval,
        ("aggregate", "vlmevalkit"): print_vlmevalkit,
    },
)
