"""Log-probabilities and advantages come together in the rollout batch; a policy of plain sums."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from groups_rig import SHAPES, R
from learner_rig import (
    SPREAD,
    Sums,
    learner,
    logprobs,
    rollout_batch,
    settings,
    state,
)

from evr1.learner.critic import Critic
from evr1.learner.learner import Prepared
from evr1.learner.update import TrainState, Update


def prepare(c, rewards, reference=None):
    """What `prepare` returns, its metrics, and the program that gave the log-probabilities."""
    program = Sums()
    made = learner(c, logprobs=program)
    prepared, metrics = made.prepare(state(c, reference=reference), rollout_batch(rewards))
    return prepared, metrics, program


def groups_in(parts):
    return sorted(g for part in parts for g in part.groups.tolist() if g >= 0)


@pytest.mark.parametrize("updates", [1, 2])
def test_every_token_gets_its_own_logprob_back(updates):
    c = settings(kl_coef=0.1, updates_per_rollout=updates)
    (_, batch, *_), metrics, program = prepare(c, SPREAD, reference=-1.0)
    on = batch.completion_mask
    expected = np.where(on, logprobs(0.0, batch.completions), 0)
    np.testing.assert_allclose(batch.old_logprobs, expected, rtol=1e-6)
    np.testing.assert_allclose(batch.ref_logprobs, np.where(on, expected - 1, 0), rtol=1e-6)
    np.testing.assert_array_equal(batch.behavior_logprobs, np.where(on, -1, 0))
    assert metrics["sampler/gap"] == pytest.approx(np.abs(expected[on] + 1).mean())
    assert sorted(set(program.groups)) == [0, 1, 2, 3]
    np.testing.assert_allclose(batch.kl_coef, 0.1)


def test_groups_that_move_nothing_cost_no_pass():
    prepared, _, program = prepare(settings(), [[1, 1], [0, 1], [1, 0], [0, 0]])
    assert sorted(program.groups) == [1, 2]
    batch = prepared.batch
    np.testing.assert_array_equal(batch.old_logprobs[0], batch.behavior_logprobs[0])
    (minibatch,) = prepared.parts
    assert groups_in(minibatch) == [1, 2]


@pytest.mark.parametrize("field", ["kl_coef", "entropy_coef", "balance_coef"])
def test_they_are_kept_where_something_else_has_a_gradient(field):
    prepared, _, _ = prepare(settings(**{field: 0.1}), np.ones((4, 2)), reference=-1.0)
    (minibatch,) = prepared.parts
    assert groups_in(minibatch) == [0, 1, 2, 3]


@pytest.mark.parametrize("old", ["sampler", "on_policy", "auto"])
def test_no_pass_where_nothing_is_to_be_computed(old):
    prepared, metrics, program = prepare(settings(old_logprobs=old), SPREAD)
    assert program.groups == []
    assert metrics == {}
    batch = prepared.batch
    np.testing.assert_array_equal(batch.old_logprobs, batch.behavior_logprobs)


def test_a_penalty_in_the_reward_by_hand():
    """old - ref = 1 on every token (k1), coefficient .1: a completion of L tokens loses .1 L.

    Group 0 has lengths (8, 1) and R = (1, 0): 1 - .8 and 0 - .1, so dr_grpo gives (.15, -.15).
    """
    c = settings(advantage="dr_grpo", kl_coef=0.1, kl_placement="reward", kl_estimator="k1")
    prepared, metrics, _ = prepare(c, SPREAD, reference=-1.0)
    np.testing.assert_allclose(prepared.batch.advantages[0, :, 0], [0.15, -0.15], rtol=1e-5)
    assert metrics["policy/kl_ref"] == prepared.kl_ref == pytest.approx(1)


def test_a_penalty_stands_on_its_tokens_in_reinforce_plus_plus():
    c = settings(
        advantage="reinforce_plus_plus", kl_coef=0.1, kl_placement="reward", kl_estimator="k1"
    )
    batch = prepare(c, SPREAD, reference=-1.0)[0].batch
    on = batch.completion_mask
    steps = np.diff(batch.advantages[0, 0])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)  # the return to go grows by .1 a token
    assert steps[0] > 0
    assert batch.advantages[on].mean() == pytest.approx(0, abs=1e-6)
    assert batch.advantages[on].std(ddof=1) == pytest.approx(1, rel=1e-5)


def test_moments_go_on_from_step_to_step():
    c = settings(advantage="ema_grpo", ema_decay=0.5)
    start, made = state(c), learner(c)
    memory = made.prepare(start, rollout_batch(SPREAD))[0].memory
    assert memory.moments == {"a": (0.5, 0.5), "b": (0.5, 0.5)}
    second = start._replace(memory=memory)
    memory = made.prepare(second, rollout_batch(np.ones((4, 2))))[0].memory
    assert memory.moments == {"a": (0.75, 0.75), "b": (0.75, 0.75)}


START = TrainState(0, None, None)  # of a critic without parameters


def quarter(trained):
    """A critic to which every state is worth .25; what it is trained on goes to `trained`."""

    def values(params, policy_params, prompts, completions):
        return jnp.full(completions.shape, 0.25)

    def accumulate(params, grads, policy_params, part):
        trained.append(part)
        return grads, {"critic/loss": (jnp.zeros(()), jnp.ones(()))}

    update = Update(lambda params: 0.0, accumulate, still)
    return Critic(False, True, values, update, lambda params: START, optax.identity())


def still(state, grads):
    """An update that moves nothing."""
    return state._replace(updates=state.updates + 1), {"optim/is_finite": 1.0}


def no_gradient(params, grads, part):
    return grads, {"policy/loss": (jnp.zeros(()), jnp.ones(()))}


@pytest.mark.parametrize("treatment", ["sft", "on_policy"])
def test_a_critic_learns_no_return_of_imitated_completions(treatment):
    """The second completion of each group is offline. Imitated, it has no return: 0 would teach
    the critic that what is imitated is worth nothing. As sampled, it has that of its reward.

    Values .25 against returns (1, 0, 1, 0) of the first ones: explained variance 0.
    """
    c = settings(advantage="gae", mix={"treatment": treatment})
    rollouts = rollout_batch(
        [[1, 1], [0, 1], [1, 1], [0, 1]], is_offline=np.array([[False, True]] * 4)
    )
    trained_parts = []
    policy = Update(lambda params: 0.0, no_gradient, still)
    made = learner(c, critic=quarter(trained_parts), update=policy)
    start = state(c, critic=START)
    prepared, metrics = made.prepare(start, rollouts)
    made.update(start, prepared)
    trained = {(g, n) for p in trained_parts for g, n in trained_of(p)}
    first, batch = {(g, 0) for g in range(4)}, prepared.batch
    if treatment == "sft":
        assert trained == first
        np.testing.assert_array_equal(batch.advantages[:, 1][batch.completion_mask[:, 1]], 1)
    else:
        assert trained == first | {(g, 1) for g in range(4)}
    np.testing.assert_array_equal(batch.returns[:, 0, 0], [1, 0, 1, 0])
    assert metrics["critic/explained_variance"] == pytest.approx(0, abs=1e-6)


def trained_of(part):
    """(group, completion) of all that a microbatch trains on."""
    where = np.argwhere(np.asarray(part.completion_mask).any(axis=2)).tolist()
    return [(int(part.groups[g]), n) for g, n in where]


def test_every_update_has_its_number():
    """Two minibatches, twice, after seven updates: what dropout is drawn from."""
    c, seen = settings(epochs_per_rollout=2), []

    def accumulate(params, grads, part):
        seen.append(set(np.asarray(part.update).tolist()))
        return no_gradient(params, grads, part)

    made = learner(c, update=Update(lambda params: 0.0, accumulate, still))
    start, rollouts = state(c, updates=7), rollout_batch(SPREAD)
    batch = made.bare_batch(rollouts)
    parts = [[batch], [batch]]
    prepared = Prepared(rollouts, batch, parts, start.memory, version=7, kl_ref=None)
    after, _ = made.update(start, prepared)
    assert seen == [{7}, {8}, {9}, {10}]
    assert after.updates == 11
    assert after.step == 1


def test_an_update_that_could_not_be_drawn_or_has_no_finite_gradient_is_left_out():
    """Four minibatches: a completion of the second has a place without a token, the gradient of the
    fourth is not finite. The policy has two updates, and what the algorithm remembers stays."""
    c = settings(updates_per_rollout=4)

    def accumulate(params, grads, part):
        return float(part.groups[0]), {"policy/loss": (jnp.ones(()), jnp.ones(()))}

    def apply(trained, grads):
        is_finite = grads != 3
        metrics = {"optim/is_finite": float(is_finite), "optim/grad_norm": grads or np.nan}
        return trained._replace(updates=trained.updates + is_finite), metrics

    made = learner(c, update=Update(lambda params: -1.0, accumulate, apply))
    start, rollouts = state(c), rollout_batch(SPREAD)
    batch = made.bare_batch(rollouts)
    parts = [[jax.tree.map(lambda x, g=g: x[g : g + 1], batch)] for g in range(4)]
    behavior = parts[1][0].behavior_logprobs.copy()
    behavior[0, 0, -1] = np.nan
    parts[1] = [parts[1][0]._replace(behavior_logprobs=behavior)]
    memory = start.memory._replace(kl_coef=7.0)
    prepared = Prepared(rollouts, batch, parts, memory, version=0, kl_ref=None)
    after, metrics = made.update(start, prepared)
    assert (after.step, after.updates) == (1, 2)
    assert after.memory == start.memory
    assert metrics["optim/is_finite"] == 0.5
    assert metrics["optim/skipped"] == 2


@pytest.mark.parametrize(
    ("groups", "hosts", "may_be", "sums"),
    [(4, 1, (True,), [0.0]), (2, 1, (False,), [None]), (2, 2, (False, True), [None])],
    ids=["several parts", "one part", "one part of hosts"],
)
def test_whether_gradients_are_added_is_known_before_the_first_update(groups, hosts, may_be, sums):
    """A microbatch holds two groups of the largest shape; this minibatch has one microbatch.

    Where a whole one has two, a sum begins all the same: else there would be two programs.
    """
    c, seen = settings(), []

    def accumulate(params, grads, part):
        seen.append(grads)
        return no_gradient(params, grads, part)

    parts = ((4, R, 1), (16, R, 3))
    shapes = dataclasses.replace(SHAPES, parts=parts, minibatch_groups=groups)
    made = learner(c, shapes, update=Update(lambda params: 0.0, accumulate, still))
    made = dataclasses.replace(made, cutter=dataclasses.replace(made.cutter, hosts=hosts))
    assert made.adds_parts == may_be
    rollouts, start = rollout_batch(SPREAD), state(c)
    batch = made.bare_batch(rollouts)
    prepared = Prepared(rollouts, batch, [[batch]], start.memory, version=0, kl_ref=None)
    made.update(start, prepared)
    assert seen == sums
    assert made.zeros(made.programs.update, {"w": 0.0}, 2) == 0.0
