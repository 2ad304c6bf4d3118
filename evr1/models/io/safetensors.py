"""Reads safetensors files, memory-mapped, and writes them, streamed; both with NumPy.

A file is eight bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, and the
bytes.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# Of tensors that are no part of a model, such as buffers of positions.
_OTHERS = {
    **{f"{code}{8 * n}": np.dtype(f"{code.lower()}{n}") for code in "IU" for n in (1, 2, 4, 8)},
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
    "BOOL": np.dtype(bool),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
_CODES = {dtype: code for code, dtype in (DTYPES | _OTHERS).items()}


class Entry(NamedTuple):
    """Where a tensor lies."""

    file: Path
    offset: int  # bytes from the start of the file
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_supported(self) -> bool:
        """Whether a parameter can have its dtype."""
        return self.dtype in DTYPES.values()

    def open(self) -> np.ndarray:
        """Returns the tensor, memory-mapped: reading a slice reads that slice."""
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


def read_header(path: Path) -> dict[str, Entry]:
    """Returns every tensor of a file by name, none of them read yet.

    Raises:
        ValueError: the file is not a whole safetensors file, each byte of one tensor.
    """
    size = path.stat().st_size
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError(
                f"{path}: header of {length} bytes in a file of {size}: corrupt; {_FIX}"
            )
        raw = f.read(length)
    try:
        header = dict(json.loads(raw, object_pairs_hook=_without_duplicates).items())
    except (ValueError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path}: unreadable header ({e}): corrupt; {_FIX}") from None
    entries = {
        name: _entry(path, name, info, 8 + length, size)
        for name, info in header.items()
        if name != "__metadata__"
    }
    _check_cover(path, entries, 8 + length, size)
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object as a dict, which would silently keep the last of equal keys."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"{key} stands there twice")
        out[key] = value
    return out


def _entry(path: Path, name: str, info: Any, begin: int, size: int) -> Entry:
    """Returns the tensor that a header describes; its bytes count from `begin`."""
    try:
        code, shape = str(info["dtype"]), tuple(_whole(n) for n in info["shape"])
        start, end = (_whole(n) for n in info["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: unreadable entry of {name}: corrupt; {_FIX}") from None
    dtype = (DTYPES | _OTHERS).get(code)
    if dtype is None:
        raise ValueError(f"{path}: {name} is {code}; supported: {', '.join(DTYPES)}")
    need = math.prod(shape) * dtype.itemsize
    if min(start, *shape, 0) < 0 or end - start != need or begin + end > size:
        raise ValueError(
            f"{path}: {name} {list(shape)} needs {need} bytes at {start}, the file has"
            f" {max(0, min(end, size - begin) - start)}: truncated; {_FIX}"
        )
    return Entry(path, begin + start, shape, dtype)


def _whole(n: Any) -> int:
    if type(n) is not int:
        raise TypeError
    return n


def _check_cover(path: Path, entries: Mapping[str, Entry], begin: int, size: int) -> None:
    """Refuses tensors that share bytes, and bytes that belong to none."""
    at, before = begin, ""
    for name, entry in sorted(entries.items(), key=lambda x: (x[1].offset, x[1].nbytes)):
        if entry.offset != at:
            fault = f"overlaps {before}" if entry.offset < at else "has a gap before it"
            raise ValueError(f"{path}: {name} {fault}: corrupt; {_FIX}")
        at, before = at + entry.nbytes, name
    if at != size:
        raise ValueError(f"{path}: {size - at} bytes behind the last tensor: corrupt; {_FIX}")


_FIX = "copy the file again"


def write(
    path: Path,
    tensors: Iterable[tuple[str, tuple[int, ...], np.dtype]],
    values: Iterable[np.ndarray],
) -> None:
    """Writes one file, a tensor at a time; whole on disk or not there under its name.

    Args:
        path: of the file.
        tensors: (name, shape, dtype) in the order of the bytes.
        values: the arrays, in the same order; each may be dropped once written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    tensors = list(tensors)
    for name, shape, dtype in tensors:
        end = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as f:
        f.write(len(raw).to_bytes(8, "little") + raw)
        values = iter(values)
        for name, shape, dtype in tensors:
            value = next(values)
            assert value.shape == shape, name
            # Bytes by a view: NumPy exports no buffer of bfloat16, and tobytes would copy.
            f.writelines(
                contiguous(x, dtype).reshape(-1).view(np.uint8).data for x in _parts(value)
            )
            del value  # before the next one is read
        f.flush()
        os.fsync(f.fileno())
    partial.rename(path)


def write_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Copies tensors into a file of their own."""
    tensors = [(name, e.shape, e.dtype) for name, e in entries.items()]
    write(path, tensors, (e.open() for e in entries.values()))


def _parts(value: np.ndarray) -> Iterator[np.ndarray]:
    """Yields an array's rows in runs of some megabytes: a copy of all would double the peak."""
    if value.ndim < 2:
        yield value
        return
    rows = max(1, _COPY_BYTES * len(value) // max(1, value.nbytes))
    for at in range(0, len(value), rows):
        yield value[at : at + rows]


_COPY_BYTES = 8 * 2**20


def contiguous(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns the array in C order, copied only where it is not.

    A transposed one is copied in tiles, which the processor's cache holds.
    """
    if value.flags.c_contiguous or value.ndim < 2:
        return np.ascontiguousarray(value, dtype)
    out = np.empty(value.shape, dtype)
    for i in range(0, value.shape[-2], _TILE):
        for j in range(0, value.shape[-1], _TILE):
            tile = (..., slice(i, i + _TILE), slice(j, j + _TILE))
            out[tile] = value[tile]
    return out


_TILE = 128
