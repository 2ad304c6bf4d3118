"""Spatial-temporal video grounding: when something that a sentence tells happens, and where.

Sources: ST-Align-Benchmark (appletea2333/ST-Align-Benchmark), `stvg.json`, of which the first 2000
rows count, with VidSTG's `val_annotations.json` for the frame rates; or VidSTG's test sentences in
the form of TubeDETR's evaluator, `test.json` with videos and trajectories. A doc has the fields of
both under one set of names: frames of the whole video, boxes [x, y, w, h] in pixels by frame.

Answers are in seconds of the shown segment and in thousandths of width and height. Two metrics
share the name: ST-Align's divides by the seconds with a box of either side, VidSTG's by the frames
in either span.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evr1.evals.tasks import files, metrics
from evr1.evals.tasks.base import (
    KIT_STOPS,
    STOPS,
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
from evr1.evals.tasks.kits import easyvideor1, tubes
from evr1.rewards import parse
from evr1.rewards.geometry import regions, spans

Boxes = dict[int, tuple[float, ...]]
N_ROWS = 2000
_RATE = 5  # moments a second that VidSTG's metric looks at

_ASK = (
    "When does what this tells or asks for happen, and where is it? {}\n"
    'Answer with JSON: {{"time": [start, end], "boxes": {{"second": [x1, y1, x2, y2]}}}}. Times '
    "are in seconds; give one box for every whole second between start and end, in thousandths "
    "of the frame's width and height, 0 to 1000."
)


def load(folder: Path) -> Iterator[Sample]:
    """Yields the sentences of ST-Align's file, or else of VidSTG's."""
    path = files.find(folder, "stvg.json", "test.json", "vidstg/test.json")
    read = _st_align_rows if path.name == "stvg.json" else _vidstg_rows
    for number, (video, doc) in enumerate(read(path)):
        where = f"{path}: row {number + 1}"
        first, last = doc["segment"]
        if not (doc["span"][0] < doc["span"][1] and doc["boxes"]):
            raise ValueError(f"{where}: span {doc['span']} has no frames or no boxes")
        media = Media(f"videos/{video}", start_s=first / doc["fps"], end_s=(last + 1) / doc["fps"])
        yield Sample(str(number), doc, (media,), {"qtype": doc["qtype"]})


def _st_align_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    videos = files.read_json(files.find(path.parent, "val_annotations.json"))
    rates = {video["vid"]: video["fps"] for video in videos}
    for number, row in enumerate(files.read_json(path)[:N_ROWS], 1):
        where = f"{path}: row {number}"
        video, meta = files.field(row, "video_path", where), files.field(row, "meta", where)
        name = Path(video).stem
        if name not in rates:
            raise ValueError(f"{where}: no video {name} in val_annotations.json")
        text = row["conversations"][0]["value"].replace("<video>", "").replace("<image>", "")
        yield (
            video,
            {
                "question": text.strip(),
                "qtype": "interrogative" if "?" in text else "declarative",
                "fps": rates[name],
                "segment": meta["split"],
                "span": [meta["time_token"]["<s>"], meta["time_token"]["<e>"]],
                "width": meta["width"],
                "height": meta["height"],
                "boxes": meta["spatial_token"]["<bboxes>"],
            },
        )


def _vidstg_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    table = files.read_json(path)
    for number, row in enumerate(files.field(table, "videos", str(path)), 1):
        where = f"{path}: row {number}"
        tracks = table["trajectories"][row["original_video_id"]][str(row["target_id"])]
        start, end = (files.field(row, f"tube_{name}_frame", where) for name in ("start", "end"))
        kind = str(row.get("qtype", ""))
        yield (
            row.get("video_path") or f"{row['original_video_id']}.mp4",
            {
                "question": files.field(row, "caption", where),
                "qtype": "interrogative" if kind.startswith("inter") else "declarative",
                "fps": row["fps"],
                "segment": [row["start_frame"], row["end_frame"]],
                "span": [start, end],
                "width": row["width"],
                "height": row["height"],
                "boxes": {f: b["bbox"] for f, b in tracks.items() if start <= int(f) < end},
            },
        )


def ask(sample: Sample) -> tuple[Part, ...]:
    """Returns our prompt, which says what the coordinates are."""
    return Show(), _ASK.format(sample.doc["question"])


# Gold and answers, in seconds of the segment and thousandths of the frame.


def gold_span(doc: Doc) -> tuple[float, float]:
    """Returns the span in seconds."""
    start, end = ((frame - doc["segment"][0]) / doc["fps"] for frame in doc["span"])
    return start, end


def gold_seconds(doc: Doc) -> list[int]:
    """Returns the whole seconds of the span; the one next to its middle if it holds none."""
    start, end = gold_span(doc)
    seconds = list(range(math.ceil(start), math.floor(end) + 1))
    return seconds or [round((start + end) / 2)]


def gold_box(doc: Doc, second: float, scale: float = 1000) -> tuple[float, ...]:
    """Returns the box of the frame next to a second, in shares of the frame times a scale."""
    wanted = second * doc["fps"] + doc["segment"][0]
    boxes, frame = doc["boxes"], str(round(wanted))
    if frame not in boxes:
        frame = min(boxes, key=lambda other: abs(int(other) - wanted))
    x, y, w, h = boxes[frame]
    across, down = scale / doc["width"], scale / doc["height"]
    return x * across, y * down, (x + w) * across, (y + h) * down


def read(response: str) -> tuple[Sequence[float], Boxes] | None:
    """Returns the span and the boxes by whole second that a response states.

    A list of stamped boxes without a span spans its stamps.
    """
    extraction = parse.extract(
        response, lambda text: regions.read(text, lambda d: regions.both_of(d, spans.interval_of))
    )
    if extraction is None:
        return None
    found = extraction[0].value
    boxes: Boxes = {}
    for second, box in sorted((found.tube or {}).items()):
        if box is not None:
            boxes.setdefault(round(second), box)
    span = found.time or ((min(boxes), max(boxes)) if boxes else None)
    return None if span is None else (span, boxes)


def scores(
    doc: Doc, span: Sequence[float], boxes: Mapping[int, Sequence[float]]
) -> dict[str, float]:
    """Returns the IoUs of the span, of shared seconds, of all seconds, and of VidSTG's moments."""
    truth = {second: gold_box(doc, second) for second in gold_seconds(doc)}
    total = sum(tubes.box_iou(truth[s], box) for s, box in boxes.items() if s in truth)
    start, end = gold_span(doc)
    first, last = doc["segment"]
    moments = range(math.floor((last - first) / doc["fps"] * _RATE) + 1)
    seconds = {moment: moment / _RATE for moment in moments if start <= moment / _RATE < end}
    ious = {
        moment: tubes.box_iou(gold_box(doc, second), boxes[round(second)])
        for moment, second in seconds.items()
        if round(second) in boxes
    }
    truth_span, said_span = ([second * _RATE for second in ends] for ends in ((start, end), span))
    return {
        "tIoU": tubes.hull_iou((start, end), span),
        "sIoU": total / max(len(truth.keys() & boxes.keys()), 1),
        "stIoU": total / len(truth.keys() | boxes.keys()),
        "vIoU": tubes.vidstg(moments, truth_span, said_span, ious)["viou"],
    }


