"""Log-probabilities and advantages come together in the rollout batch; a policy of plain sums."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from test_rl_batches import SHAPES, N, R, make

from configs import base
from evr1 import config as config_lib
from evr1 import learn, run
from evr1.networks import Networks
from evr1.rl.outcomes import Outcomes
from evr1.rl.state import AlgorithmState
from evr1.step import TrainState, Update
from evr1.types import Rollouts

LENGTHS = np.array([[8, 1], [2, 1], [5, 1], [3, 1]])
PROMPTS = [4, 16, 3, 15]


class SumPolicy:
    """log p = params - .01 * (token + position); every token of group g is g + 1."""

    group_multiple = 1
    critic = None

    def __init__(self):
        self.groups = []

    def place_prompts(self, part, examples):
        self.groups += [g for g in part.groups.tolist() if g >= 0]
        return part.prompts, part.completions

    def logprobs(self, params, prompts, completions):
        return jnp.asarray(logprobs(params["w"], completions), jnp.float32)


def logprobs(params, completions):
    return params - 0.01 * (completions + np.arange(completions.shape[2]))


def settings(**fields):
    c = base.get_config()
    c.rollout.prompts, c.rollout.n, c.rollout.max_completion_tokens = 4, N, R
    c.train.microbatch_tokens = 2 * (16 + N * R)
    c.algorithm.update(fields)
    config_lib.fill_algorithm(c.algorithm)
    return c


def parts_of_a_step(rewards):
    """Prompts, rollouts and what they earned."""
    batch = make(PROMPTS, LENGTHS[:, 0])
    rollouts = Rollouts(
        batch.completions, np.full((4, N, R), -1, np.float32), LENGTHS, np.ones((4, N), bool)
    )
    outcomes = Outcomes(
        np.float32(rewards), np.ones((4, N), bool), LENGTHS, tasks=["a", "b", "a", "b"]
    )
    return batch.prompts, rollouts, outcomes


def make_batch(c, rewards, reference=None):
    prompts, rollouts, outcomes = parts_of_a_step(rewards)
    data = types.SimpleNamespace(shapes=SHAPES, collate=lambda examples: prompts)
    policy, memory = SumPolicy(), AlgorithmState(c.algorithm.kl_coef)
    other = None if reference is None else {"w": reference}
    networks = Networks(TrainState(0, {"w": 0.0}, None), reference=other)
    batch, memory, metrics = learn.make_batch(
        c, policy, data, [None] * 4, rollouts, outcomes, memory, networks
    )
    return batch, memory, metrics, policy


SPREAD = [[1, 0], [0, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("group", ["mix", "replay"])
def test_the_loss_is_told_of_offline_completions(group):
    c = settings()
    assert not run.loss_config(c).has_offline
    c.mix.update({"treatment": "importance", "importance_clip": 2.0, "luffy_gamma": 0.5})
    c[group].enabled = True
    loss = run.loss_config(c)
    assert loss.has_offline
    assert (loss.offline, loss.offline_clip, loss.luffy_gamma) == ("importance", 2.0, 0.5)


@pytest.mark.parametrize("updates", [1, 2])
def test_every_token_gets_its_own_logprob_back(updates):
    c = settings(kl_coef=0.1, updates_per_rollout=updates)
    batch, _, metrics, policy = make_batch(c, SPREAD, reference=-1.0)
    on = batch.completion_mask
    expected = np.where(on, logprobs(0.0, batch.completions), 0)
    np.testing.assert_allclose(batch.old_logprobs, expected, rtol=1e-6)
    np.testing.assert_allclose(batch.ref_logprobs, np.where(on, expected - 1, 0), rtol=1e-6)
    np.testing.assert_array_equal(batch.behavior_logprobs, np.where(on, -1, 0))
    assert metrics["sampler/gap"] == pytest.approx(np.abs(expected[on] + 1).mean())
    assert sorted(set(policy.groups)) == [0, 1, 2, 3]
    np.testing.assert_allclose(batch.kl_coef, 0.1)


def test_groups_that_move_nothing_cost_no_pass():
    batch, _, _, policy = make_batch(settings(), [[1, 1], [0, 1], [1, 0], [0, 0]])
    assert sorted(policy.groups) == [1, 2]
    np.testing.assert_array_equal(batch.old_logprobs[0], batch.behavior_logprobs[0])
    (minibatch,) = learn.split(settings(), policy, types.SimpleNamespace(shapes=SHAPES), batch)
    assert sorted(g for part in minibatch for g in part.groups.tolist() if g >= 0) == [1, 2]


@pytest.mark.parametrize("field", ["kl_coef", "entropy_coef", "balance_coef"])
def test_they_are_kept_where_something_else_has_a_gradient(field):
    c = settings(**{field: 0.1})
    batch, _, _, policy = make_batch(c, np.ones((4, 2)), reference=-1.0)
    (minibatch,) = learn.split(c, policy, types.SimpleNamespace(shapes=SHAPES), batch)
    assert sorted(g for part in minibatch for g in part.groups.tolist() if g >= 0) == [0, 1, 2, 3]


@pytest.mark.parametrize("old", ["sampler", "on_policy"])
def test_no_pass_where_nothing_is_to_be_computed(old):
    batch, _, metrics, policy = make_batch(settings(old_logprobs=old), SPREAD)
    assert policy.groups == []
    assert metrics == {}
    np.testing.assert_array_equal(batch.old_logprobs, batch.behavior_logprobs)


def test_a_penalty_in_the_reward_by_hand():
    """old - ref = 1 on every token (k1), coefficient .1: a completion of L tokens loses .1 L.

    Group 0 has lengths (8, 1) and R = (1, 0): 1 - .8 and 0 - .1, so dr_grpo gives (.15, -.15).
    """
    c = settings(advantage="dr_grpo", kl_coef=0.1, kl_placement="reward", kl_estimator="k1")
    batch, _, metrics, _ = make_batch(c, SPREAD, reference=-1.0)
    np.testing.assert_allclose(batch.advantages[0, :, 0], [0.15, -0.15], rtol=1e-5)
    assert metrics["policy/kl_ref"] == pytest.approx(1)


def test_a_penalty_stands_on_its_tokens_in_reinforce_plus_plus():
    c = settings(
        advantage="reinforce_plus_plus", kl_coef=0.1, kl_placement="reward", kl_estimator="k1"
    )
    batch, _, _, _ = make_batch(c, SPREAD, reference=-1.0)
    on = batch.completion_mask
    steps = np.diff(batch.advantages[0, 0])
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)  # the return to go grows by .1 a token
    assert steps[0] > 0
    assert batch.advantages[on].mean() == pytest.approx(0, abs=1e-6)
    assert batch.advantages[on].std(ddof=1) == pytest.approx(1, rel=1e-5)


def test_moments_go_on_from_step_to_step():
    c = settings(advantage="ema_grpo", ema_decay=0.5)
    _, memory, _, _ = make_batch(c, SPREAD)
    assert memory.moments == {"a": (0.5, 0.5), "b": (0.5, 0.5)}
    _, _, outcomes = parts_of_a_step(np.ones((4, 2)))
    _, memory = learn.estimate(c, outcomes, memory)
    assert memory.moments == {"a": (0.75, 0.75), "b": (0.75, 0.75)}


def test_the_coefficient_follows_its_target():
    """8 completions a step, horizon 16: share .5. KL .15 of target .1: 1 + .2 * .5."""
    c = settings(kl_coef=0.1, kl_controller="adaptive", kl_horizon=16.0)
    assert learn.next_kl_coef(c, AlgorithmState(0.1), 0.15).kl_coef == pytest.approx(0.11)
    c = settings(kl_coef=0.1)
    assert learn.next_kl_coef(c, AlgorithmState(0.1), 0.15).kl_coef == 0.1


def test_an_imitated_completion_is_no_part_of_the_statistics_and_has_its_own_weight():
    """Group 0: R = (1, 0, offline): mean .5 of the two drawn, so (.5, -.5), and 2 for the third."""
    c = settings(advantage="dr_grpo")
    c.mix.treatment, c.mix.sft_coef = "sft", 2.0
    outcomes = Outcomes(
        np.float32([[1, 0, 0.3], [0, 1, 0]]),
        np.array([[True] * 3, [True, True, False]]),
        np.ones((2, 3), int),
        is_offline=np.array([[False, False, True]] * 2),
    )
    advantages, _ = learn.estimate(c, outcomes, AlgorithmState(0.0))
    np.testing.assert_allclose(advantages, [[0.5, -0.5, 2], [-0.5, 0.5, 0]])
    c.mix.treatment = "on_policy"
    advantages, _ = learn.estimate(c, outcomes, AlgorithmState(0.0))
    assert advantages[0, 2] == pytest.approx(0.3 - 1.3 / 3)


class Quarter:
    """A critic to which every state is worth .25; it keeps what it is trained on."""

    is_shared, has_policy_tower = False, True

    def __init__(self):
        self.trained = []
        self.update = Update(lambda params: 0.0, self.accumulate, lambda state, grads: (state, {}))

    def values(self, params, policy_params, prompts, completions):
        return jnp.full(completions.shape, 0.25)

    def accumulate(self, params, grads, policy_params, part):
        self.trained.append(part)
        return grads, {"critic/loss": (jnp.zeros(()), jnp.ones(()))}


@pytest.mark.parametrize("treatment", ["sft", "on_policy"])
def test_a_critic_learns_no_return_of_imitated_completions(treatment):
    """The second completion of each group is offline. Imitated, it has no return: 0 would teach
    the critic that what is imitated is worth nothing. As sampled, it has that of its reward.

    Values .25 against returns (1, 0, 1, 0) of the first ones: explained variance 0.
    """
    c = settings(advantage="gae")
    c.mix.treatment = treatment
    prompts, rollouts, outcomes = parts_of_a_step([[1, 1], [0, 1], [1, 1], [0, 1]])
    is_offline = np.array([[False, True]] * 4)
    data = types.SimpleNamespace(shapes=SHAPES, collate=lambda examples: prompts)
    policy = SumPolicy()
    policy.critic = Quarter()
    policy.place = lambda part: part
    policy.with_vision = lambda part, examples: part
    networks = Networks(TrainState(0, {"w": 0.0}, None), TrainState(0, None, None))
    outcomes = outcomes._replace(is_offline=is_offline)
    examples = [None] * 4
    batch, _, metrics = learn.make_batch(
        c, policy, data, examples, rollouts, outcomes, AlgorithmState(0.0), networks
    )
    learn.update_critic(c, policy, data, networks, examples, batch)
    trained = {(g, n) for p in policy.critic.trained for g, n in trained_of(p)}
    first = {(g, 0) for g in range(4)}
    if treatment == "sft":
        assert trained == first
        np.testing.assert_array_equal(batch.advantages[:, 1][batch.completion_mask[:, 1]], 1)
    else:
        assert trained == first | {(g, 1) for g in range(4)}
    np.testing.assert_array_equal(batch.returns[:, 0, 0], [1, 0, 1, 0])
    assert metrics["critic/explained_variance"] == pytest.approx(0, abs=1e-6)


def trained_of(part):
    """(group, completion) of all that a microbatch trains on."""
    where = np.argwhere(part.completion_mask.any(axis=2)).tolist()
    return [(int(part.groups[g]), n) for g, n in where]


def test_every_update_has_its_number():
    """Two minibatches, twice, after seven updates: what dropout is drawn from."""
    policy, seen = SumPolicy(), []
    examples = [None] * 4
    policy.place = lambda part: part
    policy.with_vision = lambda part, examples: part

    def accumulate(params, grads, part):
        seen.append(set(part.update.tolist()))
        return grads, {"policy/loss": (jnp.zeros(()), jnp.ones(()))}

    def apply(state, grads):
        return state._replace(step=state.step + 1), {}

    policy.update = Update(lambda params: 0.0, accumulate, apply)
    batch = make(PROMPTS, LENGTHS[:, 0])
    state, _ = learn.update(policy, TrainState(7, {}, None), examples, [[batch], [batch]], 2)
    assert seen == [{7}, {8}, {9}, {10}]
    assert state.step == 11
