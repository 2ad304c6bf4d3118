"""How weights and caches lie on the devices that draw."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import sampler_rig as rig
from families import delta_config
from jax.sharding import PartitionSpec as P
from repo import ROOT

from evr1.parallel.mesh import actor_mesh, make_mesh
from evr1.sampler import engine
from evr1.sampler.engine import Engine
from evr1.sampler.sampling import BLOCK, Sampling
from evr1.sampler.weights import lay_out, with_layers_apart


@dataclasses.dataclass(frozen=True)
class Fake:
    """What a mesh looks at of a device."""

    id: int
    process_index: int
    device_kind: str = "cpu"
    platform: str = "cpu"


SIZES = {"pred": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
COLLECTIVE = re.compile(
    r"= (\S.*?) (?:all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)"
)


def collectives(text: str) -> list[int]:
    """Bytes that each collective of a compiled program leaves on a device."""
    found = []
    for shapes in COLLECTIVE.findall(text):
        arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shapes)
        found += [SIZES[t] * int(np.prod([int(n) for n in s.split(",") if n])) for t, s in arrays]
    return found


def decode(mesh, prompt_tokens: int = 48):
    """The compiled decode program of the rig's model, and its state."""
    model, on_mesh = rig.model(), contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)
    params = with_layers_apart(lay_out(rig.params(), model, mesh), model, mesh)
    sizes = {"n": 2, "slots": 8, "window": 8, "prompt_tokens": prompt_tokens}
    e = Engine(model, Sampling(max_tokens=8), completion_tokens=32, devices=mesh, **sizes)
    with on_mesh:
        state = e.init_decode_state()
        program = engine.decode_window.lower(
            model,
            params,
            state,
            e.draws,
            window=8,
            mode=e.sampling.mode,
            mesh=mesh,
            stop_early=True,
        )
    return program.compile().as_text(), state


def smallest_matrix() -> int:
    """Bytes of the smallest matrix of a layer."""
    layers = rig.params()["text"]["layers"]
    return min(x[0].nbytes for x in jax.tree.leaves(layers) if x.ndim == 3)


@pytest.mark.parametrize("tensor", [1, 2])
def test_a_decode_step_moves_no_weights(tensor):
    mesh = actor_mesh(make_mesh(data=1, fsdp=8, tensor=1), heads=2, tensor=tensor)
    text, state = decode(mesh)
    groups, n = state.tokens.shape
    model, shards = rig.model(), 8 // tensor
    c = model.config
    activations = 4 * groups * n // shards * max(c.width, c.vocab_size, BLOCK)
    assert max(collectives(text), default=0) <= activations


def test_a_cpu_copies_neither_weights_nor_the_cache():
    text, state = decode(None)
    params = jax.tree.leaves(rig.params()["text"]["layers"])
    held = [x.shape for x in (state.cache.prefix.k, state.cache.suffix.k)]
    held += [shape for x in params if x.ndim == 3 for shape in (x.shape, x.shape[1:])]
    copied = re.findall(r"= f32\[([\d,]+)\]\S* (?:copy|dynamic-slice|slice)\(", text)
    assert copied
    assert not {",".join(map(str, shape)) for shape in held} & set(copied)


def test_weights_that_lie_as_the_trainers_are_gathered():
    text, _ = decode(make_mesh(data=1, fsdp=8, tensor=1))
    assert max(collectives(text)) >= smallest_matrix()


def test_heads_of_the_cache_are_cut():
    _, state = decode(actor_mesh(make_mesh(data=1, fsdp=8, tensor=1), heads=2))
    assert state.cache.prefix.k.sharding.spec == P(None, "data", "tensor")
    assert state.cache.suffix.v.sharding.spec == P(None, "data", None, "tensor")
    shard = state.cache.prefix.k.addressable_shards[0].data
    assert shard.size * 8 == state.cache.prefix.k.size


def test_the_prompt_is_cut_where_heads_are_too_few():
    mesh = actor_mesh(make_mesh(data=1, fsdp=8, tensor=1), heads=2, tensor=8)
    text, state = decode(mesh, prompt_tokens=2048)
    prefix = state.cache.prefix.k
    assert prefix.sharding.spec == P(None, None, None, "tensor")
    assert prefix.addressable_shards[0].data.size * 8 == prefix.size
    assert max(collectives(text)) < prefix.nbytes / prefix.shape[0] / 8  # keys stay where they are


