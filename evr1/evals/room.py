"""How many packs decode at the same time: no more than the devices have room for.

A pack keeps the keys and values of its prompt, and of each row's question and completion. With the
presets for long videos this is tens of GiB: 144 KiB a token of Qwen3-VL-8B.
"""

from typing import Any

from jax.sharding import Mesh

from evr1.evals.packs import Key
from evr1.parallel import sharding
from evr1.sampler.actor import Actor
from evr1.sampler.room import GIB, Room, cache_bytes, device_limit, weight_bytes


def of_key(
    actor: Actor, params: Any, key: Key, completion_tokens: int, limit: int | None = None
) -> Room | None:
    """Returns the room for the caches of packs; None where the backend tells no limit.

    A slot is a pack that decodes, a prefill one that was read and is put into its slot. It depends
    on the model, the shapes and the device alone, not on what was answered before.

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
        slot=cache_bytes(actor.model, actor.mesh, key.rows, key.prompt_tokens, room),
        prefill=cache_bytes(actor.model, actor.mesh, 1, key.prompt_tokens, 1),
    )


def check(room: Room, key: Key) -> None:
    """Checks that a single pack has room.

    Raises:
        ValueError: its caches alone need more than there is.
    """
    if room.takes(1) > room.free:
        raise ValueError(
            f"prompts of {key.prompt_tokens} tokens with {key.rows} completions take "
            f"{room.takes(1) / GIB:.1f} GiB of each device, which has {room.free / GIB:.1f} GiB "
            "beside the weights; raise config.mesh.tensor, lower rows, max_tokens or "
            "max_prompt_tokens (longer ones then fail), or take a preset with fewer frames"
        )


def slots(wanted: int, room: Room | None, mesh: Mesh | None) -> int:
    """Returns how many packs decode at the same time on all devices.

    Args:
        wanted: at most so many.
        room: of each device; None: not known.
        mesh: the devices.
    """
    copies = sharding.batch_shards(mesh)
    return wanted if room is None else min(wanted, room.slots(-(-wanted // copies)) * copies)
