"""LongVideoBench: three to five options a question; many questions name a line of the subtitles.

Source: longvideobench/LongVideoBench (gated), `lvb_val.json` or the Parquet file beside it, and
the unpacked `videos/` and `subtitles/`. The split without answers is not read.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, lines, metrics, ours
from evr1.evals.tasks.base import (
    RANDOM,
    Doc,
    Media,
    Part,
    Sample,
    Show,
    Source,
    Subtitles,
    Task,
    Verdict,
)
from evr1.evals.tasks.kits import capitals, easyvideor1, vlmevalkit

_TAGS = ("duration_group", "question_category", "level", "topic_category")
_DURATIONS = ("15", "60", "600", "3600")
_LETTERS = "ABCDE"
_SUBTITLED = ("subtitle_path", "starting_timestamp_for_subtitles", "duration")
_ANNOTATIONS = ("lvb_val.json", "validation-*.parquet", "*/validation-*.parquet")
# The authors' phrases: as those of Video-MME, but with every comma.
_PHRASES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
_DIRECTLY = "Answer with the option's letter from the given choices directly."


def load(folder: Path) -> Iterator[Sample]:
    """Yields the questions of the validation split."""
    for where, row in files.rows(folder, *_ANNOTATIONS):
        if "candidates" not in row and "option0" not in row:
            files.field(row, "candidates", where)
        files.check_letter(_gold(row), len(_options(row)), where)
        yield Sample(
            id=str(files.field(row, "id", where)),
            doc=row,
            media=(Media(f"videos/{files.field(row, 'video_path', where)}"),),
            tags={tag: str(row.get(tag, "")) for tag in _TAGS},
        )


def load_with_subtitles(folder: Path) -> Iterator[Sample]:
    """Yields the questions with the files of their subtitles."""
    for sample in load(folder):
        name, *_ = (files.field(dict(sample.doc), field, sample.id) for field in _SUBTITLED)
        yield dataclasses.replace(sample, subtitles=f"subtitles/{name}")


def _options(doc: Doc) -> list[str]:
    if "candidates" in doc:
        return [str(each) for each in doc["candidates"]]
    listed = [doc.get(f"option{i}", "N/A") for i in range(5)]
    return [option for option in listed if option not in ("N/A", None)]


def _gold(doc: Doc) -> str:
    place = doc.get("correct_choice")
    return chr(ord("A") + place) if isinstance(place, int) and 0 <= place < 26 else str(place)


def _question(doc: Doc, label: str = "") -> str:
    options = "\n".join(ours.lettered(_options(doc)))
    return f"{label}{doc['question']}\n{options}\n{_DIRECTLY}"


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt without subtitles."""
    return Show(), _question(sample.doc, "Question: ")


def ask_with_subtitles(sample: Sample) -> tuple[Part, ...]:
    """Returns the authors' prompt: the lines stand between the frames of their time."""
    offset_s, duration_s = (float(sample.doc[name]) for name in _SUBTITLED[1:])
    between = Subtitles("", between_frames=True, offset_s=offset_s, duration_s=duration_s)
    return Show(), between, _question(sample.doc, "Question: ")


def ask_as_lmms_eval(sample: Sample) -> tuple[Part, ...]:
    """Returns the prompt of lmms-eval and of VLMEvalKit, which label no question."""
    return Show(), _question(sample.doc)


def _row(doc: Doc) -> dict[str, Any]:
    return easyvideor1.choice_row(doc["question"], _options(doc), _gold(doc))


