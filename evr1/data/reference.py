"""The fields of a row, with their meanings and the other names that are read.

`python -m evr1.data.reference` prints docs/rows.md.
"""

from evr1.config.columns import FIELDS, IGNORE
from evr1.data import dialects, entries, rows

_NEEDED = ", ".join(f"`{name}`" for name in rows.REQUIRED)
_HEAD = f"""# Fields of a row

Made from the reader by `python -m evr1.data.reference`: change it there. Training needs
{_NEEDED}; a field that is not listed is carried along. `data.columns`
names what is called otherwise, ours first. [docs/data.md](data.md) says more, and what the rows of
other tools look like.

| field | also read as | meaning |
|---|---|---|
"""
MEANINGS = {
    "problem": "the question; `<video>` and `<image>` stand where media do, and are put in front "
    "where they are missing",
    "answer": "the ground truth, in a form of its [problem type](rewards.md)",
    "problem_type": "which scorer and which template; without it multiple choice where there are "
    "options, else `data.problem_type`",
    "data_type": f"{', '.join(rows.DATA_TYPES)}; follows from the media where it is missing",
    "images": "paths, or objects with a path and limits; one or a list",
    "videos": "likewise; a list of lists is videos of pictures",
    "options": "of multiple choice: a list of texts, with or without letters, or letter to text",
    "problem_id": "a name for the row; its number where it is missing",
    "video_start": "seconds: where the clip of its videos begins",
    "video_end": "seconds: where it ends",
    "system": "text of the system turn",
    "messages": "a chat, whose last turn of the user is the question",
    "turns": "earlier turns, pairs of question and answer",
    "fps": "rate of frames that are given as pictures; else frames sampled a second",
    "times": "seconds of frames that are given as pictures",
    "nframes": "frames to sample, instead of a rate",
    "max_frames": "of a video, instead of `data.video_max_frames`",
    "min_pixels": "of a frame or an image, instead of the run's budget",
    "max_pixels": "likewise",
    "total_pixels": "of a video, likewise",
    "pass_rate": "share of completions that passed, for `data.curriculum`",
    "width": "pixels of the source medium, for boxes; of its file where it is missing",
    "height": "likewise",
    "image_size": "[width, height], instead of both",
    "video_size": "likewise",
    "box_scale": "frame of the answer's coordinates: pixels, unit or thousand",
    "offline_output": "completions of another model, for `mix.enabled`",
    "has_offline_trajectory": "false: `offline_output` is not used",
    "completion": "a text whose tokens are scored, by `score_completions.py`",
    "completion_token_ids": "these tokens, instead of the text",
    "response": "a text that `python -m evr1.rewards` scores; null: none",
    "tests": "of code, what a program is tried with",
}
_MEDIA = {
    "videos": (*dialects.VIDEO_COLUMNS, *dialects.FRAME_COLUMNS),
    "images": dialects.IMAGE_COLUMNS,
    "messages": tuple(name for name in dialects.CHATS if name != "messages"),
    "turns": tuple(name for name in dialects.HISTORY if name != "turns"),
    "times": tuple(name for name in entries.TIMES if name != "times"),
}


def other_names(field: str) -> tuple[str, ...]:
    """Returns the names that are tried where a field is missing, in order.

    >>> other_names("answer")[:2]
    ('solution', 'ground_truth')
    """
    aliases = dialects.ALIASES.get(field, ())
    return tuple(name for names in aliases for name in names) + _MEDIA.get(field, ())


def page() -> str:
    """Returns docs/rows.md."""
    lines = []
    for field in FIELDS:
        if field != IGNORE:
            names = ", ".join(f"`{name}`" for name in other_names(field))
            lines.append(f"| `{field}` | {names} | {MEANINGS[field]} |")
    unread = ", ".join(f"`{name}`" for name in entries.UNREAD)
    tail = f"\nNot read, which the start of a run says once: {unread}.\n"
    return _HEAD + "\n".join(lines) + "\n" + tail


if __name__ == "__main__":
    print(page(), end="")
