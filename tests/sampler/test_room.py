"""How many groups have room on a device."""

import dataclasses

import jax
import pytest
from repo import DEMO_MODEL

from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.config.base import get_config
from evr1.config.learner import drawn_groups, learner_settings
from evr1.learner.programs import bytes_of, held_on_devices, make_programs
from evr1.learner.slots import plan_slots
from evr1.models import load_model
from evr1.parallel.mesh import make_mesh
from evr1.sampler import engine, room
from evr1.sampler import weights as sampler_weights
from evr1.sampler.room import GroupShape

SHAPES = ShapeTable((64, 128), (4,), 64, 32)


@pytest.fixture(scope="module")
def model():
    return load_model(str(DEMO_MODEL), dtype="bfloat16", remat="none")


def settings(**fields):
    c = get_config()
    c.rollout.update({"prompts": 100, "n": 4} | fields)
    return resolve(c, has_paths=False)


def planned(model, mesh, free, groups=100, **fields):
    s = settings(**fields)
    learner = learner_settings(s)
    programs = make_programs(learner, model, mesh)
    return plan_slots(learner, programs, SHAPES, groups=groups, held=groups, free=free), programs


def test_a_group_takes_what_its_cache_takes(model):
    shape = GroupShape.largest(4, SHAPES)
    assert shape == (4, 128, 32, 256, 0)
    cache = jax.eval_shape(lambda: engine.init_slots(model, 1, 4, 128, 32, None)).cache
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    found = room.of_groups(model, None, shape, 0)
    assert 0 <= held - (found.slot - room.decode_bytes(model, 4)) <= 64  # but for a few numbers


def test_weights_to_draw_with_are_counted_as_they_will_lie(model):
    params = model.init(jax.random.key(0))
    assert room.drawn_bytes(model, None) == room.weight_bytes(
        sampler_weights.lay_out(params, model)
    )
    mesh = make_mesh(data=1, fsdp=1, tensor=2, devices=jax.devices()[:2])
    assert room.drawn_bytes(model, mesh) < room.drawn_bytes(model, None)


def test_slots_follow_from_memory(model):
    """As many as fit beside states and weights in three quarters of the rest, all at most."""
    mesh = make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])
    _, programs = planned(model, mesh, 0)
    there = held_on_devices(learner_settings(settings()), programs)
    beside = there.resident + bytes_of(there.published)
    one = room.of_groups(model, mesh, GroupShape.largest(4, SHAPES), 0)
    for count in (1, 9):
        free = beside + int(one.takes(count) / room.SHARE)
        found, _ = planned(model, mesh, free + 2)
        assert found.rollout == count, free
        assert f"{count} groups decode at the same time, of the 100 of a draw" in found.line
        assert planned(model, mesh, free - 2)[0].rollout == max(count - 1, 1)
    least, _ = planned(model, None, 1)  # one device without a mesh
    assert least.rollout == 1  # the device will say: a part is a guess
    assert "over what it has" in least.line
    large, _ = planned(model, mesh, 2**36)
    assert (large.rollout, large.heldout) == (100, 400)
    assert "all of a draw; a group takes" in large.line


def test_slots_are_spread_over_the_copies_of_the_weights(model):
    mesh = make_mesh(data=1, fsdp=4, tensor=1, devices=jax.devices()[:4])
    (found, programs) = planned(model, mesh, 2**36, groups=99)
    copies = room.sharding.batch_shards(programs.actor_mesh)
    assert copies in (1, 2, 4)
    assert (found.rollout % copies, found.heldout % copies) == (0, 0)
    assert 99 <= found.rollout < 99 + copies


def test_slots_of_the_config_are_taken(model):
    found, _ = planned(model, None, 0, slots=7)
    assert found == (7, 28, "7 groups decode at the same time, rollout.slots=7")
    assert planned(model, None, 1, slots=7)[0].rollout == 7


def test_where_no_memory_is_told_all_groups_of_a_draw_decode_up_to_a_bound(model):
    assert planned(model, None, 0, groups=32)[0].rollout == 32
    found, _ = planned(model, None, 0, groups=100)
    assert found.rollout == room.MOST_UNCOUNTED
    assert found.line == "64 groups decode at the same time, of the 100 of a draw"
    assert room.slots_alone(model, None, GroupShape.largest(1, SHAPES), 12) == 12


def test_fewer_fit_beside_training_than_alone(model, monkeypatch):
    shape = GroupShape.largest(1, SHAPES)
    free = room.drawn_bytes(model, None) + 2**20
    monkeypatch.setattr(room, "device_free", lambda: free)
    alone = room.slots_alone(model, None, shape, 10**4)
    assert 1 < alone < 10**4
    assert planned(model, None, free)[0].heldout == 1


@pytest.mark.parametrize(
    ("is_dynamic", "prompts", "draw_prompts", "groups"),
    [(False, 32, 0, 32), (True, 32, 0, 32), (True, 32, 48, 48), (True, 32, 24, 48)],
)
def test_a_draw_is_in_multiples(is_dynamic, prompts, draw_prompts, groups):
    s = settings(prompts=prompts)
    dynamic = dataclasses.replace(s.dynamic, enabled=is_dynamic, draw_prompts=draw_prompts)
    assert drawn_groups(dataclasses.replace(s, dynamic=dynamic)) == groups


def test_what_is_carried_over_is_read_with_its_prompt(model):
    """A prefill of 100 prompt tokens and 4 completions of 50 holds what one of 300 does."""
    whole = room.of_groups(model, None, GroupShape(4, 300, 50, 0), 0)
    begun = room.of_groups(model, None, GroupShape(4, 100, 50, 0, begun_tokens=50), 0)
    assert begun.prefill == whole.prefill
