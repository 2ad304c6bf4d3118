"""How many groups decode at the same time in a run: what its config says, or what has room."""

import dataclasses
from typing import NamedTuple

import jax

from evr1.batch import features
from evr1.batch.shapes import ShapeTable
from evr1.config.learner import LearnerSettings
from evr1.learner.programs import Programs, bytes_of, held_on_devices
from evr1.models import lora
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_shards
from evr1.sampler import room
from evr1.sampler.room import GroupShape, Room


class Slots(NamedTuple):
    """Slots on all devices together, a multiple of the copies of the weights that draw.

    Attributes:
        rollout: groups of a draw that decode at the same time.
        heldout: prompts of the held-out evaluation that do; each has one row.
        line: for the user: how many, and why.
    """

    rollout: int
    heldout: int
    line: str


def plan_slots(
    settings: LearnerSettings,
    programs: Programs,
    shapes: ShapeTable,
    *,
    groups: int,
    held: int,
    free: int,
) -> Slots:
    """Returns the slots of a run.

    Their number changes no token: a draw's random numbers hang on its seed, request and position.

    Args:
        settings: `rollout.slots` of them, or 0: as many as have room.
        programs: of the run.
        shapes: the largest ones count.
        groups: of a draw.
        held: prompts whose features a frozen tower's step holds.
        free: bytes of a device for all that a run holds; 0: not known.
    """
    r, a, copies = settings.rollout, settings.algorithm, batch_shards(programs.actor_mesh)
    wanted = -(-(r.slots or groups) // copies)
    if not r.slots and not free:
        wanted = min(wanted, -(-room.MOST_UNCOUNTED // copies))
    if not free:
        return Slots(
            wanted * copies, wanted * r.n * copies, _line(r.slots, wanted * copies, groups)
        )
    rows = max(r.n, a.temporal_rollouts if a.temporal_bonus else 0) + (a.advantage == "remax")
    begun = shapes.completion_tokens if r.overdraw else 0
    of_rollout, of_heldout = (
        _room(settings, programs, shape, held, free)
        for shape in (
            GroupShape.largest(rows, shapes)._replace(begun_tokens=begun),
            GroupShape.largest(1, shapes),
        )
    )
    count = wanted if r.slots else of_rollout.slots(wanted)
    prompts = of_heldout.slots(count * r.n)
    line = f"{_line(r.slots, count * copies, groups)}; {of_rollout.describe()}"
    return Slots(count * copies, prompts * copies, line)


def _line(given: int, count: int, groups: int) -> str:
    why = "all of a draw" if count >= groups else f"of the {groups} of a draw"
    return f"{count} groups decode at the same time, {f'rollout.slots={given}' if given else why}"


def _room(
    settings: LearnerSettings, programs: Programs, shape: GroupShape, held: int, free: int
) -> Room:
    """Returns what groups of a shape take on a device beside what the run holds there."""
    if programs.mesh is None:
        one = make_mesh(data=1, fsdp=1, tensor=1, devices=jax.local_devices()[:1])
        programs = dataclasses.replace(programs, mesh=one, actor_mesh=one)
    model, mesh = lora.plain(programs.model), programs.actor_mesh
    assert mesh is not None
    there = held_on_devices(settings, programs)
    free -= there.resident + bytes_of(there.published)
    if programs.has_frozen_tower:
        of_step = features.bytes_of_features(model, held * shape.patches) // mesh.size
        free -= of_step if of_step <= features.DEVICE_BYTES else 0
    return room.of_groups(model, mesh, shape, free)
