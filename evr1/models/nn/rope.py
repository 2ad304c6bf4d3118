"""Rotary position embeddings: M-RoPE of the text model, two-axis RoPE of the vision tower.

Angles, sines and products are float32: at position 20,000 a bfloat16 angle is wrong by tens of
radians.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def frequencies(rotary: int, theta: float) -> np.ndarray:
    """Returns the float32[rotary // 2] inverse frequencies theta ** (-2 i / rotary)."""
    return (1.0 / theta ** (np.arange(0, rotary, 2, dtype=np.float32) / rotary)).astype(np.float32)


def interleaved_axes(sections: tuple[int, int, int], count: int) -> np.ndarray:
    """Returns which of the axes (t, h, w) turns each of `count` frequencies.

    As Qwen3-VL interleaves them, every third frequency from 1 belongs to h and from 2 to w, until
    the axis has used up its section; the rest is t.

    >>> interleaved_axes((4, 2, 2), 8).tolist()
    [0, 1, 2, 0, 1, 2, 0, 0]
    """
    axes = np.zeros(count, np.int32)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return axes


def mrope(
    positions: Int[Array, "b 3 t"], freqs: np.ndarray, axes: np.ndarray
) -> tuple[Float[Array, "b t a"], Float[Array, "b t a"]]:
    """Returns cosines and sines of M-RoPE, one angle per frequency (half a head dim).

    Args:
        positions: (t, h, w) position of every token.
        freqs: inverse frequencies.
        axes: the axis that turns each frequency.

    Source: Qwen3VLTextRotaryEmbedding, transformers 5.24.
    """
    turning = jnp.moveaxis(positions, 1, -1)[..., axes]
    angles = turning.astype(jnp.float32) * jnp.asarray(freqs)[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def axial(
    positions: Int[Array, "b s 2"], freqs: np.ndarray
) -> tuple[Float[Array, "b s a"], Float[Array, "b s a"]]:
    """Returns cosines and sines of the vision tower: half of the angles by row, half by column.

    Source: Qwen3VLVisionRotaryEmbedding, transformers 5.24.
    """
    angles = positions.astype(jnp.float32)[..., None] * jnp.asarray(freqs)[None, None, None]
    angles = angles.reshape(*positions.shape[:2], 2 * len(freqs))
    return jnp.cos(angles), jnp.sin(angles)


def rotate_first(
    x: Float[Array, "b t h a"], cos: Float[Array, "#b #t c"], sin: Float[Array, "#b #t c"]
) -> Float[Array, "b t h a"]:
    """Rotates the first 2 C channels of every head; the others stay as they are."""
    turning, rest = jnp.split(x, [2 * cos.shape[-1]], axis=-1)
    return jnp.concatenate([rotate(turning, cos, sin), rest], axis=-1)


def rotate(
    x: Float[Array, "b t h a"], cos: Float[Array, "#b #t c"], sin: Float[Array, "#b #t c"]
) -> Float[Array, "b t h a"]:
    """Turns the pairs (i, i + a/2) of every head; `b` and `t` of the angles may be 1."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    ).astype(x.dtype)
