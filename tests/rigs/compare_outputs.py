"""What the files of two runs say, and the first thing in which they differ."""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from runs_rig import CLOCKS

NEW_CHECKS = ("gold answer in open reasoning",)  # canaries that the base does not have
DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def load(path: Path) -> Any:
    """What a file says: dicts, lists, arrays, numbers and texts, without clocks."""
    if path.suffix == ".safetensors":
        raw = path.read_bytes()
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        for name, info in tensors.items():
            first, end = info["data_offsets"]
            array = np.frombuffer(raw[start + first : start + end], DTYPES[info["dtype"]])
            tensors[name] = array.reshape(info["shape"])
        return {"header": header} | tensors
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in text.split("\n") if line]
        kept = [{k: v for k, v in x.items() if not k.startswith(CLOCKS)} for x in lines]
        return {f"line {i}": x for i, x in enumerate(kept, start=1)}
    lines = text.split("\n")
    if path.name != "log.txt":
        return lines
    return [x for x in lines if x.startswith(("✓", "✗")) and not any(n in x for n in NEW_CHECKS)]


def difference(a: Any, b: Any, place: str = "") -> str:
    """The first difference of what two files say, the order of keys included; empty: none.

    >>> difference({"line 1": {"step": 1, "x": [1.0]}}, {"line 1": {"step": 1, "x": [-1.0]}})
    'line 1, x, 0: 1.0 | -1.0'
    """
    place_of = f"{place}, " if place else ""
    if isinstance(a, list) and isinstance(b, list):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in (k for k in a if k in b):
            found = difference(a[key], b[key], f"{place_of}{key}")
            if found:
                return found
        if list(a) != list(b):
            one = [k for k in a if k not in b][:3]
            other = [k for k in b if k not in a][:3]
            return (
                f"{place_of}keys: {one} | {other}" if one or other else f"{place_of}order of keys"
            )
        return ""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{place}: {a.dtype}{a.shape} | {b.dtype}{b.shape}"
        bits = f"u{a.dtype.itemsize}"
        at = np.flatnonzero(a.reshape(-1).view(bits) != b.reshape(-1).view(bits))
        if not at.size:
            return ""
        where = f"{place}, element {at[0]} ({at.size} of {a.size} differ)"
        return f"{where}: {a.reshape(-1)[at[0]]!r} | {b.reshape(-1)[at[0]]!r}"
    return "" if repr(a) == repr(b) else f"{place}: {a!r} | {b!r}"


def perturbed(value: Any) -> Any:
    """A copy with its last number a step up, or where there is none, its last text longer."""
    changed = _stepped(value, (int, float, np.ndarray))
    return _stepped(value, (str,)) if changed is None else changed


def _stepped(value: Any, kinds: tuple[type, ...]) -> Any:
    """`perturbed` for leaves of these kinds; None: it holds none."""
    if isinstance(value, dict | list):
        for key in reversed(value if isinstance(value, dict) else range(len(value))):
            changed = _stepped(value[key], kinds)
            if changed is not None:
                copy = value.copy()
                copy[key] = changed
                return copy
    if isinstance(value, bool) or not isinstance(value, kinds):
        return None
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1).copy()
        flat.view(f"u{value.dtype.itemsize}")[-1:] ^= 1
        return flat.reshape(value.shape)
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    return value + ("x" if isinstance(value, str) else 1)
