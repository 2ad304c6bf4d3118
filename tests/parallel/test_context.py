"""Devices that share the tokens of a group: the same loss and gradients as one device."""

import context_rig as rig
import groups_rig
import jax
import jax.numpy as jnp
import learner_rig
import numpy as np
import pytest
from jax.sharding import NamedSharding

from evr1.learner.learner import make_learner
from evr1.models.nn import context, delta, shared_delta
from evr1.models.nn.attention import attention
from evr1.models.nn.layout import Rule, group, order
from evr1.models.tree import flatten
from evr1.parallel.mesh import actor_mesh, make_mesh
from evr1.parallel.sharding import constrain, spec, undivided

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
MESHES = ((2, 1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 1), (2, 1, 4, 1))


def cases():
    """Every family on every mesh; all but the cheapest are slow."""
    for family in FAMILIES:
        for sizes in (*MESHES, (1, 1, 1, 2)) if family in rig.EXPERTS else MESHES:
            is_fast = (family, sizes) == ("qwen2_5_vl", (1, 2, 2, 2))
            yield pytest.param(family, sizes, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.parametrize(("family", "sizes"), cases())
def test_devices_that_share_groups_give_the_numbers_of_one(family, sizes):
    loss, whole, worst, name = rig.gaps(rig.loss_and_gradient(family, sizes), rig.alone(family))
    assert loss < 1e-5
    assert whole < 1e-5
    assert worst < 1e-5, name


LAYOUTS = {2: group(jnp.array([27, 32]), 32, 4, 5, 2), 4: group(jnp.array([9, 32]), 32, 4, 5, 4)}


def on_mesh(layout, implementation, tensor=1):
    """Outputs and gradients of a shared group's attention."""
    keys = jax.random.split(jax.random.key(0), 4)
    t = layout.ids.shape[1]
    q, k, v, w = (
        jax.random.normal(key, (2, t, h, 16)) for key, h in zip(keys, (4, 2, 2, 4), strict=True)
    )

    def f(q, k, v):
        out = attention(q, k, v, layout, implementation)
        real = (layout.ids > 0)[..., None, None]
        return (jnp.where(real, out, 0) * w).sum(), jnp.where(real, out, 0)

    run = jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))
    if implementation == "reference":
        (_, out), grads = run(q, k, v)
        return [out, *grads]
    devices = jax.devices()[: layout.rule.devices * tensor]
    sizes = {"data": 1, "fsdp": 1, "context": layout.rule.devices, "tensor": tensor}
    with jax.set_mesh(make_mesh(**sizes, devices=devices)):
        (_, out), grads = run(q, k, v)
    return [out, *grads]


