"""Charades-STA: when in a video of half a minute something happens that a sentence tells.

Source: lmms-eval/charades_sta, split test; the videos are Charades_v1_480. A row has a video, a
caption and its timestamp [start, end] in seconds. The headline is the mean IoU of the spans.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics, ours
from evr1.evals.tasks.base import Doc, Media, Part, Record, Sample, Show, Source, Task, Verdict
from evr1.evals.tasks.kits import easyvideor1

Span = tuple[float, float]
BOUNDS = (0.3, 0.5, 0.7)

_BEFORE = (
    "Please find the visual event described by a sentence in the video, determining its starting "
    "and ending times. The format should be: 'The event happens in the start time - end time'. For "
    "example, The event 'person turn a light on' happens in the 24.3 - 30.4 seonds. Now I will "
    "give you the textual sentence: "
)
_AFTER = "Please return its start time and end time."


def load(folder: Path) -> Iterator[Sample]:
    """Yields the sentences."""
    names = ("data/test*.parquet", "test*.parquet", "*.parquet", "test.json*", "*.json*")
    for where, row in files.rows(folder, *names):
        video, caption, span = (
            files.field(row, k, where) for k in ("video", "caption", "timestamp")
        )
        if not (isinstance(span, list) and len(span) == 2 and 0 <= span[0] < span[1]):
            raise ValueError(f"{where}: timestamp {span!r} is no [start, end] in seconds")
        media = Media(f"Charades_v1_480/{video}")
        yield Sample(id=f"{video}:{caption}", doc=row, media=(media,))


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns lmms-eval's prompt; captions end with a dot of their own."""
    return Show(), f"{_BEFORE}{sample.doc['caption']}. {_AFTER}"


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files."""
    solution = json.dumps({"time": list(doc["timestamp"])})
    return {
        "problem_type": "temporal grounding",
        "problem": doc["caption"],
        "solution": f"<answer>{solution}</answer>",
    }


def by_span(doc: Doc, response: str) -> Verdict:
    """Scores by our own rule."""
    truth = {"time": list(doc["timestamp"])}
    return ours.verdict(response, "temporal grounding", truth, problem=doc["caption"])


# What lmms-eval reads: this task, its older script, and TimeLens' task on the same videos.

_ECHO = "a specific example is : 20.8 - 30.0 seconds"
_CUES = ("start", "end", "happen")
_NUMBER = r"(?<!\d)(\d++(?:\.\d++)?)"
_CLOCK = r"(\d{1,2}:\d{2}(?::\d{2})?)"
_CLOCK_RANGE = re.compile(rf"\b{_CLOCK}\s*[–-]\s*{_CLOCK}\b")
_RANGE = re.compile(rf"{_NUMBER}\s*[–-]\s*(\d+(?:\.\d+)?)")
_CLOCK_TIME = re.compile(rf"\b{_CLOCK}\b")
_ONE_NUMBER = re.compile(r"\b(\d++(?:\.\d++\b|\b))")
_RANGE_OF_SECONDS = re.compile(rf"{_NUMBER}\s*s?\s*[–-]\s*(\d+(?:\.\d+)?)")
_PLAIN_RANGE = re.compile(r"(?<!\d)(\d++\.*+\d*+)\s*-\s*(\d+\.*\d*)")
_FULL_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}:\d{2})\b")
_FINE_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d++)?|\d{1,2}:\d{2}(?:\.\d++)?)\b")
_DASHED = re.compile(r"(?<!\d)(\d++\.?\d*+)\s*-\s*(\d+\.?\d*)")
_TO = re.compile(r"(?<!\d)(\d++\.?\d*+)\s+to\s+(\d+\.?\d*)")
_ANY_NUMBER = re.compile(r"\b\d++(?:\.(?:\d++\b|\b)|\b)")


def read_span(response: str) -> list[Span]:
    """Returns the one span that lmms-eval reads, forwards, or nothing."""
    sentences = _sentences(response)
    said = [s for s in sentences if any(cue in s for cue in _CUES)] or sentences
    found = (
        _first(_CLOCK_RANGE, said)
        or _first(_RANGE, said)
        or _pairs([_seconds(time) for s in said for time in _CLOCK_TIME.findall(s)])
        or _pairs([float(m[1]) for m in map(_ONE_NUMBER.search, said) if m])
        or _first(_RANGE_OF_SECONDS, said)
    )
    return _forwards(found)


def read_span_in_statement(response: str) -> list[Span]:
    """Returns the span that its older script reads where a start, an end or a happening is said."""
    said = [s for s in _sentences(response) if any(cue in s for cue in _CUES)]
    found = (
        _first(_PLAIN_RANGE, said)
        or _pairs([float(m[1]) for m in map(_ONE_NUMBER.search, said) if m])
        or _pairs([_seconds(m[1]) for m in map(_FULL_CLOCK.search, said) if m])
    )
    return _forwards(found)


def read_every_span(response: str) -> list[Span]:
    """Returns the spans that TimeLens' task reads: any two numbers are one; the first counts."""
    text = response.lower()
    return (
        _pairs([_seconds(time) for time in _FINE_CLOCK.findall(text)])
        or _first(_DASHED, [text])
        or _first(_TO, [text])
        or _pairs([float(number) for number in _ANY_NUMBER.findall(text)])
    )


