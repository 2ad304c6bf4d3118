"""The device mesh: three axes, whatever the machine."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(*, data: int, fsdp: int, tensor: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh over all devices of all hosts.

    Run jitted functions inside `with jax.set_mesh(mesh):`, so that `constrain` knows the mesh.

    Args:
        data: copies of the model; -1: whatever is left (allowed once).
        fsdp: ways in which parameters and optimizer state are split.
        tensor: ways in which heads, feed-forward widths and the vocabulary are split.
        devices: these, and not the devices that are there.

    Raises:
        ValueError: the sizes do not multiply to the number of devices.
    """
    sizes: dict[str, int] = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    asked = ", ".join(f"mesh.{k}={v}" for k, v in sizes.items())
    count = jax.device_count() if devices is None else len(devices)
    free = [k for k, v in sizes.items() if v == -1]
    if len(free) > 1 or any(v < 1 and v != -1 for v in sizes.values()):
        raise ValueError(f"{asked}: every size must be at least 1, and one of them may be -1")
    fixed = math.prod(v for v in sizes.values() if v != -1)
    if free:
        sizes[free[0]] = count // fixed
    if fixed * (count // fixed if free else 1) != count:
        raise ValueError(
            f"{asked} needs a multiple of {fixed} devices, there are {count};"
            " change the sizes that are not -1"
            if free
            else f"{asked} needs {fixed} devices, there are {count}; set one of them to -1"
        )
    auto = (AxisType.Auto,) * 3
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=auto, devices=devices)
