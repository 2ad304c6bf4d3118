"""The vision tower of Qwen3-VL, which Qwen3.5 has too, without DeepStack.

Patches of one frame or image attend to each other; four neighbours merge into one token.

Source: Qwen3VLVisionModel, transformers 5.24.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from evr1.formats.processor_files import Statistics
from evr1.models.config import VisionConfig
from evr1.models.fields import indices, require, rotary, section
from evr1.models.nn import layers, rope
from evr1.models.nn.attention import attention
from evr1.models.nn.layout import Layout, segments
from evr1.models.nn.remat import checkpointed
from evr1.models.weights import Weight, linear, norm
from evr1.parallel.sharding import constrain
from evr1.types import Params, VisionInput, Visual

_EPS = 1e-6  # of every layer norm in the tower; not a config field
_GELU = "gelu_pytorch_tanh"
_SIZES = ("depth", "hidden_size", "intermediate_size", "num_heads", "patch_size", "in_channels")
_SIZES += ("temporal_patch_size", "spatial_merge_size", "out_hidden_size")
_SIZES += ("num_position_embeddings",)


def parse(hf: Mapping[str, Any], *, has_taps: bool = True) -> VisionConfig:
    """Reads the tower's sizes in a config.json; a missing field has transformers' default.

    Args:
        hf: the config.json.
        has_taps: the model has DeepStack.

    Raises:
        ValueError: a size is no size, or the config asks for something that this implementation
            does not do.
    """
    vision = section(hf, "vision_config", _SIZES)
    require("vision_config.hidden_act", vision.get("hidden_act", _GELU), _GELU)
    patch, time = vision.get("patch_size", 16), vision.get("temporal_patch_size", 2)
    shape = (vision.get("in_channels", 3), time, patch, patch)
    depth = vision.get("depth", 27)
    taps = indices(vision, "deepstack_visual_indexes", (8, 16, 24)) if has_taps else ()
    if len(set(taps)) < len(taps) or not set(taps) <= set(range(depth)):
        raise ValueError(
            f"config.json: vision_config.deepstack_visual_indexes={list(taps)}; give distinct"
            f" blocks from 0 to {depth - 1}"
        )
    return VisionConfig(
        depth=depth,
        width=vision.get("hidden_size", 1152),
        mlp_width=vision.get("intermediate_size", 4304),
        heads=vision.get("num_heads", 16),
        patch_values=int(np.prod(shape)),
        patch_shape=shape,
        merge=vision.get("spatial_merge_size", 2),
        out_width=vision.get("out_hidden_size", 3584),
        table=vision.get("num_position_embeddings", 2304),
        rope_theta=rotary(vision, "vision_config", "axial")["rope_theta"],
        taps=taps,
        pixels=Statistics.read(vision, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        init_scale=vision.get("initializer_range", 0.02),
    )


class Block(nnx.Module):
    """A pre-norm transformer block; q, k and v are one kernel [D, 3, D]."""

    def __init__(self, c: VisionConfig, *, rngs: nnx.Rngs):
        opts = {"scale": c.init_scale, "bias": True, "rngs": rngs}
        self.norm1 = layers.LayerNorm(c.width, _EPS, rngs=rngs)
        self.qkv = layers.Linear(c.width, 3, c.width, **opts)
        self.proj = layers.Linear(c.width, c.width, **opts)
        self.norm2 = layers.LayerNorm(c.width, _EPS, rngs=rngs)
        self.fc1 = layers.Linear(c.width, c.mlp_width, **opts)
        self.fc2 = layers.Linear(c.mlp_width, c.width, **opts)
        self.heads = c.heads

    def __call__(self, x, angles, layout: Layout, implementation: str):
        b, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, d // self.heads)
        q, k = (rope.rotate(qkv[:, :, i], *angles) for i in (0, 1))
        out = attention(q, k, qkv[:, :, 2], layout, implementation)
        x = x + self.proj(out.reshape(b, s, d))
        x = x + self.fc2(layers.gelu_tanh(self.fc1(self.norm2(x))))
        return constrain(x, "frames")


class Merger(nnx.Module):
    """merge**2 neighbouring patches to one token of the text model's width."""

    def __init__(self, c: VisionConfig, norm_merged: bool, *, rngs: nnx.Rngs):
        merged = c.width * c.merge**2
        opts = {"scale": c.init_scale, "bias": True, "rngs": rngs}
        self.norm = layers.LayerNorm(merged if norm_merged else c.width, _EPS, rngs=rngs)
        self.fc1 = layers.Linear(merged, merged, **opts)
        self.fc2 = layers.Linear(merged, c.out_width, **opts)
        self.merged, self.norm_merged = merged, norm_merged

    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b t o"]:
        if not self.norm_merged:
            x = self.norm(x)
        x = x.reshape(x.shape[0], -1, self.merged)
        if self.norm_merged:
            x = self.norm(x)
        return self.fc2(layers.gelu(self.fc1(x)))


