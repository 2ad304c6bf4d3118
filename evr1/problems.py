"""The problem types and their aliases: one table for rows, prompts, rewards and benchmarks."""

import difflib
import re
from collections.abc import Sequence

ALIASES: dict[str, tuple[str, ...]] = {
    "multiple choice": ("multiple_choice", "mc", "mcq"),
    "numerical": ("number",),
    "regression": (),
    "boolean": ("binary classification", "yes/no"),
    "ocr": (),
    "math": ("mathematics",),
    "temporal grounding": (),
    "spatial grounding": (),
    "spatial-temporal grounding": ("spatio-temporal grounding",),
    "tracking": (),
    "segmentation": (),
    "open-ended": (
        "open_ended",
        "free-form",
        "video qa",
        "video description",
        "captioning",
        "caption",
    ),
    "code": ("coding",),
    "svg-code": (),
    "html-code": (),
    "preference": ("llava", "critic"),
}
TYPES: tuple[str, ...] = tuple(ALIASES)
_LABEL = re.compile(r"^\s*[(\[]?([A-Za-z])[)\].:：、]\s*(.*)$", re.DOTALL)
_CANONICAL = {name: t for t, aliases in ALIASES.items() for name in (t, *aliases)}


def canonical(problem_type: object) -> str:
    """The problem type that a row's spelling stands for; case and outer spaces are ignored.

    >>> canonical(" Video QA ")
    'open-ended'

    Raises:
        ValueError: no such problem type; the message names the nearest ones.
    """
    if not isinstance(problem_type, str):
        raise ValueError(f"problem_type is {problem_type!r}; give one of {', '.join(TYPES)}")
    key = " ".join(problem_type.lower().split())
    if key in _CANONICAL:
        return _CANONICAL[key]
    near = difflib.get_close_matches(key, _CANONICAL, n=3) or TYPES
    raise ValueError(
        f"unknown problem_type {problem_type[:60]!r}; did you mean one of {', '.join(near)}?"
    )


def label_options(options: Sequence[str]) -> dict[str, str]:
    """Letter → text of each option of a multiple choice, at most 26.

    Options that are lettered in order keep their letters; all others are lettered here.

    >>> label_options(("A. Red", "B. Blue")) == label_options(("Red", "Blue"))
    True
    """
    letters = [chr(ord("A") + i) for i in range(min(len(options), 26))]
    labels = [_LABEL.match(o) for o in options[:26]]
    if [m and m[1].upper() for m in labels] == letters:
        return {m[1].upper(): m[2].strip() for m in labels if m}
    return {letter: o.strip() for letter, o in zip(letters, options, strict=False)}
