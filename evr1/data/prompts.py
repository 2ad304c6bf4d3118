"""Prompts: a row through its problem type's template, and through the model's chat template.

Templates come with models and from users, so both run in Jinja2's sandbox.
"""

import datetime
import functools
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from evr1 import coordinates, problems
from evr1.data.records import Row

MARKER = re.compile(r"<(image|video)>")
_MEDIUM = {"video": "video", "image": "image", "text": "", "mixed": "inputs"}


def built_in_template() -> str:
    """The source of the built-in task template."""
    return resources.files("evr1.data").joinpath("templates/task.jinja").read_text("utf-8")


def render_task(row: Row, template: str, *, thinking: bool, box_scale: str) -> str:
    """The row's question as the task template words it; media markers stay in the text.

    Args:
        row: the question. Its answer is not shown to the template.
        template: Jinja2 source, see `templates/task.jinja` for the variables.
        thinking: ask for reasoning between think tags first.
        box_scale: what box coordinates count: pixels, unit (0-1) or thousand (0-1000).

    Raises:
        ValueError: the template fails or yields nothing; names the row.
    """
    try:
        text = _compile(template).render(
            problem=row.problem,
            options=problems.label_options(row.options),
            problem_type=row.problem_type,
            medium=_MEDIUM[row.data_type],
            thinking=thinking,
            box_scale=box_scale,
            size=_size(row),
            extra=dict(row.extra),
        )
    except jinja2.TemplateError as e:
        raise ValueError(f"{row.source}: the prompt template fails: {e}; fix data.template") from e
    if not text.strip():
        raise ValueError(
            f"{row.source}: the prompt is empty; fix data.template or the row's problem"
        )
    return text.strip("\n")


def _size(row: Row) -> tuple[str, ...] | None:
    """Width and height of the row's medium, if its fields are that; the scorers of boxes refuse a
    row where they are not, and elsewhere they may mean anything."""
    try:
        size = coordinates.size_of(row.extra)
    except ValueError:
        return None
    return size and tuple(f"{side:.10g}" for side in size)


def render_chat(chat_template: str, text: str, special_tokens: Mapping[str, str]) -> str:
    """The model's own wording of one user turn, ready for the answer; a placeholder per medium.

    Args:
        chat_template: the Jinja2 source of the HF directory.
        text: the user's turn with its `<image>` and `<video>` markers.
        special_tokens: bos_token, eos_token, ... as the tokenizer names them.

    Raises:
        ValueError: the template fails.

    Source: transformers 5.23, utils/chat_template_utils.render_jinja_template.
    """
    content: list[dict[str, Any]] = []
    for i, part in enumerate(MARKER.split(text)):
        if i % 2:
            content.append({"type": part})
        elif part:
            content.append({"type": "text", "text": part})
    try:
        return _compile(chat_template).render(
            messages=[{"role": "user", "content": content}],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **special_tokens,
        )
    except jinja2.TemplateError as e:
        raise ValueError(f"the chat template fails: {e}") from e


@functools.lru_cache(maxsize=32)
def _compile(source: str) -> jinja2.Template:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = _to_json
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = _strftime_now
    return env.from_string(source)


class _Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}` blocks, with which some chat templates mark the answer."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja2's own filter."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
