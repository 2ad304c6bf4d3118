"""Prompts: a row through its problem type's template, and through the model's chat template.

Templates come with models and from users, so both run in Jinja2's sandbox.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from evr1.data.records import Row, Turn
from evr1.formats import box_frames, chat_template, problem_types

MARKER = re.compile(r"<(image|video)>")
_MEDIUM = {"video": "video", "image": "image", "text": "", "mixed": "inputs"}


def built_in_template() -> str:
    """Returns the source of the built-in task template."""
    return resources.files("evr1.data").joinpath("templates/task.jinja").read_text("utf-8")


def render_task(row: Row, template: str, *, thinking: bool, box_scale: str) -> str:
    """Returns the row's question as the task template words it; media markers stay in the text.

    Args:
        row: the question. Its answer is not shown to the template.
        template: Jinja2 source, see `templates/task.jinja` for the variables.
        thinking: ask for reasoning between think tags first.
        box_scale: what box coordinates count: pixels, unit (0-1) or thousand (0-1000).

    Raises:
        ValueError: the template fails or yields nothing; names the row.
    """
    try:
        text = chat_template.compiled(template).render(
            problem=row.problem,
            options=problem_types.label_options(row.options),
            problem_type=row.problem_type,
            medium=_MEDIUM[row.data_type],
            thinking=thinking,
            box_scale=box_scale,
            size=_size(row),
            extra={k: v for k, v in row.extra.items() if v is not None},
        )
    except jinja2.TemplateError as e:
        raise ValueError(f"{row.source}: the prompt template fails: {e}; fix data.template") from e
    if not text.strip():
        raise ValueError(
            f"{row.source}: the prompt is empty; fix data.template or the row's problem"
        )
    return text.strip("\n")


def _size(row: Row) -> tuple[str, ...] | None:
    """Returns width and height of the row's medium as texts; None where its fields are no size.

    Only the scorers of boxes refuse such a row; elsewhere the fields may mean anything.
    """
    try:
        size = box_frames.size_of(row.extra)
    except ValueError:
        return None
    return size and tuple(f"{side:.10g}" for side in size)


def render_chat(
    template: str,
    turns: Sequence[Turn],
    special_tokens: Mapping[str, str],
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Returns a chat in the model's own wording, ready for the answer to its last turn.

    Each medium is one placeholder, where its marker stands, in whichever turn of the user.

    Args:
        template: the Jinja2 source of the HF directory's chat template.
        turns: the last one is the user's; theirs have `<image>` and `<video>` markers.
        special_tokens: bos_token, eos_token, ... as the tokenizer names them.
        system: text of the system turn before it; None: there is none.
        variables: further ones of the template.

    Raises:
        ValueError: the template fails, or does not show the system turn or an earlier one.
    """
    shown: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        is_user = turn.role == "user"
        content = _parts(turn.content) if is_user else turn.content
        shown.append({"role": turn.role, "content": content})
    chat = chat_template.render(template, shown, special_tokens, variables or {})
    if system is not None and system.strip() not in chat:
        raise ValueError(
            "the chat template shows no system turn; drop the field system, or use another template"
        )
    for turn in turns[:-1]:
        if turn.role == "user" and not all(
            p.strip() in chat for p in MARKER.split(turn.content)[::2]
        ):
            raise ValueError(
                "the chat template does not show an earlier turn of the user; drop the turns, or "
                "use another template"
            )
    return chat


def _parts(text: str) -> list[dict[str, Any]]:
    """Returns the content of a user's turn: texts, and a part for each marker."""
    content: list[dict[str, Any]] = []
    for i, part in enumerate(MARKER.split(text)):
        if i % 2:
            content.append({"type": part})
        elif part:
            content.append({"type": "text", "text": part})
    return content
