"""The attention of a decode step against the definition."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repo import ROOT

from evr1.models.nn import decode, decode_tpu
from evr1.models.nn.attention import attention
from evr1.models.nn.cache import KV, Cache, Int8
from evr1.models.nn.layout import group
from evr1.parallel.mesh import make_mesh

G, N, P, R, HEADS, KV_HEADS, SIZE = 3, 3, 18, 5, 4, 2, 16
LENGTHS = jnp.array([18, 4, 0])
STEPS = jnp.array([[3, 0, 4], [1, 2, 2], [0, 4, 1]])  # every row has a place of its own


def _inputs(dtype=jnp.float32):
    """Queries, keys and values of all tokens of the groups."""
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (HEADS, KV_HEADS, KV_HEADS)
    shapes = [(G, P + N * R, h, SIZE) for h in heads]
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def _expected(q, k, v):
    """The rows of the full attention, [G, N, H, A]."""
    full = attention(q, k, v, group(LENGTHS, P, N, R), "reference")
    return full[:, P:].reshape(G, N, R, HEADS, SIZE)[_rows()]


def _rows():
    return np.arange(G)[:, None], np.arange(N)[None], STEPS


def _arguments(q, k, v):
    """Those of `decode_attention`, in the second of three layers; what nobody may see is NaN-free
    but large."""
    own = [x[:, P:].reshape(G, N, R, -1, SIZE) for x in (q, k, v)]
    stale = jnp.where((np.arange(R)[None, None] < STEPS[..., None])[..., None, None], 0, 1e3)
    padding = jnp.where((np.arange(P)[None] < LENGTHS[:, None])[..., None, None], 0, 1e3)
    prefix = [jnp.moveaxis(x[:, :P] + padding, 1, 2).astype(x.dtype) for x in (k, v)]
    suffix = [jnp.moveaxis(x + stale, 2, 3).astype(x.dtype) for x in own[1:]]

    def stack(parts):
        return KV(*(jnp.stack([-x, x, 2 * x]) for x in parts))

    cache = Cache(stack(prefix), LENGTHS, stack(suffix))
    new = KV(own[1][_rows()], own[2][_rows()])
    return own[0][_rows()], new, cache, jnp.int32(1), STEPS


def _gap(x, y):
    return float(jnp.abs(x - y).max() / jnp.abs(y).max())


@pytest.fixture(params=[4, 7, 64])
def block(request, monkeypatch):
    """Tokens of a block: a part of the room, none that divides it, more than it."""
    monkeypatch.setattr(decode, "BLOCK", request.param)
    monkeypatch.setattr(decode_tpu, "BLOCK", request.param)
    return request.param


def _run(*arguments, how, room=None):
    step = functools.partial(_step, how=how, room=room)
    return jax.jit(step)(*arguments)  # traced with the sizes of now


def _step(q, new, cache, layer, steps, how, room):
    reads = {
        "whole": lambda: None,
        "blocks": lambda: decode.read_blocks(cache),
        "kernel": lambda: decode.reader(cache, "splash_interpret"),
    }
    return decode.decode_attention(q, new, cache, layer, steps, reads[how](), room)


def test_a_step_is_a_row_of_the_full_attention():
    inputs = _inputs()
    assert _gap(_run(*_arguments(*inputs), how="whole"), _expected(*inputs)) < 2e-6


@pytest.mark.parametrize("how", ["blocks", "kernel"])
def test_live_blocks_are_all_that_is_seen(how, block):
    inputs = _inputs()
    assert _gap(_run(*_arguments(*inputs), how=how), _expected(*inputs)) < 2e-6


@pytest.mark.parametrize("how", ["whole", "blocks"])
def test_suffixes_are_read_as_far_as_is_told(how):
    """What stands behind may be anything, even nothing finite."""
    q, new, cache, layer, _ = _arguments(*_inputs())
    steps = jnp.minimum(STEPS, 2)
    behind = jnp.arange(R)[None, None, None, None, :, None] >= 2
    spoilt = cache._replace(suffix=KV(*(jnp.where(behind, jnp.nan, x) for x in cache.suffix)))
    out = _run(q, new, spoilt, layer, steps, how=how, room=2)
    np.testing.assert_allclose(out, _run(q, new, cache, layer, steps, how=how), rtol=1e-5)


@pytest.mark.parametrize("how", ["whole", "blocks", "kernel"])
def test_a_prompt_in_int8(how, block):
    """As by the numbers that it stands for, which are nearly those that were given."""
    inputs = _inputs()
    q, new, cache, layer, steps = _arguments(*inputs)
    padding = jnp.arange(P)[None] >= LENGTHS[:, None]
    rough = KV(*map(Int8.of, cache.prefix))
    nearly = KV(*(x.values * x.scales[..., None] for x in rough))
    spoilt = KV(
        *(x._replace(scales=jnp.where(padding[None, :, None], 1e3, x.scales)) for x in rough)
    )
    out = _run(q, new, cache._replace(prefix=spoilt), layer, steps, how=how)
    same = _run(q, new, cache._replace(prefix=nearly), layer, steps, how="whole")
    assert _gap(out, same) < 2e-6
    assert 1e-4 < _gap(out, _expected(*inputs)) < 2e-2


def test_a_step_of_int8_by_hand():
    x = Int8.of(jnp.array([[0.5, -2.54, 0.011], [0, 0, 0]]))
    assert x.values.tolist() == [[25, -127, 1], [0, 0, 0]]
    np.testing.assert_allclose(x.scales, [0.02, 1.0], rtol=1e-6)


@pytest.mark.parametrize("how", ["blocks", "kernel"])
def test_no_other_block_is_read(how, monkeypatch):
    """What stands in blocks behind a prompt may be anything, even nothing finite."""
    for module in (decode, decode_tpu):
        monkeypatch.setattr(module, "BLOCK", 6)
    q, new, cache, layer, steps = _arguments(*_inputs())
    dead = jnp.arange(P)[None] >= 6 * -(-LENGTHS // 6)[:, None]
    spoilt = KV(*(jnp.where(dead[None, :, None, :, None], jnp.nan, x) for x in cache.prefix))
    out = _run(q, new, cache._replace(prefix=spoilt), layer, steps, how=how)
    np.testing.assert_array_equal(out, _run(q, new, cache, layer, steps, how=how))


@pytest.mark.parametrize("how", ["whole", "blocks", "kernel"])
def test_a_token_too_few_is_noticed(how):
    inputs = _inputs()
    q, new, cache, layer, steps = _arguments(*inputs)
    cache = cache._replace(prefix_lengths=LENGTHS - 1)
    assert _gap(_run(q, new, cache, layer, steps, how=how), _expected(*inputs)) > 1e-3


@pytest.mark.parametrize("how", ["whole", "blocks", "kernel"])
def test_bfloat16_keeps_the_softmax_in_float32(how):
    inputs = _inputs(jnp.bfloat16)
    expected = _expected(*(x.astype(jnp.float32) for x in inputs))
    out = _run(*_arguments(*inputs), how=how).astype(jnp.float32)
    assert float(jnp.abs(out - expected).max()) < 0.03  # a few bfloat16 ulps of values near 2


@pytest.mark.parametrize("how", ["whole", "blocks", "kernel"])
def test_without_any_prefix_or_suffix_it_is_the_value(how):
    q, new, cache, layer, steps = _arguments(*_inputs())
    empty = cache._replace(prefix_lengths=0 * LENGTHS)
    out = _run(q, new, empty, layer, 0 * steps, how=how)
    assert _gap(out, jnp.repeat(new.v, HEADS // KV_HEADS, axis=2)) < 1e-6


def test_the_kernel_where_heads_are_cut():
    inputs = _inputs()
    with jax.set_mesh(make_mesh(data=1, fsdp=1, tensor=2, devices=jax.devices()[:2])):
        assert _gap(_run(*_arguments(*inputs), how="kernel"), _expected(*inputs)) < 2e-6


ON_TPU = """
import os, sys
os.environ.update(
    JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost",
    TPU_ACCELERATOR_TYPE="v5litepod-1", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec as P
from evr1.models.nn.cache import KV, Cache, Int8
from evr1.models.nn.decode import decode_attention, reader
from evr1.parallel.mesh import make_mesh

layers, groups, n, heads, tokens, size = 8, 4, 8, 4, 4096, 128
devices = topologies.get_topology_desc(sys.argv[1], "tpu").devices
mesh = make_mesh(data=1, fsdp=2, tensor=2, devices=devices)

def array(shape, *spec, dtype="bfloat16"):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))

