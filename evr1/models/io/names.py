"""The names under which checkpoints keep a model's tensors, and tensors that are no part of it.

transformers reads several layouts: that of the hub, that of its own modules, a base model without
its head, and what trainers save with one prefix too many. All are brought to the names of its
modules, and so are those of the weight map; tensors with the same name there are the same.

Source: transformers 5.24, conversion_mapping (`Qwen2VLForConditionalGeneration`, `qwen3_5_text`,
the legacy ones) and core_model_loading (`rename_source_key`).
"""

import functools
import re
import sys
from collections.abc import Collection, Iterable
from typing import NamedTuple

from evr1.formats.words import counted
from evr1.models.weights import Weight
from evr1.parallel import hosts

HEAD = "lm_head.weight"
Renamings = tuple[tuple[str, str], ...]  # (pattern, replacement), applied one after another

# Qwen2-VL and Qwen2.5-VL: the hub's names do not say which half of the model they are in.
_HUB = (
    (r"^visual(?!\w)", "model.visual"),
    (r"^model(?!\.(language_model|visual))(?!\w)", "model.language_model"),
)
_TEXT = "model.language_model"
_NESTED = ((r"^((model\.)?language_model)\.model\.language_model\.", r"\1.model."),)  # of Qwen3.5
_DOUBLED = (r"^(model\.language_model\.model|language_model\.model\.model)(?!\w)", _TEXT)

# Buffers that older versions saved, and heads that trainers put beside a language model.
_BUFFER = re.compile(r"(.*\.)?((original_)?inv_freq|position_ids|masked_bias|attn\.bias)")
_OTHER_HEAD = re.compile(
    r"((pretrained_model|module|model|base_model)\.)*"
    r"(v|value|values|critic|reward|score|rm|rank|regression|classification|cls)"
    r"(_?(head|model|proj|projection|layer|out|output|predictor))?s?(\..+)?"
)


# What wraps a module while it is trained, and stays in the names where the wrapper was saved.
_WRAPPER = re.compile(r"(?:^module|(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module))\.")


class Names(NamedTuple):
    """A checkpoint's tensors by what they are.

    Attributes:
        stored: name in the weight map, or of a tensor fused there -> name in the checkpoint.
        strays: names of buffers and of heads of other kinds, which transformers leaves out too.
        unknown: names of all others.
    """

    stored: dict[str, str]
    strays: list[str]
    unknown: list[str]


def find(weights: Collection[Weight], expected: Iterable[str], names: Iterable[str]) -> Names:
    """Returns what a checkpoint's tensors are.

    Args:
        weights: of the model.
        expected: the names that its weight map has.
        names: in the checkpoint.

    Raises:
        ValueError: two tensors are the same parameter, or names hold what wrapped the model.
    """
    rules, expected = renamings(weights), list(expected)
    modules = {module(name, rules): name for name in [*expected, HEAD]}
    found = Names({}, [], [])
    for name in names:
        known = name if name in modules.values() else modules.get(_place(name, modules, rules))
        if known is None:
            is_stray = _BUFFER.fullmatch(name) or _OTHER_HEAD.fullmatch(name)
            (found.strays if is_stray else found.unknown).append(name)
        elif known in found.stored:
            raise ValueError(
                f"{found.stored[known]} and {name} are the same parameter; remove one of the two"
            )
        else:
            found.stored[known] = name
    wrapped = [name for name in found.unknown if _WRAPPER.search(name)]
    if wrapped:
        wrapper = _WRAPPER.findall(wrapped[0])[0]
        raise ValueError(
            f"{counted(len(wrapped), 'tensor')} with {wrapper} in the name, such as {wrapped[0]}: "
            "a wrapper of the model was saved, which transformers does not read either; save the "
            f"model inside it, or take {wrapper} out of the names"
        )
    return found


def _place(name: str, modules: Collection[str], rules: Renamings) -> str:
    """Returns the transformers name of a tensor, its base model's prefix put on or taken off."""
    name = module(name, rules)
    if name.startswith("model.") and name.removeprefix("model.") in modules:
        return name.removeprefix("model.")
    return f"model.{name}" if f"model.{name}" in modules else name


def renamings(weights: Collection[Weight]) -> Renamings:
    """Returns how names of a family's checkpoints become those of transformers' modules."""
    if not any(w.name.startswith(_TEXT + ".") for w in weights):
        return (*_HUB, _DOUBLED)
    return (*(_NESTED if any(".linear_attn." in w.name for w in weights) else ()), _DOUBLED)


def module(name: str, rules: Renamings) -> str:
    """Returns the transformers 5 name of a tensor.

    >>> module("model.layers.0.mlp.up_proj.weight", (*_HUB, _DOUBLED))
    'model.language_model.layers.0.mlp.up_proj.weight'
    """
    for pattern, there in rules:
        name = re.sub(pattern, there, name)
    return name


@functools.cache
def warn(where: str, strays: tuple[str, ...]) -> None:
    """Says, once, which tensors are left out."""
    if strays and hosts.is_primary():
        more = f" and {len(strays) - 6} more" if len(strays) > 6 else ""
        names = ", ".join(strays[:6]) + more
        print(f"{where}: left out, no part of the model: {names}", file=sys.stderr)
