"""The text model of Qwen3.5: blocks of gated delta nets and one layer of gated full attention.

Source: Qwen3_5TextModel, transformers 5.24.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from evr1.models.families.qwen3_5.config import Config
from evr1.models.nn import delta, layers, rope
from evr1.models.nn.attention import Attend
from evr1.models.nn.cache import KV
from evr1.models.nn.experts import Experts
from evr1.models.nn.layers import Mlp
from evr1.models.nn.remat import checkpointed, in_memory
from evr1.models.nn.stack import Read, all_but_last, each, everything, in_place
from evr1.parallel.sharding import constrain
from evr1.types import Params

Fold = Callable[[delta.Inputs, jax.Array, Any], tuple[jax.Array, delta.State]]


class Mixing(NamedTuple):
    """How tokens meet: the part of a layer that training, prefill and decoding do differently."""

    attend: Attend  # (q, k, v, extra of this layer) -> attention output
    fold: Fold  # (inputs, kernel, extra of this layer) -> outputs, state after them


class Extra(NamedTuple):
    """Pytrees with a leading axis of layers of that kind, handed to `Mixing` slice by slice.

    States (`delta`) are replaced by what `Mixing` returns for them, each layer's in its place.
    """

    full: Any = ()
    delta: Any = ()


class Attention(nnx.Module):
    """Grouped-query attention whose output a gate, made with the queries, lets through."""

    def __init__(self, c: Config, *, rngs: nnx.Rngs):
        opts = {"scale": c.init_scale, "bias": c.attention_bias, "rngs": rngs}
        self.q = layers.Linear(c.width, c.heads * 2 * c.head_dim, **opts)
        self.k = layers.Linear(c.width, c.kv_heads * c.head_dim, **opts)
        self.v = layers.Linear(c.width, c.kv_heads * c.head_dim, **opts)
        self.o = layers.Linear(c.heads * c.head_dim, c.width, **opts)
        self.q_norm = layers.CentredRMSNorm(c.head_dim, c.norm_eps, rngs=rngs)
        self.k_norm = layers.CentredRMSNorm(c.head_dim, c.norm_eps, rngs=rngs)
        self.head_dim = c.head_dim

    def __call__(self, x, angles, mixing: Mixing, extra: Any, read: Read) -> tuple[jax.Array, KV]:
        def heads(y, size=self.head_dim):
            return y.reshape(*y.shape[:2], -1, size)

        q, gate = jnp.split(heads(self.q(read(x)), 2 * self.head_dim), 2, axis=-1)
        k, v = heads(self.k(x)), heads(self.v(x))
        q, k, v = (constrain(y, "batch", "tokens", "heads") for y in (q, k, v))
        q = rope.rotate_first(self.q_norm(q), *map(read, angles))
        k = rope.rotate_first(self.k_norm(k), *angles)
        out = mixing.attend(q, k, v, extra) * jax.nn.sigmoid(gate)
        return self.o(out.reshape(*q.shape[:2], -1)), KV(k, v)


class DeltaNet(nnx.Module):
    """Projections, gate and norm round a gated delta rule."""

    def __init__(self, c: Config, *, rngs: nnx.Rngs):
        opts = {"scale": c.init_scale, "bias": False, "rngs": rngs}
        d = c.delta
        self.qkv = layers.Linear(c.width, d.channels, **opts)
        self.gate = layers.Linear(c.width, d.value_heads * d.value_dim, **opts)
        self.beta = layers.Linear(c.width, d.value_heads, **opts)
        self.decay = layers.Linear(c.width, d.value_heads, **opts)
        kernel = jax.random.uniform(rngs.params(), (d.conv_width, d.channels), minval=-1.0)
        self.conv = nnx.Param(kernel * d.conv_width**-0.5)
        rate = jax.random.uniform(rngs.params(), (d.value_heads,), minval=0.01, maxval=16.0)
        self.log_rate = nnx.Param(jnp.log(rate))
        self.decay_bias = nnx.Param(jnp.ones(d.value_heads, jnp.float32))
        self.norm = layers.RMSNorm(d.value_dim, c.norm_eps, rngs=rngs)
        self.o = layers.Linear(d.value_heads * d.value_dim, c.width, **opts)

    def __call__(
        self, x, angles, mixing: Mixing, extra: Any, read: Read
    ) -> tuple[jax.Array, delta.State]:
        del angles
        # float32: a decay close to 1 is a small difference, and it is summed over many tokens.
        rate = jnp.exp(self.log_rate[...].astype(jnp.float32))[None, None]
        time = self.decay(x).astype(jnp.float32) + self.decay_bias[...][None, None]
        inputs = delta.Inputs(
            self.qkv(x), -rate * jax.nn.softplus(time), jax.nn.sigmoid(self.beta(x))
        )
        out, state = mixing.fold(inputs, self.conv[...], extra)
        out = read(out)
        gate = self.gate(read(x)).reshape(out.shape).astype(jnp.float32)
        out = (self.norm(out) * jax.nn.silu(gate)).astype(x.dtype)
        return self.o(out.reshape(*out.shape[:2], -1)), state


class Layer(nnx.Module):
    """A pre-norm decoder layer of one of the two kinds."""

    def __init__(self, c: Config, is_full: bool, *, rngs: nnx.Rngs):
        self.norm1 = layers.CentredRMSNorm(c.width, c.norm_eps, rngs=rngs)
        if is_full:
            self.attention = Attention(c, rngs=rngs)
        else:
            self.delta = DeltaNet(c, rngs=rngs)
        self.norm2 = layers.CentredRMSNorm(c.width, c.norm_eps, rngs=rngs)
        if c.experts:
            self.mlp = Experts(c.width, c.experts, c.init_scale, rngs=rngs)
        else:
            self.mlp = Mlp(c.width, c.mlp_width, c.init_scale, rngs=rngs)
        self.is_full = is_full

    def __call__(
        self, x, angles, mixing: Mixing, extra: Any, read: Read
    ) -> tuple[jax.Array, Any, jax.Array | None]:
        mixer = self.attention if self.is_full else self.delta
        out, kept = mixer(self.norm1(x), angles, mixing, extra, read)
        x = read(x) + out
        if isinstance(self.mlp, Experts):
            out, router = self.mlp(self.norm2(x))
        else:
            out, router = self.mlp(self.norm2(x)), None
        return constrain(x + out, "batch", "tokens"), kept, router


def init(c: Config, key: jax.Array) -> Params:
    """Returns random parameters of the text model; `blocks/i` stacks layer i of every block."""
    keys = jax.random.split(key, 3 + len(c.pattern))
    shape = (c.vocab_size, c.width)
    params = {
        "embed": c.init_scale * jax.random.normal(keys[0], shape, jnp.float32),
        "blocks": {
            str(i): layers.init_stack(Layer, c, is_full, key=keys[3 + i], count=c.blocks)
            for i, is_full in enumerate(c.pattern)
        },
        "norm": layers.init(layers.CentredRMSNorm, c.width, c.norm_eps, key=keys[1]),
    }
    if not c.tied:
        params["head"] = c.init_scale * jax.random.normal(keys[2], shape[::-1], jnp.float32)
    return params


def run(
    c: Config,
    params: Params,
    x: Float[Array, "g t d"],
    positions: Int[Array, "g 3 #t"],
    mixing: Mixing,
    *,
    extra: Extra | None = None,
    keep_cache: bool = False,
    keep_router: bool = False,
    remat: str = "none",
    read: Read = everything,
) -> tuple[Float[Array, "g q d"], Extra, Float[Array, "l g t e"] | None]:
    """Returns the hidden states after the final norm, what a cache takes, the router's logits.

    Args:
        c: sizes.
        params: of the text model; `blocks` may be a tuple with those of each, where all are read.
        x: embedded tokens, visual tokens already in their places.
        positions: M-RoPE; one for all tokens, as completions of a group are decoded, or one each.
        mixing: how tokens meet.
        extra: what `mixing` gets.
        keep_cache: return keys and values (`full`) and states (`delta`), stacked over the layers.
        keep_router: return the router's logits.
        remat: what a layer keeps for the backward pass, see nn.remat.
        read: what of [G, T, ...] is returned; of the last layer, nothing is worked out for the
            other tokens but what others see. The router's logits are those of all tokens.
    """
    angles = rope.mrope(positions, c.rope_freqs, c.rope_axes)
    number = [sum(c.pattern[:i]) if f else i - sum(c.pattern[:i]) for i, f in enumerate(c.pattern)]
    nets = len(c.pattern) - sum(c.pattern)
    extra = extra or Extra()

    def body(carry, block, take=lambda weights: weights, reads=everything):
        """Returns (x, states) after a block, and what is kept; `take` gives a layer's parameters"""
        x, states = carry
        first, weights, full = block
        kept, routers = Extra([], []), []
        for i, is_full in enumerate(c.pattern):
            if is_full:
                own = jax.tree.map(lambda y, n=number[i]: y[n], full)
            else:
                own = _layer_of(states, first + number[i])
            is_last = i == len(c.pattern) - 1

            def layer(x, weights, own, is_full=is_full, read=reads if is_last else everything):
                module = layers.bind(Layer, c, is_full, params=take(weights))
                return module(x, angles, mixing, own, read)

            layer = checkpointed(layer, remat if reads is everything else in_memory(remat))
            x, out, router = layer(x, weights[str(i)], own)
            if is_full or not states:
                (kept.full if is_full else kept.delta).append(out)
            else:
                states = _with_layer(states, out, first + number[i])
            routers.append(router)
        new = Extra(*(_stack(parts) for parts in kept)) if keep_cache else Extra()
        return (x, states), (new, jnp.stack(routers) if keep_router and c.experts else None)

    full = jax.tree.map(lambda y: y.reshape(c.blocks, -1, *y.shape[1:]), extra.full)
    # States go round as they are: stacked anew by the scan they would take a second memory.
    blocks, states = (nets * jnp.arange(c.blocks), params["blocks"], full), extra.delta
    if read is everything or keep_router:
        (x, states), kept = each(body, (x, states), *blocks)
        x = read(x)
    else:
        assert not states  # nobody decodes here
        x, kept = _all_blocks(body, x, blocks, read)
    new, routers = jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), kept)
    norm = layers.bind(layers.CentredRMSNorm, c.width, c.norm_eps, params=params["norm"])
    return norm(x), new._replace(delta=states or new.delta), routers


def _all_blocks(body: Callable, x: jax.Array, blocks: Any, read: Read) -> tuple[jax.Array, Any]:
    """Returns the states that are read, and what is kept; the last layer works for them alone."""

    def one(x, i, held, own):
        first, weights, full = own
        pairs = {name: (held[1][name], part) for name, part in weights.items()}
        block = (first, pairs, full)
        (x, _), kept = body((x, ()), block, lambda pair: in_place(pair[0], i, pair[1]))
        return x, kept

    x, kept = all_but_last(one, x, blocks)
    (x, _), last = body((x, ()), jax.tree.map(lambda y: y[-1], blocks), reads=read)
    return x, jax.tree.map(lambda old, new: old.at[-1].set(new), kept, last)


def _layer_of(states: Any, layer: jax.Array) -> Any:
    return jax.tree.map(lambda y: jax.lax.dynamic_index_in_dim(y, layer, 0, False), states)


def _with_layer(states: Any, new: Any, layer: jax.Array) -> Any:
    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(old, new, layer, 0)

    return jax.tree.map(put, states, new)


def _stack(parts: list) -> Any:
    return jax.tree.map(lambda *ys: jnp.stack(ys), *parts) if parts else ()