def gap(a, b):
    return max(float(jnp.abs(x - y).max() / jnp.abs(y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("devices", "implementation", "tensor"),
    [(2, "dense", 2), (4, "blocked", 1), (4, "splash_interpret", 2)],
)
def test_attention_of_a_shared_group_follows_the_definition(
    devices, implementation, tensor, monkeypatch
):
    monkeypatch.setattr("evr1.models.nn.attention._queries", lambda *_: 8)
    layout = LAYOUTS[devices]
    got, expected = on_mesh(layout, implementation, tensor), on_mesh(layout, "reference")
    assert gap(map(np.asarray, got), map(np.asarray, expected)) < 5e-6


def test_a_wrong_order_is_noticed(monkeypatch):
    """Of queries; and of keys, the pieces of the prompt as they come from the devices."""
    expected = on_mesh(LAYOUTS[2], "reference")
    queries, flip = context.queries, jnp.flip
    monkeypatch.setattr(context, "queries", lambda *args: queries(*args)[::-1])
    assert gap(on_mesh(LAYOUTS[2], "dense"), expected) > 1e-2
    monkeypatch.setattr(context, "queries", queries)
    monkeypatch.setattr(jnp, "flip", lambda x, axis: x)
    assert gap(on_mesh(LAYOUTS[2], "dense"), expected) > 1e-2
    monkeypatch.setattr(jnp, "flip", flip)
    assert gap(on_mesh(LAYOUTS[2], "dense"), expected) < 5e-6


def folded(devices, lengths=(47, 64), chunk=4, slab=1024):
    """Outputs and gradients of a delta net over groups of 64 prompt tokens, four times 6 behind."""
    p, n, r, kh, h, a, e = 64, 4, 6, 2, 4, 8, 6
    channels, tokens = 2 * kh * a + h * e, p + n * r
    keys = jax.random.split(jax.random.key(0), 5)
    qkv = jax.random.normal(keys[0], (2, tokens, channels))
    decay = -0.1 * jax.random.exponential(keys[1], (2, tokens, h))
    x = delta.Inputs(qkv, decay, jax.random.uniform(keys[2], (2, tokens, h)))
    kernel = 0.5 * jax.random.normal(keys[3], (4, channels))
    weight = jax.random.normal(keys[4], (2, tokens, h, e))
    lengths, places = jnp.array(lengths), order(p, tokens, devices)
    weight *= ((jnp.arange(tokens)[None] < lengths[:, None]) | (jnp.arange(tokens) >= p)[None])[
        ..., None, None
    ]
    sizes = {"heads": h, "key_dim": a, "value_dim": e, "channels": channels, "width": 4}
    state = delta.empty((2,), **sizes, dtype=jnp.dtype("float32"))

    def f(x, kernel):
        if devices == 1:
            out, _ = delta.run_group(x, kernel, state, lengths, p, r, chunk, slab)
        else:
            shared = delta.Inputs(*(y[:, places] for y in x))
            rule = Rule(True, p, r, devices)
            out = shared_delta.run_group(shared, kernel, state, lengths, rule, chunk, slab)
            out = out[:, np.argsort(places)]
        return (out * weight).sum(), out * jnp.sign(jnp.abs(weight))

    sizes = {"data": 1, "fsdp": 1, "context": devices, "tensor": 1}
    with jax.set_mesh(make_mesh(**sizes, devices=jax.devices()[:devices])):
        (_, out), grads = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(x, kernel)
    return [out, *jax.tree.leaves(grads)]


@pytest.mark.parametrize(("devices", "slab"), [(2, 1024), (4, 4)])
def test_a_delta_net_over_devices_is_the_one_of_a_device(devices, slab):
    """Prompts that end in a piece and at the end of the last; at once, and slab after slab."""
    got, expected = folded(devices, slab=slab), folded(1)
    assert gap(map(np.asarray, got), map(np.asarray, expected)) < 1e-5


def test_pieces_of_a_delta_net_in_a_wrong_order_are_noticed(monkeypatch):
    every = shared_delta._every
    monkeypatch.setattr(shared_delta, "_every", lambda mine: every(mine)[::-1])
    assert gap(map(np.asarray, folded(2)), map(np.asarray, folded(1))) > 1e-2


def test_the_order_gives_every_device_as_much_to_see():
    """Pairs of a query and a key a device, at a prompt eight times as long as the completions."""
    rule, tokens = Rule(True, 1024, 32, 4), 1024 + 4 * 32
    seen = Rule(True, 1024, 32)
    pairs = [
        seen.sees(places[:, None], np.arange(1024 + 32)[None]).sum()
        for places in context.queries(rule, tokens)
    ]
    assert max(pairs) == min(pairs)


def test_shared_tokens_come_back_in_the_plain_order():
    prompt, own = jnp.arange(32).reshape(2, 16), jnp.arange(100, 124).reshape(2, 12)
    both = context.share(prompt, own, 4)
    assert both[0].tolist() == jnp.concatenate([prompt, own], 1)[0][order(16, 28, 4)].tolist()
    assert context.plain(both, 16, 4, 1).tolist() == jnp.concatenate([prompt, own], 1).tolist()
    rows = context.completions(both[..., None].astype(jnp.float32), 16, 4, 4)
    assert rows[..., 0].tolist() == own.reshape(2, 4, 3).tolist()
    last = context.last(both[..., None].astype(jnp.float32), jnp.array([16, 5]), 16, 4)
    assert last[:, 0].tolist() == [15, 20]


def test_experts_lie_on_context_and_tensor():
    mesh = make_mesh(data=1, fsdp=2, context=2, tensor=2)
    places = flatten(rig.model("qwen3_vl_moe").shardings(mesh))
    down = places["text/layers/moe/down"]
    assert down.shard_shape((3, 4, 24, 32)) == (3, 1, 24, 16)
    assert places["text/layers/attention/q/kernel"].shard_shape((3, 32, 64)) == (3, 8, 32)
    assert spec(mesh, ("expert", "embed"), (6, 8))[0] is None  # which four do not divide
    line = undivided(mesh, {"down": jnp.zeros((6, 8))}, {"down": ("expert", "embed")})
    assert "context=2, tensor=2 does not divide expert (6): down stays whole" in line


def test_what_cannot_be_shared_is_refused():
    context.check(7, 3, 1)
    with pytest.raises(ValueError, match=r"mesh.context=4 does not divide rollout.n=6: every"):
        context.check(64, 6, 4)
    with pytest.raises(ValueError, match="into 8 pieces, which do not divide 60 tokens; give"):
        context.check(60, 8, 4)
    assert constrain(jnp.ones(2), "tokens").tolist() == [1, 1]


def test_a_learner_refuses_what_cannot_be_shared():
    mesh = make_mesh(data=1, fsdp=1, context=2, tensor=4)
    settings = learner_rig.settings(rollout={"n": 3})
    with pytest.raises(ValueError, match="mesh.context=2 does not divide rollout.n=3"):
        make_learner(settings, rig.model("qwen3_vl"), mesh, groups_rig.SHAPES)


def test_weights_go_to_the_mesh_that_draws_in_exchanges():
    """Gathered whole on the way, the widest matrix of all layers would lie on every device."""
    mesh = make_mesh(data=1, fsdp=2, context=2, tensor=1, devices=jax.devices()[:4])
    held = NamedSharding(mesh, spec(mesh, (None, "embed"), (2, 64, 32)))
    drawing = actor_mesh(mesh, heads=2)
    wanted = NamedSharding(drawing, spec(drawing, (None, None, "heads"), (2, 64, 32)))
    x = jax.ShapeDtypeStruct((2, 64, 32), jnp.float32, sharding=held)
    text = jax.jit(lambda x: x + 1, out_shardings=wanted).lower(x).compile().as_text()
    assert " all-to-all(" in text
    assert "f32[2,64,32]" not in text.split("ENTRY")[1]
