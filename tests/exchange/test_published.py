"""What the sampler draws with outlives the update that gives the policy's arrays away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import step_rig
from adapters_rig import stir_adapters
from groups_rig import SHAPES
from learner_rig import SPREAD, rollout_batch, settings

from evr1.learner.learner import Learner, Prepared, make_learner
from evr1.learner.state import LearnerState
from evr1.learner.update import init_state
from evr1.models import lora
from evr1.models.tree import flatten
from evr1.rl.state import AlgorithmState

MATRICES = ("kernel", "embed", "head")


def start(rank: int, dtype: str) -> tuple[Learner, LearnerState]:
    c = settings(lora={"rank": rank})
    learner = make_learner(c, step_rig.model(dtype), None, SHAPES)
    params = step_rig.copy(step_rig.params())
    if rank:
        adapters = learner.model.init_adapters(jax.random.key(0))
        params = stir_adapters(params | {"lora": adapters})
    policy = init_state(params, learner.programs.optimizer)
    return learner, LearnerState(3, policy, AlgorithmState(0.0))


def update(learner: Learner, state: LearnerState) -> LearnerState:
    """The state after a real update, with a gradient of 1 everywhere."""
    rollouts = rollout_batch(SPREAD)
    batch = learner.bare_batch(rollouts)

    def accumulate(params, grads, part):
        ones = jax.tree.map(jnp.ones_like, learner.programs.update.zeros(params))
        return ones, {"policy/loss": (jnp.zeros(()), jnp.ones(()))}

    made = learner.programs.update._replace(accumulate=accumulate)
    programs = dataclasses.replace(learner.programs, update=made)
    learner = dataclasses.replace(learner, programs=programs)
    prepared = Prepared(rollouts, batch, [[batch]], state.memory, state.updates, kl_ref=None)
    return learner.update(state, prepared)[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 2])
def test_an_update_gives_none_of_the_published_arrays_away(rank, dtype):
    learner, state = start(rank, dtype)
    published = learner.publish(state)
    assert published.version == 0
    given, got = flatten(state.policy.params), flatten(published.params)
    owned = {x.unsafe_buffer_pointer() for x in given.values()}
    assert owned.isdisjoint(x.unsafe_buffer_pointer() for x in jax.tree.leaves(published.params))
    apart, stacks = got.pop("text/apart"), published.params["text"]["layers"]
    # Copies: NumPy's view of an array would keep it from being given away.
    expected = flatten(step_rig.copy(lora.merged(learner.model, state.policy.params)))

    after = update(learner, state)
    assert after.updates == 1
    assert all(x.is_deleted() for x in given.values())
    moved = flatten(after.policy.params)
    assert any(not np.array_equal(moved[path], expected.get(path)) for path in moved)
    assert got.keys() == expected.keys()
    for i, layer in enumerate(apart):  # once more, for decode steps on a CPU
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x, y[i]), layer, stacks)
    for path, x in got.items():
        is_matrix = path.split("/")[-1] in MATRICES
        assert x.dtype == (dtype if is_matrix else "float32")
        np.testing.assert_array_equal(x, expected[path].astype(x.dtype))
    assert learner.publish(after).version == 1
