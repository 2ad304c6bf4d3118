"""The text model from Qwen2-VL to Qwen3-VL: grouped-query attention with M-RoPE, dense or with a
mixture of experts in some layers.

Qwen3-VL has norms of q and k, and DeepStack; Qwen2-VL and Qwen2.5-VL have biases of q, k and v.

Source: Qwen2VLTextModel, Qwen3VLTextModel and Qwen3VLMoeTextModel, transformers 5.24.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from evr1.models.decoder.config import Config
from evr1.models.nn import layers, rope
from evr1.models.nn.attention import Attend
from evr1.models.nn.cache import KV, Kept
from evr1.models.nn.experts import Experts
from evr1.models.nn.layers import Mlp
from evr1.models.nn.remat import checkpointed, in_memory
from evr1.models.nn.stack import Read, all_but_last, each, everything, in_place
from evr1.parallel.sharding import constrain
from evr1.types import Params

FeedForward = Callable[[jax.Array], tuple[jax.Array, jax.Array | None]]


class Attention(nnx.Module):
    """Projections, norms and rotation round an attention that the caller chooses."""

    def __init__(self, c: Config, *, rngs: nnx.Rngs):
        opts = {"scale": c.init_scale, "rngs": rngs}
        self.q = layers.Linear(c.width, c.heads * c.head_dim, bias=c.attention_bias, **opts)
        self.k = layers.Linear(c.width, c.kv_heads * c.head_dim, bias=c.attention_bias, **opts)
        self.v = layers.Linear(c.width, c.kv_heads * c.head_dim, bias=c.attention_bias, **opts)
        self.o = layers.Linear(c.heads * c.head_dim, c.width, bias=c.output_bias, **opts)
        self.q_norm = layers.RMSNorm(c.head_dim, c.norm_eps, rngs=rngs) if c.qk_norm else None
        self.k_norm = layers.RMSNorm(c.head_dim, c.norm_eps, rngs=rngs) if c.qk_norm else None
        self.head_dim = c.head_dim

    def __call__(self, x, angles, attend: Attend, extra: Any, read: Read) -> tuple[jax.Array, KV]:
        def heads(y):
            y = y.reshape(*y.shape[:2], -1, self.head_dim)
            return constrain(y, "batch", "tokens", "heads")

        q, k, v = heads(self.q(read(x))), heads(self.k(x)), heads(self.v(x))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rope.rotate(q, *map(read, angles)), rope.rotate(k, *angles)
        return self.o(attend(q, k, v, extra).reshape(*q.shape[:2], -1)), KV(k, v)


class Layer(nnx.Module):
    """A pre-norm decoder layer round a feed-forward that the caller chooses."""

    def __init__(self, c: Config, *, rngs: nnx.Rngs):
        self.norm1 = layers.RMSNorm(c.width, c.norm_eps, rngs=rngs)
        self.attention = Attention(c, rngs=rngs)
        self.norm2 = layers.RMSNorm(c.width, c.norm_eps, rngs=rngs)

    def __call__(
        self, x, angles, attend: Attend, extra: Any, feed_forward: FeedForward, read: Read
    ) -> tuple[jax.Array, KV, jax.Array | None]:
        out, kv = self.attention(self.norm1(x), angles, attend, extra, read)
        x = read(x) + out
        out, router = feed_forward(self.norm2(x))
        return x + out, kv, router


def _experts(c: Config) -> tuple:
    return Experts, c.width, c.experts, c.init_scale


def init(c: Config, key: jax.Array) -> Params:
    """Returns random parameters of the text model."""
    keys = jax.random.split(key, 3)
    shape = (c.vocab_size, c.width)
    params = {
        "embed": c.init_scale * jax.random.normal(keys[0], shape, jnp.float32),
        "layers": _init_layers(c, keys[1]),
        "norm": layers.init(layers.RMSNorm, c.width, c.norm_eps, key=keys[1]),
    }
    if not c.tied:
        params["head"] = c.init_scale * jax.random.normal(keys[2], shape[::-1], jnp.float32)
    return params


def _init_layers(c: Config, key: jax.Array) -> Params:
    keys = jax.random.split(key, 3)
    stack = layers.init_stack(Layer, c, key=keys[0], count=c.layers)
    if c.dense_layers:
        stack["mlp"] = layers.init_stack(
            Mlp, c.width, c.mlp_width, c.init_scale, key=keys[1], count=len(c.dense_layers)
        )
    if c.sparse_layers:
        stack["moe"] = layers.init_stack(*_experts(c), key=keys[2], count=len(c.sparse_layers))
    return stack


def layers_apart(c: Config, stack: Params) -> tuple[Params, ...]:
    """Returns the weights of each layer as `run` takes them too; each has one feed-forward."""
    kinds = {"mlp": c.dense_layers, "moe": c.sparse_layers}

    def layer(i):
        numbers = {k: kinds.get(k, range(c.layers)) for k in stack}
        places = {k: held.index(i) for k, held in numbers.items() if i in held}
        return {k: jax.tree.map(lambda y, at=at: y[at], stack[k]) for k, at in places.items()}

    return tuple(map(layer, range(c.layers)))


def run(
    c: Config,
    params: Params,
    x: Float[Array, "g t d"],
    positions: Int[Array, "g 3 #t"],
    attend: Attend,
    *,
    deepstack: Float[Array, "g k p d"] | None = None,
    extra: Any = None,
    keep_cache: bool = False,
    keep_router: bool = False,
    remat: str = "none",
    read: Read = everything,
) -> tuple[Float[Array, "g q d"], Kept]:
    """Returns the hidden states after all layers and the final norm, and what is to be kept.

    Args:
        c: sizes.
        params: of the text model; `layers` may be what `layers_apart` returns, where all are read.
        x: embedded tokens, visual tokens already in their places.
        positions: M-RoPE; one for all tokens, as completions of a group are decoded, or one each.
        attend: (q, k, v, extra of this layer) -> attention output.
        deepstack: features of the vision tower's inner blocks, 0 where no visual token stands; the
            k-th are added to the first P tokens after layer k.
        extra: pytree with a leading layer axis, handed to `attend` slice by slice.
        keep_cache: also return keys and values, stacked over the layers.
        keep_router: also return the router's logits.
        remat: what a layer keeps for the backward pass, see nn.remat.
        read: what of [G, T, ...] is returned; of the last layer, nothing is worked out for the
            other tokens but keys and values. The router's logits are those of all tokens.
    """
    angles = rope.mrope(positions, c.rope_freqs, c.rope_axes)
    stack, mixed = params["layers"], {}
    if c.sparse_layers and c.dense_layers and not isinstance(stack, tuple):
        stack = dict(stack)
        mixed = {name: stack.pop(name) for name in ("mlp", "moe")}

    def body(x, i, weights, extra, read=everything):
        own = {k: v for k, v in weights.items() if k not in ("mlp", "moe")}
        feed_forward = _feed_forward(c, weights, mixed, i)
        x, kv, router = layers.bind(Layer, c, params=own)(
            x, angles, attend, extra, feed_forward, read
        )
        if deepstack is not None:
            x = _add_features(x, i, deepstack, read)
        kept = Kept(kv if keep_cache else None, router if keep_router else None)
        return constrain(x, "batch", "tokens"), kept

    xs = (jnp.arange(c.layers), stack, extra)
    if read is everything or keep_router:
        run_layer = checkpointed(body, remat)
        x, kept = each(lambda x, layer: run_layer(x, *layer), x, *xs)
        x = read(x)
    else:
        first = checkpointed(lambda x, i, xs, own: body(x, *in_place(xs, i, own)), remat)
        x, kept = all_but_last(first, x, xs)
        last = checkpointed(functools.partial(body, read=read), in_memory(remat))
        x, new = last(x, *jax.tree.map(lambda y: y[-1], xs))
        kept = jax.tree.map(lambda old, new: old.at[-1].set(new), kept, new)
    if kept.router is not None and c.sparse_layers:
        kept = kept._replace(router=kept.router[np.array(c.sparse_layers)])
    return layers.bind(layers.RMSNorm, c.width, c.norm_eps, params=params["norm"])(x), kept


def _feed_forward(c: Config, weights: Params, mixed: Params, layer: jax.Array) -> FeedForward:
    """Returns the feed-forward of this layer.

    Layers of both kinds cannot stand in one stack: there are two, `mixed`, and the layer number
    says where in which one a layer stands.
    """

    def dense(params, x):
        return layers.bind(Mlp, c.width, c.mlp_width, c.init_scale, params=params)(x)

    def sparse(params, x):
        return layers.bind(*_experts(c), params=params)(x)

    if "moe" in weights:
        return lambda x: sparse(weights["moe"], x)
    if not mixed:
        return lambda x: (dense(weights["mlp"], x), None)
    assert c.experts is not None
    count = c.experts.count
    order = np.zeros(c.layers, np.int32)  # the layer's place in the stack of its kind
    order[list(c.sparse_layers)] = np.arange(len(c.sparse_layers))
    order[list(c.dense_layers)] = np.arange(len(c.dense_layers))
    is_sparse = jnp.asarray(np.isin(np.arange(c.layers), c.sparse_layers))[layer]
    at = jnp.asarray(order)[layer]

    def pick(name):
        return jax.tree.map(lambda v: jax.lax.dynamic_index_in_dim(v, at, 0, False), mixed[name])

    def without_experts(x):
        return dense(pick("mlp"), x), jnp.zeros((*x.shape[:2], count), x.dtype)

    return lambda x: jax.lax.cond(is_sparse, lambda x: sparse(pick("moe"), x), without_experts, x)


def _add_features(x: jax.Array, layer: jax.Array, deepstack: jax.Array, read: Read) -> jax.Array:
    def add(x):
        features = read(jax.lax.dynamic_index_in_dim(deepstack, layer, 1, keepdims=False))
        if features.shape == x.shape:
            return x + features
        return x.at[:, : features.shape[1]].add(features)

    return jax.lax.cond(layer < deepstack.shape[1], add, lambda x: x, x)
