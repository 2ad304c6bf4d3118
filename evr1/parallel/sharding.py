"""Where arrays lie: logical axes -> PartitionSpec. A parameter's axes stand in its weight map."""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from evr1.parallel import hosts

# A logical axis names what an axis of an array means; a mesh axis is where it may be split. Where
# two axes of an array name the same mesh axis, the first one has it.
LOGICAL: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "copies": ("data",),
    "all": ("data", "fsdp", "context", "tensor"),
    "tokens": ("context",),  # of a group, or its completions
    "frames": ("data", "fsdp", "context"),  # rows of a vision tower
    "embed": ("fsdp", "context"),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    # The tokens are whole along `tensor`, so none has to travel to its experts; those of a group
    # that devices share come together.
    "expert": ("context", "tensor"),
    "vocab": ("tensor",),
    "cached": ("tensor",),  # tokens of a prefix in the sampler's cache, where heads are too few
}


def param_shardings(mesh: Mesh, abstract_params: Any, axes: Any) -> Any:
    """Returns a sharding for every parameter, in a tree of the same structure.

    An axis that the mesh does not divide stays whole, see `undivided`.

    Args:
        mesh: of the devices.
        abstract_params: nested dict of what has a shape.
        axes: nested dict with the logical axes of each parameter (missing ones at the end are
            None); it may hold more than these.

    Raises:
        ValueError: a parameter that has no axes.
    """

    def place(keys: tuple, leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, spec(mesh, _lookup(axes, keys, leaf.shape), leaf.shape))

    return jax.tree_util.tree_map_with_path(place, abstract_params)


def undivided(mesh: Mesh, abstract_params: Any, axes: Any) -> str:
    """Returns a line that names parameters whose axes the mesh does not divide.

    They stay whole on each device. Empty: there are none.

    Args:
        mesh: see `param_shardings`.
        abstract_params: see `param_shardings`.
        axes: see `param_shardings`.
    """
    whole: dict[tuple[str, int, tuple[str, ...]], list[str]] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(abstract_params):
        named = _lookup(axes, keys, leaf.shape)
        for axis, size, (names, fits) in zip(
            named, leaf.shape, _split(mesh, named, leaf.shape), strict=False
        ):
            if axis and not fits:
                whole.setdefault((axis, size, names), []).append(_path(keys))
    parts = []
    for (axis, size, names), (first, *others) in whole.items():
        sizes = ", ".join(f"{name}={mesh.shape[name]}" for name in names if mesh.shape[name] > 1)
        verb = f" and {len(others)} more stay" if others else " stays"
        parts.append(
            f"mesh axis {sizes} does not divide {axis} ({size}): {first}{verb} whole on each device"
        )
    return "; ".join(parts)


def _lookup(axes: Any, keys: tuple, shape: tuple[int, ...]) -> tuple[str | None, ...]:
    for key in keys:
        if key.key not in axes:
            raise ValueError(
                f"no axes for parameter {_path(keys)} {shape}; add them to its weight map"
            )
        axes = axes[key.key]
    return axes


def _path(keys: tuple) -> str:
    return "/".join(str(key.key) for key in keys)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of axis 0 over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL["batch"]))


def batch_shards(mesh: Mesh | None) -> int:
    """Returns how many parts the groups of a batch are cut into."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in LOGICAL["batch"])


def put_batch(mesh: Mesh | None, tree: Any) -> Any:
    """Places host arrays on the devices, their groups spread over those of a mesh.

    On a mesh of several hosts they are this host's groups, as many as every other one has.
    """
    if mesh is None:
        return jax.device_put(tree)
    if mesh.is_multi_process:
        return hosts.place(tree, batch_sharding(mesh))
    return jax.device_put(tree, batch_sharding(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that stands whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Tells the partitioner how an activation is split; outside `jax.set_mesh` it does nothing.

    Args:
        x: the activation.
        *axes: a logical axis, or None, for each axis of x (missing ones at the end are None).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(mesh, axes, x.shape))


def spec(
    mesh: Mesh | jax.sharding.AbstractMesh, axes: tuple[str | None, ...], shape: tuple[int, ...]
) -> PartitionSpec:
    """Returns the PartitionSpec of logical axes; one that the mesh does not divide stays whole."""
    assert len(axes) <= len(shape), (axes, shape)
    return PartitionSpec(*(names if fits else None for names, fits in _split(mesh, axes, shape)))


def context_size() -> int:
    """Returns how many devices share the tokens of a group, in the mesh that is in view."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get("context", 1)


def _split(
    mesh: Mesh | jax.sharding.AbstractMesh, axes: tuple[str | None, ...], shape: tuple[int, ...]
) -> list[tuple[tuple[str, ...], bool]]:
    """Returns over which mesh axes each axis would be split, and whether they divide it."""
    out: list[tuple[tuple[str, ...], bool]] = []
    taken: set[str] = set()
    for axis, size in zip(axes, shape, strict=False):
        names = tuple(name for name in LOGICAL[axis] if name not in taken) if axis else ()
        fits = bool(names) and size % math.prod(mesh.shape[name] for name in names) == 0
        out.append((names, fits))
        taken.update(names if fits else ())
    return out
