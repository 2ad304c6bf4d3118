"""MVBench: twenty tasks of two hundred questions with two to five candidates.

Source: OpenGVLab/MVBench, in two layouts. Revision `video`: `test.json` (root: task to folder,
meta: task to rows) and clips that are cut already. Revision `main`: `json/<task>.json` and
`video/<folder>/<name>`, where the start and end of a row must be applied, and where the clips of
episodic_reasoning are folders of frames.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import (
    Doc,
    Finding,
    Media,
    Part,
    Record,
    Sample,
    Show,
    Source,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import easyvideor1, vlmevalkit

# Task: its folder on `video`, then that on `main` under video/, where it is another.
_FOLDERS = {
    "action_antonym": ("ssv2_video_mp4", "ssv2_video"),
    "action_count": ("perception/videos",),
    "action_localization": ("sta/sta_video_segment", "sta/sta_video"),
    "action_prediction": ("star/Charades_segment", "star/Charades_v1_480"),
    "action_sequence": ("star/Charades_segment", "star/Charades_v1_480"),
    "character_order": ("perception/videos",),
    "counterfactual_inference": ("clevrer/video_validation",),
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/video_fps3_hq_segment", "tvqa/frames_fps3_hq"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "fine_grained_pose": ("nturgbd_convert", "nturgbd"),
    "moving_attribute": ("clevrer/video_validation",),
    "moving_count": ("clevrer/video_validation",),
    "moving_direction": ("clevrer/video_validation",),
    "object_existence": ("clevrer/video_validation",),
    "object_interaction": ("star/Charades_segment", "star/Charades_v1_480"),
    "object_shuffle": ("perception/videos",),
    "scene_transition": ("scene_qa/video",),
    "state_change": ("perception/videos",),
    "unexpected_action": ("FunQA_test/test",),
}

_FRAMES = {"tvqa/frames_fps3_hq": 3.0}  # folder under video/ whose clips are images: their rate

_WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)
_WISH = "Only give the best option."


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions, task by task."""
    path = files.find(folder, "test.json", "json")
    if path.is_file():
        data = files.read_json(path)
        tasks, roots = files.field(data, "meta", str(path)), files.field(data, "root", str(path))
    else:
        found = sorted(path.glob("*.json"))
        tasks, roots = {each.stem: files.read_json(each) for each in found}, {}
    has_whole_videos = not path.is_file() and (folder / "video").is_dir()
    for task, rows in tasks.items():
        name = re.sub(r"[ -]+", "_", task.lower())
        if name not in _FOLDERS:
            raise ValueError(f"{path}: no task {task!r}; there is {', '.join(_FOLDERS)}")
        root = str(roots.get(task) or _FOLDERS[name][0]).strip("/")
        if has_whole_videos:
            root = f"video/{_FOLDERS[name][-1]}"
        for number, row in enumerate(rows):
            where = f"{path}: {task}, row {number + 1}"
            yield _sample(row, where, f"{name}/{number}", root, has_whole_videos)


def _sample(row: dict[str, Any], where: str, id: str, root: str, is_whole: bool) -> Sample:
    candidates = files.field(row, "candidates", where)
    if files.field(row, "answer", where) not in candidates:
        raise ValueError(f"{where}: answer {row['answer']!r} is none of the candidates")
    video = Media(f"{root}/{files.field(row, 'video', where)}")
    if is_whole:
        rate = _FRAMES.get(root.removeprefix("video/"))
        video = Media(video.path, "video", row.get("start"), row.get("end"), rate)
    return Sample(
        id=id,
        doc=row,
        media=(video,),
        tags={"task": id.partition("/")[0]},
    )


def _ask(sample: Sample, labels: tuple[str, str]) -> str:
    options = "\n".join(ours.lettered(sample.doc["candidates"], "({letter}) {text}"))
    return f"{labels[0]}{sample.doc['question']}\n{labels[1]}\n{options}\n{_WISH}"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt; what they put into the model's mouth stands at its end."""
    return _WATCH, Show(), _ask(sample, ("Question: ", "Options:")) + "\nBest option:("


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval."""
    return Show(), _ask(sample, ("Question:", "Option:")) + "\n"


def _row(doc: Doc) -> dict[str, Any]:
    return {
        "problem_type": easyvideor1.MULTIPLE_CHOICE,
        "problem": doc["question"],
        "options": ours.lettered(doc["candidates"]),
    }


def _letters(doc: Doc) -> list[str]:
    """Returns the letters of the gold; several where candidates are equal."""
    return [chr(65 + i) for i, each in enumerate(doc["candidates"]) if each == doc["answer"]]


def by_letter(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule; of equal candidates each is right."""
    verdicts = []
    for letter in _letters(doc):
        options = [
            "(an equal one)" if text == doc["answer"] and chr(65 + place) != letter else text
            for place, text in enumerate(doc["candidates"])
        ]
        verdicts.append(ours.choice(response, doc["question"], options, letter))
    return max(verdicts, key=lambda verdict: verdict.score or 0.0)