def pair(shape, *spec):
    return KV(array(shape, *spec), array(shape, *spec))

def step(q, new, cache, steps):
    read = reader(cache, "splash")
    layer = lambda q, i: (decode_attention(q, new, cache, i, steps, read, 128), None)
    return jax.lax.scan(layer, q, jnp.arange(layers))[0]

prefix = pair((layers, groups, heads, tokens, size), None, "fsdp", "tensor")
if sys.argv[2:] == ["int8"]:
    values = array((layers, groups, heads, tokens, size), None, "fsdp", "tensor", dtype="int8")
    scales = array((layers, groups, heads, tokens), None, "fsdp", "tensor", dtype="float32")
    prefix = KV(Int8(values, scales), Int8(values, scales))
cache = Cache(
    prefix,
    array((groups,), "fsdp", dtype="int32"),
    pair((layers, groups, n, heads, 256, size), None, "fsdp", None, "tensor"),
)
rows = (groups, n, 4 * heads, size), (groups, n, heads, size)
q, new = array(rows[0], "fsdp", None, "tensor"), pair(rows[1], "fsdp", None, "tensor")
with jax.set_mesh(mesh):
    arguments = q, new, cache, array((groups, n), "fsdp", dtype="int32")
    compiled = jax.jit(step).lower(*arguments).compile()
text = compiled.as_text()
moved = sum(text.count(kind) for kind in ("all-gather", "all-reduce", "all-to-all", "permute"))
temporaries = compiled.memory_analysis().temp_size_in_bytes
print(text.count("tpu_custom_call"), moved, temporaries, groups * heads * tokens * size * 2 // 4)
"""


@pytest.mark.parametrize("arguments", [("v5p:2x2x1",), ("v6e:2x2", "int8")], ids=" ".join)
def test_a_tpu_reads_prompts_by_a_kernel_and_copies_none(arguments):
    """By the TPU compiler, on a mesh that cuts groups and heads."""
    pytest.importorskip("libtpu")
    program = [sys.executable, "-c", ON_TPU, *arguments]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    kernels, moved, temporaries, keys_of_a_layer = (int(n) for n in run.stdout.split())
    assert kernels >= 1
    assert moved == 0
    assert temporaries < keys_of_a_layer
