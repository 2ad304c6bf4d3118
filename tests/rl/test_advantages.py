import itertools

import numpy as np
import pytest
import rl_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1.config import algorithms
from evr1.rl.advantages import ESTIMATORS, group_advantages
from evr1.rl.outcomes import Outcomes, Part, has_signal, update_moments

ONE_OF_FOUR = np.float32([[1, 0, 0, 0]])
GROUP_RELATIVE = [name for name in ESTIMATORS if name not in algorithms.WITHOUT_GROUPS]
# A batch of one group: their scale depends on the other groups, so it is tested apart.
SUMS_TO_ZERO = [name for name in GROUP_RELATIVE if name not in ("grpo_passk", "opo")]


def outcomes(rewards, valid=None, **fields):
    """Outcomes whose reward has one part, all completions 5 tokens long, one task.

    The greedy completion of each group earned what its first one did.
    """
    rewards = np.asarray(rewards, np.float32)
    made = Outcomes(
        rewards=rewards,
        valid=np.ones(rewards.shape, bool) if valid is None else np.asarray(valid),
        lengths=np.full(rewards.shape, 5),
        parts={"overall": Part(1.0, rewards)},
        tasks=["task"] * len(rewards),
        baselines=rewards[:, 0],
    )._replace(**fields)
    return made._replace(moments=update_moments(made.moments, made, 0.99))


def advantages(rewards, mode, valid=None, **fields):
    return group_advantages(outcomes(rewards, valid, **fields), mode)


# (1, 0, 0, 0) alone in its batch: mean .25, ddof-1 std .5, ddof-0 std .4330.
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("grpo", (1.5, -0.5, -0.5, -0.5)),  # ddof 0 would give 1.732 for the first
        ("rloo", (1, -1 / 3, -1 / 3, -1 / 3)),
        ("dr_grpo", (0.75, -0.25, -0.25, -0.25)),
        ("grpo_passk", (2, 0, 0, 0)),
        ("maxrl", (3, -1, -1, -1)),
        ("opo", (0.75, -0.25, -0.25, -0.25)),
        ("lite_ppo", (1.5, -0.5, -0.5, -0.5)),
        ("reinforce_plus_plus", (1.5, -0.5, -0.5, -0.5)),  # every token: see below for the ddof
        ("reinforce_plus_plus_baseline", (1.5, -0.5, -0.5, -0.5)),
        ("gdpo", (1.5, -0.5, -0.5, -0.5)),
        ("ema_grpo", (3**0.5, -1 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5)),  # sqrt(.25 - .0625)
        ("remax", (0, -1, -1, -1)),  # the greedy completion earned 1
    ],
)
def test_one_correct_of_four(mode, expected):
    lengths = np.ones((1, 4), int)  # one token each: tokens and completions are the same
    np.testing.assert_allclose(
        advantages(ONE_OF_FOUR, mode, lengths=lengths), [expected], rtol=3e-6, atol=1e-7
    )


def test_every_estimator_has_a_case_above():
    (mark,) = (m for m in test_one_correct_of_four.pytestmark if m.name == "parametrize")
    assert {mode for mode, _ in mark.args[1]} == set(ESTIMATORS)
    assert set(algorithms.ADVANTAGES) == {*ESTIMATORS, "gae"}  # which needs a critic besides


def test_passk_is_the_lead_of_the_best_over_the_second():
    """(1, .5, 0, 0): std .478714, lead .5: 1.044466. A shared first place has no lead."""
    np.testing.assert_allclose(
        advantages([[1, 0.5, 0, 0]], "grpo_passk"), [[1.044466, 0, 0, 0]], rtol=1e-5
    )
    np.testing.assert_array_equal(advantages([[1, 1, 0, 0]], "grpo_passk"), 0)


