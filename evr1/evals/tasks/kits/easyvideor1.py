"""EasyVideoR1's evaluation: its prompts by problem type, and its one rule for all of them.

A row is what its files hold: problem_type, problem, options, solution. A task turns its official
row into one (`rule` and `prompt` take the function that does).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from evr1.evals.tasks.base import Doc, Fingerprint, Part, Prompt, Rule, Sample, Show, Verdict

MULTIPLE_CHOICE = "multiple choice"
_LETTERS = "ABCDEFGHIJ"
_GROUNDING = ("temporal grounding", "spatial-temporal grounding")

# Prompts.

_CHOOSE = (
    "Select the best answer to the following multiple-choice question based on the video.\n"
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    "Question: {}\nThe best answer is: "
)
_OPEN = "Answer the following question based on the video.\nQuestion: {}"
_THINK = (
    "You should watch and learn the video content. Then apply what you learned to {} question "
    "based on the video.\nBegin by explaining your reasoning process briefly.\n"
)
_CONCLUDE = (
    "Conclude by stating the final answer using the following format: "
    '"Therefore, the final answer is: {}" (without quotes){}.'
)
# What stands for the answer in the closing sentence, and what is said about it.
_CLOSINGS = {
    "numerical": ("$NUMBER", ", where $NUMBER is your numerical answer"),
    "regression": ("$NUMBER", ", where $NUMBER is your numerical answer"),
    "OCR": ("$TEXT", ", where $TEXT is the recognized text"),
}
_AN_ANSWER = ("$ANSWER", "")
_A_LETTER = ("$LETTER", ", where $LETTER must be one of the options")
_SPAN = (
    "the time span in seconds as JSON within the <answer>...</answer> tags.\n"
    'Example:\n<answer>{{"time": [12.3, 25.7]}}</answer>\n'
)
_TUBE = (
    "the time span in seconds and bounding boxes as JSON within the <answer>...</answer> tags.\n"
    "You MUST output one bounding box for every integer second within the given time span "
    "(inclusive).\nExample:\n"
    '<answer>{{"time": [{}], "boxes": {{"9": [317, 422, 582, 997], "10": [332, 175, 442, 369], '
    '"11": [340, 180, 450, 370]}}}}</answer>\n'
    "Note: Each key in 'boxes' must be an integer second within the span, and its value must be a "
    "4-number bounding box [x1, y1, x2, y2]."
)
# OVO-Bench's three kinds of questions about what goes on, with its spelling.
_FORWARD = {
    "REC": (
        "You're watching a video in which people may perform a certain type of action repetively. "
        "The person performing this kind of action are referred to as 'they' in the following "
        "statement.\nYou're task is to count how many times have different people in the video "
        "perform this kind of action in total.\nOne complete motion counts as one.\n"
        "Now, answer the following question: {}\n"
    ),
    "SSR": (
        "You're watching a tutorial video which contain a sequential of steps.\n"
        "The following is one step from the whole procedures:\n{}\nYour task is to determine if "
        "the man or woman in the video is currently performing this step.\n"
    ),
    "CRR": (
        "You're responsible of answering questions based on the video content.\nThe following "
        "question are relevant to the latest frames, i.e. the end of the video.\n{}\n"
        "Decide whether existing visual content, especially latest frames, i.e. frames that near "
        "the end of the video, provide enough information for answering the question.\n"
    ),
}
_NUMBERS = "a single number (e.g., 0, 1, 2, 3…)"
_BARE = "Do not include any additional text or explanation in your response."


def text(question: str, problem_type: str, thinking: bool = False) -> str:
    """Returns the prompt's text for a question, with or without reasoning before the answer."""
    if problem_type in _FORWARD:
        return _forward_text(question, problem_type, thinking)
    if problem_type == MULTIPLE_CHOICE and thinking:
        start = _THINK.format("select the best answer to the following multiple-choice")
        return start + _CONCLUDE.format(*_A_LETTER) + f"\nQuestion: {question}"
    if problem_type == MULTIPLE_CHOICE:
        return _CHOOSE.format(question)
    start = _OPEN.format(question)
    if thinking:
        start = _THINK.format("answer the following") + f"Question: {question}"
    if problem_type in _GROUNDING:
        verb = "Conclude by providing" if thinking else "Please provide"
        times = "8, 13" if thinking else "8.125, 13.483"
        form = _SPAN if problem_type == _GROUNDING[0] else _TUBE
        return f"{start}\n{verb} {form.format(times)}"
    if thinking:
        return f"{start}\n" + _CONCLUDE.format(*_CLOSINGS.get(problem_type, _AN_ANSWER))
    return f"{start}\nThe best answer is: "


