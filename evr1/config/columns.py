"""`data.columns`: which field of somebody else's rows is which of ours."""

import difflib
import json
from typing import Any

IGNORE = "ignore"  # fields that are not read
FIELDS = (
    ("problem", "answer", "problem_type", "data_type", "images", "videos", "options")
    + ("problem_id", "video_start", "video_end", "system", "messages", "turns", "fps", "times")
    + ("nframes", "max_frames", "min_pixels", "max_pixels", "total_pixels", "pass_rate")
    + ("width", "height", "image_size", "video_size", "box_scale", "offline_output")
    + ("has_offline_trajectory", "completion", "completion_token_ids", "response", "tests", IGNORE)
)


def parse(text: str | None) -> dict[str, str | list[str]]:
    """Returns our field -> theirs.

    >>> parse('{"problem": "q", "answer": "extra_info.gold", "ignore": ["thumbnail"]}')["answer"]
    'extra_info.gold'

    Args:
        text: a JSON object; empty: nothing is renamed.

    Raises:
        ValueError: it is none, or has a field that we do not know.
    """
    if not text:
        return {}
    fix = 'give a JSON object, ours to theirs, e.g. \'{"problem": "question", "videos": "clip"}\''
    try:
        columns: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"data.columns: got {text!r}, no JSON ({error}); {fix}") from None
    if not isinstance(columns, dict):
        raise ValueError(f"data.columns: got {text!r}; {fix}")
    for ours, theirs in columns.items():
        if ours not in FIELDS:
            near = difflib.get_close_matches(ours, FIELDS, n=3) or FIELDS
            raise ValueError(
                f"data.columns: {ours!r} is no field of ours, which stands first; did you mean one "
                f"of {', '.join(near)}?"
            )
        names = [theirs] if isinstance(theirs, str) else theirs
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise ValueError(f"data.columns: {ours} is {theirs!r}; {fix}")
    return columns
