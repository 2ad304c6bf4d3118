"""Arithmetic of a step, for MFU and for planning: multiply-adds counted as two operations."""

import dataclasses

# Peak dense bf16 operations a second of one device, by jax's `device_kind`; public data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the arithmetic depends on, taken from a model's config.

    `vision_params` and `text_params` count the weights of the matrix products of all layers (biases
    and norms left out); `head_params` those of the output head.
    """

    vision_params: int
    vision_layers: int
    vision_width: int
    text_params: int
    text_layers: int
    attention_width: int  # heads * head_dim
    head_params: int


def forward_flops(
    sizes: Sizes,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    completion_tokens_sq: int,
    cross_tokens: int,
    prompt_tokens_sq: int,
    patches: int,
    frame_patches_sq: int,
) -> float:
    """Operations of one forward pass over prompts worked on once and their completions.

    Args:
        sizes: of the model.
        prompt_tokens: over all prompts.
        completion_tokens: over all completions.
        completion_tokens_sq: sum of squared completion lengths.
        cross_tokens: sum over completions of completion length times prompt length.
        prompt_tokens_sq: sum of squared prompt lengths.
        patches: over all media.
        frame_patches_sq: sum over temporal patches of their squared number of patches.
    """
    tokens = prompt_tokens + completion_tokens
    linear = 2.0 * (
        sizes.text_params * tokens
        + sizes.head_params * completion_tokens
        + sizes.vision_params * patches
    )
    causal = prompt_tokens_sq / 2 + completion_tokens_sq / 2 + cross_tokens
    text_attention = 4.0 * sizes.text_layers * sizes.attention_width * causal
    vision_attention = 4.0 * sizes.vision_layers * sizes.vision_width * frame_patches_sq
    return linear + text_attention + vision_attention


def peak_flops(device_kind: str) -> float | None:
    """The device's peak, or None where it is not in the table (a CPU, say)."""
    matches = [k for k in PEAK_FLOPS if device_kind.startswith(k)]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None
