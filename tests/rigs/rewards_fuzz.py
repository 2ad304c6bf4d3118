"""Seeded adversarial responses for every scorer that runs no code."""

import json
import random

TRUTHS: list[tuple[str, object]] = [
    ("multiple choice", "B"),
    ("multiple choice", "AC"),
    ("numerical", "5"),
    ("numerical", "12.5%"),
    ("regression", "10.5"),
    ("boolean", "Yes"),
    ("ocr", "STOP 停车 here"),
    ("math", "5"),
    ("math", r"\frac{\sqrt{3}}{2}"),
    ("math", "(x+1)^2"),
    ("math", r"\{1, 2\}"),
    ("temporal grounding", {"time": [10, 20]}),
    ("spatial grounding", {"boxes": [0, 0, 10, 10]}),
    ("tracking", {"boxes": {str(i): [i, 0, i + 10, 10] for i in range(5)}}),
    ("spatial-temporal grounding", {"time": [8, 11], "boxes": {"9": [0, 0, 10, 10]}}),
    ("open-ended", "a red car turns left"),
    ("preference", "Response 1"),
    (
        "segmentation",
        {
            "boxes": [0, 0, 10, 10],
            "positive_points": [[2, 2], [5, 5], [8, 8]],
            "negative_points": [[20, 20], [30, 0], [0, 30]],
        },
    ),
    ("svg-code", '<svg viewBox="0 0 9 9"><g fill="red"><circle cx="5" cy="5" r="4"/></g></svg>'),
    ("html-code", "<html><body><p class='a'>STOP <b>here</b></p><ul><li>1<li>2</ul></body></html>"),
]
TAGS = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "< answer >",
    "</ANSWER>",
    "<answer",
    "answer>",
]
MARKS = [
    "**",
    "```json\n",
    "```",
    r"\boxed{",
    "}",
    "{",
    "[",
    "]",
    "(",
    ")",
    "$",
    "$$",
    "\\",
    "|",
    "'",
    '"',
]
WORDS = [
    "The answer is ",
    "not ",
    " or ",
    " and ",
    "答案是",
    "I choose ",
    "option ",
    "B",
    "A",
    "yes",
    "no",
]
WORDS += [
    "five",
    "about ",
    "Response 1",
    "Response 2",
    "tie",
    " is better than ",
    "from 10 to 20",
    "1:30",
]
NUMBERS = [
    "5",
    "10",
    "-3",
    "1e400",
    "1e-400",
    "9" * 600,
    "9**9**9",
    "0.1",
    "1/0",
    "NaN",
    "Infinity",
    "٣",
    "½",
]
MATHS = [
    r"\frac{1}{2}",
    r"\sqrt{3}",
    "x",
    "y^2",
    "(x+1)^{9}",
    r"\pi",
    r"\sum_{i=1}^{99} i",
    r"\infty",
    "=",
]
MATHS += [
    r"\int_0^1 x dx",
    r"\pm",
    "<",
    r"\cup",
    "^{99}",
    "!",
    r"\text{cm}",
    r"\lim_{x\to 0}",
    "+",
    "-",
    r"\%",
]
ODD = [
    "\u200b",
    "\u202e",
    "\ufdfa",
    "\u0301",
    "\ud800",
    "\x00",
    "\u2028",
    "Ｂ",
    "В",
    "\u2212",
    "🙂",
    "\n",
    "\t",
]


def cases(count: int, seed: int) -> list[tuple[str, dict]]:
    """Responses with their rows; the same for the same seed."""
    rng = random.Random(seed)
    return [_case(rng) for _ in range(count)]


def _case(rng: random.Random) -> tuple[str, dict]:
    kind, truth = rng.choice(TRUTHS)
    right = truth if isinstance(truth, str) else json.dumps(truth)
    make = rng.choice([_soup, _soup, _damaged, _damaged, _repeated, _nested, _mixed, _raw])
    response = make(rng, right, kind)
    if rng.random() < 0.7:
        response = f"{rng.choice(['', '<think>so</think>', 'so '])}<answer>{response}</answer>"
    options = ["Red", "Blue", "Green", "White"] if kind == "multiple choice" else []
    return response, {"problem_type": kind, "answer": truth, "options": options}


def _soup(rng: random.Random, right: str, kind: str) -> str:
    """Pieces that readers look for, in any order."""
    pieces = [right, *WORDS, *NUMBERS, *MARKS, *(MATHS if kind == "math" else TAGS), *ODD]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12)))


def _damaged(rng: random.Random, right: str, kind: str) -> str:
    """The right answer with characters lost, doubled, swapped or replaced."""
    text = list(right)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text)) if text else 0
        text[at : at + rng.randint(0, 2)] = rng.choice(["", *right, *"0123456789.,-{}[]:", *ODD])
    return "".join(text)


def _repeated(rng: random.Random, right: str, kind: str) -> str:
    """One piece very often; with 1 in 50, a megabyte of it."""
    piece = rng.choice([right, *WORDS, *NUMBERS, *MARKS, *MATHS, *TAGS, *ODD])
    size = 10**6 if rng.random() < 0.02 else rng.choice([10, 300, 900, 5000, 40000])
    return piece * max(1, size // len(piece)) + rng.choice(["", right])


def _nested(rng: random.Random, right: str, kind: str) -> str:
    """Brackets in brackets, closed or not."""
    start, end = rng.choice(
        [("[", "]"), ('{"a":', "}"), ("(", ")"), (r"\frac{", "}"), (r"\sqrt{", "}")]
    )
    depth = rng.choice([2, 8, 15, 100, 5000])
    return start * depth + right + end * rng.choice([depth, depth, depth // 2, 0])


def _mixed(rng: random.Random, right: str, kind: str) -> str:
    """The right answers of several types, one after the other."""
    others = [t if isinstance(t, str) else json.dumps(t) for _, t in rng.sample(TRUTHS, 3)]
    return rng.choice([", ", " or ", "\n", " "]).join([*others, right])


def _raw(rng: random.Random, right: str, kind: str) -> str:
    """Any characters at all."""
    size = rng.choice([1, 10, 100, 1000])
    return "".join(
        chr(rng.choice([rng.randrange(128), rng.randrange(0x3000)])) for _ in range(size)
    )