def by_option(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    return ours.choice(response, doc["question"], _options(doc), _gold(doc))


def by_authors(doc: Doc, response: str) -> Verdict:
    """Scores the first capital A-E; the authors, in lmms-eval, draw an option if there is none."""
    letter = capitals.read_letter(response, _LETTERS, _PHRASES)
    return Verdict(letter, float(letter == _gold(doc))) if letter else Verdict(RANDOM, None)


def by_vlmevalkit(doc: Doc, response: str) -> Verdict:
    """Scores the first capital A-E behind other phrases; what has none is wrong."""
    letter = capitals.read_letter(response, _LETTERS, capitals.VIDEO_MME_LATER)
    return Verdict(letter or vlmevalkit.NO_OPTION, float(letter == _gold(doc)))


def by_reference(doc: Doc, response: str) -> Verdict:
    """Scores by EasyVideoR1's rule."""
    return easyvideor1.choice(_gold(doc), response)


# Facts: subtitles between frames.


def _interleaved(doc: Doc) -> list[int | str]:
    offset_s = doc["starting_timestamp_for_subtitles"]
    listed = lines.of_rows(doc["subtitles"], "subtitles")
    return lines.interleave(listed, doc["frame_times"], offset_s, doc["duration"])


def frames_between_lines(doc: Doc, _: Any) -> list[str]:
    """Returns the authors' list of frames and lines."""
    return [part if isinstance(part, str) else f"<f{part}>" for part in _interleaved(doc)]


def frames_between_lines_of_vlmevalkit(doc: Doc, _: Any) -> list[str]:
    """Returns the same list, in which every line ends."""
    return [f"{part}\n" if isinstance(part, str) else f"<f{part}>" for part in _interleaved(doc)]


def frames_between_lines_of_lmms_eval(doc: Doc, _: Any) -> str:
    """Returns one text with a mark for each frame."""
    return "\n".join(part if isinstance(part, str) else "<image>" for part in _interleaved(doc))


def frame_times_of_lmms_eval(doc: Doc, _: Any) -> list[float | str]:
    """Returns the times that lmms-eval gives to frames: the first five, then how many they are."""
    duration, most = doc["duration"], doc["max_num_frames"]
    times = [i * 1.0 for i in range(int(duration))]
    if duration > most:
        times = [duration / most * i for i in range(most)]
    return [*times[:5], "...", len(times)] if len(times) > 6 else list(times)


def accuracy_of_lmms_eval(doc: Doc, _: Any) -> float:
    """Returns the share that lmms-eval prints: each row counts twice, so it is the plain mean."""
    return round(metrics.mean(row["answer"] == row["parsed_pred"] for row in doc["rows"]), 5)


def accuracies_of_vlmevalkit(doc: Doc, _: Any) -> dict[str, str]:
    """Returns VLMEvalKit's shares by duration, to three digits."""
    shares: dict[str, list[bool]] = {name: [] for name in (*_DURATIONS, "overall")}
    for row in doc["rows"]:
        for name in (str(row["duration_group"]), "overall"):
            shares[name].append(row["answer"] == row["parsed_pred"])
    means = {name: metrics.mean(values) for name, values in shares.items()}
    return {k: "nan" if math.isnan(mean) else f"{mean:.3f}" for k, mean in means.items()}


TASK = Task(
    name="longvideobench",
    source=Source(
        hub=("longvideobench/LongVideoBench",),
        n=1337,
        counts={"duration_group": {"15": 189, "60": 172, "600": 412, "3600": 564}},
        chance=21.3,
        licence="cc-by-nc-sa-4.0",
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
        "lmms_eval": by_authors,
        "vlmevalkit": by_vlmevalkit,
        "easyvideor1": by_reference,
    },
    aggregates={"evr1": metrics.with_tags(*_TAGS)},
    facts={
        ("prompt", "official"): frames_between_lines,
        ("prompt", "lmms_eval"): frames_between_lines_of_lmms_eval,
        ("prompt", "vlmevalkit"): frames_between_lines_of_vlmevalkit,
        ("frames", "lmms_eval"): frame_times_of_lmms_eval,
        ("aggregate", "lmms_eval"): accuracy_of_lmms_eval,
        ("aggregate", "vlmevalkit"): accuracies_of_vlmevalkit,
    },
)
WITH_SUBTITLES = dataclasses.replace(
    TASK,
    name="longvideobench_sub",
    source=dataclasses.replace(TASK.source, frames="longvideobench_sub"),
    load=load_with_subtitles,
    prompts={"official": ask_with_subtitles},
)