# Rules.


def by_ours(doc: Doc, response: str) -> Verdict:
    """Scores the boxes over the seconds that gold or answer names (stIoU)."""
    found = read(response)
    if found is None:
        return Verdict(None, 0.0)
    span, boxes = found
    shown = {"time": list(span), "boxes": {str(s): list(box) for s, box in boxes.items()}}
    values = scores(doc, span, boxes)
    return Verdict({**shown, "scores": values}, values["stIoU"])


def by_st_align(doc: Doc, response: str) -> Verdict:
    """Scores tokens of time and place as ST-Align's authors do."""
    first, last = doc["segment"]
    grid = tubes.grid_of({"split": [first, last]})
    boxes = {
        frame: [x, y, x + w, y + h] for frame, (x, y, w, h) in doc["boxes"].items() if frame in grid
    }
    gold = {"split": [first, last], "gt": {"tvg": doc["span"], "svg": boxes}}
    read_span = tubes.read_span(response)
    return Verdict(read_span, tubes.st_align({**doc, **gold}, response)["mstiou"])


def as_reference(doc: Doc) -> dict[str, Any]:
    """Returns the row of the reference's files; its boxes are in pixels, which no prompt says."""
    start, end = gold_span(doc)
    boxes = {}
    for second in range(math.ceil(start), math.floor(end) + 1):
        across, down = doc["width"] / 1000, doc["height"] / 1000
        x1, y1, x2, y2 = gold_box(doc, second)
        boxes[str(second)] = [round(v) for v in (x1 * across, y1 * down, x2 * across, y2 * down)]
    solution = json.dumps({"time": [start, end], "boxes": boxes})
    return {
        "problem_type": "spatial-temporal grounding",
        "problem": doc["question"],
        "solution": f"<answer>{solution}</answer>",
    }


