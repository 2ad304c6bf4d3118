"""Where arrays lie: parameter path -> logical axes -> PartitionSpec."""

import math
import re
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A logical axis names what an axis of an array means; a mesh axis is where it may be split.
LOGICAL: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "expert": ("tensor",),  # the tokens are whole along it, so none has to travel to its experts
    "vocab": ("tensor",),
}

# The first rule whose expression matches the whole path wins. The axes are those of the array, the
# leading layer axis included. Families add no rules of their own as long as they keep these names.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"text/embed", ("vocab", "embed")),
    (r"text/head", ("embed", "vocab")),
    (r"text/layers/attention/[qkv]/kernel", (None, "embed", "heads")),
    (r"text/layers/attention/[qkv]/bias", (None, "heads")),
    (r"text/layers/attention/o/kernel", (None, "heads", "embed")),
    (r"text/layers/mlp/(gate|up)/kernel", (None, "embed", "mlp")),
    (r"text/layers/mlp/down/kernel", (None, "mlp", "embed")),
    (r"text/blocks/\d+/attention/[qkv]/kernel", (None, "embed", "heads")),
    (r"text/blocks/\d+/attention/[qkv]/bias", (None, "heads")),
    (r"text/blocks/\d+/attention/o/kernel", (None, "heads", "embed")),
    (r"text/blocks/\d+/mlp/(gate|up)/kernel", (None, "embed", "mlp")),
    (r"text/blocks/\d+/mlp/down/kernel", (None, "mlp", "embed")),
    (r"text/blocks/\d+/mlp/shared/(gate|up)/kernel", (None, "embed", "mlp")),
    (r"text/blocks/\d+/mlp/shared/down/kernel", (None, "mlp", "embed")),
    (r"text/blocks/\d+/mlp/(router|shared_gate)/kernel", (None, "embed")),
    (r"text/blocks/\d+/mlp/(gate|up)", (None, "expert", "embed")),
    (r"text/blocks/\d+/mlp/down", (None, "expert", None, "embed")),
    # Whole on the tensor axis: queries, keys and values of all heads stand side by side.
    (r"text/blocks/\d+/delta/(qkv|gate|beta|decay)/kernel", (None, "embed")),
    (r"text/blocks/\d+/delta/o/kernel", (None, None, "embed")),
    (r"text/blocks/\d+/delta/(conv|log_rate|decay_bias)", ()),
    (r"text/layers/moe/router/kernel", (None, "embed")),
    (r"text/layers/moe/gate_up", (None, "expert", "embed")),
    (r"text/layers/moe/down", (None, "expert", None, "embed")),
    (r"vision/blocks/qkv/kernel", (None, "embed", None, "heads")),
    (r"vision/blocks/qkv/bias", (None, None, "heads")),
    (r"vision/blocks/proj/kernel", (None, "heads", "embed")),
    (r"vision/(blocks|deepstack)/(gate|fc1)/kernel", (None, "embed", "mlp")),
    (r"vision/(blocks|deepstack)/(gate|fc1)/bias", (None, "mlp")),
    (r"vision/(blocks|deepstack)/fc2/kernel", (None, "mlp", "embed")),
    (r"vision/merger/fc1/kernel", ("embed", "mlp")),
    (r"vision/merger/fc1/bias", ("mlp",)),
    (r"vision/merger/fc2/kernel", ("mlp", "embed")),
    (r"vision/embed/(patch/kernel|table)", (None, "embed")),
    (r"lora/.*", ()),  # small, and their products are needed whole
    (r".*/(scale|bias)", ()),
)


def param_shardings(mesh: Mesh, abstract_params: Any) -> Any:
    """A sharding for every parameter, in a tree of the same structure.

    An axis that the mesh does not divide stays whole.

    Raises:
        ValueError: a parameter that no rule covers.
    """

    def place(path: tuple, leaf: Any) -> NamedSharding:
        name = "/".join(str(key.key) for key in path)
        for pattern, axes in RULES:
            if re.fullmatch(pattern, name):
                return NamedSharding(mesh, spec(mesh, axes, leaf.shape))
        raise ValueError(f"no sharding rule for parameter {name} {leaf.shape}; add one to RULES")

    return jax.tree_util.tree_map_with_path(place, abstract_params)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(LOGICAL["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
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
    """The PartitionSpec of logical axes; one that the mesh does not divide stays whole."""
    assert len(axes) <= len(shape), (axes, shape)
    out = []
    for axis, size in zip(axes, shape, strict=False):
        names = LOGICAL[axis] if axis else ()
        ways = math.prod(mesh.shape[n] for n in names)
        out.append(names if names and size % ways == 0 else None)
    return PartitionSpec(*out)
