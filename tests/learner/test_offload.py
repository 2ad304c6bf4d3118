"""Moments in the host's memory, on one device and on a mesh, through updates and a checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from evr1.learner.checkpoint import Checkpoints
from evr1.learner.optimizer import AdamW, make_optimizer
from evr1.learner.programs import bytes_of
from evr1.learner.update import Placement, TrainState, compile_update, init_state
from evr1.parallel.mesh import make_mesh

FREEZE = ("vision/.*",)
NO_LOSS = lambda *_: (0, {})  # noqa: E731  gradients are given


def start():
    rows = np.arange(64, dtype=np.float32).reshape(8, 8) / 64
    return {"text": {"w": rows, "b": rows[0].copy()}, "vision": {"w": rows + 1}}


def after_three_updates(offload, mesh, directory):
    """The state after two updates, a checkpoint and one more."""
    optimizer = make_optimizer(lambda count: 1e-2, AdamW(offload=offload), FREEZE)
    places = placement = None
    if mesh is not None:
        cut = NamedSharding(mesh, PartitionSpec("fsdp"))
        places = jax.tree.map(lambda x: cut, start())
        placement = Placement(mesh, places)
    shapes = jax.eval_shape(start)
    update = compile_update(NO_LOSS, optimizer, shapes, freeze=FREEZE, placement=placement)
    state = init_state(jax.device_put(start(), places), optimizer, mesh)
    grads = {
        "text": jax.tree.map(jnp.cos, start()["text"]),
        "vision": {"w": jnp.zeros(())},
    }
    for turn in range(3):
        state, metrics = update.apply(state, grads)
        assert bool(metrics["optim/is_finite"])
        if turn == 1:
            checkpoints = Checkpoints(directory)
            checkpoints.save(1, state._asdict(), {})
            checkpoints.wait()
            abstract = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
            )
            restored = checkpoints.restore(abstract._asdict())
            checkpoints.close()
            state = TrainState(**restored.state)
    return state


@pytest.mark.parametrize("is_on_mesh", [False, True])
def test_nothing_but_the_place_of_the_moments_changes(is_on_mesh, tmp_path):
    mesh = make_mesh(data=1, fsdp=8, tensor=1) if is_on_mesh else None
    kept = after_three_updates(False, mesh, tmp_path / "kept")
    offloaded = after_three_updates(True, mesh, tmp_path / "offloaded")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(offloaded), jax.device_get(kept))
    assert not np.array_equal(kept.params["text"]["w"], start()["text"]["w"])
    moments = [x for x in jax.tree.leaves(offloaded.opt_state) if x.ndim]
    assert len(moments) == 4
    assert {x.sharding.memory_kind for x in moments} == {"pinned_host"}
    assert "pinned_host" not in {x.sharding.memory_kind for x in jax.tree.leaves(kept)}
    # a plan counts what is on the device
    ways = 8 if is_on_mesh else 1
    assert bytes_of(kept) - bytes_of(offloaded) == 2 * 4 * (64 + 8) / ways


def test_a_gradient_that_is_not_finite_leaves_the_moments_alone():
    optimizer = make_optimizer(lambda count: 1e-2, AdamW(offload=True))
    update = compile_update(NO_LOSS, optimizer, jax.eval_shape(start))
    state = init_state(jax.device_put(start()), optimizer)
    before = jax.device_get(state)
    grads = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), start())
    state, metrics = update.apply(state, grads)
    assert not bool(metrics["optim/is_finite"])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
