"""How many packs decode at the same time: no more than the devices have room for.

A pack keeps the keys and values of its prompt, and of each row's question and completion. With the
presets for long videos this is tens of GiB: 144 KiB a token of Qwen3-VL-8B.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from evr1.evals.packs import Key
from evr1.models import Model
from evr1.models.nn import cache as caches
from evr1.parallel import sharding
from evr1.sampler.actor import Actor

_SHARE = 0.75  # of what the weights leave; activations and visual features take the rest


class Room(NamedTuple):
    """What the caches of packs may take on each device.

    Attributes:
        free: bytes beside the weights.
        pack: bytes of a pack that decodes.
        prompt: bytes of one that was read and is put into its slot.
    """

    free: int
    pack: int
    prompt: int

    @property
    def packs(self) -> int:
        """How many there is room for on a device; at least 1, since activations are a guess.

        >>> Room(100, 20, 10).packs, Room(100, 60, 30).packs
        (3, 1)
        """
        return max(1, int(_SHARE * self.free - self.prompt) // self.pack)

    def check(self, key: Key, rows: int) -> None:
        """Checks that a single pack has room.

        Raises:
            ValueError: its caches alone need more than there is.
        """
        if self.pack + self.prompt > self.free:
            raise ValueError(
                f"prompts of {key.prompt_tokens} tokens with {rows} completions take "
                f"{_gib(self.pack + self.prompt)} of each device, which has {_gib(self.free)} "
                "beside the weights; raise config.mesh.tensor, lower rows, max_tokens or "
                "max_prompt_tokens (longer ones then fail), or take a preset with fewer frames"
            )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def of_key(
    actor: Actor, params: Any, key: Key, completion_tokens: int, limit: int | None = None
) -> Room | None:
    """Returns the room for packs of some shapes; None where the backend tells no limit.

    It depends on the model, the shapes and the device alone, not on what was answered before.

    Args:
        actor: the model and its devices.
        params: its weights, on the devices.
        key: the shapes.
        completion_tokens: limit of a completion.
        limit: bytes of a device; None: as the backend says.
    """
    limit = limit or device_limit()
    if not limit:
        return None
    room = key.question_tokens + completion_tokens
    return Room(
        free=limit - weight_bytes(params),
        pack=_cache_bytes(actor.model, actor.mesh, key.rows, key.prompt_tokens, room),
        prompt=_cache_bytes(actor.model, actor.mesh, 1, key.prompt_tokens, 1),
    )


def device_limit() -> int:
    """Returns what JAX may take of each device, in bytes; 0 where the backend does not say."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return min((each.get("bytes_limit", 0) for each in stats), default=0)


def weight_bytes(params: Any) -> int:
    """Returns the bytes of the weights on the device that holds most of them."""
    held: dict[Any, int] = {}
    for leaf in jax.tree.leaves(params):
        shape = leaf.sharding.shard_shape(leaf.shape)
        for device in leaf.sharding.addressable_devices:
            held[device] = held.get(device, 0) + math.prod(shape) * leaf.dtype.itemsize
    return max(held.values(), default=0)


def _cache_bytes(model: Model, mesh: Mesh | None, rows: int, prompt_tokens: int, room: int) -> int:
    """Returns the bytes of a slot on each device that holds a share of it."""
    groups = sharding.batch_shards(mesh)
    cache = jax.eval_shape(lambda: model.init_cache(groups, rows, prompt_tokens, room))
    prefix = (None, None) if mesh is None else caches.prefix_axes(mesh, cache.prefix.k.shape[2])

    def held(tree: Any, *axes: str | None) -> int:
        return sum(_held(x, mesh, (None, "batch", *axes)) for x in jax.tree.leaves(tree))

    return held(cache.prefix, *prefix) + held(cache.suffix, None, "heads") + held(cache.states)


def _held(x: jax.ShapeDtypeStruct, mesh: Mesh | None, axes: tuple[str | None, ...]) -> int:
    shape = x.shape
    if mesh is not None:
        shape = NamedSharding(mesh, sharding.spec(mesh, axes, shape)).shard_shape(shape)
    return math.prod(shape) * np.dtype(x.dtype).itemsize


def slots(wanted: int, room: Room | None, mesh: Mesh | None) -> int:
    """Returns how many packs decode at the same time on all devices.

    Args:
        wanted: at most so many.
        room: of each device; None: not known.
        mesh: the devices.
    """
    return wanted if room is None else min(wanted, room.packs * sharding.batch_shards(mesh))
