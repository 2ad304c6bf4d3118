"""How two kits score boxes over time: that of ST-Align, and VidSTG's evaluator from TubeDETR."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

GRID = 100  # frames that ST-Align shows, and steps of its tokens for time and place
EVAL_FPS, MAX_FRAMES = 5, 200  # of VidSTG's evaluator
BOUNDS = (0.3, 0.5, 0.7)

_TOKEN = re.compile(r"<(?:WIDTH|HEIGHT|TEMP)-(\d{1,9})>")
_NUMBER = r"(\d++(?:\.\d++)?)"
_SPAN = re.compile(rf"\{{\s*{_NUMBER},\s*{_NUMBER}\s*\}}")
_PAIR = re.compile(rf"(?<!\d){_NUMBER},:\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


def read_span(response: str) -> list[float]:
    """Returns the first {start, end} of a response, from tokens as shares; [0, 0] for none."""
    text = _TOKEN.sub(lambda found: f"{int(found[1]) / 99:.5f},", response)
    found = _SPAN.search(_without_last_commas(text))
    return [float(number) for number in found.groups()] if found else [0, 0]


def read_pairs(response: str) -> dict[float, list[float]]:
    """Returns the boxes of a response by step, from tokens "<TEMP-020>:[...]"; the last counts."""
    text = _TOKEN.sub(lambda found: f"{int(found[1])},", response)
    found = _PAIR.findall(_without_last_commas(text).replace(" ", ""))
    return {float(step): [float(number) for number in box] for step, *box in found}


def _without_last_commas(text: str) -> str:
    return text.replace(",]", "]").replace(",}", "}")


def hull_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the shared share of the hull of two spans."""
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0) / hull if hull else 0.0


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the intersection over union of boxes as the kits compute it."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    union = areas - width * height
    return width * height / union if union else 0.0


def grid_of(doc: Mapping[str, Any]) -> set[str]:
    """Returns the frames of a segment that ST-Align shows, as the keys of its boxes."""
    first, last = doc["split"]
    return {str(first + round(i / (GRID - 1) * (last - first))) for i in range(GRID)}


def st_align(doc: Mapping[str, Any], response: str) -> dict[str, float]:
    """Returns ST-Align's table of one response: of the span, of shared frames, of the union.

    Boxes count outside of the predicted span, too. Thresholds are reached by equality.

    Args:
        doc: split (first and last frame), width, height, gt (tvg: first and last frame; svg:
            boxes by frame).
        response: with tokens for time and place.
    """
    first, last = doc["split"]
    length = last - first
    truth = [round((frame - first) / length, 3) if length else 0.0 for frame in doc["gt"]["tvg"]]
    boxes = {
        str(round(first + step / (GRID - 1) * length)): [
            round(value / 99 * doc["height" if place % 2 else "width"])
            for place, value in enumerate(box)
        ]
        for step, box in read_pairs(response).items()
    }
    gold = doc["gt"]["svg"]
    total = sum(box_iou(gold[frame], box) for frame, box in boxes.items() if frame in gold)
    values = {
        "mtiou": hull_iou(truth, read_span(response)),
        "msiou": total / max(len(gold.keys() & boxes.keys()), 1),
        "mstiou": total / max(len(gold.keys() | boxes.keys()), 1),
    }
    names = {"mtiou": "tiou", "msiou": "siou", "mstiou": "viou"}
    reached = {
        f"{name}@{bound}": 100.0 * (values[key] >= bound)
        for key, name in names.items()
        for bound in BOUNDS
    }
    return values | reached


def charades(doc: Mapping[str, Any], response: str) -> dict[str, float]:
    """Returns ST-Align's table for a span alone; thresholds must be passed."""
    span = read_span(response)
    value = 0.0 if span == [0, 0] else hull_iou(span, doc["gt"])
    return {"miou": value} | {f"R1@{bound}": 100.0 * (value > bound) for bound in BOUNDS}


def frames_of(doc: Mapping[str, Any]) -> list[int]:
    """Returns the frames of a segment that VidSTG's evaluator looks at."""
    rate = doc.get("eval_fps", EVAL_FPS) / doc["fps"]
    frames = [doc["start_frame"]]
    for frame in range(doc["start_frame"], doc["end_frame"]):
        if int(frames[-1] * rate) < int(frame * rate):
            frames.append(frame)
    if len(frames) > MAX_FRAMES:
        frames = [frames[i * len(frames) // MAX_FRAMES] for i in range(MAX_FRAMES)]
    return frames


def vidstg(
    frames: Sequence[int],
    truth: Sequence[float],
    span: Sequence[float],
    ious: Mapping[int, float],
) -> dict[str, float]:
    """Returns VidSTG's table of one response; ends are exclusive, thresholds must be passed.

    Args:
        frames: that are looked at.
        truth: first frame and the one behind the last.
        span: the same of the response.
        ious: of the boxes, by frame of the truth.
    """
    start, end = max(truth[0], span[0]), min(truth[1], span[1])
    shared = max(0, end - start)
    union = truth[1] - truth[0] + span[1] - span[0] - shared
    hull = [f for f in frames if min(truth[0], span[0]) <= f < max(truth[1], span[1])]
    value = sum(iou for frame, iou in ious.items() if start <= frame < end) / max(len(hull), 1)
    return {
        "tiou": shared / union if shared else 0.0,
        "viou": value,
        "viou@0.3": float(value > 0.3),
        "viou@0.5": float(value > 0.5),
        "gt_viou": sum(ious.values()) / max(len(ious), 1),
    }
