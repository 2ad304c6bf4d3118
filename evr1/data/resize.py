"""Bicubic resizing with antialiasing, equal to torchvision's for uint8 to the last bit.

HF's image processors resize uint8 tensors with `torchvision.transforms.v2.functional.resize`.
PyTorch does that in whole numbers: weights of 16 bits, the width first, rounded to uint8 in
between. Pillow rounds its weights elsewhere and is off by up to two levels.

Source: pytorch 2.13, aten/src/ATen/native/cpu/UpSampleKernel.cpp (`HelperInterpCubic`).
"""

import functools

import numpy as np
from scipy import sparse

_SHARPNESS = -0.5  # of Keys' cubic kernel, as in Pillow
_WEIGHT_BITS = 15


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8[T, height, width, 3] from uint8[T, h, w, 3]."""
    return np.stack([_resize(frame, height, width) for frame in frames])


def _resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    h, w, channels = frame.shape
    if w != width:
        columns = np.ascontiguousarray(frame.transpose(1, 0, 2)).reshape(w, h * channels)
        frame = _mix_rows(columns, width).reshape(width, h, channels).transpose(1, 0, 2)
    if h != height:
        rows = np.ascontiguousarray(frame).reshape(h, width * channels)
        frame = _mix_rows(rows, height).reshape(height, width, channels)
    return np.ascontiguousarray(frame)


def _mix_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """uint8[size, m] from uint8[n, m]: every new row a weighted sum of old ones, rounded."""
    weights, bits = _weights(len(rows), size)
    sums = weights @ rows.astype(np.int32)
    sums += 1 << (bits - 1)
    sums >>= bits
    return np.clip(sums, 0, 255, out=sums).astype(np.uint8)


@functools.lru_cache(maxsize=512)
def _weights(size: int, new_size: int) -> tuple[sparse.csr_matrix, int]:
    """int32[new_size, size] and the number of bits after the binary point.

    Four pixels become two: the kernel is eight pixels wide, of which four are there.

    >>> weights, bits = _weights(4, 2)
    >>> (weights.toarray() / 2**bits).round(3)
    array([[ 0.459,  0.459,  0.12 , -0.037],
           [-0.037,  0.12 ,  0.459,  0.459]])
    """
    scale = size / new_size
    stretch = max(scale, 1.0)
    centers = scale * (np.arange(new_size) + 0.5)
    first = np.maximum((centers - 2 * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + 2 * stretch + 0.5).astype(np.int64), size)
    columns = first[:, None] + np.arange((last - first).max())
    is_inside = columns < last[:, None]
    weights = _cubic((columns - centers[:, None] + 0.5) * (1 / stretch)) * is_inside
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**_WEIGHT_BITS:
        bits += 1
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    rows = np.broadcast_to(np.arange(new_size)[:, None], columns.shape)
    where = rows[is_inside], columns[is_inside]
    return sparse.csr_matrix((whole[is_inside], where), shape=(new_size, size)), bits


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
