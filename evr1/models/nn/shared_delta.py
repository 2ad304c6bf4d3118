"""The gated delta net where devices share the tokens of a group, see `evr1.models.nn.context`.

A piece of a prompt does S -> A S + B to the memory S that comes in. One pass of the ordinary rule
gives both, and what an empty memory gives out: values are widened by zeros, and the memory that
comes in is [0 | I]. Then [B | A] of all pieces come together, every device works out the memory
before its own pieces and after the prompt, and adds what the one before says. So no device waits
for another, at the price of values twice as wide.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from evr1.models.nn import delta
from evr1.models.nn.context import AXIS
from evr1.models.nn.layout import Rule
from evr1.parallel import sharding


def run_group(
    x: delta.Inputs,
    kernel: Float[Array, "w c"],
    state: delta.State,
    lengths: Int[Array, " g"],
    rule: Rule,
    chunk: int = delta.CHUNK,
    slab: int = delta.SLAB,
) -> Float[Array, "g t h e"]:
    """Returns the outputs of `delta.run_group`, of tokens in the order of the devices.

    Args:
        x: of G groups.
        kernel: of the convolution.
        state: before the prompts.
        lengths: tokens of each prompt; what stands behind them is padding.
        rule: of the layout.
        chunk: see `delta.run`.
        slab: see `delta.run`.

    Raises:
        ValueError: pieces of the prompt are shorter than what the convolution reaches back.
    """
    width, reach = rule.prompt // (2 * rule.devices), len(kernel) - 1
    if width < reach:
        raise ValueError(
            f"mesh.context={rule.devices} cuts {rule.prompt} prompt tokens into pieces of {width},"
            f" shorter than the {reach} that a convolution reaches back; lower it"
        )
    mesh = jax.sharding.get_abstract_mesh()
    tokens = sharding.spec(mesh, ("batch", "tokens"), x.beta.shape)
    rows, cut = PartitionSpec(tokens[0]), (*(tokens[0] or ()), AXIS)

    def local(x, kernel, state, lengths):
        split = rule.prompt // rule.devices
        prompt, own = (delta.Inputs(*(y[:, part] for y in x)) for part in _halves(split))
        out, after = _prompt(prompt, kernel, (state, lengths), (rule.devices, chunk, slab), cut)
        return jnp.concatenate([out, _own(own, kernel, after, rule, chunk, slab)], axis=1)

    places = (tokens, PartitionSpec(), rows, rows)
    run = jax.shard_map(local, mesh=mesh, in_specs=places, out_specs=tokens)
    return run(x, kernel, state, lengths)


def _halves(split: int) -> tuple[slice, slice]:
    return slice(split), slice(split, None)


def _own(x, kernel, state, rule, chunk, slab) -> jax.Array:
    """Returns the outputs of a device's completions, each of which goes on from the prompt."""
    g, t = x.beta.shape[:2]
    n = t // rule.completion
    rows = delta.Inputs(*(y.reshape(g * n, rule.completion, *y.shape[2:]) for y in x))
    forked = delta.State(*(jnp.repeat(y, n, axis=0) for y in state))
    out, _ = delta.run(rows, kernel, forked, chunk=chunk, slab=slab // n)
    return out.reshape(g, t, *out.shape[2:])


def _prompt(x, kernel, start, sizes, cut) -> tuple[jax.Array, delta.State]:
    """Returns the outputs of a device's two pieces, and the state after the whole prompt.

    Args:
        x: of the pieces.
        kernel: of the convolution.
        start: the state before the prompts, and their lengths.
        sizes: devices, chunk, slab.
        cut: mesh axes that what a device holds differs along.
    """
    (state, lengths), (devices, chunk, slab) = start, sizes
    g, t = x.beta.shape[:2]
    width, me = t // 2, jax.lax.axis_index(AXIS)
    numbers = jnp.stack([me, 2 * devices - 1 - me])  # of the pieces among those of the prompt
    x = delta.Inputs(*(y.reshape(g, 2, width, *y.shape[2:]) for y in x))
    place = numbers[:, None] * width + jnp.arange(width)[None]
    ids = (place[None] < lengths[:, None, None]).astype(jnp.int32)

    ends = _every(x.qkv[:, :, width - len(kernel) + 1 :])
    starts = jnp.concatenate([state.tail[None].astype(ends.dtype), ends[:-1]])[numbers]
    heads, keys, values = state.memory.shape[1:]
    widen = _Widened(heads, keys, values)
    nothing = jnp.zeros((heads, keys, values), jnp.float32)
    same = jnp.broadcast_to(jnp.eye(keys, dtype=jnp.float32), (heads, keys, keys))
    memory = jnp.concatenate([nothing, same], axis=-1)
    memory = jnp.broadcast_to(memory, (2 * g, *memory.shape))
    memory = jax.lax.pcast(memory, cut, to="varying")
    rows = delta.Inputs(*(y.reshape(2 * g, width, *y.shape[3:]) for y in x))
    tail = jnp.moveaxis(starts, 0, 1).reshape(2 * g, *starts.shape[2:])
    out, after = delta.run(
        rows._replace(qkv=widen(rows.qkv)),
        widen(kernel),
        delta.State(widen(tail), memory),
        ids.reshape(2 * g, width),
        chunk,
        slab,
    )

    changes = _every(after.memory.reshape(g, 2, *after.memory.shape[1:]))

    def step(s: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        return change[..., :values] + _product("bhac,bhce->bhae", change[..., values:], s), s

    first = jax.lax.pcast(state.memory, AXIS, to="varying")
    last, before = jax.lax.scan(step, first, changes)
    before = jnp.moveaxis(before[numbers], 0, 1)  # [G, 2, H, A, E]
    out = out.reshape(g, 2, width, *out.shape[2:]).astype(jnp.float32)
    said = _product("gpthc,gphce->gpthe", out[..., values:], before)
    out = (out[..., :values] + said).astype(x.qkv.dtype).reshape(g, t, heads, values)

    tails = _every(widen.back(after.tail).reshape(g, 2, *tail.shape[1:]))
    piece = jnp.maximum(lengths - 1, 0) // width  # in which the prompt ends
    tail = jax.vmap(lambda tails, i: tails[i], (1, 0))(tails, piece)
    return out, delta.State(tail, last)


def _every(mine: jax.Array) -> jax.Array:
    """Returns [2 C, G, ...] of all pieces in the order of the prompt; `mine` is [G, 2, ...]."""
    every = jax.lax.all_gather(mine, AXIS)
    return jnp.concatenate([every[:, :, 0], jnp.flip(every[:, :, 1], axis=0)])


class _Widened:
    """Adds a channel of zeros for each channel of a key behind the values of a head."""

    def __init__(self, heads: int, keys: int, values: int):
        self.heads, self.keys, self.values = heads, keys, values

    def __call__(self, x: jax.Array) -> jax.Array:
        first = x.shape[-1] - self.heads * self.values
        values = x[..., first:].reshape(*x.shape[:-1], self.heads, self.values)
        values = jnp.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, self.keys)])
        return jnp.concatenate([x[..., :first], values.reshape(*x.shape[:-1], -1)], axis=-1)

    def back(self, x: jax.Array) -> jax.Array:
        """Takes the channels out again."""
        first = x.shape[-1] - self.heads * (self.values + self.keys)
        values = x[..., first:].reshape(*x.shape[:-1], self.heads, -1)[..., : self.values]
        return jnp.concatenate([x[..., :first], values.reshape(*x.shape[:-1], -1)], axis=-1)


def _product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(spec, a, b, precision=jax.lax.Precision.HIGHEST)