def _forward_text(question: str, problem_type: str, thinking: bool) -> str:
    is_count = problem_type == "REC"
    start = _FORWARD[problem_type].format(question)
    if thinking:
        name, what = ("$NUMBER", f"the total count as {_NUMBERS}")
        if not is_count:
            name, what = "$ANSWER", 'either "Yes" or "No"'
        begin = "Begin by explaining your reasoning process briefly, describing what you observe "
        closing = _CONCLUDE.format(name, f", where {name} is {what}")
        return f"{start}{begin}in the video.\n{closing}"
    if is_count:
        return f"{start}Provide your answer as {_NUMBERS} indicating the total count.\n{_BARE}"
    return f'{start}Answer only with "Yes" or "No".\n{_BARE}'


def question(row: Mapping[str, Any]) -> str:
    """Returns a row's question as the prompts hold it: choices stand below their question."""
    if row["problem_type"] != MULTIPLE_CHOICE:
        return row["problem"]
    choices = "".join(f"{option}\n" for option in row["options"])
    return f"{row['problem']} Possible answer choices:\n{choices}"


def choice_row(question: str, options: Sequence[str], letter: str) -> dict[str, Any]:
    """Returns a row of a question with options as most of the kit's files write it.

    Args:
        question: of the official row.
        options: bare texts in order.
        letter: the right one.
    """
    return {
        "problem_type": MULTIPLE_CHOICE,
        "problem": question,
        "options": [f"{each}. {text}" for each, text in zip(_LETTERS, options, strict=False)],
        "solution": f"<answer>{letter}</answer>",
    }


def prompt(to_row: Callable[[Doc], Mapping[str, Any]], thinking: bool = False) -> Prompt:
    """Returns the prompt of a task whose official rows `to_row` turns into the reference's."""

    def ask(sample: Sample) -> tuple[Part, ...]:
        row = to_row(sample.doc)
        shown = tuple(Show(place) for place in range(len(sample.media)))
        # With an image the kit says where it is, whichever it is.
        hint = "The image for this question is at the end of the video.\n" * (len(shown) > 1)
        return *shown, hint + text(question(row), row["problem_type"], thinking)

    return ask


def fingerprint(doc: Doc, response: Any) -> Fingerprint:
    """Returns that of the text which the kit builds for question, problem_type, thinking_mode."""
    return Fingerprint.of(text(doc["question"], doc["problem_type"], doc["thinking_mode"]))


# What a response says.

_STATED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # That one such sentence begins with "therefore" wins over an earlier one that does not.
        r"(?:therefore|so|thus|hence|finally)[,\s]*(?:the\s+)?(?:(?:final|best|correct)\s+)?"
        r"answer\s+is[:\s]+([A-J])\b",
        r"answer\s+is[:\s]+([A-J])\b",
        r"答案[是为：:]\s*([A-J])\b",
    )
)
_CONCLUSION = re.compile(
    r"(?:therefore|so|thus|hence|finally)[,\s]*(?:the\s+)?(?:(?:final|best|correct)\s+)?"
    r"answer\s+is[:\s]+(.+)",
    re.IGNORECASE | re.DOTALL,
)
_CHOSEN = re.compile(r"(?:choose|select|pick)\s+(?:option\s+)?([A-J])\b", re.IGNORECASE)
_AT_LINE_END = re.compile(r"\b([A-J])\s*[.)]?\s*$")
_THINK_TAGS = re.compile(r"<(/?)think>", re.IGNORECASE)


def read(response: str, problem_type: str) -> str:
    """Returns what the kit reads as the answer; "" where it finds no letter."""
    tagged = _between(response, "<answer>", "</answer>")
    if problem_type in _GROUNDING:
        return tagged or _read_json(response)
    if tagged and problem_type != MULTIPLE_CHOICE:
        return tagged
    if tagged and len(tagged) <= 2:
        letter = tagged.rstrip(".").upper()
        if letter in _LETTERS:  # "" and "AB", too, are in it
            return letter
    # Letters are looked for in answers of every type.
    letter = _stated(response)
    if letter:
        return letter
    if problem_type != MULTIPLE_CHOICE and (found := _CONCLUSION.search(response)):
        return found[1].strip()
    letter = _after_think(response) or _chosen(response) or _in_last_lines(response)
    if letter or problem_type == MULTIPLE_CHOICE:
        return letter
    return without_think(response) or response.strip()


