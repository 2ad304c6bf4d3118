"""The vision tower of Qwen2-VL and of Qwen2.5-VL.

Patches of one frame or image attend to each other, in Qwen2.5-VL mostly to those of their window
only; four neighbours merge into one token.

Source: Qwen2VisionTransformerPretrainedModel, Qwen2_5_VisionTransformerPretrainedModel,
    transformers 5.24.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from evr1.formats.processor_files import Statistics
from evr1.models.config import VisionConfig
from evr1.models.fields import rotary
from evr1.models.nn import layers, rope
from evr1.models.nn.attention import attention
from evr1.models.nn.layout import Layout, segments
from evr1.models.nn.remat import checkpointed
from evr1.models.weights import Weight, linear, norm
from evr1.parallel.sharding import constrain
from evr1.types import Params, VisionInput, Visual

_EPS = 1e-6  # of every norm in the tower; not a config field

# What OpenAI's CLIP normalizes pixels by; the checkpoints were trained with it.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def common_fields(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the fields of a vision_config that Qwen2-VL and Qwen2.5-VL have alike."""
    patch, time = hf.get("patch_size", 14), hf.get("temporal_patch_size", 2)
    shape = (hf.get("in_channels", hf.get("in_chans", 3)), time, patch, patch)
    return {
        "depth": hf.get("depth", 32),
        "heads": hf.get("num_heads", 16),
        "patch_values": int(np.prod(shape)),
        "patch_shape": shape,
        "merge": hf.get("spatial_merge_size", 2),
        "rope_theta": rotary(hf, "vision_config", "axial")["rope_theta"],
        "pixels": Statistics.read(hf, mean=PIXEL_MEAN, std=PIXEL_STD),
        "init_scale": hf.get("initializer_range", 0.02),
    }


def _norm(c: VisionConfig, rngs: nnx.Rngs) -> nnx.Module:
    return (layers.RMSNorm if c.is_gated else layers.LayerNorm)(c.width, _EPS, rngs=rngs)


class Block(nnx.Module):
    """A pre-norm transformer block; q, k and v are one kernel [D, 3, D]."""

    def __init__(self, c: VisionConfig, *, rngs: nnx.Rngs):
        opts = {"scale": c.init_scale, "bias": True, "rngs": rngs}
        self.norm1 = _norm(c, rngs)
        self.qkv = layers.Linear(c.width, 3, c.width, **opts)
        self.proj = layers.Linear(c.width, c.width, **opts)
        self.norm2 = _norm(c, rngs)
        self.gate = layers.Linear(c.width, c.mlp_width, **opts) if c.is_gated else None
        self.fc1 = layers.Linear(c.width, c.mlp_width, **opts)
        self.fc2 = layers.Linear(c.mlp_width, c.width, **opts)
        self.heads = c.heads

    def __call__(self, x, angles, layout: Layout, implementation: str):
        b, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, d // self.heads)
        q, k = (rope.rotate(qkv[:, :, i], *angles) for i in (0, 1))
        out = attention(q, k, qkv[:, :, 2], layout, implementation)
        x = x + self.proj(out.reshape(b, s, d))
        y = self.norm2(x)
        up = self.fc1(y)
        hidden = layers.quick_gelu(up) if self.gate is None else layers.silu(self.gate(y)) * up
        return constrain(x + self.fc2(hidden), "frames")


class Merger(nnx.Module):
    """merge**2 neighbouring patches to one token of the text model's width."""

    def __init__(self, c: VisionConfig, *, rngs: nnx.Rngs):
        self.merged = c.width * c.merge**2
        opts = {"scale": c.init_scale, "bias": True, "rngs": rngs}
        self.norm = _norm(c, rngs)
        self.fc1 = layers.Linear(self.merged, self.merged, **opts)
        self.fc2 = layers.Linear(self.merged, c.out_width, **opts)

    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b t o"]:
        x = self.norm(x).reshape(x.shape[0], -1, self.merged)
        return self.fc2(layers.gelu(self.fc1(x)))


class Embed(nnx.Module):
    """Pixels to patch vectors."""

    def __init__(self, c: VisionConfig, *, rngs: nnx.Rngs):
        self.patch = layers.Linear(
            c.patch_values, c.width, scale=c.init_scale, bias=False, rngs=rngs
        )
        self.pixels = c.pixels

    def __call__(self, vision: VisionInput, dtype: jnp.dtype) -> Float[Array, "b s d"]:
        return self.patch(layers.normalized(vision, self.pixels, dtype))


