"""The device meshes: four axes, whatever the machine; one to train on, one to draw on."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "context", "tensor")
AUTO = (AxisType.Auto,) * 4


def make_mesh(
    *, data: int, fsdp: int, tensor: int, context: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """Returns a mesh over all devices of all hosts.

    Run jitted functions inside `with jax.set_mesh(mesh):`, so that `constrain` knows the mesh.

    Args:
        data: copies of the model; -1: whatever is left (allowed once).
        fsdp: ways in which parameters and optimizer state are split.
        tensor: ways in which heads, feed-forward widths and the vocabulary are split.
        context: devices that share the tokens of a group; parameters are split over them too.
        devices: these, and not the devices that are there.

    Raises:
        ValueError: the sizes do not multiply to the number of devices, or `context` times
            `tensor` does not divide those of a host.
    """
    sizes: dict[str, int] = dict(zip(AXES, (data, fsdp, context, tensor), strict=True))
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
    devices = list(jax.devices() if devices is None else devices)
    hosts = len({d.process_index for d in devices})
    if hosts == 1:
        return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=AUTO, devices=devices)
    context, tensor = sizes["context"], sizes["tensor"]
    if count // hosts % (context * tensor):
        what = f"context={context} x tensor={tensor}" if context > 1 else f"tensor={tensor}"
        raise ValueError(
            f"{asked}: {what} does not divide the {count // hosts} devices of a host, and layers"
            " that are cut across hosts would wait for the network; lower it"
        )
    # Host by host, so that what a host owns of a batch stands together.
    devices = sorted(devices, key=lambda d: d.process_index)
    return Mesh(np.array(devices).reshape(*sizes.values()), AXES, axis_types=AUTO)


def actor_mesh(mesh: Mesh | None, heads: int, tensor: int = 0) -> Mesh | None:
    """Returns the devices of a mesh as they draw: copies of the weights, each cut within a host.

    A decode step then reads its device's part of them and moves activations alone; cut over `fsdp`
    they would all travel at every step.

    Args:
        mesh: that trains, or that a command was given; None: one device.
        heads: of the keys.
        tensor: devices that share a copy; 0: those that the mesh has on this axis, if more than
            one, else as many of a host's as divide the heads.

    Raises:
        ValueError: `tensor` does not divide the devices of a host.
    """
    if mesh is None:
        return None
    devices = mesh.devices.reshape(-1)
    chips = len(devices) // len({d.process_index for d in devices})
    if not tensor:
        tensor = mesh.shape["tensor"] if mesh.shape["tensor"] > 1 else math.gcd(chips, heads)
    if chips % tensor:
        raise ValueError(
            f"rollout.tensor={tensor} does not divide the {chips} devices of a host; give one of "
            f"{', '.join(str(t) for t in range(1, chips + 1) if chips % t == 0)}, or 0"
        )
    return Mesh(devices.reshape(-1, 1, 1, tensor), AXES, axis_types=AUTO)
