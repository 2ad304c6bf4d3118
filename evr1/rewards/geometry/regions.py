"""Reading boxes, and boxes over time, from JSON or prose; never one of several."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evr1.rewards import parse
from evr1.rewards.base import Reading
from evr1.rewards.geometry import literals, spans
from evr1.rewards.geometry.overlap import Box, Interval

MAX_BOXES = 100  # of one answer or ground truth

Tube = dict[float, Box | None]  # second → box; None where what stands there is no box

BOX_KEYS = ("boxes", "box", "bbox", "bbox2d", "box2d", "bboxes", "boundingbox", "boundingboxes")
BOX_KEYS += ("coordinates", "coords", "bboxes2d", "boxes2d", "region", "rect", "rectangle")
SECOND_KEYS = ("second", "seconds", "sec", "s", "t", "frame", "timesec", "framesecond", "at")
_PLURAL_SECONDS = frozenset(("seconds", "timestamps", "times", "frames"))
_WRAPPERS = frozenset((*spans.WRAPPERS, "tracking", "tracks", "track", "tube", "tubes", "frames"))
_WRAPPERS |= {"trajectory", "spatial"}
_LINE = re.compile(
    r"(?i)\s{0,9}(?:[-•]\s{0,4})?[\"']?(?P<second>(?:second|sec|frame|time|t|at|第)?[\s=]{0,2}"
    r"\d{1,7}(?::\d\d){0,2}(?:\.\d{1,6})?\s?(?:s|secs?|seconds?|秒)?)[\"']?\s?(?:[:=→]|->)\s?(?P<box>[-\d\s.,()\[\]]{1,120})"
)
_EMPHASIS = re.compile(r"\*\*|`|^[ \t]{0,8}\*(?=\s)", re.MULTILINE)
_TABLE_RULE = re.compile(r"^[ \t]{0,8}\|[-:| \t]{3,200}$", re.MULTILINE)
_TABLE_ROW = re.compile(r"^[ \t]{0,8}\|([^|\n]{1,40})\|([^|\n]{1,120})\|?[ \t]{0,8}$", re.MULTILINE)
_BRACKETED = re.compile(r"^[ \t]{0,8}\[(\d{1,6}(?:\.\d{1,3})?\s?s?)\]:?\s(?=[\[(])", re.MULTILINE)
_HEADER = re.compile(r"(?:[^\d\n]{0,200}\n){0,6}")  # of lines with boxes
_SECTION = re.compile(
    r"^[\s*#\"'-]{0,9}(time|(?:bounding )?boxes|positive[_ ]points|negative[_ ]points)"
    r"(?: (?:interval|span|range|segment))?"
    r"[\s*\"']{0,4}[:=][ \t*]{0,4}",
    re.IGNORECASE | re.MULTILINE,
)
_TOLD = re.compile(r"[^{}\d\[\]]{1,200}\d[^{}\[\]]{0,200}(?=\{)")
_SIDES = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
)
_CORNERS = (("topleft", "bottomright"), ("upperleft", "lowerright"), ("min", "max"), ("p1", "p2"))
_CENTRED = (("cx", "cy"), ("xcenter", "ycenter"), ("centerx", "centery"))
_NO_BOXES = frozenset((*spans.TIME_KEYS, "points", "polygon", "size", "color", "frames"))
_EXTENTS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_BOXED = re.compile(r"(?i)<\s?b?box\s?>([^<]{0,200})<\s?/\s?b?box\s?>")
_MARKS = re.compile(
    r"(?i)<\s?/?\s?(?:box|bbox|boxes|time|times|timestamp|span|ref|segment|point)\s?>"
)
_NAMED_CORNERS = re.compile(  # "x1 = 10, y1: 20", "top-left (10, 20)", "bbox_2d: [...]"
    r"(?i)[\[(]?\bx_?1,\s?y_?1,\s?x_?2,\s?y_?2\b[\])]?\s?[=:]?"
    r"|\b(?:[xy]_?(?:[012]|min|max)\s?[=:]|(?:top|upper)[- ]?left|(?:bottom|lower)[- ]?right"
    r"|(?:left|top|right|bottom)\s?[=:]|b?box_2d(?!\w)|b?box\s?#?\d{1,2}\s?:)"
    r"(?:\s(?:corner|is|at)\b){0,3}:?"
)
_OPENING = re.compile(r"[\[(]")
_ROWS = re.compile(r";|\n(?=[^\n,]{1,40},)")
_BLANK_BETWEEN = re.compile(r"(?<=\d)\s{1,9}(?=[-+\d])")
_LISTS_BETWEEN = re.compile(r"(?<=[\])])\s{0,9}(?=[\[(])")
_NUMBERS = re.compile(r"[-+\d\s.,()\[\]]*")
_BETWEEN_LISTS = re.compile(
    r"(?i)([\])])\s{0,4}(?:,\s?)?(?:to|and|&|->?|→|;|到|和)\s{0,4}(?=[\[(])"
)
_LIST_MARK = re.compile(r"(?m)^[ \t]{0,8}(?:\d{1,3}[.)]|[-*•])\s{1,4}(?=[\[(])")
_LABEL = re.compile(r"[^\d{}:=]{0,80}[:=]\s{0,4}")
_NO_NUMBERS = re.compile(r"[^\d{}]{0,80}")
_DENIED = re.compile(r"(?i)\b(?:not|never)\b|n't\b|不")
_ASKED_SECOND = re.compile(r"\d{1,9}(?:\.\d{1,9})?\s?s?|\d{1,2}(?::\d\d){1,2}")
_NO_KEY = re.compile(  # {"not_boxes": [...]}
    r"(?:not?|wrong|incorrect|false|bad|rejected|negative)(?:box(?:es)?|answers?|objects?|regions?)?$"
)
_SQUARE = str.maketrans("()", "[]")


class Grounding(NamedTuple):
    """The intervals and boxes in an answer; None for what it does not say."""

    time: tuple[Interval, ...] | None = None
    tube: Tube | None = None


def read(text: str, read: Callable[[Any], Reading | None]) -> Reading | None:
    """Returns what a text says as JSON, or else in prose; exact if both steps are."""
    text = unmarked(text)
    if literals.is_denied_json(text):
        return None
    parts = sections(text)
    if parts is not None:
        reading = read(parts)
        return reading and Reading(reading.value, exact=False)
    data = literals.read_values(text) or _bare_numbers(_NAMED_CORNERS.sub("", text))
    reading = read(data.value if data else text)
    if reading is None:
        return None
    return Reading(reading.value, reading.exact and data is not None and data.exact)


def sections(text: str) -> dict[str, Any] | None:
    """Returns what stands under "Time:" and "Boxes:" in a text that consists of such parts.

    >>> sections("Time: 1 to 2\\nBoxes: [[0, 0, 9, 9]]")
    {'time': '1 to 2', 'boxes': [[0.0, 0.0, 9.0, 9.0]]}
    """
    told = _TOLD.match(text)
    data = parse.read_json(text[told.end() :]) if told else None
    if told and data and isinstance(data.value, Mapping) and data.value.keys() == {"boxes"}:
        return {"time": told[0].strip(" \n`"), **data.value}  # a sentence, then the boxes
    headers = list(_SECTION.finditer(text)) if ":" in text or "=" in text else []
    if len(headers) < 2 or text[: headers[0].start()].strip():
        return None
    parts: dict[str, Any] = {}
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        part = text[header.end() : following.start() if following else None].strip(" \n,;*")
        name = header[1].lower().removeprefix("bounding ").replace(" ", "_")
        if name in parts:
            return None
        data = parse.read_json(part) or (_bare_numbers(part) if name != "time" else None)
        value = data.value if data else part
        if isinstance(value, Mapping) and value.keys() == {name}:
            value = value[name]
        parts[name] = value
    lines = parts.get("boxes")
    if isinstance(lines, str):
        parts["boxes"] = _boxes_by_line(lines)
    return parts


def unmarked(text: str) -> str:
    """Returns a text in plain characters, without the tags that mark boxes and times."""
    text = parse.normalize(text)
    if "<" in text:
        text = _MARKS.sub(" ", _BOXED.sub(r" [\1] ", text))
    return parse.unwrap(text) if "\\" in text else text.strip()


def is_real(box: Box | None) -> bool:
    """Returns whether a box has an area, with its corners in order."""
    return box is not None and box[0] < box[2] and box[1] < box[3]


def _bare_numbers(text: str) -> Reading | None:
    """Returns the lists of numbers in a text without keys: "(1, 2)", "box: [0, 0], [10, 10]"."""
    if _DENIED.search(text) or literals.is_denied_prose(text):
        return None
    if "[" in text or "(" in text:
        text = _BETWEEN_LISTS.sub(r"\1, ", _LIST_MARK.sub("", text))
    text = text.strip()
    opening = _OPENING.search(text)
    end = max(text.rfind("]"), text.rfind(")")) + 1
    if opening and end > opening.start():
        before, listed, behind = text[: opening.start()], text[opening.start() : end], text[end:]
        if not (_NO_NUMBERS.fullmatch(before) and _NO_NUMBERS.fullmatch(behind)):
            return None
    else:
        label = _LABEL.match(text)
        listed = text[label.end() :] if label else text
        parts = _ROWS.split(listed.strip(" ;\n"))
        listed = f"[{'], ['.join(parts)}]" if len(parts) > 1 else listed
    if not listed or len(listed) > 5_000 or not _NUMBERS.fullmatch(listed):
        return None
    listed = _BLANK_BETWEEN.sub(", ", listed.strip(" ,"))
    listed = _LISTS_BETWEEN.sub(", ", listed)
    data = parse.read_json(f"[{listed.translate(_SQUARE)}]")
    while data and isinstance(data.value, list) and len(data.value) == 1:
        data = Reading(data.value[0])
    return data and Reading(data.value, exact=False)


def box_of(data: Any) -> Reading | None:
    """Returns the one box in decoded JSON, or in a text of four numbers."""
    if isinstance(data, str):
        numbers = _bare_numbers(data) if len(data) < 200 else None
        return box_of(numbers.value) if numbers and isinstance(numbers.value, list) else None
    if isinstance(data, Mapping):
        box = literals.numbers_of(data.get("boxes"), 4)
        if box:
            return Reading(box)
        inner, fields = _within(data)
        [name] = fields if len(fields) == 1 else [""]
        if inner is None and name.isalpha() and name not in _NO_BOXES and not _NO_KEY.match(name):
            box = literals.numbers_of(fields[name], 4)  # {"man": [...]}
            return Reading(box, exact=False) if box else None
        boxes = [box_of(inner)] if inner is not None else _by_name(fields)
        reading = boxes[0] if len(boxes) == 1 else None
        return reading and Reading(reading.value, exact=False)
    if not isinstance(data, list):
        return None
    if len(data) == 1:
        reading = box_of(data[0])
        return reading and Reading(reading.value, exact=False)
    if len(data) == 2 and all(literals.numbers_of(p, 2) for p in data):
        data = [*data[0], *data[1]]  # two corners
    box = literals.numbers_of(data, 4)
    return Reading(box, exact=False) if box else None


def boxes_of(data: Any) -> Reading | None:
    """Returns the boxes in decoded JSON, one or several, as a tuple."""
    one = box_of(data)
    if one is not None:
        return Reading((one.value,), one.exact or _is_plain(data))
    if isinstance(data, Mapping):
        inner = literals.counted(data) or _within(data)[0]
        reading = None if inner is None or isinstance(inner, str) else boxes_of(inner)
        return reading and Reading(reading.value, _is_plain(data))
    if not isinstance(data, list) or not 0 < len(data) <= MAX_BOXES:
        return None
    if len(data) == 1 and isinstance(data[0], list | Mapping):
        reading = boxes_of(data[0])
        return reading and Reading(reading.value, exact=False)
    corners = [literals.numbers_of(v, 2) for v in data]
    if all(corners) and len(corners) % 2 == 0:
        data = [[*a, *b] for a, b in zip(corners[::2], corners[1::2], strict=True)]
    readings = [box_of(v) for v in data]
    boxes = tuple(r.value for r in readings if r)
    return Reading(boxes, exact=False) if len(boxes) == len(data) else None


def is_listed(data: Any) -> bool:
    """Returns whether decoded JSON lists its boxes: [[0, 0, 1, 1]] does, [0, 0, 1, 1] does not."""
    if isinstance(data, Mapping):
        inner = data.get("boxes") or _within(data)[0]
        return inner is not None and is_listed(inner)
    if not isinstance(data, list) or literals.numbers_of(data, 4):
        return False
    return not all(literals.numbers_of(p, 2) for p in data)  # two corners


def _is_plain(data: Any) -> bool:
    """Returns whether boxes are written as asked: {"boxes": [[0, 0, 9, 9], [5, 5, 9, 9]]}."""
    listed = data.get("boxes") if isinstance(data, Mapping) else None
    return isinstance(listed, list) and all(literals.numbers_of(p, 4) for p in listed)


def _within(data: Mapping[Any, Any]) -> tuple[Any, literals.Fields]:
    """Returns what stands under an object's key for boxes, if there is one, and all its fields."""
    fields = literals.fields_of(data)
    said = [fields[k] for k in BOX_KEYS if fields.get(k) is not None]
    inner = said[0] if said and ("boxes" in fields or len(said) == 1) else None
    if inner is None and not said and not _by_name(fields):
        wrapped = [fields[k] for k in spans.WRAPPERS if isinstance(fields.get(k), list | Mapping)]
        inner = wrapped[0] if len(wrapped) == 1 else None
    return inner, fields


