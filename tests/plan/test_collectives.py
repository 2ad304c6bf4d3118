"""Collectives of programs compiled for simulated devices, and of text as TPUs have it."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from evr1.plan import collectives as tool

LAYERS, WIDTH, ROWS = 3, 64, 16
MATRIX = WIDTH * WIDTH


def decode_step(places, axis, is_gathered=True):
    """The text of a loop without a known end over three layers, on a mesh of two by four.

    The matrices lie as `places` says, and are used so unless they are gathered; `axis` is what
    rows are cut over.
    """
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)

    def put(x, *spec):
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))

    def layer(x, w):
        return put(jnp.tanh(x @ (put(w) if is_gathered else w)), axis), None

    def token(x):
        return jax.lax.scan(layer, x, weights)[0]

    def decode(x, w):
        nonlocal weights
        weights = w
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, token, x)

    weights = None
    shapes = ((ROWS, WIDTH), PartitionSpec(axis)), ((LAYERS, WIDTH, WIDTH), places)
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in shapes
    ]
    return jax.jit(decode).lower(*arguments).compile().as_text()


def test_a_step_that_gathers_its_weights():
    """Each of three matrices comes from four devices: three quarters of it, every token."""
    text = decode_step(PartitionSpec(None, None, "fsdp"), ("data", "fsdp"))
    records = [r for r in tool.collectives(text, devices=8) if r.in_open_loop]
    assert tool.totals(records)["all-gather"] == (LAYERS, LAYERS * 4 * MATRIX * 3 / 4)
    assert tool.weights_received(records, {MATRIX}) == LAYERS * 4 * MATRIX * 3 / 4
    assert tool.weights_received(records, {MATRIX + 1}) == 0


def test_a_step_that_holds_its_weights():
    records = tool.collectives(decode_step(PartitionSpec(), ("data", "fsdp")), devices=8)
    of_loop = [r for r in records if r.in_open_loop]
    assert tool.weights_received(of_loop, {MATRIX}) == 0
    # whether to go on depends on a value of one device
    assert sum(size for _, size in tool.totals(of_loop).values()) < 4 * MATRIX / 100


def test_sums_of_activations_as_large_as_a_part_of_a_matrix_are_no_weights():
    """Matrices are cut over what is summed: 8 rows of each layer are, an eighth of a matrix."""
    text = decode_step(PartitionSpec(None, "fsdp"), "data", is_gathered=False)
    records = [r for r in tool.collectives(text, devices=8) if r.in_open_loop]
    sums = [r for r in records if r.kind == "all-reduce" and r.times == LAYERS]
    assert [r.arrays for r in sums] == [(tool.Array(MATRIX // 8, MATRIX // 2),)]
    assert tool.weights_received(records, {MATRIX, MATRIX // 8}) == 0


def test_a_loop_of_known_length_is_counted_through():
    """The gradient of a matrix cut over rows, summed in each of five turns."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def sums(x):
        def turn(total, row):
            return total + jnp.sin(row).sum(axis=0), None

        return jax.lax.scan(turn, jnp.zeros(32), x)[0]

    place = NamedSharding(mesh, PartitionSpec(None, "data"))
    x = jax.ShapeDtypeStruct((5, 16, 32), jnp.float32, sharding=place)
    text = jax.jit(sums).lower(x).compile().as_text()
    (record,) = tool.collectives(text, devices=8)
    assert (record.kind, record.devices, record.in_open_loop) == ("all-reduce", 8, False)
    assert record.times in (1, 5)  # XLA may add up first and talk once
    assert record.received == record.times * 2 * 7 / 8 * 4 * 32


TPU = """HloModule jit_f, is_scheduled=true

%piece.1 (a: bf16[1,64,32]) -> (bf16[1,64,128]) {
  %g.1 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} all-gather(%a), channel_id=7, \
replica_groups=mesh['axis_0'=4,'axis_1'=16] {'axis_0'}, dimensions={2}
}

%piece.2 (a: bf16[1,64,32]) -> (bf16[1,64,128]) {
  %g.2 = bf16[1,64,128]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%a), channel_id=7, \
replica_groups=mesh['axis_0'=4,'axis_1'=16] {'axis_0'}, dimensions={2}
}

%condition (p: (s32[], bf16[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(36)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %kernel = f32[8]{0} custom-call(%p), frontend_attributes={
"metadata":"{\\"block\\": 512,
}}, metadata={op_name="jit(f)/kernel"}
  %one = (bf16[1,64,128]) fusion(%kernel), kind=kCustom, calls=%piece.1
  %two = (bf16[1,64,128]) fusion(%one), kind=kCustom, calls=%piece.2
  %p.s = (bf16[8]{0}, bf16[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%k), \
channel_id=9, source_target_pairs={{0,1},{1,0}}
}

ENTRY %main (x: bf16[8]) -> bf16[8] {
  %loop = (s32[]{:T(128)}, bf16[8]{0}) while(%x), condition=%condition, body=%body
  %r = (f32[8]{0}, f32[4]{0}) all-reduce-start(%x), channel_id=3, replica_groups=[8,8]<=[64], \
to_apply=%add
  %s = ((bf16[2]{0}), bf16[8]{0}) all-gather-start(%x), channel_id=4, \
replica_groups={{0,1,2,3}}, dimensions={0}
}
"""


def test_the_text_of_a_tpu():
    """A gather in pieces counts once a turn; loops end where their condition says."""
    by_kind = {}
    for record in tool.collectives(TPU, devices=64):
        by_kind.setdefault(record.kind, []).append(record)
    pieces, started = sorted(by_kind["all-gather"], key=lambda r: -r.times)
    assert (pieces.times, pieces.devices, pieces.arrays) == (36, 4, ((64 * 128, 2 * 64 * 128),))
    assert (started.times, started.devices, started.arrays) == (1, 4, ((8, 16),))
    (permute,) = by_kind["collective-permute"]
    assert (permute.times, permute.received) == (36, 36 * 16)
    (reduce,) = by_kind["all-reduce"]
    assert (reduce.devices, reduce.received) == (8, 2 * 7 / 8 * 48)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="not the text of an HLO module"):
        tool.collectives("hello", devices=1)
