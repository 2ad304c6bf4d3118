"""How many groups decode at the same time: as many as the devices have room for.

A slot keeps the keys and values of its prompt and of its rows: 144 KiB a token of Qwen3-VL-8B, tens
of GiB for long videos. Rollouts, held-out evaluation, benchmarks and `evr1 plan` count here.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from evr1.batch.shapes import ShapeTable
from evr1.models import Model
from evr1.models.nn import cache as caches
from evr1.parallel import sharding

SHARE = 0.75  # of what weights and training state leave; the rest is for what is not counted
MOST_UNCOUNTED = 64  # groups at a time where the backend tells no limit
PREFILL_SHARE = 8  # of the slots, one in so many is prefilled at a time
GIB = 2**30


class GroupShape(NamedTuple):
    """The largest group that is drawn.

    Attributes:
        rows: completions.
        prompt_tokens: room for its prompt.
        completion_tokens: room for each completion.
        patches: of its media, padded.
        begun_tokens: of each completion, which are read again where it is carried over; 0: never.
    """

    rows: int
    prompt_tokens: int
    completion_tokens: int
    patches: int
    begun_tokens: int = 0

    @classmethod
    def largest(cls, rows: int, shapes: ShapeTable) -> "GroupShape":
        """Returns the largest group of a table of shapes."""
        patches = shapes.vision_rows[-1] * shapes.row_patches
        return cls(rows, shapes.prompt_tokens[-1], shapes.completion_tokens, patches)


class Room(NamedTuple):
    """What groups take on each device, in bytes.

    Attributes:
        free: beside weights and training state; below 0 where these alone do not fit.
        slot: of a group that decodes, with the numbers of a decode step.
        prefill: of a group that is read.
    """

    free: int
    slot: int
    prefill: int

    def takes(self, slots: int) -> int:
        """Returns what so many slots take, and the prefill that fills an eighth of them.

        >>> Room(100, 10, 5).takes(9)
        100
        """
        return slots * self.slot + -(-slots // PREFILL_SHARE) * self.prefill

    def slots(self, wanted: int) -> int:
        """Returns how many slots fit, at most `wanted`; 1 at least, since a part is a guess.

        >>> Room(100, 10, 5).slots(16), Room(100, 10, 5).slots(4), Room(9, 10, 5).slots(4)
        (7, 4, 1)
        """
        room = SHARE * self.free
        return next((k for k in range(wanted, 1, -1) if self.takes(k) <= room), 1)

    def describe(self) -> str:
        """Returns why there are no more, for the user."""
        group = f"a group takes {self.slot / GIB:.2f} GiB of a device"
        if self.free <= 0:
            return (
                f"{group}, and weights and training state {-self.free / GIB:.1f} over what it has"
            )
        return (
            f"{group} and {self.prefill / GIB:.2f} while it is read, and weights and training "
            f"state leave {self.free / GIB:.1f}, of which {SHARE:.0%} are for groups"
        )


def of_groups(model: Model, mesh: Mesh | None, shape: GroupShape, free: int) -> Room:
    """Returns the room for groups.

    Args:
        model: that draws, without adapters.
        mesh: that draws; None: one device.
        shape: of the groups.
        free: bytes of a device beside weights and training state.
    """
    cache = cache_bytes(model, mesh, *shape[:3])
    tensor = 1 if mesh is None else mesh.shape["tensor"]
    tokens = shape.prompt_tokens + shape.rows * shape.begun_tokens
    return Room(
        free=free,
        slot=cache + decode_bytes(model, shape.rows),
        prefill=max(prefill_bytes(model, tensor, tokens), tower_bytes(model, shape.patches)),
    )


def slots_alone(model: Model, mesh: Mesh | None, shape: GroupShape, wanted: int) -> int:
    """Returns how many slots have room beside the weights that draw; `wanted` where nobody says.

    Args:
        model: that draws; its weights are not on the devices yet.
        mesh: that draws; None: one device.
        shape: of the groups.
        wanted: at most so many, but for the copies of the weights that they are spread over.
    """
    copies, free = sharding.batch_shards(mesh), device_free()
    wanted = -(-wanted // copies)
    if free:
        wanted = of_groups(model, mesh, shape, free - drawn_bytes(model, mesh)).slots(wanted)
    return wanted * copies


def device_limit() -> int:
    """Returns what JAX may take of each device, in bytes; 0 where the backend does not say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return min((each.get("bytes_limit", 0) for each in stats), default=0)