def _between(response: str, start: str, end: str) -> str:
    _, is_open, rest = response.partition(start)
    inside, is_closed, _ = rest.partition(end)
    return inside.strip() if is_open and is_closed else ""


def _read_json(response: str) -> str:
    """Returns the text from the first "{" to the last "}" of the reasoning, else of the rest."""
    found = _braces(_between(response, "<think>", "</think>"))
    rest = without_think(response)
    return found or _braces(rest) or rest or response.strip()


def _braces(text: str) -> str:
    first, last = text.find("{"), text.rfind("}")
    return text[first : last + 1] if 0 <= first < last else ""


def without_think(response: str) -> str:
    """Returns a response without its pairs of think tags and what is in them."""
    kept, place, opened = [], 0, None
    for tag in _THINK_TAGS.finditer(response):
        if tag[1] and opened is not None:
            kept.append(response[place:opened])
            place, opened = tag.end(), None
        elif not tag[1] and opened is None:
            opened = tag.start()
    return "".join([*kept, response[place:]]).strip()


def _stated(response: str) -> str:
    found = next(filter(None, (pattern.search(response) for pattern in _STATED)), None)
    return found[1].upper() if found else ""


def _chosen(response: str) -> str:
    found = _CHOSEN.search(response)
    return found[1].upper() if found else ""


def _after_think(response: str) -> str:
    """Returns the letter that what follows the first end of a reasoning starts with."""
    end = next((tag.end() for tag in _THINK_TAGS.finditer(response) if tag[1]), None)
    rest = "" if end is None else response[end:].strip()
    if len(rest) == 1 and rest.upper() in _LETTERS:
        return rest.upper()
    is_letter = rest[:1] in tuple(_LETTERS) and (rest[1:2].isspace() or rest[1:2] in ".。):")
    return rest[0] if is_letter else ""


def _in_last_lines(response: str) -> str:
    """Returns the letter that one of the last five lines is, or, a short one, ends with."""
    for line in map(str.strip, reversed(response.strip().split("\n")[-5:])):
        if len(line) == 1 and line.upper() in _LETTERS:
            return line.upper()
        if line[:1] in tuple(_LETTERS) and line[1:].strip() in ("", *".):。"):
            return line[0]
        if len(line) < 30 and (found := _AT_LINE_END.search(line)):
            return found[1]
    return ""


# How it is scored.


def rule(to_row: Callable[[Doc], Mapping[str, Any]]) -> Rule:
    """Returns the rule of a task; a doc that is a row of the kit's own files is taken as it is."""

    def by_reference(doc: Doc, response: str) -> Verdict:
        """Scores by EasyVideoR1's rule."""
        return score(doc if "solution" in doc else to_row(doc), response)

    return by_reference


def score(row: Mapping[str, Any], response: str) -> Verdict:
    """Scores a response against a row of the kit's files; what it cannot read scores 0."""
    kind = row["problem_type"]
    read_out = read(response, kind) or response
    gold = read(row["solution"], kind)
    if kind in _GROUNDING:
        value = _overlap(read_out, gold, with_boxes=kind == _GROUNDING[1])
    elif kind in _FORWARD:
        value = _forward(read_out, gold, row) if kind != "REC" else _same_digits(read_out, gold)
    elif kind == "numerical":
        value = _same_number(read_out, gold)
    elif kind == "regression":
        value = _relative_accuracy(read_out, gold)
    else:  # what is open scores 0 until a judge has read it
        value = float(kind == MULTIPLE_CHOICE and read_out.strip() == gold.strip())
    return Verdict(read_out, value)


def choice(letter: str, response: str) -> Verdict:
    """Scores a response to a question with options by its letter; nothing read is ""."""
    found = read(response, MULTIPLE_CHOICE)
    return Verdict(found, float((found or response).strip() == letter))


def for_judge(doc: Doc | None, response: str) -> Verdict:
    """Returns what the kit hands to its judge; without a doc, the verdict of a judge's reply."""
    if doc is None:
        return Verdict(None, judgement(response))
    marker = "therefore, the final answer is:"
    place = response.lower().find(marker)
    if place >= 0:
        return Verdict(response[place + len(marker) :].strip(), None)
    return Verdict(without_think(response) or response.strip(), None)


