"""Answered samples: a JSON line each in `samples_<task>.jsonl` of a run, written as they come.

A kill costs at most the line that was being written (`jsonl`). Parts of a run are merged by id, in
any order.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evr1.data.errors import KINDS
from evr1.evals import jsonl, judgements
from evr1.evals.judgements import Said
from evr1.evals.tasks import files
from evr1.evals.tasks.base import Media, Sample
from evr1.formats import user_code

# Why a sample has no answer: a medium that gives no pixels, or one of the others.
REASONS = (*KINDS, "subtitles", "too_long", "prompt", "not_finite")
FINISHES = ("stop", "length")
MANIFEST = "manifest.json"  # of a run


class Frames(NamedTuple):
    """What was shown of a medium.

    Attributes:
        n: frames.
        times: seconds of each in its file.
        size: height and width in pixels.
        tokens: visual tokens of all of them.
    """

    n: int
    times: tuple[float, ...]
    size: tuple[int, int]
    tokens: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """A sample with the responses to it, or with the reason why there are none.

    Attributes:
        task: name of the benchmark.
        sample: as the task loads it.
        prompt: profile of the prompt.
        prompt_sha256: of the text of the prompt.
        preset: name of the frame preset.
        responses: as they were generated, one or several.
        finishes: "stop" or "length" for each response.
        tokens: tokens of each response.
        frames: of each medium.
        reason: one of REASONS where the sample failed, else "".
        detail: what went wrong, in one line.
        seed: of the draws of this sample.
        seconds: from its plan to its answer.
        think_open: the prompt has opened a block of reasoning, in which responses begin.
        made: hash of the model and the sampling; "": not known.
    """

    task: str
    sample: Sample
    prompt: str
    prompt_sha256: str
    preset: str
    responses: tuple[str, ...] = ()
    finishes: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    frames: tuple[Frames, ...] = ()
    reason: str = ""
    detail: str = ""
    seed: int = 0
    seconds: float = 0.0
    think_open: bool = False
    made: str = ""

    def __post_init__(self):
        for problem in _problems(self):
            raise ValueError(f"sample {self.sample.id} of {self.task}: {problem}")

    @property
    def status(self) -> str:
        """ "ok", "truncated" (a response was cut off) or "error" (there is none)."""
        if self.reason:
            return "error"
        return "truncated" if "length" in self.finishes else "ok"


def _problems(answer: Answer) -> Iterable[str]:
    if answer.reason and answer.reason not in REASONS:
        yield f"no reason {answer.reason!r}; there is {', '.join(REASONS)}"
    if bool(answer.responses) == bool(answer.reason):
        yield "it has both responses and a reason" if answer.reason else "it has no response"
    if not len(answer.responses) == len(answer.finishes) == len(answer.tokens):
        yield "responses, finishes and tokens are not equally many"
    if not set(answer.finishes) <= set(FINISHES):
        yield f"finishes {', '.join(answer.finishes)} are not all of {', '.join(FINISHES)}"


# Lines.


def encode(answer: Answer) -> str:
    """Returns the line of an answer, ASCII without a line break."""
    sample = answer.sample
    row = {
        "id": sample.id,
        "task": answer.task,
        "status": answer.status,
        "reason": answer.reason,
        "detail": answer.detail,
        "responses": answer.responses,
        "finishes": answer.finishes,
        "tokens": answer.tokens,
        "prompt": {"profile": answer.prompt, "sha256": answer.prompt_sha256},
        "preset": answer.preset,
        "frames": [frames._asdict() for frames in answer.frames],
        "doc": sample.doc,
        "media": [dataclasses.asdict(medium) for medium in sample.media],
        "video": sample.video,
        "cluster": sample.cluster,
        "tags": sample.tags,
        "group": sample.group,
        "subtitles": sample.subtitles,
        "seed": answer.seed,
        "seconds": answer.seconds,
        "think_open": answer.think_open,
        "made": answer.made,
    }
    return json.dumps(row, default=_plain)


def _plain(value: Any) -> Any:
    """Returns what JSON can hold for a value of a row that it cannot: no bytes of media."""
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    return value.tolist() if hasattr(value, "tolist") else str(value)


def decode(line: str | bytes, where: str) -> Answer:
    """Returns the answer of a line.

    Raises:
        ValueError: it is none; names the place.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}; correct or delete the line") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: got {str(row)[:40]!r}; an answered sample is a JSON object")
    try:
        return _answer(row, where)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {error}; this is no answered sample") from None


_TYPES: dict[str, type | tuple[type, ...]] = dict.fromkeys(
    ("id", "task", "preset", "reason", "detail", "group", "subtitles", "video"), str
)
_TYPES |= {"doc": dict, "prompt": dict, "tags": dict, "seed": int, "seconds": (int, float)}
_TYPES |= dict.fromkeys(("media", "frames", "responses", "finishes", "tokens"), list)


