"""Attention on TPU: the splash kernel of JAX with our layouts as its masks."""

import functools
from collections.abc import Sequence
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
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from evr1.models.nn import context
from evr1.models.nn.layout import Layout, Rule, query_ids
from evr1.models.nn.remat import ATTENTION
from evr1.parallel.sharding import spec

LANES = 128  # of the TPU's vector unit: head dims and blocks are multiples of it


class RuleMask(masks.Mask):
    """A rule as a splash mask; equal rules are equal masks, so all heads share one.

    Where devices share a group, queries are those of one after the other, each padded, and keys are
    those of each: the prompt and its own completions. Otherwise they are the places from `first`
    on.
    """

    def __init__(self, rule: Rule, tokens: int, padded: tuple[int, int], first: int = 0):
        self.rule, self.tokens, self.padded, self.first = rule, tokens, padded, first
        if rule.devices == 1:
            self.places = np.arange(first, first + padded[0])
        else:
            places = context.queries(rule, tokens)
            # Padding sees the first token: what sees nothing has no softmax.
            self.places = np.pad(places, ((0, 0), (0, padded[0] - places.shape[1]))).reshape(-1)

    @property
    def shape(self) -> tuple[int, int]:
        """(queries, keys)."""
        return len(self.places), self.padded[1]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        q, k = self.places[index[0]], np.arange(self.padded[1])[index[1]]
        if self.rule.causal and q.max() < k[0]:
            return np.zeros((len(q), len(k)), bool)
        if self.rule.causal and k[-1] < self.rule.prompt and k[-1] <= q.min():
            return np.ones((len(q), len(k)), bool)
        return self.rule.sees(q[:, None], k[None])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleMask) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return self.rule, self.tokens, self.padded, self.first


def attention(
    q: Float[Array, "b q h a"],
    k: Float[Array, "b t k a"],
    v: Float[Array, "b t k a"],
    layout: Layout,
    *,
    interpret: bool,
) -> Float[Array, "b q h a"]:
    """Returns attention under a layout; Q, T and A are padded to what the kernel takes.

    With a mesh, rows are split over the batch axes and heads over the tensor axis: the kernel is
    not partitioned by the compiler.
    """
    if layout.rule.devices > 1:
        return _shared(q, k, v, layout, interpret=interpret)
    queries, t, a = q.shape[1], *k.shape[1::2]
    blocks = [min(512, size + -size % LANES) for size in (queries, t)]

    def pad(x: jax.Array, block: int, fill: int = 0) -> jax.Array:
        sizes = [(0, 0), (0, -x.shape[1] % block), (0, 0), (0, -a % LANES)]
        return jnp.pad(x, sizes[: x.ndim], constant_values=fill)

    # Padding behind fewer queries sees the prompt: what sees nothing has no softmax.
    ids = pad(query_ids(layout, queries), blocks[0], 1 if queries < t else -1)
    ids = kernel.SegmentIds(ids, pad(layout.ids, blocks[1], -1))
    q, k, v = pad(q * a**-0.5, blocks[0]), pad(k, blocks[1]), pad(v, blocks[1])
    mask = RuleMask(layout.rule, t, (q.shape[1], k.shape[1]), t - queries)
    run = functools.partial(_local, mask=mask, blocks=blocks, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        # Frames of a vision tower are nothing but rows.
        heads = spec(mesh, ("batch" if layout.rule.causal else "frames", None, "heads"), k.shape)
        rows = PartitionSpec(heads[0])
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(heads, heads, heads, rows),
            out_specs=heads,
            check_vma=False,
        )
    return run(q, k, v, ids)[:, :queries, :, :a]


def _local(q, k, v, ids, *, mask, blocks, interpret):
    q, k, v = (jnp.moveaxis(x, 1, 2) for x in (q, k, v))
    run = _kernel(mask, q.shape[1], blocks, interpret)
    out = cast(jax.Array, jax.vmap(run)(q, k, v, ids))
    return jnp.moveaxis(out, 1, 2).astype(q.dtype)


def _shared(q, k, v, layout, *, interpret):
    """Returns the attention of a group that devices share, each with the whole prompt's keys."""
    rule, mesh = layout.rule, jax.sharding.get_abstract_mesh()
    a, tokens = q.shape[-1], q.shape[1]
    own = (tokens - rule.prompt) // rule.devices
    held, seen = rule.prompt // rule.devices + own, rule.prompt + own
    block = min(512, held + -held % LANES)
    padded = (held + -held % block, seen + -seen % block)
    places = spec(mesh, ("batch", "tokens", "heads"), k.shape)
    heads = q.shape[2] // (1 if places[2] is None else mesh.shape["tensor"])
    run = _kernel(RuleMask(rule, tokens, padded), heads, (block, block), interpret)

    def pad(x: jax.Array, tokens: int, fill: int = 0) -> jax.Array:
        sizes = [(0, 0), (0, tokens - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]
        if x.ndim == 4:
            sizes[3] = (0, -a % LANES)
        return jnp.pad(x, sizes, constant_values=fill)

    def local(run, q, k, v, ids):
        k, v, key_ids = (context.whole(x, rule.prompt, rule.devices) for x in (k, v, ids))
        ids = kernel.SegmentIds(pad(ids, padded[0], 1), pad(key_ids, padded[1], -1))
        q, k, v = (
            jnp.moveaxis(pad(x, size), 1, 2)
            for x, size in ((q * a**-0.5, padded[0]), (k, padded[1]), (v, padded[1]))
        )
        out = cast(jax.Array, jax.vmap(run, (0, 0, 0, 0))(q, k, v, ids))
        return jnp.moveaxis(out, 1, 2)[:, :held, :, :a].astype(q.dtype)

    cut = run.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, context.AXIS)))
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(cut, places, places, places, PartitionSpec(*places[:2])),
        out_specs=places,
        check_vma=False,  # the kernel has no rule for it
    )(run, q, k, v, layout.ids)


def _kernel(mask: RuleMask, heads: int, blocks: Sequence[int], interpret: bool):
    """Returns the kernel, with blocks of so many queries and keys.

    To look through the blocks of a long mask takes half a minute. It is made anew in every trace
    all the same: arrays made outside of one, to be kept, would be a program of all devices of the
    mesh in view, which may belong to other hosts or not be there at all.
    """
    queries, keys = blocks
    sizes = kernel.BlockSizes(
        block_q=queries,
        block_kv=keys,
        block_kv_compute=keys,
        block_q_dkv=queries,
        block_kv_dkv=keys,
        block_kv_dkv_compute=keys,
        block_q_dq=queries,
        block_kv_dq=keys,
    )
    return kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=mask.rule.devices,
        block_sizes=sizes,
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
