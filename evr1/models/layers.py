"""Building blocks that every family shares.

Parameters are float32; the computation has the dtype of the input.

A module is bound to its parameters where it is used, `bind(TextLayer, config, params)(x)`: inside a
scan over layers that costs a few microseconds of tracing, and outside models/ there is only the
parameter dict.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from evr1.types import Params


@functools.cache
def _graphdef(cls: Callable[..., nnx.Module], args: tuple) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: cls(*args, rngs=nnx.Rngs(0))))[0]


def bind(cls: Callable[..., nnx.Module], *args: Any, params: Params) -> Any:
    """The module `cls(*args)` holding `params`; `args` must be hashable."""
    return nnx.merge(_graphdef(cls, args), params)


def init(cls: Callable[..., nnx.Module], *args: Any, key: jax.Array) -> Params:
    """Fresh parameters of `cls(*args)` as a nested dict."""
    return nnx.to_pure_dict(nnx.state(cls(*args, rngs=nnx.Rngs(key))))


def init_stack(cls: Callable[..., nnx.Module], *args: Any, key: jax.Array, count: int) -> Params:
    """Fresh parameters of `count` modules, stacked on a leading axis."""
    return jax.vmap(lambda k: init(cls, *args, key=k))(jax.random.split(key, count))


def precision(dtype: Any) -> jax.lax.Precision:
    """Full float32 products for float32: accelerators round the factors otherwise."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


class Linear(nnx.Module):
    """`x @ kernel + bias`; the kernel is cast at use, so float32 masters serve any dtype."""

    def __init__(self, fan_in: int, *out: int, scale: float, bias: bool, rngs: nnx.Rngs):
        kernel = scale * jax.random.normal(rngs.params(), (fan_in, *out), jnp.float32)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(out, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "..."]:
        kernel = self.kernel[...].astype(x.dtype)
        y = jax.lax.dot_general(
            x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=precision(x.dtype)
        )
        if self.bias is None:
            return y
        bias = self.bias[...].astype(x.dtype)
        return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


class RMSNorm(nnx.Module):
    """Root-mean-square norm of the last axis, in float32: bfloat16 sums lose small channels.

    The scale is applied in the dtype of the computation, as the checkpoints were trained.
    """

    def __init__(self, width: int, eps: float, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        y = x.astype(jnp.float32)
        y = (y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)).astype(x.dtype)
        return y * _last_axis(self.scale[...], y).astype(x.dtype)


class CentredRMSNorm(nnx.Module):
    """Root-mean-square norm whose parameter is what the scale differs from 1, in float32."""

    def __init__(self, width: int, eps: float, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.zeros(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * (1 + _last_axis(self.scale[...], y))).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm of the last axis with scale and bias, in float32."""

    def __init__(self, width: int, eps: float, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * _last_axis(self.scale[...], y) + _last_axis(self.bias[...], y)).astype(x.dtype)


def _last_axis(v: jax.Array, like: jax.Array) -> jax.Array:
    return v.reshape((1,) * (like.ndim - 1) + v.shape)