def _by_name(fields: literals.Fields) -> list[Reading]:
    """Returns the boxes that an object names side by side, corner by corner, or by extent."""
    boxes = [literals.numbers_of([fields.get(k) for k in names], 4) for names in _SIDES]
    for names in _CORNERS:
        corners = [_point(fields.get(k)) for k in names]
        boxes.append(literals.numbers_of([n for c in corners for n in c or ()], 4))
    for names in _EXTENTS:
        box = literals.numbers_of([fields.get(k) for k in names], 4)
        boxes.append(box and (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    sizes = [literals.first_of(fields, names) for names in (("width", "w"), ("height", "h"))]
    for names in _CENTRED:
        box = literals.numbers_of([*(fields.get(k) for k in names), *sizes], 4)
        half = box and (box[2] / 2, box[3] / 2)
        boxes.append(
            box and (box[0] - half[0], box[1] - half[1], box[0] + half[0], box[1] + half[1])
        )
    return [Reading(box, exact=False) for box in boxes if box]


def _point(data: Any) -> Any:
    if isinstance(data, Mapping):
        data = [data.get("x"), data.get("y")]
    return literals.numbers_of(data, 2)


def tube_of(data: Any) -> Reading | None:
    """Returns boxes by second in decoded JSON; seconds may be "9", "09", "9.0", "9s" or "0:09"."""
    if isinstance(data, str):
        data = _boxes_by_line(data)
    if isinstance(data, Mapping):
        fields = literals.fields_of(data)
        inner = literals.first_of(fields, BOX_KEYS)
        wrapped = [v for k, v in fields.items() if k in _WRAPPERS and isinstance(v, list | Mapping)]
        if inner is None and len(wrapped) == 1:
            return _loose(tube_of(wrapped[0]))
        if not isinstance(inner, list):
            return _tube_of(data)
        seconds = [v for k, v in fields.items() if k in _PLURAL_SECONDS and isinstance(v, list)]
        if len(seconds) == 1 and len(seconds[0]) == len(inner):
            listed: Any = [list(pair) for pair in zip(seconds[0], inner, strict=True)]
        else:
            listed = [data] if _by_second([data]) else inner
    elif isinstance(data, list):
        if len(data) == 1 and isinstance(data[0], Mapping):
            return _loose(tube_of(data[0]))
        listed = data
    else:
        return None
    return _loose(_tube_of({"boxes": _by_second(listed)}))


def _loose(reading: Reading | None) -> Reading | None:
    """Returns a reading as one that is not in the asked form."""
    return reading and Reading(reading.value, exact=False)


def _boxes_by_line(text: str) -> dict[str, Any] | None:
    """Returns boxes by second from lines such as "Second 1: [10, 20, 110, 220]"."""
    text = _TABLE_ROW.sub(r"\1: \2", _TABLE_RULE.sub("", _EMPHASIS.sub("", text)))
    text = _NAMED_CORNERS.sub("", _BRACKETED.sub(r"\1: ", text))
    header = _HEADER.match(text)
    if header and not _DENIED.search(header[0]):
        text = text[header.end() :]
    lines = [_LINE.fullmatch(line) for line in re.split(r"[\n;]|(?<=[\])]),", text.strip())]
    if len(lines) > 1_000 or not all(lines):
        return None
    return {line["second"]: line["box"] for line in lines if line}


def _by_second(entries: list[Any]) -> dict[Any, Any] | None:
    """Returns boxes by second from a list of {"time": 1, "bbox_2d": [...]}; None for another."""
    boxes: dict[Any, Any] = {}
    for entry in entries:
        if isinstance(entry, list) and len(entry) == 2 and not isinstance(entry[0], list | Mapping):
            boxes[entry[0]] = entry[1]  # [1, [...]]
            continue
        if not isinstance(entry, Mapping):
            return None
        names = [k for k in entry if literals.plain_key(k) in (*spans.TIME_KEYS, *SECOND_KEYS)]
        if len(names) == 2:
            names = [k for k in names if literals.plain_key(k) != "frame"]  # and its second
        if len(names) == 1 and not isinstance(entry[names[0]], list | Mapping):
            boxes[entry[names[0]]] = {k: v for k, v in entry.items() if k != names[0]}
        elif len(entry) == 1 and box_of(next(iter(entry.values()))):
            boxes.update(entry)  # [{"1": [...]}, {"2": [...]}]
        else:
            return None
    return boxes


def _tube_of(data: Any) -> Reading | None:
    if not isinstance(data, Mapping):
        return None
    fields = literals.fields_of(data)
    boxes = next((fields[k] for k in BOX_KEYS if isinstance(fields.get(k), Mapping)), None)
    exact = isinstance(data.get("boxes"), Mapping)
    if boxes is None and not any(k in fields for k in BOX_KEYS):
        is_timed = any(k in fields for k in spans.TIME_KEYS)
        boxes = {k: v for k, v in data.items() if not is_timed or spans.second_of(k) is not None}
    if boxes is None:
        return None
    tube: Tube = {}
    for key, value in boxes.items():
        second = spans.second_of(str(key).strip())
        box = literals.numbers_of(value, 4)
        if box is None:
            reading = box_of(value)
            box, exact = reading and reading.value, False
        exact = exact and _ASKED_SECOND.fullmatch(str(key).strip()) is not None
        if second is None:
            continue
        tube[second] = box
    return Reading(tube, exact and bool(tube)) if tube else None


def both_of(data: Any, read_time: Callable[[Any], Reading | None]) -> Reading | None:
    """Returns intervals and boxes in decoded JSON; a span in prose gives the intervals alone.

    Args:
        data: decoded JSON, or a text.
        read_time: reads a tuple of intervals.
    """
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], Mapping):
        reading = both_of(data[0], read_time)
        return reading and Reading(reading.value, exact=False)
    if isinstance(data, list) and len(data) == 2:
        objects = [d for d in data if isinstance(d, Mapping)]
        merged = {key: value for d in objects for key, value in d.items()}
        if len(objects) == 2 and len(merged) == len(objects[0]) + len(objects[1]):
            reading = both_of(merged, read_time)  # [{"time": ...}, {"boxes": ...}]
            return reading and Reading(reading.value, exact=False)
    time, tube = read_time(data), tube_of(data)
    if time is None and tube is None:
        return None
    exact = bool(time and tube and time.exact and tube.exact)
    return Reading(Grounding(time and time.value, tube and tube.value), exact)
