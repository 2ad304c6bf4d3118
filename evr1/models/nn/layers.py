"""Building blocks that every family shares.

Parameters are float32; the computation has the dtype of the input.

A module is bound to its parameters where it is used, `bind(TextLayer, config, params)(x)`: inside a
scan over layers that costs a few microseconds of tracing, and outside models/ there is only the
parameter dict.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from evr1.formats.processor_files import Channels, Statistics
from evr1.types import Params, VisionInput


@functools.cache
def _graphdef(cls: Callable[..., nnx.Module], args: tuple) -> nnx.GraphDef:
    return nnx.split(nnx.eval_shape(lambda: cls(*args, rngs=nnx.Rngs(0))))[0]


def bind(cls: Callable[..., nnx.Module], *args: Any, params: Params) -> Any:
    """Returns the module `cls(*args)` holding `params`; `args` must be hashable."""
    return nnx.merge(_graphdef(cls, args), params)


def init(cls: Callable[..., nnx.Module], *args: Any, key: jax.Array) -> Params:
    """Returns fresh parameters of `cls(*args)` as a nested dict."""
    return nnx.to_pure_dict(nnx.state(cls(*args, rngs=nnx.Rngs(key))))


def init_stack(cls: Callable[..., nnx.Module], *args: Any, key: jax.Array, count: int) -> Params:
    """Returns fresh parameters of `count` modules, stacked on a leading axis."""
    return jax.vmap(lambda k: init(cls, *args, key=k))(jax.random.split(key, count))


def precision(dtype: Any) -> jax.lax.Precision:
    """Returns full precision for float32: accelerators round the factors otherwise."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "a", "b", "dropout"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Adapted:
    """A matrix with low-rank adapters in its place: `kernel + a @ b`, which is never worked out.

    A scan over layers slices it as it slices any other parameter. JAX makes trees of this structure
    with other leaves than arrays, so the fields have no type that is checked.

    Attributes:
        kernel: [..., I, *O].
        a: [..., I, R].
        b: [..., R, prod(O)].
        dropout: (key, share) of the inputs that `a` does not see; None: it sees all.
    """

    kernel: Any  # jax.Array
    a: Any  # jax.Array
    b: Any  # jax.Array
    dropout: Any = None  # tuple[jax.Array, jax.Array] | None

    def shown(self, x: jax.Array) -> jax.Array:
        """Returns what `a` sees of the input x."""
        if self.dropout is None:
            return x
        key, share = self.dropout
        is_kept = jax.random.uniform(key, x.shape) >= share
        return jnp.where(is_kept, x / (1 - share).astype(x.dtype), 0)


Matrix = jax.Array | Adapted


