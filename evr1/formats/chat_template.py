"""Chat templates of HF directories: read, rendered in Jinja2's sandbox, and asked what they know.

They come with models and from users. Source: transformers 5.24, utils/chat_template_utils.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from evr1.formats import processor_files, think_block

SWITCH = "enable_thinking"  # what templates call the variable that turns reasoning on and off
_PROBE = "What is asked?"
_OF_VALUES = (TypeError, AttributeError, LookupError, ArithmeticError)  # that variables have
_OWN = frozenset(("messages", "tools", "documents", "add_generation_prompt"))


def read(root: Path) -> str:
    """Returns the Jinja2 source of a HF directory's chat template.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = root / "chat_template.jinja"
    if path.exists():
        return read_text(path)
    for file in ("chat_template.json", "tokenizer_config.json"):
        template = processor_files.read_json(root / file).get("chat_template")
        if isinstance(template, list):  # several named ones
            template = {t["name"]: t["template"] for t in template}.get("default")
        if isinstance(template, str):
            return template
        if template is not None:
            raise ValueError(f"{root}/{file}: no default chat template; write chat_template.jinja")
    raise ValueError(f"{root}/chat_template.jinja is missing; copy it from the model")


def read_text(path: Path) -> str:
    """Returns the text of a template's file.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8; copy the file again") from None


def special_tokens(root: Path) -> dict[str, str]:
    """Returns the named special tokens of tokenizer_config.json, such as eos_token."""
    config = processor_files.read_json(root / "tokenizer_config.json")
    extra = config.get("extra_special_tokens")
    named = {**(extra if isinstance(extra, dict) else {}), **config}
    tokens = {}
    for key, value in named.items():
        if isinstance(value, dict) and "content" in value:
            value = value["content"]
        if key.endswith("_token") and isinstance(value, str):
            tokens[key] = value
    return tokens


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    special: Mapping[str, str],
    variables: Mapping[str, Any],
) -> str:
    """Returns the turns in the model's own wording, ready for its answer.

    A key of a turn that holds None is left out: templates know a missing one, but not None.

    Args:
        source: of the template.
        messages: the turns.
        special: bos_token, eos_token, ... as the tokenizer names them.
        variables: further ones of the template.

    Raises:
        ValueError: the template fails.
    """
    messages = [{k: v for k, v in turn.items() if v is not None} for turn in messages]
    try:
        return compiled(source).render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **{**special, **variables},
        )
    except (jinja2.TemplateError, *_OF_VALUES) as e:
        raise ValueError(f"the chat template fails: {e}") from e


def start_of_answer(source: str, special: Mapping[str, str], variables: Mapping[str, Any]) -> str:
    """Returns what a prompt ends with, behind the user's text.

    Raises:
        ValueError: the template fails.
    """
    messages = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
    return render(source, messages, special, variables).rpartition(_PROBE)[2]


def choose_variables(root: Path, thinking: bool | None, given: str) -> dict[str, Any]:
    """Returns the variables to render a HF directory's chat template with.

    Args:
        root: the directory.
        thinking: what enable_thinking is set to, where the template has it; None: nothing.
        given: further variables as a JSON object; empty: none.

    Raises:
        ValueError: no JSON object, a variable that the template does not have or that is set twice,
            or reasoning that cannot be turned off.
    """
    return variables_of(read(root), special_tokens(root), root, thinking, given)


def variables_of(
    source: str, special: Mapping[str, str], root: Path, thinking: bool | None, given: str
) -> dict[str, Any]:
    """Returns what `choose_variables` does, of a template that is read already.

    Args:
        source: of the template.
        special: tokens of the model, see `special_tokens`.
        root: the directory that it is of, for errors.
        thinking: see there.
        given: likewise.

    Raises:
        ValueError: see there.
    """
    known = _known_variables(source) - special.keys()
    variables = _parse(given) if given else {}
    for name in variables:
        if name not in known:
            raise ValueError(
                f"data.template_variables: the chat template of {root} has no variable {name!r}; "
                f"it has {', '.join(sorted(known)) or 'none'}"
            )
    if thinking is None:
        return variables
    if SWITCH in variables:
        raise ValueError(
            f"data.template_variables: sets {SWITCH}, as data.thinking does; drop one of them"
        )
    if SWITCH in known:
        variables[SWITCH] = thinking
    if not thinking and think_block.is_left_open(start_of_answer(source, special, variables)):
        how = (
            f"opens a think block though {SWITCH} is false"
            if SWITCH in known
            else (f"always opens a think block and has no variable {SWITCH}")
        )
        raise ValueError(
            f"data.thinking is False, but the chat template of {root} {how}; leave it at None, or "
            "turn reasoning off by data.template_variables or in chat_template.jinja"
        )
    return variables


def _parse(given: str) -> dict[str, Any]:
    try:
        variables = json.loads(given)
    except ValueError as e:
        raise ValueError(f"data.template_variables: got {given!r}, no JSON ({e})") from None
    if not isinstance(variables, dict):
        raise ValueError(
            f"data.template_variables: got {given!r}; give a JSON object, e.g. "
            '\'{"reasoning_effort": "low"}\''
        )
    return variables


def _known_variables(source: str) -> set[str]:
    """Returns the variables that a template looks for, without those that it always has."""
    env = _environment()
    try:
        names = jinja2.meta.find_undeclared_variables(env.parse(source))
    except jinja2.TemplateError as e:
        raise ValueError(f"the chat template fails: {e}") from e
    return names - env.globals.keys() - _OWN


def literal_text(source: str) -> str:
    """Returns the texts that a template holds itself, apart by null characters.

    Raises:
        ValueError: it is no template.
    """
    try:
        tree = _environment().parse(source)
    except jinja2.TemplateError as e:
        raise ValueError(f"the chat template fails: {e}") from e
    texts = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
    texts += [n.value for n in tree.find_all(jinja2.nodes.Const) if isinstance(n.value, str)]
    return "\0".join(texts)


@functools.lru_cache(maxsize=32)
def compiled(source: str) -> jinja2.Template:
    """Returns a template from its source, as transformers compiles chat templates.

    Raises:
        jinja2.TemplateError: it is none.
    """
    return _environment().from_string(source)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = _to_json
    env.globals["raise_exception"] = _raise
    env.globals["strftime_now"] = _strftime_now
    return env


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
    """Returns JSON without the HTML escapes of Jinja2's own filter."""
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