def windows(
    segment_ids: Int[Array, "b s"], positions: Int[Array, "b s 2"], window: int
) -> Int[Array, "b s"]:
    """Returns an id for every attention window of a frame; padding has 0.

    Two patches share one where segment, row // window and column // window are equal. transformers
    reorders the patches so that a window is a run of them; a mask over ids attends alike.

    A frame of 2 x 6 patches with windows of 4: columns 0 to 3 are one window, 4 and 5 another.

    Args:
        segment_ids: of VisionInput.
        positions: of VisionInput.
        window: patches on a side.
    """
    cell = positions // window
    side = cell.max() + 1  # a fixed one would be too small for a panorama, or overflow
    return (segment_ids * side + cell[..., 0]) * side + cell[..., 1]


def init(c: VisionConfig, key: jax.Array) -> Params:
    """Returns random parameters of the tower."""
    keys = jax.random.split(key, 3)
    return {
        "embed": layers.init(Embed, c, key=keys[0]),
        "blocks": layers.init_stack(Block, c, key=keys[1], count=c.depth),
        "merger": layers.init(Merger, c, key=keys[2]),
    }


def encode(
    c: VisionConfig,
    params: Params,
    vision: VisionInput,
    *,
    dtype: jnp.dtype,
    remat: str,
    implementation: str,
) -> Visual:
    """Returns the visual tokens of G prompts, F * S / merge**2 each.

    Args:
        c: sizes.
        params: of the tower.
        vision: the packed patches.
        dtype: of the computation.
        remat: what a block keeps for the backward pass, see nn.remat.
        implementation: of attention.
    """
    g, f, s = vision.segment_ids.shape
    tokens = f * s // c.merge**2
    deepstack = jnp.zeros((g, 0, tokens, c.out_width), dtype)
    if f == 0:
        return Visual(jnp.zeros((g, 0, c.out_width), dtype), deepstack)
    vision = VisionInput(*(x.reshape(g * f, *x.shape[2:]) for x in vision))
    angles = rope.axial(vision.positions, rope.frequencies(c.width // c.heads // 2, c.rope_theta))
    frames = vision.segment_ids
    local = windows(frames, vision.positions, c.window) if c.window else frames
    is_full = np.isin(np.arange(c.depth), c.full_blocks)

    def body(x, block):
        is_full, weights = block
        layout = segments(jnp.where(is_full, frames, local), causal=False)
        return layers.bind(Block, c, params=weights)(x, angles, layout, implementation), None

    body = checkpointed(body, remat)
    x = layers.bind(Embed, c, params=params["embed"])(vision, dtype)
    x, _ = jax.lax.scan(body, x, (jnp.asarray(is_full), params["blocks"]))
    embeds = layers.bind(Merger, c, params=params["merger"])(x)
    return Visual(embeds.reshape(g, tokens, c.out_width), deepstack)


def weights(c: VisionConfig) -> tuple[Weight, ...]:
    """Returns one entry a HF tensor, or one a tensor of all blocks, named as on the hub."""
    hf_block, block = "visual.blocks.{}.", "vision/blocks/"
    inner = (("gate_proj", "gate"), ("up_proj", "fc1")) if c.is_gated else (("fc1", "fc1"),)
    up = ("embed", "mlp")
    outer = "down_proj" if c.is_gated else "fc2"
    count = 1 if c.is_gated else 2  # an RMS norm has no bias
    return (
        Weight(
            "visual.patch_embed.proj.weight",
            "vision/embed/patch/kernel",
            "matrix",
            (None, "embed"),
            is_kernel=True,
            shape=(c.width, *c.patch_shape),
        ),
        *norm(hf_block + "norm1", block + "norm1")[:count],
        *norm(hf_block + "norm2", block + "norm2")[:count],
        Weight(
            hf_block + "attn.qkv.weight",
            block + "qkv/kernel",
            "matrix",
            ("embed", None, "heads"),
            is_kernel=True,
        ),
        Weight(
            hf_block + "attn.qkv.bias",
            block + "qkv/bias",
            "bias",
            (None, "heads"),
            shape=(3 * c.width,),
        ),
        *linear(hf_block + "attn.proj", block + "proj", "heads", "embed"),
        *(w for hf, path in inner for w in linear(f"{hf_block}mlp.{hf}", block + path, *up)),
        *linear(f"{hf_block}mlp.{outer}", block + "fc2", "mlp", "embed"),
        *norm("visual.merger.ln_q", "vision/merger/norm")[:count],
        *linear("visual.merger.mlp.0", "vision/merger/fc1", "embed", "mlp"),
        *linear("visual.merger.mlp.2", "vision/merger/fc2", "mlp", "embed"),
    )