@pytest.mark.parametrize(
    ("rewards", "k", "added"),
    [
        ([1, 0, 0, 0], 2, [1, 0, 0, 0]),
        ([1, 1, 0, 0], 2, [2 / 3, 2 / 3, 0, 0]),  # beside a 0, of which 2 of the others are
        ([1, 1, 0, 0], 3, [1 / 3, 1 / 3, 0, 0]),  # beside both 0: 1 of 3 pairs of others
        ([1, 1, 1, 0], 3, [0, 0, 0, 0]),
        ([3, 2, 1, 0], 2, [2, 1, 1 / 3, 0]),  # leads 1, 2, 3; 0, 1, 2; 0, 0, 1
        ([3, 2, 1, 0], 4, [1, 0, 0, 0]),
        ([0, 1, 0.5, 0], 2, [0, 2.5 / 3, 1 / 3, 0]),
    ],
)
def test_passk_of_fewer_than_the_group_by_hand(rewards, k, added):
    got = advantages([rewards], "grpo_passk", passk=k)
    np.testing.assert_allclose(got, [added / np.std(rewards, ddof=1)], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_passk_against_all_sets(seed):
    """What a completion adds to the best of k, over every set that it is in, one by one."""
    rng = np.random.default_rng(seed)
    n, k = 7, int(rng.integers(2, 7))
    rewards = rng.integers(0, 4, n) / 4.0
    valid = rng.random(n) < 0.8
    places = np.flatnonzero(valid)
    expected = np.zeros(n)
    for i in places:
        sets = list(itertools.combinations([j for j in places if j != i], k - 1))
        leads = [max(rewards[i] - rewards[list(others)].max(), 0) for others in sets]
        expected[i] = np.mean(leads) if leads else 0
    if len(places) < k:
        return
    got = advantages([rewards], "grpo_passk", [valid], passk=k)
    std = np.std(rewards[valid], ddof=1) + 1e-6
    np.testing.assert_allclose(got, [expected / std], rtol=1e-5, atol=1e-7)


def test_passk_with_fewer_valid_completions_than_k():
    """Two are valid: the best of both, as with k = n; one, or none: nothing."""
    valid = [[True, True, False, False], [True, False, False, False], [False] * 4]
    got = advantages([[1, 0, 9, 9]] * 3, "grpo_passk", valid, passk=3)
    np.testing.assert_allclose(got, [[2**0.5, 0, 0, 0], [0] * 4, [0] * 4], rtol=1e-5)


def test_a_discount_in_reinforce_plus_plus_by_hand():
    """R = (1, 0), 3 tokens and 1, discount .5: returns (.25, .5, 1) and (0), mean .4375.

    Deviations (-.1875, .0625, .5625) and -.4375, ddof-1 std .426956.
    """
    got = advantages([[1, 0]], "reinforce_plus_plus", lengths=np.array([[3, 1]]), discount=0.5)
    assert got.shape == (1, 2, 3)
    expected = [[[-0.439156, 0.146385, 1.317468], [-1.024697, 0, 0]]]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_discount_holds_for_penalties_too():
    """R = 1 on the second token, penalties (.2, .1), discount .5: (.5 * .9 - .2, .9) = (.25, .9).

    Beside it R = 0 of one token, penalty .3: -.3. Mean .28333, ddof-1 std .600694.
    """
    got = advantages(
        [[1, 0]],
        "reinforce_plus_plus",
        lengths=np.array([[2, 1]]),
        penalties=np.float32([[[0.2, 0.1, 0], [0.3, 0, 0]]]),
        discount=0.5,
    )
    expected = [[[-0.055491, 1.026590, 0], [-0.971099, 0, 0]]]
    np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_gdpo_with_a_bonus_for_some_groups():
    """accuracy (1, 1, 0, 0) twice, weight .9; the first group alone earns the bonus, weight .3.

    Each part is +-.866025 where it varies: sums +-1.039230 and +-.779423, std .981981.
    """
    right = np.float32([[1, 1, 0, 0]] * 2)
    parts = {
        "accuracy": Part(0.9, right),
        "format": Part(0.1, np.ones((2, 4), np.float32)),
        "temporal_bonus": Part(0.3, np.float32([[1, 1, 0, 0], [0, 0, 0, 0]])),
    }
    got = advantages(0.9 * right, "gdpo", parts=parts)
    signs = np.array([1, 1, -1, -1])
    np.testing.assert_allclose(got, [1.0583 * signs, 0.79373 * signs], rtol=2e-5)


def test_opo_weighs_by_length():
    """R = (1, 0), lengths (1, 3): baseline 1 * 1 / 4 = .25, not the mean .5."""
    got = advantages([[1, 0]], "opo", lengths=np.array([[1, 3]]))
    np.testing.assert_allclose(got, [[0.75, -0.25]], rtol=1e-6)


def test_maxrl_is_zero_where_the_mean_is():
    np.testing.assert_array_equal(advantages([[0, 0, 0], [-1, 1, 0]], "maxrl"), 0)


def test_reinforce_plus_plus_whitens_over_the_tokens_of_the_batch():
    """R = (1, 0) with 1 and 3 tokens: returns (1; 0, 0, 0), mean .25, std .5, so 1.5 and -.5.

    Over completions it would be mean .5, std .7071, so .7071 and -.7071.
    """
    got = advantages([[1, 0]], "reinforce_plus_plus", lengths=np.array([[1, 3]]))
    np.testing.assert_allclose(got, [[1.5, -0.5]], rtol=1e-6)


def test_reinforce_plus_plus_with_penalties_is_a_return_to_go():
    """R = (1, 0), penalties (.2, .1) and (.3): returns (.7, .9) and (-.3).

    Mean 1.3/3 = .43333, deviations (.26667, .46667, -.73333), ddof-1 std .642910.
    """
    penalties = np.float32([[[0.2, 0.1], [0.3, 0]]])
    got = advantages(
        [[1, 0]], "reinforce_plus_plus", lengths=np.array([[2, 1]]), penalties=penalties
    )
    assert got.shape == (1, 2, 2)
    np.testing.assert_allclose(got, [[[0.414781, 0.725866], [-1.140647, 0]]], rtol=1e-5)


def test_the_others_take_the_sum_of_the_penalties_off_the_reward():
    """R = (1, 0) less (.3, .3) and (1, 0) less (.5, 0): (.7, -.3) and (.5, 0)."""
    penalties = np.float32([[[0.2, 0.1], [0.3, 0]], [[0.5, 0], [0, 0]]])
    got = advantages([[1, 0], [1, 0]], "dr_grpo", penalties=penalties)
    np.testing.assert_allclose(got, [[0.5, -0.5], [0.25, -0.25]], rtol=1e-6)


@pytest.mark.parametrize(
    ("rewards", "greedy", "expected"),
    [
        ([1, 0, 0, 0], 0.25, [0.75, -0.25, -0.25, -0.25]),  # the group's mean is not looked at
        ([1, 1, 1], 0, [1, 1, 1]),  # equal, and all better than the greedy one
        ([0], 1, [-1]),  # one completion is enough
        ([0.9] * 7, 0.9, [0] * 7),
    ],
)
def test_remax_by_hand(rewards, greedy, expected):
    got = advantages([rewards], "remax", baselines=np.array([greedy]))  # float64, rewards float32
    np.testing.assert_array_equal(got, np.float32([expected]))


def test_remax_with_penalties_is_a_return_to_go_less_the_baseline():
    """R = (1, 0), penalties (.2, .1) and (.3): returns (.7, .9) and (-.3), less .5."""
    got = advantages(
        [[1, 0]],
        "remax",
        lengths=np.array([[2, 1]]),
        penalties=np.float32([[[0.2, 0.1], [0.3, 0]]]),
        baselines=np.float32([0.5]),
    )
    np.testing.assert_allclose(got, [[[0.2, 0.4], [-0.8, 0]]], rtol=1e-6)


@pytest.mark.parametrize("penalties", [None, np.full((2, 2, 5), 0.25, np.float32)])
def test_remax_gives_a_group_whose_greedy_completion_failed_nothing(penalties):
    got = advantages(
        [[1, 0], [1, np.nan]],
        "remax",
        valid=[[True, True], [True, False]],
        baselines=np.float32([np.nan, 0.5]),
        penalties=penalties,
    )
    np.testing.assert_array_equal(got[0], 0)
    np.testing.assert_array_equal(got[1, 1], 0)
    assert (got[1, 0] != 0).any()


def test_the_others_do_not_look_at_baselines():
    rewards = [[1, 0, 0, 0], [0, 0, 0, 0]]
    for mode in GROUP_RELATIVE:
        got = advantages(rewards, mode, baselines=np.float32([np.nan, 7]))
        np.testing.assert_array_equal(got, advantages(rewards, mode, baselines=None))


def test_gdpo_normalises_every_part_by_itself():
    """accuracy (1, 0, 0, 0), format (1, 1, 0, 0), weights .9 and .1.

    accuracy: (1.5, -.5, -.5, -.5); format: std .57735, (.866025, .866025, -.866025, -.866025).
    Sum S: (1.436603, -.363397, -.536603, -.536603), whose ddof-1 std is .961209.
    Normalising the weighted sum instead would give (1.492915, -.360359, -.566278, -.566278).
    """
    parts = {
        "accuracy": Part(0.9, ONE_OF_FOUR),
        "format": Part(0.1, np.float32([[1, 1, 0, 0]])),
    }
    got = advantages([[1, 0.1, 0, 0]], "gdpo", parts=parts)
    np.testing.assert_allclose(got, [[1.494579, -0.378062, -0.558258, -0.558258]], rtol=5e-6)


def test_gdpo_counts_completions_not_tokens():
    rewards = [[1, 0, 0, 0], [1, 1, 0, 0]]
    long = np.array([[100, 1, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(
        advantages(rewards, "gdpo", lengths=long), advantages(rewards, "gdpo")
    )


def test_lite_ppo_and_the_plus_plus_baseline_divide_by_a_deviation_of_the_batch():
    """R = (1, 0), (1, 1): centered (.5, -.5, 0, 0).

    std of R over the batch, ddof 1: .5, so (1, -1). std of the centered: sqrt(.5 / 3) = .408248,
    so 1.224745.
    """
    rewards = [[1, 0], [1, 1]]
    np.testing.assert_allclose(
        advantages(rewards, "lite_ppo"), [[1, -1], [0, 0]], rtol=1e-5, atol=0
    )
    np.testing.assert_allclose(
        advantages(rewards, "reinforce_plus_plus_baseline"),
        [[1.224745, -1.224745], [0, 0]],
        rtol=1e-5,
        atol=0,
    )


def test_moments_run_by_task():
    """Task a: R = 1, 0 at first, so (.5, .5); then 1, 1: .99 * .5 + .01 * 1 = .505 twice.

    Its deviation is then sqrt(.505 - .255025) = .499975; b, which has not been seen before, starts
    at its own (.25, .0625 + 0): deviation 0, floor .001.
    """
    first = outcomes([[1, 0]], tasks=["a"])
    assert first.moments == {"a": (0.5, 0.5)}
    second = outcomes([[1, 1], [0.25, 0.25]], tasks=["a", "b"], moments=first.moments)
    assert second.moments["a"] == pytest.approx((0.505, 0.505))
    assert second.moments["b"] == (0.25, 0.0625)
    third = Outcomes(
        np.float32([[1, 0]]),
        np.ones((1, 2), bool),
        np.ones((1, 2), int),
        tasks=["a"],
        moments=second.moments,
    )
    np.testing.assert_allclose(
        group_advantages(third, "ema_grpo"), [[0.5 / 0.499975, -0.5 / 0.499975]], rtol=1e-6
    )


def test_moments_leave_out_what_is_not_valid():
    got = outcomes([[1, np.nan], [np.nan, np.nan]], [[True, False], [False] * 2], tasks=["a", "b"])
    assert got.moments == {"a": (1.0, 1.0)}
    np.testing.assert_array_equal(group_advantages(got, "ema_grpo"), 0)


def test_ema_grpo_far_from_its_task_takes_the_group_s_own_deviation():
    """Running deviation sqrt(.0001 - 0) = .01: .5 / .01 = 50 > 5; own, ddof 0: .5, so 1."""
    o = outcomes([[1, 0]])._replace(moments={"task": (0.0, 0.0001)})
    np.testing.assert_allclose(group_advantages(o, "ema_grpo"), [[1, -1]], rtol=1e-6)


PER_GROUP = ["grpo", "dr_grpo", "grpo_passk", "rloo", "maxrl", "opo"]


@pytest.mark.parametrize("mode", PER_GROUP)
def test_groups_do_not_see_each_other(mode):
    rewards = np.float32([[1, 0], [0.2, 0.9], [5, 5]])
    together = advantages(rewards, mode)
    alone = np.concatenate([advantages(row[None], mode) for row in rewards])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("mode", ESTIMATORS)
def test_the_order_of_groups_does_not_matter(mode):
    rng = np.random.default_rng(0)
    rewards, order = rng.random((5, 4)), np.array([3, 0, 4, 1, 2])
    lengths = rng.integers(1, 9, (5, 4))
    expected = advantages(rewards, mode, lengths=lengths)[order]
    got = advantages(rewards[order], mode, lengths=lengths[order])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", GROUP_RELATIVE)
@given(reward=st.floats(-1e3, 1e3, width=32), n=st.integers(1, 64))
@settings(deadline=None)
def test_equal_rewards_give_exactly_zero(mode, reward, n):
    zeros = np.zeros((1, n), np.float32)
    np.testing.assert_array_equal(advantages(zeros + np.float32(reward), mode), zeros)
    # beside a group that does move something
    other = np.concatenate([zeros + np.float32(reward), np.arange(n)[None] + zeros])
    np.testing.assert_array_equal(advantages(other, mode)[0], zeros[0])


@given(reward=st.floats(-1e3, 1e3, width=32), n=st.integers(1, 64))
@settings(deadline=None)
def test_whitening_a_constant_batch_gives_exactly_zero(reward, n):
    got = advantages(np.full((2, n), reward, np.float32), "reinforce_plus_plus")
    np.testing.assert_array_equal(got, 0)


def test_the_pitfall_of_near_zero_deviations():
    """Seven rewards of .9 in float32: a sum that is rounded gives advantages of .05."""
    for mode in GROUP_RELATIVE:
        np.testing.assert_array_equal(advantages(np.full((3, 7), 0.9), mode), 0)


@pytest.mark.parametrize("mode", SUMS_TO_ZERO)
@given(
    rewards=st.lists(st.integers(0, 8), min_size=2, max_size=12),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_order_and_sum(mode, rewards, seed):
    rewards = np.float32([rewards]) / 8
    order = np.random.default_rng(seed).permutation(rewards.shape[1])
    got = advantages(rewards, mode)
    np.testing.assert_allclose(advantages(rewards[:, order], mode), got[:, order], atol=1e-5)
    np.testing.assert_allclose(got.sum(), 0, atol=1e-4)


@pytest.mark.parametrize("mode", [m for m in ESTIMATORS if m not in ("maxrl", "ema_grpo")])
@given(rewards=st.lists(st.integers(0, 8), min_size=2, max_size=12), shift=st.integers(-4, 4))
@settings(deadline=None)
def test_a_constant_shift_changes_nothing(mode, rewards, shift):
    rewards = np.float32([rewards]) / 8
    np.testing.assert_allclose(
        advantages(rewards + shift, mode), advantages(rewards, mode), atol=1e-5
    )


SCALE = {"dr_grpo": 4, "rloo": 4, "opo": 4, "remax": 4}  # the others ignore the scale of the reward


@pytest.mark.parametrize("mode", ESTIMATORS)
def test_scale(mode):
    rewards = np.float32([[3, 1, 2, 0], [1, 1, 2, 4]])
    np.testing.assert_allclose(
        advantages(4 * rewards, mode), SCALE.get(mode, 1) * advantages(rewards, mode), rtol=1e-5
    )


@pytest.mark.parametrize("mode", ESTIMATORS)
def test_invalid_completions_enter_no_mean(mode):
    rewards = np.float32([[1, 0, 0, np.nan, 0]])
    valid = np.array([[True, True, True, False, True]])
    got = advantages(rewards, mode, valid)
    np.testing.assert_array_equal(got[:, 3], 0)
    np.testing.assert_allclose(
        got[:, [0, 1, 2, 4]], advantages(ONE_OF_FOUR, mode), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("mode", ESTIMATORS)
def test_a_group_without_valid_completions_is_zero(mode):
    rewards = np.full((2, 3), np.nan, np.float32)
    np.testing.assert_array_equal(advantages(rewards, mode, np.zeros((2, 3), bool)), 0)


@pytest.mark.parametrize(("mode", "seed"), itertools.product(ESTIMATORS, range(3)))
def test_against_the_definitions(mode, seed):
    rng = np.random.default_rng(seed)
    shape = (5, 6)
    accuracy, form = rng.integers(0, 2, (2, *shape)).astype(np.float32)
    accuracy[0], form[1] = 1, 0  # constant parts
    lengths = rng.integers(1, 30, shape)
    tasks = ["a", "b", "a", "c", "b"]
    parts = {"accuracy": Part(0.75, accuracy), "format": Part(0.25, form)}
    rewards = 0.75 * accuracy + 0.25 * form  # exact in float32
    got = advantages(rewards, mode, lengths=lengths, parts=parts, tasks=tasks)
    plain = [(p.weight, p.scores.astype(float).tolist()) for p in parts.values()]
    expected = oracle.advantages(mode, rewards.tolist(), lengths.tolist(), plain, tasks)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_has_signal():
    rewards = np.float32([[0.1] * 3, [0.1, 0.1, 0.2], [0, 1, 0]])
    valid = np.array([[True] * 3, [True] * 3, [True, False, True]])
    np.testing.assert_array_equal(has_signal(rewards), [False, True, True])
    np.testing.assert_array_equal(has_signal(rewards, valid), [False, True, False])


def test_has_signal_against_baselines():
    """Equal rewards differ from an unequal baseline; a baseline that failed says nothing."""
    rewards = np.float32([[0.1, 0.1], [0.1, 0.1], [0, 1], [1, np.nan], [0, np.nan]])
    valid = ~np.isnan(rewards)
    got = has_signal(rewards, valid, np.array([0.1, 0, np.nan, 0, 0]))
    np.testing.assert_array_equal(got, [False, True, False, True, False])


def test_refusals():
    with pytest.raises(ValueError, match="'gpro' is unknown; use one of grpo"):
        advantages(ONE_OF_FOUR, "gpro")
    with pytest.raises(ValueError, match="group 0, completion 1 is nan"):
        advantages([[0, np.nan]], "grpo")
    with pytest.raises(ValueError, match="remax got no baselines; score a greedy completion"):
        advantages([[0, 1]], "remax", baselines=None)
    with pytest.raises(ValueError, match="remax got an infinite baseline"):
        advantages([[0, 1]], "remax", baselines=np.float32([np.inf]))
    with pytest.raises(ValueError, match="group 0, completion 0 is -inf"):
        advantages([[0, 1]], "grpo", penalties=np.float32([[[np.inf], [0]]]))
