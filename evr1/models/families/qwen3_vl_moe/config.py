"""Sizes of a Qwen3-VL mixture-of-experts model, read from a HF config.json."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evr1.models.decoder.config import Config, parse_qwen3
from evr1.models.fields import indices
from evr1.models.nn.experts import ExpertsConfig
from evr1.models.towers import qwen3

# transformers' defaults, where they are not those of the dense family.
_DEFAULTS = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "decoder_sparse_step": 1,
}


def parse(hf: Mapping[str, Any]) -> Config:
    """Reads the sizes in a config.json; a field that is missing has transformers' default.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    fields = hf.get("text_config") or {}
    if not isinstance(fields, Mapping):
        raise ValueError("config.json: text_config is no object; copy the file again")
    text: dict[str, Any] = _DEFAULTS | {k: v for k, v in fields.items() if v is not None}
    if "num_experts" not in fields and "num_local_experts" in fields:
        text["num_experts"] = fields["num_local_experts"]  # how transformers 5 writes it
    for name in _DEFAULTS:
        got, least = text[name], 0 if name == "num_experts" else 1
        if not isinstance(got, int) or isinstance(got, bool) or got < least:
            raise ValueError(
                f"config.json: text_config.{name}={got!r}; give a whole number from {least}"
            )
    text.setdefault("head_dim", text["hidden_size"] // text["num_attention_heads"])
    if text["num_experts"] and text["num_experts_per_tok"] > text["num_experts"]:
        raise ValueError(
            f"config.json: text_config.num_experts_per_tok={text['num_experts_per_tok']} is over"
            f" num_experts={text['num_experts']}; lower it"
        )
    only_dense, step = indices(text, "mlp_only_layers", ()), text["decoder_sparse_step"]
    sparse = tuple(
        i
        for i in range(text["num_hidden_layers"])
        if text["num_experts"] and i not in only_dense and (i + 1) % step == 0
    )
    sizes = parse_qwen3({**hf, "text_config": text}, qwen3.parse(hf))
    if not sparse:
        return sizes
    experts = ExpertsConfig(
        count=text["num_experts"],
        per_token=text["num_experts_per_tok"],
        mlp_width=text["moe_intermediate_size"],
        is_joined=True,
    )
    return dataclasses.replace(
        sizes, experts=experts, sparse_layers=sparse, is_swapped=_is_swapped(hf)
    )


def _is_swapped(hf: Mapping[str, Any]) -> bool:
    """Returns whether the files keep expert kernels [E, out, in], as transformers 5 does.

    The published checkpoints, and transformers 4, have [E, in, out].
    """
    major = str(hf.get("transformers_version") or "").partition(".")[0]
    return major.isdigit() and int(major) >= 5
