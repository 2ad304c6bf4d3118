"""Reads the fields of a config.json, and refuses in one line what evr1 does not do."""

from collections.abc import Mapping, Sequence
from typing import Any

from evr1.models.config import ModelConfig


def section(hf: Mapping[str, Any], name: str, sizes: Sequence[str]) -> Mapping[str, Any]:
    """Returns the object `name` of a config.json, its sizes checked.

    Raises:
        ValueError: it is no object, or a size is no size.
    """
    fields = hf.get(name) or {}
    if not isinstance(fields, Mapping):
        raise ValueError(f"config.json: {name} is no object; copy the file again")
    for size in sizes:
        got = fields.get(size, 1)
        if not isinstance(got, int) or isinstance(got, bool) or got < 1:
            raise ValueError(f"config.json: {name}.{size}={got!r}; give a whole number over 0")
    return fields


def require(field: str, got: str, *known: str) -> None:
    """Refuses a value that is none of `known`.

    Raises:
        ValueError: names the field and what it may be.
    """
    if got not in known:
        raise ValueError(f"config.json: {field}={got!r} is not supported; use {' or '.join(known)}")


def indices(hf: Mapping[str, Any], name: str, default: Sequence[int]) -> tuple[int, ...]:
    """Returns the layers that the field `name` of a section lists.

    Raises:
        ValueError: it is no list of whole numbers.
    """
    numbers = hf.get(name, default)
    if not isinstance(numbers, list | tuple) or not all(type(i) is int for i in numbers):
        raise ValueError(f"config.json: {name}={numbers!r}; give a list of layer numbers")
    return tuple(numbers)


def rotary(hf: Mapping[str, Any], name: str, *kinds: str, theta: float = 10000.0) -> dict[str, Any]:
    """Returns the rotary parameters of a section, as transformers reads them.

    The older rope_scaling goes before rope_parameters, all of it; rope_theta may stand beside them.

    Args:
        hf: the section.
        name: of the section.
        *kinds: rope types that mean the same as default.
        theta: transformers' default.

    Raises:
        ValueError: another rope type, or a rope_theta that is no number over 0.
    """
    scaling = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(scaling, Mapping):
        raise ValueError(f"config.json: {name}.rope_parameters is no object; copy the file again")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    require(f"{name}: rope type", kind, "default", *(kinds or ("mrope",)))
    base = scaling.get("rope_theta", hf.get("rope_theta", theta))
    _check_number(f"{name}.rope_theta", base)
    return {**scaling, "rope_theta": float(base)}


def rope_sections(turn: Mapping[str, Any], default: Sequence[int]) -> tuple[int, int, int]:
    """Returns how many frequencies each of the three axes turns.

    Args:
        turn: what `rotary` returns.
        default: transformers' default.

    Raises:
        ValueError: mrope_section is no list of three whole numbers.
    """
    got = turn.get("mrope_section", default)
    is_list = isinstance(got, list | tuple) and len(got) == 3
    if not is_list or not all(type(n) is int and n >= 0 for n in got):
        raise ValueError(
            f"config.json: mrope_section={got!r}; give a whole number for each of three axes"
        )
    t, h, w = got
    return t, h, w


def norm_eps(text: Mapping[str, Any], default: float) -> float:
    """Returns what is added to the mean square in a norm.

    Args:
        text: the section of the text model.
        default: transformers' default.

    Raises:
        ValueError: rms_norm_eps is no number over 0.
    """
    got = text.get("rms_norm_eps", default)
    _check_number("text_config.rms_norm_eps", got)
    return got


def _check_number(field: str, got: Any) -> None:
    if type(got) not in (int, float) or not got > 0:
        raise ValueError(f"config.json: {field}={got!r}; give a number over 0")


def check(c: ModelConfig) -> None:
    """Refuses sizes that do not fit together.

    Args:
        c: of any family.

    Raises:
        ValueError: names the fields.
    """
    v = c.vision
    if type(c.kv_heads) is not int or c.kv_heads < 1 or c.heads % c.kv_heads:
        raise ValueError(
            f"config.json: text_config.num_key_value_heads={c.kv_heads!r} does not divide"
            f" num_attention_heads={c.heads}; give a divisor"
        )
    if c.head_dim % 2 or v.width % (4 * v.heads):
        raise ValueError(
            f"config.json: heads of {c.head_dim} channels in text_config and {v.width}/{v.heads} in"
            " vision_config cannot be turned; give a multiple of 2 and of 4"
        )
    if v.patch_shape[0] != 3:
        raise ValueError(
            f"config.json: vision_config.in_channels={v.patch_shape[0]} is not supported; images"
            " have 3"
        )
    if v.out_width != c.width:
        raise ValueError(
            f"config.json: the vision tower gives {v.out_width} channels (vision_config"
            f".out_hidden_size, in Qwen2-VL hidden_size) to a text model of {c.width}"
            " (text_config.hidden_size); make them equal"
        )
