"""What a minibatch as a whole says about its tokens, from the learner's settings to its parts."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from learner_rig import SPREAD, Sums, learner, logprobs, rollout_batch, settings, state

from evr1.learner import advantages as advantages_lib
from evr1.rl.state import AlgorithmState

CLIP = {"covariance": "clip", "covariance_low": 0.0, "covariance_share": 0.3}
KL = {"covariance": "kl", "covariance_share": 0.3, "covariance_coef": 2.0}
NORMALIZED = {"correction": "token_tis", "correction_high": 2.6, "correction_normalized": True}


def scored(params, prompts, completions):
    """`Sums`, and entropies that grow with group and position: g + 1 + t / 8."""
    entropy = np.asarray(completions) + np.arange(completions.shape[2]) / 8
    return Sums()(params, prompts, completions), jnp.asarray(entropy, jnp.float32)


def prepare(rewards=SPREAD, *, microbatch_tokens=10**4, updates=0, finished=None, **fields):
    c = settings(train={"microbatch_tokens": microbatch_tokens}, **fields)
    rollouts = rollout_batch(rewards)
    if finished is not None:
        parts = rollouts.rollouts._replace(finished=np.asarray(finished))
        rollouts = dataclasses.replace(rollouts, rollouts=parts)
    made = learner(c, scored=scored if c.algorithm.entropy_share < 1 else None)
    return made.prepare(state(c, updates=updates), rollouts)


def by_group(prepared, field):
    """The field of every group on its trained tokens, from the microbatches."""
    found = {}
    for part in (part for minibatch in prepared.parts for part in minibatch):
        for i, g in enumerate(part.groups.tolist()):
            if g >= 0:
                found[g] = getattr(part, field)[i][part.completion_mask[i]].tolist()
    return [found[g] for g in sorted(found)]


ALL = [
    ({"entropy_share": 0.25}, "policy_weights"),
    (CLIP, "policy_weights"),
    (KL, "kl_old_coef"),
    (NORMALIZED, "policy_weights"),
    ({"entropy_share": 0.6, **CLIP, **NORMALIZED}, "policy_weights"),
]


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize(("fields", "name"), ALL)
def test_it_does_not_depend_on_how_a_minibatch_is_cut(fields, name, updates):
    whole, small = (
        prepare(microbatch_tokens=tokens, updates_per_rollout=updates, **fields)[0]
        for tokens in (10**4, 32)
    )
    assert sum(map(len, small.parts)) == 4 > sum(map(len, whole.parts))
    expected = by_group(whole, name)
    assert by_group(small, name) == expected
    assert {x for row in expected for x in row} != {1.0}


def test_nothing_is_there_by_default():
    part = prepare()[0].parts[0][0]
    fields = (part.entropy, part.policy_weights, part.kl_old_coef, part.entropy_coef)
    assert fields == (None,) * 4


def test_the_highest_entropies_of_a_minibatch():
    """22 tokens; groups have 9, 3, 6 and 4 of them, and entropies by group: the last two groups
    have 10. A share of 1/3 keeps the 8 highest: the 4 of the last group and 4 of the third."""
    prepared, metrics = prepare(entropy_share=1 / 3)
    got = by_group(prepared, "policy_weights")
    assert got == [[0.0] * 9, [0.0] * 3, [0.0, 1, 1, 1, 1, 0], [1.0] * 4]
    assert metrics["sampler/gap"] > 0
    # With two minibatches, groups 0 and 2, 1 and 3, each has its own quantile. It is the entropy of
    # the first token of group 2, 3, and of group 3, 4: no token is below it there.
    got = by_group(prepare(entropy_share=1 / 3, updates_per_rollout=2)[0], "policy_weights")
    assert [sum(row) for row in got] == [0, 0, 6, 4]


def test_groups_without_signal_are_in_the_quantile():
    prepared, _ = prepare([[1, 1], [0, 1], [1, 0], [1, 1]], entropy_share=1 / 3)
    assert by_group(prepared, "policy_weights") == [[0.0] * 3, [0.0, 1, 1, 1, 1, 0]]


def test_kl_cov_by_hand():
    """A = +-.7071 (grpo), log p = -.01 (g + 1 + t): the highest (log p - mean) (A - mean)."""
    prepared, _ = prepare(**KL)
    batch = prepared.batch
    on = batch.completion_mask
    old, a = logprobs(0.0, batch.completions)[on], batch.advantages[on]
    values = (old - old.mean()) * (a - a.mean())
    chosen = np.zeros(22)
    chosen[np.argsort(-values, kind="stable")[:6]] = 2.0  # .3 of 22, rounded down
    got = np.concatenate(by_group(prepared, "kl_old_coef"))
    np.testing.assert_array_equal(got, chosen)


def test_kl_cov_keeps_groups_without_signal():
    prepared, _ = prepare([[1, 1], [0, 1], [1, 0], [1, 1]], **KL)
    assert len(by_group(prepared, "kl_old_coef")) == 4


def test_clip_cov_draws_anew_after_each_update_and_alike_after_a_resumed_one():
    draws = [by_group(prepare(updates=u, **CLIP)[0], "policy_weights") for u in (0, 0, 5)]
    assert draws[0] == draws[1] != draws[2]
    assert all(sum(x == 0 for row in draw for x in row) == 6 for draw in draws)


def test_normalized_weights_have_mean_one():
    """rho = old / sampler = exp(1 - .01 (g + 1 + t)), below 2.6 from g + t = 4 on."""
    prepared, _ = prepare(**NORMALIZED)
    batch = prepared.batch
    on = batch.completion_mask
    rho = np.exp(logprobs(0.0, batch.completions)[on] + 1)
    factors = np.concatenate(by_group(prepared, "policy_weights"))
    np.testing.assert_allclose(factors, 1 / np.minimum(rho, 2.6).mean(), rtol=1e-6)


def test_truncated_completions_are_in_no_loss_and_no_denominator():
    """The first of group 0, 8 of 22 tokens, is cut: weights 1/14; advantages as before."""
    finished = [[False, True], [True, True], [True, True], [True, True]]
    plain, before = prepare(finished=finished)
    prepared, metrics = prepare(finished=finished, mask_truncated=True)
    batch = prepared.batch
    assert not batch.completion_mask[0, 0].any()
    np.testing.assert_allclose(batch.loss_weights[batch.completion_mask], 1 / 14)
    np.testing.assert_array_equal(batch.advantages, plain.batch.advantages)
    assert metrics == before | {"completion/masked_token_share": pytest.approx(8 / 22)}
    (part,) = prepared.parts[0]
    assert part.completion_mask.sum() == 14
    assert part.loss_weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("aggregation", ["sequence_mean", "fixed_length", "sequence_sum"])
def test_truncated_completions_are_not_counted_as_completions(aggregation):
    finished = [[False, True], [False, False], [True, True], [True, True]]
    fields = {"mask_truncated": True, "aggregation": aggregation}
    batch = prepare(finished=finished, **fields)[0].batch
    divisor = {"sequence_mean": 1, "fixed_length": 8, "sequence_sum": 1}[aggregation]
    tokens = [1, 5, 1, 3, 1]  # of the five that are left
    expected = 1 if aggregation == "sequence_mean" else sum(tokens) / 5 / divisor
    assert batch.loss_weights.sum() == pytest.approx(expected)


@pytest.mark.parametrize("updates", [1, 2, 4])
def test_a_batch_that_is_truncated_but_for_one_completion_or_whole(updates):
    fields = {"mask_truncated": True, "updates_per_rollout": updates}
    finished = np.zeros((4, 2), bool)
    prepared, metrics = prepare(finished=finished, **fields)
    assert [parts for parts in prepared.parts if parts] == []
    assert metrics["completion/masked_token_share"] == 1
    finished[2, 0] = True
    prepared, _ = prepare(finished=finished, **fields)
    (minibatch,) = prepared.parts
    (part,) = minibatch
    assert part.loss_weights.sum() == pytest.approx(1)
    assert part.completion_mask.sum() == 5


ADAPTIVE = {"entropy_controller": "adaptive", "entropy_coef": 0.01}


def test_the_entropy_bonus_follows_the_entropy_by_hand():
    """Target .2, step .005: after .1 it grows; after .3 it shrinks, and is not given."""
    c = settings(**ADAPTIVE)
    memory = state(c).memory._replace(entropy_coef=0.01)
    for observed, coef, given in ((0.1, 0.015, 0.015), (0.3, 0.01, 0.0), (0.1, 0.015, 0.015)):
        memory = advantages_lib.next_entropy(c.algorithm, memory, {"policy/entropy": observed})
        assert memory.entropy_coef == pytest.approx(coef)
        assert advantages_lib.entropy_coef(c.algorithm, memory) == pytest.approx(given)
    assert advantages_lib.next_entropy(c.algorithm, memory, {}) == memory


def test_the_entropy_bonus_is_data_of_every_group():
    c = settings(**ADAPTIVE)
    start = state(c)._replace(memory=AlgorithmState(0.0, entropy_coef=0.02, entropy=0.1))
    prepared, _ = learner(c).prepare(start, rollout_batch(np.ones((4, 2))))
    (part,) = prepared.parts[0][:1]
    np.testing.assert_allclose(part.entropy_coef[part.groups >= 0], 0.02)
    kept = sorted(g for part in prepared.parts[0] for g in part.groups.tolist() if g >= 0)
    assert kept == [0, 1, 2, 3]  # entropy moves groups without signal too
