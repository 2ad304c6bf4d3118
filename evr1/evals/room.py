"""How many packs decode at the same time: no more than the devices have room for.

A pack keeps the keys and values of its prompt, and of each row's question and completion. With the
presets for long videos this is tens of GiB: 144 KiB a token of Qwen3-VL-8B.
"""

from typing import Any, NamedTuple

from jax.sharding import Mesh

from evr1.evals.packs import Key
from evr1.parallel import sharding
from evr1.sampler.actor import Actor
from evr1.sampler.room import SHARE, cache_bytes, device_limit, weight_bytes


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
        return max(1, int(SHARE * self.free - self.prompt) // self.pack)

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
        pack=cache_bytes(actor.model, actor.mesh, key.rows, key.prompt_tokens, room),
        prompt=cache_bytes(actor.model, actor.mesh, 1, key.prompt_tokens, 1),
    )


def slots(wanted: int, room: Room | None, mesh: Mesh | None) -> int:
    """Returns how many packs decode at the same time on all devices.

    Args:
        wanted: at most so many.
        room: of each device; None: not known.
        mesh: the devices.
    """
    return wanted if room is None else min(wanted, room.packs * sharding.batch_shards(mesh))
