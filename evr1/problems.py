"""The problem types and their aliases: one table for rows, prompts, rewards and benchmarks."""

import difflib

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
        f"unknown problem_type {problem_type!r}; did you mean one of {', '.join(near)}?"
    )