def device_free() -> int:
    """Returns `device_limit` less what is there already, at least 1; 0 where nobody says."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = max((each.get("bytes_in_use", 0) for each in stats), default=0)
    limit = device_limit()
    return max(limit - used, 1) if limit else 0


def weight_bytes(params: Any) -> int:
    """Returns the bytes of the weights on the device that holds most of them."""
    held: dict[Any, int] = {}
    for leaf in jax.tree.leaves(params):
        shape = leaf.sharding.shard_shape(leaf.shape)
        for device in leaf.sharding.addressable_devices:
            held[device] = held.get(device, 0) + math.prod(shape) * leaf.dtype.itemsize
    return max(held.values(), default=0)


def drawn_bytes(model: Model, mesh: Mesh | None) -> int:
    """Returns the bytes on each device of the weights to draw with, as they will lie there."""
    dtypes = model.compute_dtypes()
    places = None if mesh is None else jax.tree.leaves(model.shardings(mesh))
    total = 0
    for i, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(model.abstract_params())):
        shape = x.shape if places is None else places[i].shard_shape(x.shape)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        total += math.prod(shape) * jnp.dtype(dtypes[name]).itemsize
    return total


def cache_bytes(model: Model, mesh: Mesh | None, rows: int, prompt_tokens: int, room: int) -> int:
    """Returns the bytes of a slot on each device that holds a share of it."""
    groups = sharding.batch_shards(mesh)
    cache = jax.eval_shape(lambda: model.init_cache(groups, rows, prompt_tokens, room))
    heads = caches.values_of(cache.prefix.k).shape[2]
    prefix = (None, None) if mesh is None else caches.prefix_axes(mesh, heads)

    def held(tree: Any, *axes: str | None) -> int:
        return sum(_held(x, mesh, (None, "batch", *axes)) for x in jax.tree.leaves(tree))

    return held(cache.prefix, *prefix) + held(cache.suffix, None, "heads") + held(cache.states)


def _held(x: jax.ShapeDtypeStruct, mesh: Mesh | None, axes: tuple[str | None, ...]) -> int:
    shape = x.shape
    if mesh is not None:
        shape = NamedSharding(mesh, sharding.spec(mesh, axes, shape)).shard_shape(shape)
    return math.prod(shape) * np.dtype(x.dtype).itemsize


def prefill_bytes(model: Model, tensor: int, tokens: int) -> int:
    """Returns what a prefill holds for so many tokens: their keys and values, and a layer's work.

    Args:
        model: without adapters.
        tensor: devices that the heads are cut over.
        tokens: of prompts.
    """
    c, size = model.config, jnp.dtype(model.dtype).itemsize
    kept = 2 * c.attention_layers * c.kv_heads * c.head_dim * size // tensor
    return int(tokens * (forward_bytes(model) + kept))


def decode_bytes(model: Model, rows: int) -> int:
    """Returns what a decode step holds for so many rows: logits twice, and a layer's work."""
    return int(rows * (2 * 4 * model.config.vocab_size + forward_bytes(model)))


def forward_bytes(model: Model) -> int:
    """Returns what lives of a token in a layer: the larger of the layer's halves, with width D,
    feed-forward F (of all experts that a token is routed to), queries A and keys K, 2 D + 2 F or
    2 D + 2 (A + 2 K) values in the computation's dtype; and 2 D in float32, for norms and sums.
    """
    c, size = model.config, jnp.dtype(model.dtype).itemsize
    feed = c.mlp_width
    if c.experts:
        feed = c.experts.mlp_width * c.experts.per_token + c.experts.shared_width
    heads = 2 * (c.heads + 2 * c.kv_heads) * c.head_dim
    return (2 * c.width + max(2 * feed, heads)) * size + 2 * 4 * c.width


def tower_bytes(model: Model, patches: int) -> int:
    """Returns what the vision tower holds for so many patches; see `forward_bytes`."""
    v, size = model.config.vision, jnp.dtype(model.dtype).itemsize
    layer = (2 * v.width + max(2 * v.mlp_width, 6 * v.width)) * size + 2 * 4 * v.width
    return patches * (v.patch_values + layer)