def judgement(reply: str) -> float:
    """Returns the last judgement in a judge's reply, or whether that ends with 1."""
    found = re.findall(r"(?i)Judgement\s*:\s*([01])", reply)
    return float((found or [reply.strip()])[-1].endswith("1"))


def _number(text: str) -> float | None:
    """Returns the number between what surrounds it; None if that is none ("3 or 4", "3.0.")."""
    signs = "-+."
    start = next((i for i, c in enumerate(text) if c.isdecimal() or c in signs), len(text))
    end = next((i for i in range(len(text), 0, -1) if _is_digit_or_dot(text[i - 1])), 0)
    try:
        return float(text[start:end].replace(",", ""))
    except ValueError:
        return None


def _is_digit_or_dot(char: str) -> bool:
    return char.isdecimal() or char == "."


def _same_number(answer: str, gold: str) -> float:
    """Returns whether two numbers agree to two decimals; "5" and "5.0" do not."""
    is_exact = ["." in text or "," in text for text in (answer, gold)]
    numbers = _number(answer), _number(gold)
    if is_exact[0] != is_exact[1] or None in numbers:
        return 0.0
    a, b = numbers
    return float(a is not None and b is not None and round(a, 2) == round(b, 2))


def _relative_accuracy(answer: str, gold: str) -> float:
    """Returns the mean relative accuracy in the kit's single precision, with a strict bound."""
    numbers = _number(answer), _number(gold)
    if numbers[0] is None or numbers[1] is None:
        return 0.0
    with np.errstate(all="ignore"):
        predicted, target = np.float32(numbers[0]), np.float32(numbers[1])
        error = np.abs(predicted - target) / (np.abs(target) + np.float32(1e-8))
        bounds = np.float32(1) - (0.5 + 0.05 * np.arange(10)).astype(np.float32)
        return float(np.mean(error < bounds))


def _same_digits(answer: str, gold: str) -> float:
    digits = ["".join(filter(str.isdecimal, text)) for text in (answer, gold)]
    return float(digits[0] == digits[1] != "")


def _forward(answer: str, gold: str, row: Mapping[str, Any]) -> float:
    """Returns whether yes or no occurs, in whatever word ("UNKNOWN" is right for no)."""
    said, truth = answer.strip().upper(), gold.strip().upper()
    if "ovo_type" in row:
        truth = "YES" if row["ovo_type"] == 1 else "NO"
    truth = {"Y": "YES", "1": "YES", "N": "NO", "0": "NO"}.get(truth, truth)
    is_letter = said in ("Y", "N") and truth == {"Y": "YES", "N": "NO"}[said]
    return float(answer != "" and (is_letter or truth in said))


def _overlap(answer: str, gold: str, with_boxes: bool) -> float:
    """Returns the IoU of the spans; where there are gold boxes, its mean with that of boxes."""
    try:
        said, truth = json.loads(answer), json.loads(gold)
    except (ValueError, RecursionError):
        return 0.0
    if not (isinstance(said, dict) and isinstance(truth, dict)):
        return 0.0
    span = _span_iou(_floats(said.get("time"), 2), _floats(truth.get("time"), 2))
    boxes, gold_boxes = said.get("boxes"), truth.get("boxes")
    if not (with_boxes and isinstance(gold_boxes, dict) and gold_boxes):
        return span
    if not isinstance(boxes, dict):
        return span / 2
    # A box counts only where both sides have its second: one right box of three scores 1.
    shared = [
        (_floats(box, 4), _floats(gold_boxes[k], 4)) for k, box in boxes.items() if k in gold_boxes
    ]
    return (span + (sum(_box_iou(a, b) for a, b in shared) / len(shared) if shared else 0.0)) / 2


def _floats(value: Any, size: int) -> list[float]:
    """Returns a list's numbers, also where they are texts; nothing if it is no such list."""
    if not isinstance(value, list) or len(value) != size:
        return []
    try:
        return [float(item) for item in value]
    except (TypeError, ValueError, OverflowError):
        return []


def _span_iou(a: list[float], b: list[float]) -> float:
    """Returns the shared share of the hull of two spans; a reversed one has nothing to share."""
    if not (a and b):
        return 0.0
    hull = max(a[1], b[1]) - min(a[0], b[0])
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / hull if hull > 1e-12 else 0.0


def _box_iou(a: list[float], b: list[float]) -> float:
    if not (a and b):
        return 0.0
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [max(0.0, c[2] - c[0]) * max(0.0, c[3] - c[1]) for c in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 1e-12 else 0.0
