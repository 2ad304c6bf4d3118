"""Arithmetic of a pass, for MFU and for planning; a multiply-add counts as two operations."""

from typing import Any

import numpy as np

from evr1.types import GroupBatch

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


def peak_flops(device_kind: str) -> float | None:
    """The device's peak, or None where it is not in the table (a CPU, say)."""
    matches = [k for k in PEAK_FLOPS if device_kind.startswith(k)]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None


def forward(config: Any, batch: GroupBatch, *, has_tower: bool = True) -> float:
    """Operations of one forward pass over a batch in the group layout, padding not counted.

    Args:
        config: sizes of the model.
        batch: host arrays; vision and prompt go through the network once for all completions.
        has_tower: the pass goes through the vision tower too.
    """
    prompts = np.asarray(batch.prompts.lengths, np.float64)  # [G]
    completions = batch.completion_mask.sum(axis=2).astype(np.float64)  # [G, N]
    frames = frame_patches(batch.prompts.vision.segment_ids)
    return (
        (vision_flops(config.vision, frames) if has_tower else 0)
        + text_flops(config, prompts.sum() + completions.sum(), pairs(prompts, completions))
        + 2 * config.width * config.vocab_size * completions.sum()
    )


def frame_patches(segment_ids: np.ndarray) -> np.ndarray:
    """Patches of every segment, float64; of int32[G, F, S] ids, where 0 is padding."""
    rows = segment_ids.reshape(-1, segment_ids.shape[-1])
    per_row = rows.max(initial=0) + 1
    keys = rows + per_row * np.arange(len(rows))[:, None]
    counts = np.bincount(keys.ravel(), minlength=per_row * len(rows)).reshape(len(rows), -1)[:, 1:]
    return counts[counts > 0].astype(np.float64)


def pairs(prompts: np.ndarray, completions: np.ndarray) -> float:
    """Query-key pairs of causal attention: within prompts [G], and from completions [G, N] to
    their prompt and to themselves."""
    own = (prompts**2).sum() / 2 + (completions**2).sum() / 2
    return float(own + (completions * prompts[:, None]).sum())


def text_flops(config: Any, tokens: float, attention_pairs: float) -> float:
    """Operations of the text layers."""
    q_and_o = 2 * config.heads * config.head_dim
    k_and_v = 2 * config.kv_heads * config.head_dim
    weights = config.width * (q_and_o + k_and_v + 3 * config.mlp_width)
    attention = 4 * config.heads * config.head_dim * attention_pairs
    return config.layers * (2.0 * weights * tokens + attention)


def vision_flops(vision: Any, frames: np.ndarray) -> float:
    """Operations of the vision tower.

    Args:
        vision: its sizes.
        frames: patches of each temporal patch or image; attention stays within one.
    """
    patches = frames.sum()
    block = vision.width * (4 * vision.width + 2 * vision.mlp_width)
    attention = 4 * vision.width * (frames**2).sum()
    merged = vision.width * vision.merge**2
    mergers = (len(vision.taps) + 1) * merged * (merged + vision.out_width) / vision.merge**2
    return vision.depth * (2.0 * block * patches + attention) + 2.0 * patches * (
        vision.width * vision.patch_values + mergers
    )