def normalized(vision: VisionInput, statistics: Statistics, dtype: Any) -> Float[Array, "b s c"]:
    """Returns patches as the tower's first kernel takes them; a channel is a run of values."""
    s = statistics
    values = vision.patches.shape[-1]

    def spread(channels: Channels) -> np.ndarray:
        return np.repeat(np.array(channels, np.float32), values // len(channels))[None, None]

    def of(image: Channels, video: Channels) -> jax.Array | np.ndarray:
        if image == video:
            return spread(image)
        return jnp.where(vision.is_image[..., None], spread(image), spread(video))

    pixels = vision.patches.astype(jnp.float32) / 255
    pixels = (pixels - of(s.image_mean, s.video_mean)) / of(s.image_std, s.video_std)
    return pixels.astype(dtype)


def matmul(x: jax.Array, kernel: Matrix, *, accumulate: Any = None) -> jax.Array:
    """Returns `x @ kernel` in the dtype of x, over the last axis of x and the first of the kernel.

    Args:
        x: [..., I].
        kernel: [I, *O]; of an adapted one, both paths are worked out and added.
        accumulate: dtype of the result; None: that of x.
    """
    if isinstance(kernel, Adapted):
        y = matmul(x, kernel.kernel, accumulate=accumulate)
        change = matmul(matmul(kernel.shown(x), kernel.a), kernel.b, accumulate=accumulate)
        return y + change.reshape(y.shape)
    return jax.lax.dot_general(
        x,
        kernel.astype(x.dtype),
        (((x.ndim - 1,), (0,)), ((), ())),
        precision=precision(x.dtype),
        preferred_element_type=accumulate,
    )


@jax.custom_vjp
def affine(x: jax.Array, kernel: Matrix, bias: jax.Array) -> jax.Array:
    """Returns `x @ kernel + bias` in the dtype of x, rounded once.

    Its gradient is that of a product in the dtype of x: the sum's own would multiply float32
    cotangents, at a fraction of the speed.
    """
    return _plus(matmul(x, kernel, accumulate=jnp.float32), bias.astype(x.dtype)).astype(x.dtype)


def _affine_forward(x, kernel, bias):
    return affine(x, kernel, bias), (x, kernel, bias)


def _affine_backward(inputs, cotangent):
    def rounded_twice(x, kernel, bias):
        return _plus(matmul(x, kernel), bias.astype(x.dtype))

    return jax.vjp(rounded_twice, *inputs)[1](cotangent)


affine.defvjp(_affine_forward, _affine_backward)


def _plus(y: jax.Array, bias: jax.Array) -> jax.Array:
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def rounded_once(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Returns the elementwise function worked out in float32 for any dtype; its gradient likewise.

    The backward pass keeps the input as it came: float32 steps in between would take twice that.
    """

    @jax.custom_vjp
    def rounded(x: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32)).astype(x.dtype)

    def backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
        _, pull = jax.vjp(function, x.astype(jnp.float32))
        return (pull(cotangent.astype(jnp.float32))[0].astype(x.dtype),)

    rounded.defvjp(lambda x: (rounded(x), x), backward)
    return rounded


silu = rounded_once(jax.nn.silu)
gelu = rounded_once(functools.partial(jax.nn.gelu, approximate=False))
gelu_tanh = rounded_once(functools.partial(jax.nn.gelu, approximate=True))
quick_gelu = rounded_once(lambda x: x * jax.nn.sigmoid(1.702 * x))


def beside(matrices: Sequence[Matrix], dtype: Any) -> Matrix:
    """Returns the matrices [..., I, O] side by side, adapters with them.

    Of adapters: a | a', and b over b', each in the columns of its own matrix.
    """
    kernels = [m.kernel if isinstance(m, Adapted) else m for m in matrices]
    kernel = jnp.concatenate([k.astype(dtype) for k in kernels], axis=-1)
    a, b, before = [], [], 0
    for matrix, own in zip(matrices, kernels, strict=True):
        after = kernel.shape[-1] - before - own.shape[-1]
        if isinstance(matrix, Adapted):
            a.append(matrix.a)
            b.append(jnp.pad(matrix.b, [*[(0, 0)] * (matrix.b.ndim - 1), (before, after)]))
        before += own.shape[-1]
    if not a:
        return kernel
    return Adapted(kernel, jnp.concatenate(a, axis=-1), jnp.concatenate(b, axis=-2))


class Linear(nnx.Module):
    """`x @ kernel + bias`; the kernel is cast at use, so float32 masters serve any dtype.

    The parameter may be `Adapted`.
    """

    def __init__(self, fan_in: int, *out: int, scale: float, bias: bool, rngs: nnx.Rngs):
        kernel = scale * jax.random.normal(rngs.params(), (fan_in, *out), jnp.float32)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(out, jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "..."]:
        kernel = self.kernel.get_value()
        return matmul(x, kernel) if self.bias is None else affine(x, kernel, self.bias[...])


class Mlp(nnx.Module):
    """SwiGLU."""

    def __init__(self, width: int, mlp_width: int, scale: float, *, rngs: nnx.Rngs):
        opts = {"scale": scale, "bias": False, "rngs": rngs}
        self.gate = Linear(width, mlp_width, **opts)
        self.up = Linear(width, mlp_width, **opts)
        self.down = Linear(mlp_width, width, **opts)

    @jax.named_scope("feed_forward")
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        return self.down(silu(self.gate(x)) * self.up(x))


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