class Embed(nnx.Module):
    """Pixels to patch vectors, plus the learned position table read bilinearly."""

    def __init__(self, c: VisionConfig, *, rngs: nnx.Rngs):
        self.patch = layers.Linear(
            c.patch_values, c.width, scale=c.init_scale, bias=True, rngs=rngs
        )
        table = c.init_scale * jax.random.normal(rngs.params(), (c.table, c.width), jnp.float32)
        self.table = nnx.Param(table)
        self.pixels = c.pixels

    def __call__(self, vision: VisionInput, dtype: jnp.dtype) -> Float[Array, "b s d"]:
        x = self.patch(layers.normalized(vision, self.pixels, dtype))
        # One tap at a time: all four at once would be the largest array of the tower.
        table = self.table[...]
        for i in range(4):
            weight = vision.interp_weight[..., i, None].astype(jnp.float32)
            x = x + (table[vision.interp_index[..., i]] * weight).astype(dtype)
        return x


def init(c: VisionConfig, key: jax.Array) -> Params:
    """Returns random parameters of the tower."""
    keys = jax.random.split(key, 4)
    params = {
        "embed": layers.init(Embed, c, key=keys[0]),
        "blocks": layers.init_stack(Block, c, key=keys[1], count=c.depth),
        "merger": layers.init(Merger, c, False, key=keys[2]),
    }
    if c.taps:
        stack = layers.init_stack(Merger, c, True, key=keys[3], count=len(c.taps))
        params["deepstack"] = stack
    return params


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
    if f == 0:
        return Visual(
            jnp.zeros((g, 0, c.out_width), dtype),
            jnp.zeros((g, len(c.taps), 0, c.out_width), dtype),
        )
    vision = VisionInput(*(x.reshape(g * f, *x.shape[2:]) for x in vision))
    angles = rope.axial(vision.positions, rope.frequencies(c.width // c.heads // 2, c.rope_theta))
    layout = segments(vision.segment_ids, causal=False)
    x = layers.bind(Embed, c, params=params["embed"])(vision, dtype)

    # Every block writes its output to a slot; those that nobody reads share the last one. So the
    # scan needs no branch, and its carry is as small as the taps.
    slots = np.full(c.depth, len(c.taps), np.int32)
    slots[list(c.taps)] = np.arange(len(c.taps))
    taps = jnp.zeros((len(c.taps) + 1, *x.shape) if c.taps else 0, dtype)

    def body(carry, block):
        x, taps = carry
        slot, weights = block
        x = layers.bind(Block, c, params=weights)(x, angles, layout, implementation)
        if c.taps:
            taps = jax.lax.dynamic_update_index_in_dim(taps, x, slot, 0)
        return (x, taps), None

    body = checkpointed(body, remat)
    (x, taps), _ = jax.lax.scan(body, (x, taps), (jnp.asarray(slots), params["blocks"]))
    embeds = layers.bind(Merger, c, False, params=params["merger"])(x)
    embeds = embeds.reshape(g, tokens, c.out_width)
    if not c.taps:
        return Visual(embeds, jnp.zeros((g, 0, tokens, c.out_width), dtype))
    deepstack = jax.lax.map(
        lambda tap: layers.bind(Merger, c, True, params=tap[0])(tap[1]),
        (params["deepstack"], taps[:-1]),
    )
    deepstack = deepstack.reshape(len(c.taps), g, tokens, c.out_width)
    order = np.argsort(c.taps)  # the text model takes them by block, whatever the mergers' order
    deepstack = jnp.moveaxis(deepstack[order], 0, 1)
    return Visual(embeds, deepstack)


def weights(c: VisionConfig) -> tuple[Weight, ...]:
    """Returns one entry a HF tensor, or one a tensor of all blocks."""
    deepstack = _merger("model.visual.deepstack_merger_list.{}.", "vision/deepstack/")
    hf_block, block = "model.visual.blocks.{}.", "vision/blocks/"
    return (
        Weight(
            "model.visual.patch_embed.proj.weight",
            "vision/embed/patch/kernel",
            "matrix",
            (None, "embed"),
            is_kernel=True,
            shape=(c.width, *c.patch_shape),
        ),
        Weight("model.visual.patch_embed.proj.bias", "vision/embed/patch/bias", "bias"),
        Weight("model.visual.pos_embed.weight", "vision/embed/table", "other", (None, "embed")),
        *norm(hf_block + "norm1", block + "norm1"),
        *norm(hf_block + "norm2", block + "norm2"),
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
        *linear(hf_block + "mlp.linear_fc1", block + "fc1", "embed", "mlp"),
        *linear(hf_block + "mlp.linear_fc2", block + "fc2", "mlp", "embed"),
        *_merger("model.visual.merger.", "vision/merger/"),
        *(deepstack if c.taps else ()),
    )


def _merger(hf: str, path: str) -> tuple[Weight, ...]:
    return (
        *norm(hf + "norm", path + "norm"),
        *linear(hf + "linear_fc1", path + "fc1", "embed", "mlp"),
        *linear(hf + "linear_fc2", path + "fc2", "mlp", "embed"),
    )