def _sentences(response: str) -> list[str]:
    """Returns the lines, questions and exclamations; every "to" in them is a dash."""
    return re.split(r"[!?\n]", response.lower().replace(_ECHO, "").replace("to", "-"))


def _first(pattern: re.Pattern[str], texts: Sequence[str]) -> list[Span]:
    """Returns the pairs in the first text that has any."""
    found = next(filter(None, map(pattern.findall, texts)), [])
    return [(_seconds(start), _seconds(end)) for start, end in found]


def _pairs(times: Sequence[float]) -> list[Span]:
    return list(zip(times[::2], times[1::2], strict=False))


def _forwards(spans: Sequence[Span]) -> list[Span]:
    return [(min(span), max(span)) for span in spans[:1]]


def _seconds(time: str) -> float:
    """Returns the seconds of "90", "1:30" or "0:01:30"; NaN of what is no number ("1..5")."""
    try:
        parts = [float(part) for part in time.split(":")]
    except ValueError:
        return float("nan")
    return sum(part * 60**place for place, part in enumerate(reversed(parts)))


def hull_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the shared share of the hull of two spans."""
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0) / hull if hull > 0 else 0.0


def _score(doc: Doc, spans: list[Span]) -> Verdict:
    value = hull_iou(doc["timestamp"], spans[0]) if spans else 0.0
    return Verdict([list(span) for span in spans], value)


def by_lmms_eval(doc: Doc, response: str) -> Verdict:
    """Scores the span that lmms-eval reads."""
    return _score(doc, read_span(response))


def by_older_script(doc: Doc, response: str) -> Verdict:
    """Scores the span that lmms-eval's older script reads."""
    return _score(doc, read_span_in_statement(response))


def by_timelens(doc: Doc, response: str) -> Verdict:
    """Scores the first span that lmms-eval reads for TimeLens; a reversed one shares nothing."""
    return _score(doc, read_every_span(response))


def aggregate(records: Sequence[Record]) -> metrics.Means:
    """Returns the mean IoU and the shares of spans with at least 0.3, 0.5 and 0.7."""
    return _means([metrics.score(record) for record in records])


def _means(values: Sequence[float]) -> metrics.Means:
    reached = {f"R1@{bound}": metrics.mean(float(v >= bound) for v in values) for bound in BOUNDS}
    return {"mIoU": metrics.mean(values), **reached}


def aggregate_as_lmms_eval(doc: Any, response: Any) -> dict[str, float]:
    """Returns its percentages; rows of one video, caption and span are one, the last of them."""
    last = {row["key"]: text for row, text in zip(doc, response, strict=True)}
    values = []
    for key, text in last.items():
        timestamp = json.loads(key.rpartition(">>>")[2])
        values.append(by_lmms_eval({"timestamp": timestamp}, text).score or 0.0)
    means = _means(values)
    percent = {f"IOU@{round(10 * bound)}": 100 * means[f"R1@{bound}"] for bound in BOUNDS}
    return {**percent, "mIOU": 100 * means["mIoU"]}


TASK = Task(
    name="charades_sta",
    source=Source(
        hub=("lmms-eval/charades_sta", "lmms-lab/charades_sta"),
        n=3720,
        metric="mIoU",
    ),
    load=load,
    prompts={
        "lmms_eval": ask,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_span,
        "easyvideor1": easyvideor1.rule(as_reference),
        "lmms_eval": by_lmms_eval,
        "lmms_eval_tvg": by_older_script,
        "lmms_eval_timelens": by_timelens,
    },
    aggregates=dict.fromkeys(
        ("evr1", "easyvideor1", "lmms_eval", "lmms_eval_tvg", "lmms_eval_timelens"), aggregate
    ),
    facts={
        ("prompt", "easyvideor1"): easyvideor1.fingerprint,
        ("aggregate", "lmms_eval"): aggregate_as_lmms_eval,
    },
)