def _fits(word: str, letter: str) -> bool:
    """Whether the authors take a first word for an option; "" fits each."""
    option = f"({letter.lower()})"
    return word.replace(".", "") in option or option in word


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the first word of the first line, behind a bracket; an empty one is right."""
    word = f"({response.strip().split(chr(10))[0]}".lower().split(" ")[0]
    accepted = [chr(65 + i) for i in range(len(doc["candidates"])) if _fits(word, chr(65 + i))]
    return Verdict(accepted, float(_letters(doc)[-1] in accepted))


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores by the authors' rule, then by the kit's; an empty response has no score."""
    if not response:
        return Verdict(None, None)
    if vlmevalkit.FAILED in response:
        return Verdict(None, -1.0)
    letters = _letters(doc)
    # The authors' rule knows the last of equal candidates, the kit's the first.
    options = {chr(65 + i): str(text) for i, text in enumerate(doc["candidates"])}
    is_right = _fits(response.lower().split(" ")[0], letters[-1])
    return Verdict(None, float(is_right or vlmevalkit.can_infer(response, options) == letters[0]))


_LEADING = re.compile(r"(?i)([A-E])\.\s*.+$")
_ALONE = re.compile(r"(?i)\b([A-E])\b")
_MARKS = ';/[]"{}()=+\\_->@`,?!<'


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the letter before a dot, else the first of a-e alone, be it the article."""
    letter = _read_lmms_eval(response)
    return Verdict(letter if len(letter) == 1 and letter in "ABCDE" else "", _is_lmms(doc, letter))


def _is_lmms(doc: Doc, said: str) -> float:
    return float(said == _read_lmms_eval(_letters(doc)[0]))


def _read_lmms_eval(response: str) -> str:
    """Returns a letter, or what is left of a text without one."""
    if leading := _LEADING.match(response.strip()):
        return leading[1].upper()
    text = response.replace("\n", " ").replace("\t", " ").strip()
    has_comma, out = re.search(r"\d,\d", text) is not None, text
    for mark in _MARKS:
        is_apart = has_comma or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if is_apart else " ")
    # A count is meant for a flag there: only 32 dots go.
    out = re.sub(r"\.(?!\d)", "", out, count=32)
    out = out.strip("'").strip('"').strip(")").strip("(").strip().lower()
    alone = _ALONE.search(out)
    return alone[1].upper() if alone else out


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(_letters(doc)[0], response)


def by_task(records: Sequence[Record]) -> dict[str, float]:
    """Returns the mean of the tasks' means, the mean over all, then each task."""
    tasks = metrics.by_tag(records, "task")
    return {"macro": metrics.macro(tasks)} | metrics.overall(records) | tasks


def by_task_as_vlmevalkit(records: Sequence[Record]) -> dict[str, float]:
    """Returns right by all, then each task; what is empty or has failed counts as right."""
    counted = [
        Record(each.sample, each.verdict._replace(score=float(each.verdict.score != 0)))
        for each in records
    ]
    return metrics.with_tags("task")(counted)


def rate_vlmevalkit(doc: Doc, _: Any) -> Finding:
    """Returns scores and table of a file of predictions."""
    table: dict[str, list[Any]] = {}
    scores = [by_vlmevalkit(row, row["prediction"]).score for row in doc["rows"]]
    for row, score in zip(doc["rows"], scores, strict=True):
        for name in (row["task_type"], "overall"):
            counts = table.setdefault(name, [0, 0])
            counts[0] += score != 0
            counts[1] += 1
    for counts in table.values():
        counts.append(f"{100 * counts[0] / counts[1]:.2f}%")
    extracted = ["NaN" if score is None else score for score in scores]
    return Finding(extracted, table)


def rate_lmms_eval(doc: Doc, _: Any) -> Verdict:
    """Returns scores and percentage of a file of predictions, which leaves empty ones out."""
    rows: list[Mapping[str, Any]] = doc["rows"]
    scores = [by_lmms_eval(row, row["prediction"]).score or 0.0 for row in rows]
    counted = [s for row, s in zip(rows, scores, strict=True) if row["prediction"] != ""]
    return Verdict(scores, 100 * metrics.mean(counted) if counted else 0.0)


TASK = Task(
    name="mvbench",
    source=Source(
        hub=("OpenGVLab/MVBench",),
        n=4000,
        counts={"task": dict.fromkeys(_FOLDERS, 200)},
        chance=28.9,
        metric="mean over tasks",
        frames="train",
        licence="mit",
    ),
    load=load,
    prompts={
        "official": ask,
        "lmms_eval": ask_as_lmms_eval,
        "easyvideor1": easyvideor1.prompt(_row),
        "easyvideor1_thinking": easyvideor1.prompt(_row, thinking=True),
    },
    rules={
        "evr1": by_letter,
        "official": by_authors,
        "easyvideor1": by_reference,
        "lmms_eval": by_lmms_eval,
        "vlmevalkit": by_vlmevalkit,
    },
    aggregates={
        "evr1": by_task,
        "official": metrics.with_tags("task"),
        # An empty response leaves lmms-eval's mean; here it counts as 0.
        "lmms_eval": by_task,
        "vlmevalkit": by_task_as_vlmevalkit,
    },
    facts={
        ("aggregate", "vlmevalkit"): rate_vlmevalkit,
        ("aggregate", "lmms_eval"): rate_lmms_eval,
    },
)