# Aggregates and facts.


def aggregate(records: Sequence[Record]) -> metrics.Means:
    """Returns ST-Align's means and VidSTG's, each with its bounds and by the kind of sentence."""
    rows = [(record.sample.tags["qtype"], _scores_of(record)) for record in records]
    means: metrics.Means = {}
    for kit, names in (("st_align", ("stIoU", "tIoU", "sIoU")), ("vidstg", ("vIoU",))):
        for name in names:
            values = [each[name] for _, each in rows]
            means[f"{kit}/m_{name}"] = metrics.mean(values)
            for bound in tubes.BOUNDS[: 3 if kit == "st_align" else 2]:
                reached = (v >= bound if kit == "st_align" else v > bound for v in values)
                means[f"{kit}/{name}@{bound}"] = metrics.mean(map(float, reached))
    for kind in sorted({kind for kind, _ in rows}):
        for kit, name in (("st_align", "stIoU"), ("vidstg", "vIoU")):
            values = [each[name] for other, each in rows if other == kind]
            means[f"{kit}/m_{name}/{kind}"] = metrics.mean(values)
    return means


def _scores_of(record: Record) -> dict[str, float]:
    read_out = record.verdict.extracted
    return read_out["scores"] if read_out else dict.fromkeys(("tIoU", "sIoU", "stIoU", "vIoU"), 0.0)


def by_authors(doc: Doc, response: Any) -> Any:
    """Returns the table of one response of ST-Align's, of its spans alone, or of VidSTG's kit."""
    if doc.get("fps", tubes.EVAL_FPS) < tubes.EVAL_FPS:
        return Verdict(None, None, STOPS)
    if "tube_start_frame" in doc:
        return _by_tubedetr(doc, response)
    if "split" in doc and not doc["gt"]["svg"].keys() <= tubes.grid_of(doc):
        return Verdict(None, None, STOPS)
    if "split" in doc:
        pairs = {str(step): box for step, box in tubes.read_pairs(response or "").items()}
        shown = {"span": tubes.read_span(response or ""), "pairs": pairs}
        return _table(shown, tubes.st_align(doc, response or ""))
    return _table(tubes.read_span(response or ""), tubes.charades(doc, response or ""))


def _by_tubedetr(doc: Doc, response: Any) -> Any:
    """Returns VidSTG's table where one box of gold and one of the response stand in all frames.

    Without its temporal part the evaluator looks at one frame, and only at the boxes.
    """
    is_spatial = doc.get("kind") == "no temporal part"
    frames = [doc["tube_start_frame"]] if is_spatial else tubes.frames_of(doc)
    truth = [doc["tube_start_frame"], doc["tube_end_frame"]]
    x, y, w, h = doc["gold_box_xywh"]
    iou = tubes.box_iou(response["box_frame_20"], (x, y, x + w, y + h))
    ious = {frame: iou for frame in frames if truth[0] <= frame < truth[1]}
    shown = {"frames": len(frames), "gold_frames": len(ious)}
    table = tubes.vidstg(frames, truth, response["sted"], ious)
    return _table(shown, {"gt_viou": table["gt_viou"]} if is_spatial else table)


def _table(shown: Any, table: dict[str, float]) -> Finding:
    return Finding(shown, table)


TASK = Task(
    name="stvg",
    source=Source(
        hub=("appletea2333/ST-Align-Benchmark", "Guaranteer/VidSTG-Dataset"),
        n=N_ROWS,
        metric="m_stIoU (ST-Align), m_vIoU (VidSTG)",
        frames="stvg",
    ),
    load=load,
    prompts={
        "evr1": ask,
        "easyvideor1": easyvideor1.prompt(as_reference),
        "easyvideor1_thinking": easyvideor1.prompt(as_reference, thinking=True),
    },
    rules={
        "evr1": by_ours,
        "official": by_st_align,
        "easyvideor1": easyvideor1.rule(as_reference),
    },
    aggregates={"evr1": aggregate},
    facts={
        ("prompt", "easyvideor1"): easyvideor1.fingerprint,
        ("case", "official"): by_authors,
    },
    differs=KIT_STOPS,
)
