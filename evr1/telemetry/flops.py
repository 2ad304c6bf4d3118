"""Arithmetic of a pass, for MFU and for planning; a multiply-add counts as two operations."""

import functools
import math

import numpy as np

from evr1.models import Model
from evr1.models.lora import LoraModel
from evr1.models.tree import flatten
from evr1.models.weights import Role
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
    """The device's peak, operations a second; None where it is not in the table (a CPU, say)."""
    matches = [k for k in PEAK_FLOPS if device_kind.startswith(k)]
    return PEAK_FLOPS[max(matches, key=len)] if matches else None


def forward(model: Model, batch: GroupBatch, *, has_tower: bool = True) -> float:
    """Operations of a forward pass over a batch in the group layout, padding not counted.

    Of the last layer those too that are spared for the prompt's tokens, but for keys and values.

    Args:
        model: the network.
        batch: host arrays; vision and prompt go through the network once for all completions.
        has_tower: the pass goes through the vision tower too.
    """
    is_padding = np.asarray(batch.groups) < 0
    prompts = np.where(is_padding, 0.0, batch.prompts.lengths)  # [G]
    completions = batch.completion_mask.sum(axis=2).astype(np.float64)  # [G, N]
    frames = frame_patches(batch.prompts.vision.segment_ids)
    return (
        (vision_flops(model, frames) if has_tower else 0)
        + text_flops(model, prompts.sum() + completions.sum(), pairs(prompts, completions))
        + 2 * model.config.width * model.config.vocab_size * completions.sum()
    )


def update(model: Model, batch: GroupBatch, *, has_tower: bool = True) -> float:
    """Operations of a pass of an update over a batch, forward and backward.

    Nothing is counted twice where activations are recomputed, and nothing for the products of the
    adapters themselves, which are small.

    Args:
        model: the network that is trained.
        batch: host arrays.
        has_tower: the pass goes through the vision tower too.
    """
    # The backward pass has two products for one of the forward pass; adapters need one of them.
    passes = 2 if isinstance(model, LoraModel) else 3
    return passes * forward(model, batch, has_tower=has_tower)


def frame_patches(segment_ids: np.ndarray) -> np.ndarray:
    """Returns the patches of every segment, as float64.

    Args:
        segment_ids: int32[G, F, S], 0 is padding.
    """
    rows = segment_ids.reshape(-1, segment_ids.shape[-1])
    per_row = rows.max(initial=0) + 1
    keys = rows + per_row * np.arange(len(rows))[:, None]
    counts = np.bincount(keys.ravel(), minlength=per_row * len(rows)).reshape(len(rows), -1)[:, 1:]
    return counts[counts > 0].astype(np.float64)


def pairs(prompts: np.ndarray, completions: np.ndarray) -> float:
    """Counts the query-key pairs of causal attention.

    Args:
        prompts: tokens of each, [G]; of the pairs inside, half are seen.
        completions: tokens of each, [G, N]; they see half of their own pairs and all of the prompt.
    """
    own = (prompts**2).sum() / 2 + (completions**2).sum() / 2
    return float(own + (completions * prompts[:, None]).sum())


def text_flops(model: Model, tokens: float, attention_pairs: float) -> float:
    """Operations of the text layers; of the experts, those that a token is routed to."""
    c = model.config
    attention = 4 * c.heads * c.head_dim * c.attention_layers
    return (2 * token_weights(model) + c.state_flops) * tokens + attention * attention_pairs


def vision_flops(model: Model, frames: np.ndarray) -> float:
    """Operations of the vision tower.

    Args:
        model: the network.
        frames: patches of each temporal patch or image; attention stays within one.
    """
    c, patches = model.config.vision, frames.sum()
    full = len(c.full_blocks) if c.window else c.depth
    seen = full * (frames**2).sum() + (c.depth - full) * patches * c.window**2
    return 2 * patch_weights(model) * patches + 4 * c.width * seen


@functools.lru_cache
def token_weights(model: Model) -> float:
    """Multiply-adds of a text token with the weights of all layers."""
    total = 0.0
    for path, role, shape in _parameters(model):
        if not path.startswith(("text/layers/", "text/blocks/")):
            continue
        if role in ("matrix", "router"):
            total += math.prod(shape)
        elif role == "experts":
            total += math.prod(shape) * model.config.routed_share
    return total


@functools.lru_cache
def patch_weights(model: Model) -> float:
    """Multiply-adds of a patch with the weights of the tower; mergers see merge**2 at once."""
    total = 0.0
    for path, role, shape in _parameters(model):
        if path.startswith("vision/") and role == "matrix":
            is_merger = path.startswith(("vision/merger/", "vision/deepstack/"))
            total += math.prod(shape) / (model.config.vision.merge**2 if is_merger else 1)
    return total


def _parameters(model: Model) -> list[tuple[str, Role, tuple[int, ...]]]:
    """Path, role and shape of every parameter, adapters left out."""
    roles, shapes = model.roles(), flatten(model.abstract_params())
    return [(path, roles[path], x.shape) for path, x in shapes.items() if path in roles]