@pytest.mark.parametrize("tensor", [0, 1, 4, 8])
def test_tokens_are_those_of_one_device(tensor):
    mesh = actor_mesh(make_mesh(data=2, fsdp=4, tensor=1), heads=2, tensor=tensor)
    examples = [rig.example([5 + seed, ("image", (1, 4, 4)), 3], seed) for seed in range(5)]
    sampling = Sampling(max_tokens=12, end_ids=(3,), seed=5)

    def draw(mesh):
        params = lay_out(rig.params(), rig.model(), mesh)
        return rig.sampler(slots=8, mesh=mesh).generate(params, examples, range(5), sampling)

    got, expected = draw(mesh), draw(None)
    np.testing.assert_array_equal(got.completions, expected.completions)
    np.testing.assert_allclose(got.logprobs, expected.logprobs, rtol=2e-5)


def test_copies_are_cut_as_the_heads_allow():
    mesh = make_mesh(data=2, fsdp=4, tensor=1)
    assert tuple(actor_mesh(mesh, heads=4).shape.values()) == (2, 1, 1, 4)
    assert actor_mesh(mesh, heads=3).shape["tensor"] == 1
    asked = make_mesh(data=2, fsdp=2, tensor=2)
    assert actor_mesh(asked, heads=8).shape["tensor"] == 2
    assert list(actor_mesh(asked, heads=8).devices.flat) == list(asked.devices.flat)
    assert actor_mesh(None, heads=8) is None
    with pytest.raises(ValueError, match=r"rollout.tensor=3 does not divide the 8 .* 1, 2, 4, 8"):
        actor_mesh(mesh, heads=8, tensor=3)


def test_a_mesh_over_hosts_keeps_a_hosts_devices_together():
    """Devices of TPUs are numbered across hosts: those of host 0 are 0, 1, 4 and 5."""
    devices = jax.devices()
    hosts = [0, 0, 1, 1, 0, 0, 1, 1]
    fakes = [Fake(d.id, host) for d, host in zip(devices, hosts, strict=True)]
    mesh = make_mesh(data=1, fsdp=-1, tensor=2, devices=fakes)
    assert [d.process_index for d in mesh.devices.flat] == [0] * 4 + [1] * 4
    assert actor_mesh(mesh, heads=8).shape["tensor"] == 2
    copies = actor_mesh(make_mesh(data=1, fsdp=-1, tensor=1, devices=fakes), heads=8)
    assert [[d.process_index for d in row] for row in copies.devices[:, 0, 0]] == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match="tensor=8 does not divide the 4 devices of a host"):
        make_mesh(data=1, fsdp=1, tensor=8, devices=fakes)
    with pytest.raises(ValueError, match="context=4 x tensor=2 does not divide the 4 devices of"):
        make_mesh(data=1, fsdp=1, context=4, tensor=2, devices=fakes)
    long = make_mesh(data=1, fsdp=-1, context=2, tensor=1, devices=fakes)
    assert tuple(actor_mesh(long, heads=8).shape.values()) == (2, 1, 1, 4)


def test_published_weights_go_from_mesh_to_mesh():
    model = rig.model("bfloat16")
    mesh = make_mesh(data=1, fsdp=4, tensor=2)
    params = jax.device_put(rig.params(), model.shardings(mesh))
    drawing = actor_mesh(mesh, model.config.kv_heads)
    with jax.set_mesh(mesh):
        got = lay_out(params, model, drawing)
    want = lay_out(rig.params(), model)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    for x, place in zip(
        jax.tree.leaves(got), jax.tree.leaves(model.shardings(drawing)), strict=True
    ):
        assert x.sharding == place


ON_TPU = """
import dataclasses, json, os, sys
os.environ.update(
    JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost",
    TPU_ACCELERATOR_TYPE="v5litepod-1", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from evr1.models.families import qwen3_5
from evr1.learner.programs import bytes_of, placed
from evr1.sampler import engine
from evr1.sampler.sampling import Sampling, make_draws

model = qwen3_5.build(json.loads(sys.argv[1]), dtype="bfloat16", remat="none")
model = dataclasses.replace(model, implementation="splash")
place = SingleDeviceSharding(topologies.get_topology_desc("v5e:2x2", "tpu").devices[0])
state = jax.eval_shape(lambda: engine.init_slots(model, 8, 4, 512, 128, None))
params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, "bfloat16"), model.abstract_params())
draws = make_draws(Sampling(max_tokens=128), model.config.vocab_size)
arrays = [placed(x, place) for x in (params, state, draws)]
statics = dict(window=8, mode=Sampling().mode, mesh=None, stop_early=True)
memory = engine.decode_window.lower(model, *arrays, **statics).compile().memory_analysis()
print(memory.temp_size_in_bytes, bytes_of(arrays[1].cache.states))
"""


def test_states_are_updated_in_place():
    """By the TPU compiler: of a model with six delta nets, one layer's states are there twice."""
    pytest.importorskip("libtpu")
    sizes = {"linear_num_value_heads": 8, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
    program = [sys.executable, "-c", ON_TPU, json.dumps(delta_config(**sizes))]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    temporaries, states = (int(n) for n in run.stdout.split())
    assert temporaries < states / 2
