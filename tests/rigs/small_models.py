"""A small random model of each type with its processor, made and saved by transformers' classes."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf import load_torch
from repo import TINY

FAMILIES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5",
    "qwen3_5_moe": "Qwen3_5Moe",
}
# Not the published ones, so that none is a default; a patch of 14 pixels for all types.
GEOMETRY = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
STATISTICS = {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.25, 0.3]}
VIDEO_STATISTICS = {"image_mean": [0.5, 0.3, 0.4], "image_std": [0.3, 0.2, 0.25]}
_MEDIA = ("image_pad", "video_pad", "vision_start", "vision_end")
_FIELDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@dataclasses.dataclass(frozen=True)
class Made:
    """A model directory and transformers' objects that it was saved from."""

    path: Path
    model: Any
    processor: Any


def make_processor(family: str, *, videos: Mapping[str, Any] | None = None, **settings: Any) -> Any:
    """The family's processor over the tiny tokenizer.

    Args:
        family: model type.
        videos: settings of the video processor that differ.
        **settings: of the image and the video processor.
    """
    load_torch()
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    old = family in ("qwen2_vl", "qwen2_5_vl")
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}.get(family, "Qwen3VL")
    video = transformers.Qwen2VLVideoProcessor if old else transformers.Qwen3VLVideoProcessor
    return getattr(transformers, name + "Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=video(**settings | dict(videos or {})),
        chat_template=(TINY / "chat_template.jinja").read_text(),
    )


def make(family: str, path: Path, *, tied: bool = False) -> Made:
    """Writes the directory."""
    torch = load_torch()
    import transformers

    processor = make_processor(family, videos=VIDEO_STATISTICS, **GEOMETRY, **STATISTICS)
    ids = {
        field: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name, field in zip(_MEDIA, _FIELDS, strict=True)
    }
    text, vision = _sizes(family)
    text["vocab_size"] = len(processor.tokenizer) + 4  # padded, as the published ones are
    config = getattr(transformers, FAMILIES[family] + "Config")(
        text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, FAMILIES[family] + "ForConditionalGeneration")(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(0.1 * torch.randn(p.shape))
            else:
                wide = "embed_tokens" in name or "lm_head" in name
                p.copy_(torch.randn(p.shape) * (0.3 if wide else p.shape[-1] ** -0.5))
    model.eval().float().save_pretrained(path, max_shard_size="60KB")
    processor.save_pretrained(path)
    return Made(path, model, processor)


def _sizes(family: str) -> tuple[dict, dict]:
    """text_config and vision_config."""
    text = {
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }
    vision = {"depth": 2, "num_heads": 2, "patch_size": 14, "temporal_patch_size": 2}
    vision |= {"spatial_merge_size": 2, "hidden_size": 32, "intermediate_size": 40}
    turn = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    if family == "qwen2_vl":
        text["rope_parameters"] = turn
        return text, vision | {"embed_dim": 32, "hidden_size": 64}
    vision["out_hidden_size"] = 64
    if family == "qwen2_5_vl":
        text["rope_parameters"] = turn
        return text, vision | {"window_size": 56, "fullatt_block_indexes": [1]}
    vision["num_position_embeddings"] = 16
    text |= {"head_dim": 16, "rope_parameters": turn | {"mrope_interleaved": True}}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    if family.startswith("qwen3_vl"):
        vision["deepstack_visual_indexes"] = [0]
        return text | (experts if family.endswith("moe") else {}), vision
    text["rope_parameters"] |= {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    text |= {"layer_types": ["linear_attention", "full_attention"], "linear_conv_kernel_dim": 4}
    text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    if family.endswith("moe"):
        text |= experts | {"shared_expert_intermediate_size": 24}
    return text, vision
