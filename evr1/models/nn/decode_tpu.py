"""Decode attention over the prompts on TPU: a Pallas kernel that reads their live blocks.

Compiled for TPUs and tested in interpret mode; it has not run on one yet.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from evr1.models.nn.cache import KV, Int8, values_of
from evr1.models.nn.layers import precision
from evr1.parallel.sharding import spec

BLOCK = (
    512  # tokens of a prompt, all of a device's key heads: 1 MiB of keys for 8 of 128 in bfloat16
)

_NEG = -1e30


def over_prefix(
    q: Float[Array, "g k m a"],
    top: Float[Array, "g k m"],
    total: Float[Array, "g k m"],
    out: Float[Array, "g k m a"],
    prefix: KV,
    lengths: Int[Array, " g"],
    layer: Int[Array, ""],
    *,
    interpret: bool,
) -> Float[Array, "g k m a"]:
    """Returns the attention over the prompts and what `top`, `total` and `out` stand for.

    A block behind the end of its prompt is the last one before it again, which is not read twice.

    Args:
        q: queries, M to a key head.
        top: the largest score so far.
        total: sum of exp(score - top).
        out: sum of exp(score - top) * value, float32.
        prefix: [L, G, K, P, A], of all layers.
        lengths: tokens of the prompts.
        layer: the one to read.
        interpret: run it without a TPU.
    """
    run = functools.partial(_local, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:
        heads = spec(mesh, ("batch", "heads"), q.shape)
        cache = jax.tree.map(lambda x: spec(mesh, (None, "batch", "heads"), x.shape), prefix)
        rows = spec(mesh, ("batch",), lengths.shape)
        run = jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(heads, heads, heads, heads, cache, rows, jax.sharding.PartitionSpec()),
            out_specs=heads,
            check_vma=False,  # the kernel has no rule for it
        )
    return run(q, top, total, out, prefix, lengths, layer)


def _local(q, top, total, out, prefix, lengths, layer, *, interpret):
    _, groups, heads, tokens, a = values_of(prefix.k).shape
    held = jax.tree.leaves(prefix)
    m = q.shape[2]
    block = min(BLOCK, tokens)

    def rows(size):
        return pl.BlockSpec((1, heads, m, size), lambda g, b, lengths, layer: (g, 0, 0, 0))

    def cached(g, b, lengths, layer):
        last = jnp.maximum(pl.cdiv(lengths[g], block) - 1, 0)
        return layer[0], g, 0, jnp.minimum(b, last), 0

    def blocks(x):
        shape = (1, 1, heads, block, a)[: x.ndim]
        return pl.BlockSpec(shape, lambda *at: cached(*at)[: x.ndim])

    f32 = jnp.float32
    shapes = [(heads, m, 1), (heads, m, 1), (heads, m, a)]
    return pl.pallas_call(
        functools.partial(_kernel, block=block, held=jax.tree.structure(prefix)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(groups, pl.cdiv(tokens, block)),
            in_specs=[rows(a), rows(1), rows(1), rows(a), *map(blocks, held)],
            out_specs=rows(a),
            scratch_shapes=[pltpu.VMEM(shape, f32) for shape in shapes],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, f32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="decode_attention",
    )(lengths, layer[None], q, top[..., None], total[..., None], out, *held)


def _kernel(lengths, _, q, top, total, out, *rest, block, held):
    *prefix, result = rest[:-3]
    so_far, prefix = rest[-3:], jax.tree.unflatten(held, prefix)
    group, b = pl.program_id(0), pl.program_id(1)
    length = lengths[group]

    @pl.when(b == 0)
    def _():
        for mine, given in zip(so_far, (top, total, out), strict=True):
            mine[...] = given[0]

    @pl.when(b * block < length)
    def _():
        for head in range(q.shape[1]):
            key, value = (_block(x, head, q.dtype) for x in prefix)
            _read(q[0, head], key, value, length - b * block, head, so_far)

    @pl.when(b == pl.num_programs(1) - 1)
    def _():
        result[0] = so_far[2][...] / so_far[1][...]


def _block(x, head, dtype):
    """Returns a head's keys or values as they are multiplied, and [1, block] scales or 1."""
    if not isinstance(x, Int8):
        return x[0, 0, head], 1.0
    return x.values[0, 0, head].astype(dtype), x.scales[0, 0, pl.ds(head, 1)]


def _read(q, key, value, left, head, so_far):
    """Goes on over a block of keys of a head, of which `left` or all are there."""
    (top, total, out), (key, steps), (value, times) = so_far, key, value
    block, a = key.shape
    product = functools.partial(
        jax.lax.dot_general, precision=precision(q.dtype), preferred_element_type=jnp.float32
    )
    scores = product(q, key, (((1,), (1,)), ((), ()))) * (steps * a**-0.5)
    is_seen = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1) < left
    scores = jnp.where(is_seen, scores, _NEG)
    # Behind the room of a prompt stands anything, and 0 times NaN is NaN.
    is_there = jax.lax.broadcasted_iota(jnp.int32, (block, 1), 0) < left
    value = jnp.where(is_there, value, jnp.zeros((), value.dtype))
    new_top = jnp.maximum(top[head], scores.max(-1, keepdims=True))
    weights, keep = jnp.exp(scores - new_top), jnp.exp(top[head] - new_top)
    top[head] = new_top
    total[head] = total[head] * keep + weights.sum(-1, keepdims=True)
    weights = jnp.where(is_seen, weights * times, 0.0)
    change = product(weights.astype(value.dtype), value, (((1,), (0,)), ((), ())))
    out[head] = out[head] * keep + change
