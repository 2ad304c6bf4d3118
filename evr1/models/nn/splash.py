"""Attention on TPU: the splash kernel of JAX with our layouts as its masks."""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from evr1.models.nn.layout import Layout, Rule
from evr1.models.nn.remat import ATTENTION
from evr1.parallel.sharding import spec

LANES = 128  # of the TPU's vector unit: head dims and blocks are multiples of it


class RuleMask(masks.Mask):
    """A rule as a splash mask; equal rules are equal masks, so all heads share one."""

    def __init__(self, rule: Rule, tokens: int):
        self.rule, self.tokens = rule, tokens

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, keys)."""
        return self.tokens, self.tokens

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        q, k = (np.arange(self.tokens)[s] for s in index)
        return self.rule.sees(q[:, None], k[None])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleMask) and (self.rule, self.tokens) == (
            other.rule,
            other.tokens,
        )

    def __hash__(self) -> int:
        return hash((self.rule, self.tokens))


def attention(
    q: Float[Array, "b t h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    *,
    interpret: bool,
) -> Float[Array, "b t h a"]:
    """Returns attention under a layout; T and A are padded to what the kernel takes.

    With a mesh, rows are split over the batch axes and heads over the tensor axis: the kernel is
    not partitioned by the compiler.
    """
    b, t, h, a = q.shape
    block = min(512, t + -t % LANES)
    pad_t, pad_a = -t % block, -a % LANES
    q = q * a**-0.5
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad_t), (0, 0), (0, pad_a))) for x in (q, k, v))
    ids = jnp.pad(layout.ids, ((0, 0), (0, pad_t)), constant_values=-1)
    run = functools.partial(_local, rule=layout.rule, block=block, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        heads = spec(mesh, ("batch", None, "heads"), k.shape)
        rows = PartitionSpec(heads[0])
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(heads, heads, heads, rows),
            out_specs=heads,
            check_vma=False,
        )
    return run(q, k, v, ids)[:, :t, :, :a]


def _local(q, k, v, ids, *, rule, block, interpret):
    q, k, v = (jnp.moveaxis(x, 1, 2) for x in (q, k, v))
    run = _kernel(rule, q.shape[2], q.shape[1], block, interpret)
    out = cast(jax.Array, jax.vmap(run)(q, k, v, kernel.SegmentIds(ids, ids)))
    return jnp.moveaxis(out, 1, 2).astype(q.dtype)


def _kernel(rule, tokens: int, heads: int, block: int, interpret: bool):
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = masks.MultiHeadMask([RuleMask(rule, tokens)] * heads)
    return kernel.make_splash_mha(
        mask,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=sizes,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
