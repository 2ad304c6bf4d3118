"""Bicubic resizing with antialiasing, equal to both of torchvision's ways to do it on a CPU.

Images, and videos under `data.video_budget=hf`, go through HF's processors, which resize uint8
tensors with `torchvision.transforms.v2.functional.resize`. PyTorch does that in whole numbers:
weights of 16 bits, the width first, rounded to uint8 in between. `resize` equals it to the last
bit.

Other videos go through qwen-vl-utils, which calls `torchvision.transforms.functional.resize`. That
casts to float32 first and rounds once, at the end: where edges overshoot, the two ways are many
levels apart. `resize_float` equals it to the last bit, too, on a processor with AVX2.

Pillow rounds its weights elsewhere and equals neither.

Source: pytorch 2.13, aten/src/ATen/native/cpu/UpSampleKernel.cpp (`HelperInterpCubic`).
"""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from evr1.data.records import Budgets

_SHARPNESS = -0.5  # of Keys' cubic kernel, as in Pillow
_WEIGHT_BITS = 15
_CACHE_BYTES = 2**19  # of float64 that are worked on at a time
_BLOCK = 4  # neighbours whose products PyTorch sums at a time


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8[T, h, w, 3] to uint8[T, height, width, 3], in whole numbers."""
    out = np.empty((len(frames), height, width, frames.shape[-1]), np.uint8)
    for i, frame in enumerate(frames):
        out[i] = _resize(frame, height, width, _mix_rows)
    return out


def resize_float(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8[T, h, w, 3] to uint8[T, height, width, 3] in float32, rounded half to even."""
    out = np.empty((len(frames), height, width, frames.shape[-1]), np.uint8)
    for i, frame in enumerate(frames):
        sums = _resize(frame, height, width, _mix_rows_float)
        out[i] = np.rint(np.clip(sums, 0, 255))
    return out


def resizer(budgets: Budgets) -> Callable[[np.ndarray, int, int], np.ndarray]:
    """Returns how the frames of a video are resized: as by whoever has the budget."""
    return resize_float if budgets.video_size is None else resize


def _resize(frame: np.ndarray, height: int, width: int, mix_rows: Callable) -> np.ndarray:
    """Returns the frame [h, w, 3] as [height, width, 3], the width mixed first."""
    # [h, 3, w] on the way: turning whole rows takes a fifth of the time of turning pixels.
    x = frame.transpose(0, 2, 1)
    h, channels, w = x.shape
    if w != width:
        columns = np.ascontiguousarray(x.transpose(2, 1, 0)).reshape(w, channels * h)
        x = mix_rows(columns, width).reshape(width, channels, h).transpose(2, 1, 0)
    if h != height:
        rows = np.ascontiguousarray(x).reshape(h, channels * width)
        x = mix_rows(rows, height).reshape(height, channels, width)
    return x.transpose(0, 2, 1)


def _mix_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8[size, m] rows, each a rounded weighted sum of the rows uint8[n, m]."""
    weights, bits = _weights(len(rows), size)
    sums = weights @ rows.astype(np.int32)
    sums += 1 << (bits - 1)
    sums >>= bits
    return np.clip(sums, 0, 255, out=sums).astype(np.uint8)


def _mix_rows_float(rows: np.ndarray, size: int) -> np.ndarray:
    """Returns float32[size, m] rows, each a weighted sum of the rows uint8 or float32[n, m]."""
    weights, fused = _weights_float(len(rows), size)
    out = np.empty((size, rows.shape[1]), np.float32)
    step = max(64, _CACHE_BYTES // (8 * len(rows)))
    for at in range(0, rows.shape[1], step):
        part = rows[:, at : at + step].astype(np.float32)
        sums = weights @ part
        if fused:
            part = part.astype(np.float64)  # in which products of two float32 are exact
        for last in fused:
            exact = last @ part
            exact += sums
            sums = exact.astype(np.float32)
        out[:, at : at + step] = sums
    return out


def _fused(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> np.ndarray:
    """Returns float32 a * b + c, rounded once."""
    out = np.multiply(a, b, dtype=np.float64)
    out += c
    return out.astype(np.float32)


@functools.lru_cache(maxsize=512)
def _weights(size: int, new_size: int) -> tuple[sparse.csr_matrix, int]:
    """Returns weights int32[new_size, size] and the number of bits after their binary point.

    Four pixels become two: the kernel is eight pixels wide, of which four are there.

    >>> weights, bits = _weights(4, 2)
    >>> (weights.toarray() / 2**bits).round(3)
    array([[ 0.459,  0.459,  0.12 , -0.037],
           [-0.037,  0.12 ,  0.459,  0.459]])
    """
    distances, columns, is_inside = _kernel(size, new_size, np.float64)
    weights = _cubic(distances) * is_inside
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**_WEIGHT_BITS:
        bits += 1
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    return _sparse(whole, columns, is_inside, size), bits


@functools.lru_cache(maxsize=512)
def _weights_float(size: int, new_size: int) -> tuple[sparse.csr_matrix, list[sparse.csr_matrix]]:
    """Returns weights [new_size, size]: float32 of plain sums, and float64 of those to fuse in.

    PyTorch's compiler made one product and then blocks of four plain sums of the loop over a
    pixel's neighbours; those left over, at most three, are multiplied and added in one rounding.
    """
    distances, columns, is_inside = _kernel(size, new_size, np.float32)
    weights = _cubic_float(distances) * is_inside
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # one after the other, unlike `sum`
    counts = is_inside.sum(axis=1, keepdims=True)
    plain = 1 + (counts - 1) // _BLOCK * _BLOCK
    begin = _sparse(weights, columns, np.arange(columns.shape[1]) < plain, size)
    place = np.arange(columns.shape[1])
    fused = [
        _sparse(weights.astype(np.float64), columns, is_inside & (place == plain + i), size)
        for i in range(int((counts - plain).max()))
    ]
    return begin, fused


def _kernel(
    size: int, new_size: int, dtype: type[np.floating]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each new pixel's distances from its neighbours, their columns, and which exist."""
    scale = dtype(size) / dtype(new_size)
    stretch = max(scale, dtype(1))
    centers = scale * (np.arange(new_size, dtype=dtype) + dtype(0.5))
    first = np.maximum((centers - 2 * stretch + dtype(0.5)).astype(np.int64), 0)
    last = np.minimum((centers + 2 * stretch + dtype(0.5)).astype(np.int64), size)
    columns = first[:, None] + np.arange((last - first).max())
    distances = columns.astype(dtype) - centers[:, None] + dtype(0.5)
    return distances * (1 / stretch), columns, columns < last[:, None]


def _sparse(
    weights: np.ndarray, columns: np.ndarray, is_inside: np.ndarray, size: int
) -> sparse.csr_matrix:
    rows = np.broadcast_to(np.arange(len(columns))[:, None], columns.shape)
    where = rows[is_inside], columns[is_inside]
    return sparse.csr_matrix((weights[is_inside], where), shape=(len(columns), size))


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _cubic_float(x: np.ndarray) -> np.ndarray:
    """Returns what `_cubic` returns, with every sum fused, as PyTorch's compiler made it."""
    x, a = np.abs(x), np.float32(_SHARPNESS)
    near = _fused(_fused(a + 2, x, -(a + 3)) * x, x, 1)
    far = _fused(_fused(_fused(a, x, -5 * a), x, 8 * a), x, -4 * a)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
