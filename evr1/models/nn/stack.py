"""A stack of layers: all of it, with the weights of each layer in arrays of their own too, or with
a last layer that works for those tokens alone that somebody reads.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Read = Callable[[jax.Array], jax.Array]  # tokens [G, T, ...] -> those that somebody reads
# (x, number of the layer, the stack, its slice of the stack) -> x, what is kept of the layer
Body = Callable[[jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]


def each(
    body: Callable[[Any, tuple[Any, Any, Any]], tuple[Any, Any]],
    carry: Any,
    numbers: jax.Array,
    stack: Any,
    extra: Any,
) -> tuple[Any, Any]:
    """Returns what all layers make of `carry`, and what is kept of them, [L, ...].

    Args:
        body: (carry, (number, weights, extra)) -> carry, what is kept of the layer.
        carry: input of the first layer.
        numbers: int32[L].
        stack: weights, [L, ...] each; or a tuple with those of each layer. A scan is one layer to
            compile, but what it slices out of a stack CPUs copy.
        extra: pytree of [L, ...].
    """
    if not isinstance(stack, tuple):
        return jax.lax.scan(body, carry, (numbers, stack, extra))
    kept = []
    for i, weights in enumerate(stack):
        carry, new = body(carry, (numbers[i], weights, jax.tree.map(lambda y, i=i: y[i], extra)))
        kept.append(new)
    return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *kept)


def everything(x: jax.Array) -> jax.Array:
    """Returns x: all tokens are read."""
    return x


def all_but_last(body: Body, x: jax.Array, stack: Any) -> tuple[jax.Array, Any]:
    """Returns what all layers of a stack but the last make of x, and what is kept of them.

    What is kept has a place for the last layer too, [L, ...]: zeros stand there.

    Args:
        body: a layer, which takes its parameters out of the stack by `in_place`.
        x: input of the first layer.
        stack: pytree of [L, ...].
    """
    count = jax.tree.leaves(stack)[0].shape[0]
    held = jax.lax.stop_gradient(stack)
    first = jax.tree.map(lambda leaf: leaf[0], held)
    shapes = jax.eval_shape(lambda x, own: body(x, jnp.int32(0), held, own)[1], x, first)

    def step(carry, layer):
        x, kept = carry
        i, own = layer
        x, new = body(x, i, held, own)
        put = jax.lax.dynamic_update_index_in_dim
        return (x, jax.tree.map(lambda old, new: put(old, new, i, 0), kept, new)), None

    kept = jax.tree.map(lambda s: jnp.zeros((count, *s.shape), s.dtype), shapes)
    layers = jnp.arange(count - 1), jax.tree.map(lambda leaf: leaf[:-1], stack)
    return jax.lax.scan(step, (x, kept), layers)[0]


def in_place(stack: Any, i: jax.Array, own: Any) -> Any:
    """Returns layer i of a stack, read where it lies; `own`, its slice, gets the gradient.

    A stack without its last layer would be a copy of all weights. Where only the gradient of such a
    slice is looked at none is made, and gradients come stacked, as those of a whole scan do.
    """

    def read(leaf, own):
        here = jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False)
        return _instead(here, own) if jnp.issubdtype(leaf.dtype, jnp.inexact) else here

    return jax.tree.map(read, stack, own)


@jax.custom_vjp
def _instead(value: jax.Array, own: jax.Array) -> jax.Array:
    """Returns the value; `own` gets its gradient."""
    del own
    return value


_instead.defvjp(lambda value, _: (value, None), lambda _, cotangent: (None, cotangent))
