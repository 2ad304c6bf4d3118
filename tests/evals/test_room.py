"""How many packs have room on a device."""

import dataclasses

import evals_rig as rig
import jax
import pytest
from miniatures import write

from evr1.evals import room
from evr1.evals.packs import Key
from evr1.parallel.mesh import make_mesh
from evr1.sampler.actor import open_actor
from evr1.sampler.engine import init_slots
from evr1.sampler.room import Room, weight_bytes

KEY = Key(prompt_tokens=1024, row_patches=256, rows=4, question_tokens=64)


@pytest.fixture(scope="module")
def actor():
    return open_actor(str(rig.MODEL), slots=8, dtype="float32")


@pytest.fixture(scope="module")
def params(actor):
    return actor.load(str(rig.MODEL))


def test_a_pack_takes_what_its_cache_takes(actor, params):
    found = room.of_key(actor, params, KEY, 128, limit=2**30)
    cache = actor.model.init_cache(1, 4, 1024, 64 + 128)
    held = sum(x.nbytes for x in jax.tree.leaves(cache))
    assert held - 64 < found.slot <= held  # but for a few numbers
    assert found.prefill < found.slot
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    assert found.free == 2**30 - weights


@pytest.mark.parametrize(("data", "tensor"), [(1, 2), (2, 1), (2, 2), (1, 8)])
def test_a_pack_on_a_mesh_takes_what_the_sampler_gives_it(actor, params, data, tensor):
    """Heads are cut, or the tokens of prompts where heads are too few."""
    mesh = make_mesh(data=data, fsdp=1, tensor=tensor, devices=jax.devices()[: data * tensor])
    meshed = dataclasses.replace(actor, mesh=mesh)
    found = room.of_key(meshed, params, KEY, 128, limit=2**30)
    with jax.set_mesh(mesh):
        cache = init_slots(actor.model, data, 4, 1024, 64 + 128, mesh).cache
    first = [x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(cache)]
    assert sum(first) - 64 < found.slot <= sum(first)


def test_weights_that_are_split_count_a_share(params):
    mesh = jax.make_mesh((2,), ("fsdp",), devices=jax.devices()[:2])
    half = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    x = jax.device_put(jax.numpy.zeros((4, 8), "float32"), half)
    whole = jax.device_put(jax.numpy.zeros(8, "float32"), jax.devices()[0])
    assert weight_bytes({"x": x, "y": whole}) == 64 + 32


@pytest.mark.parametrize(
    ("found", "wanted", "slots"),
    [
        (None, 8, 8),  # a CPU does not say
        (Room(1000, 10, 10), 8, 8),
        (Room(100, 20, 10), 8, 3),
        (Room(200, 11, 10), 16, 11),  # and two of an eighth that are read
        (Room(100, 60, 30), 8, 1),  # just so
    ],
)
def test_packs_are_as_many_as_have_room(found, wanted, slots):
    assert room.slots(wanted, found, None) == slots


def test_a_pack_without_room_is_refused_in_a_line():
    key = KEY._replace(prompt_tokens=245_760, rows=8)
    room.check(Room(70 * 2**30, 40 * 2**30, 30 * 2**30), key)
    with pytest.raises(
        ValueError, match="245760 tokens with 8 completions take 70.0 GiB of each device, which has"
    ) as error:
        room.check(Room(69 * 2**30, 40 * 2**30, 30 * 2**30), key)
    assert "\n" not in str(error.value)


def test_a_small_device_changes_no_answer(tmp_path, monkeypatch, params):
    write("lvbench", tmp_path / "lvbench")
    fields = {"tasks": ("lvbench",), "slots": 4}
    rig.run(rig.settings(tmp_path / "large", tmp_path, **fields))
    made = []
    monkeypatch.setattr(Room, "slots", lambda self, wanted: made.append(1) or 1)
    monkeypatch.setattr(room, "device_limit", lambda: 2**33)
    rig.run(rig.settings(tmp_path / "small", tmp_path, **fields))
    assert made
    large, small = (rig.timeless(rig.answers(tmp_path / name)) for name in ("large", "small"))
    assert small == large
    monkeypatch.setattr(room, "device_limit", lambda: weight_bytes(params) + 1000)
    with pytest.raises(ValueError, match="take 0.0 GiB of each device"):
        rig.run(rig.settings(tmp_path / "none", tmp_path, **fields))