def _answer(row: dict[str, Any], where: str) -> Answer:
    def get(name: str) -> Any:
        value = files.field(row, name, where)
        is_wrong = not isinstance(value, _TYPES.get(name, object))
        if is_wrong or (name == "responses" and not all(isinstance(r, str) for r in value)):
            raise ValueError(
                f"{where}: {name} is {user_code.short(value)}; this is no answered sample"
            )
        return value

    sample = Sample(
        id=get("id"),
        doc=get("doc"),
        media=tuple(Media(**medium) for medium in get("media")),
        tags={k: v if isinstance(v, str) else tuple(v) for k, v in get("tags").items()},
        group=get("group"),
        subtitles=get("subtitles"),
        video=get("video"),
    )
    prompt, frames = get("prompt"), (dict(each) for each in get("frames"))
    return Answer(
        task=get("task"),
        sample=sample,
        prompt=files.field(prompt, "profile", where),
        prompt_sha256=files.field(prompt, "sha256", where),
        preset=get("preset"),
        responses=tuple(get("responses")),
        finishes=tuple(get("finishes")),
        tokens=tuple(get("tokens")),
        frames=tuple(
            Frames(
                each["n"], tuple(each["times"]), (each["size"][0], each["size"][1]), each["tokens"]
            )
            for each in frames
        ),
        reason=get("reason"),
        detail=get("detail"),
        seed=get("seed"),
        seconds=get("seconds"),
        think_open=get("think_open"),
        made=str(row.get("made", "")),
    )


# Files.


def path_of(folder: Path, task: str, part: int = 0, parts: int = 1) -> Path:
    """Returns the file of a task, or of one part of it.

    >>> path_of(Path("run"), "lvbench").name, path_of(Path("run"), "lvbench", 1, 3).name
    ('samples_lvbench.jsonl', 'samples_lvbench.1of3.jsonl')
    """
    return folder / f"samples_{task}{f'.{part}of{parts}' if parts > 1 else ''}.jsonl"


class Writer(jsonl.Appender):
    """Appends answers to a file, each of them at once; one writer a file."""

    def append(self, answer: Answer) -> None:
        """Writes an answer; it is on its way to the disk when this returns."""
        self.add(encode(answer))


class Part(NamedTuple):
    """The answers of a file."""

    answers: list[Answer]
    is_torn: bool  # a torn last line was dropped


def read(path: Path) -> Part:
    """Reads a file of answers.

    Raises:
        ValueError: a line other than the last one is none.
    """
    listed, is_torn = jsonl.read(path)
    return Part([decode(line, where) for where, line in listed], is_torn)


class Merged(NamedTuple):
    """The answers of all parts, one an id.

    Attributes:
        answers: in the order of their ids.
        duplicates: ids that were answered more than once, in order; failures do not count.
    """

    answers: list[Answer]
    duplicates: list[str]


def merge(answers: Iterable[Answer]) -> Merged:
    """Returns one answer an id, whatever the order; an answer replaces failures.

    Raises:
        ValueError: an id has two answers that differ, or answers are of several tasks.
    """
    best: dict[str, Answer] = {}
    duplicates = set()
    for answer in answers:
        other = best.setdefault(answer.sample.id, answer)
        if other is answer:
            continue
        if not answer.reason and not other.reason:
            duplicates.add(answer.sample.id)
            _check_same(answer, other)
        best[answer.sample.id] = min(answer, other, key=lambda a: (bool(a.reason), encode(a)))
    return Merged([best[id] for id in sorted(best)], sorted(duplicates))


def _check_same(answer: Answer, other: Answer) -> None:
    for name in ("task", "responses", "prompt", "prompt_sha256", "preset"):
        if getattr(answer, name) != getattr(other, name):
            raise ValueError(
                f"{answer.task}: {answer.sample.id} has two answers with different {name}; "
                "keep the files of one run"
            )


class Run(NamedTuple):
    """What a run has written.

    Attributes:
        tasks: name -> its answers.
        manifest: of `manifest.json`; {} where there is none.
        torn: files whose torn last line was dropped.
        judged: name of a judge -> its replies.
    """

    tasks: dict[str, Merged]
    manifest: Mapping[str, Any]
    torn: list[Path]
    judged: Mapping[str, Said]


def read_run(folder: Path) -> Run:
    """Reads all samples of the folder of a run, and what judges said of them.

    Raises:
        ValueError: there are none, or a file is broken.
    """
    paths = sorted(folder.glob("samples_*.jsonl"))
    if not paths:
        raise ValueError(f"{folder} holds no samples_*.jsonl; give the folder of a run")
    parts = {path: read(path) for path in paths}
    if not any(part.answers for part in parts.values()):
        raise ValueError(f"{folder}: no sample is answered yet; run the job first, or again")
    by_task: dict[str, list[Answer]] = {}
    for part in parts.values():
        for answer in part.answers:
            by_task.setdefault(answer.task, []).append(answer)
    return Run(
        tasks={task: merge(by_task[task]) for task in sorted(by_task)},
        manifest=read_manifest(folder),
        torn=[path for path, part in parts.items() if part.is_torn],
        judged=judgements.read(folder),
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """Returns what `manifest.json` of a run says; {} where there is none.

    Raises:
        ValueError: it holds no JSON object, or its tasks are none.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        read_out = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; restore it, or give another folder") from None
    tasks = read_out.get("tasks", {}) if isinstance(read_out, dict) else None
    if not (isinstance(tasks, dict) and all(isinstance(each, dict) for each in tasks.values())):
        raise ValueError(
            f"{path}: it holds no JSON object with tasks; restore it, or give another folder"
        )
    return read_out
