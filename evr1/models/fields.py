"""Reading the fields of a config.json: what evr1 does not do is refused in one line."""

from collections.abc import Mapping, Sequence
from typing import Any


def section(hf: Mapping[str, Any], name: str, sizes: Sequence[str]) -> Mapping[str, Any]:
    """The object `name` of a config.json, its sizes checked.

    Raises:
        ValueError: it is no object, or a size is no size.
    """
    found = hf.get(name) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"config.json: {name} is no object; copy the file again")
    for size in sizes:
        got = found.get(size, 1)
        if not isinstance(got, int) or isinstance(got, bool) or got < 1:
            raise ValueError(f"config.json: {name}.{size}={got!r}; give a whole number over 0")
    return found


def require(field: str, got: str, *known: str) -> None:
    """Refuses a value that is none of `known`.

    Raises:
        ValueError: names the field and what it may be.
    """
    if got not in known:
        raise ValueError(f"config.json: {field}={got!r} is not supported; use {' or '.join(known)}")


def indices(hf: Mapping[str, Any], name: str, default: Sequence[int]) -> tuple[int, ...]:
    """The layers that the field `name` of a section lists.

    Raises:
        ValueError: it is no list of whole numbers.
    """
    found = hf.get(name, default)
    if not isinstance(found, list | tuple) or not all(type(i) is int for i in found):
        raise ValueError(f"config.json: {name}={found!r}; give a list of layer numbers")
    return tuple(found)


def rotary(hf: Mapping[str, Any], name: str, *kinds: str, theta: float = 10000.0) -> dict[str, Any]:
    """The rotary parameters of a section, as transformers reads them.

    The older rope_scaling goes before rope_parameters, all of it; rope_theta may stand beside them.

    Args:
        hf: the section.
        name: of the section.
        *kinds: rope types that mean the same as default.
        theta: transformers' default.

    Raises:
        ValueError: another rope type, or a rope_theta that is no number over 0.
    """
    found = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"config.json: {name}.rope_parameters is no object; copy the file again")
    kind = found.get("rope_type", found.get("type", "default"))
    require(f"{name}: rope type", kind, "default", *(kinds or ("mrope",)))
    base = found.get("rope_theta", hf.get("rope_theta", theta))
    _check_number(f"{name}.rope_theta", base)
    return {**found, "rope_theta": float(base)}


def _check_number(field: str, got: Any) -> None:
    if type(got) not in (int, float) or not got > 0:
        raise ValueError(f"config.json: {field}={got!r}; give a number over 0")


def check(c: Any) -> None:
    """Refuses sizes that do not fit together.

    Args:
        c: Config of any family.

    Raises:
        ValueError: names the fields.
    """
    _check_number("text_config.rms_norm_eps", c.norm_eps)
    v, sections = c.vision, c.rope_sections
    if type(c.kv_heads) is not int or c.kv_heads < 1 or c.heads % c.kv_heads:
        raise ValueError(
            f"config.json: text_config.num_key_value_heads={c.kv_heads!r} does not divide"
            f" num_attention_heads={c.heads}; give a divisor"
        )
    if len(sections) != 3 or not all(type(n) is int and n >= 0 for n in sections):
        raise ValueError(
            f"config.json: mrope_section={list(sections)}; give a whole number for each of three"
            " axes"
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
