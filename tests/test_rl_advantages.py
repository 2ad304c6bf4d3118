import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evr1.rl.advantages import MODES, group_advantages, has_signal

ONE_OF_FOUR = np.float32([[1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # ddof 0 would give std .433 and 1.732 for the first.
        ("grpo", (1.5, -0.5, -0.5, -0.5)),
        ("rloo", (1, -1 / 3, -1 / 3, -1 / 3)),
        ("dr_grpo", (0.75, -0.25, -0.25, -0.25)),
    ],
)
def test_one_correct_of_four(mode, expected):
    np.testing.assert_allclose(group_advantages(ONE_OF_FOUR, mode), [expected], rtol=3e-6)


def test_groups_do_not_see_each_other():
    rewards = np.float32([[1, 0], [0.2, 0.9], [5, 5]])
    together = group_advantages(rewards, "grpo")
    alone = np.concatenate([group_advantages(row[None], "grpo") for row in rewards])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("mode", MODES)
@given(reward=st.floats(-1e3, 1e3, width=32), n=st.integers(1, 64))
@settings(deadline=None)
def test_equal_rewards_give_exactly_zero(mode, reward, n):
    advantages = group_advantages(np.full((1, n), reward, np.float32), mode)
    np.testing.assert_array_equal(advantages, np.zeros((1, n), np.float32))


@pytest.mark.parametrize("mode", MODES)
@given(
    rewards=st.lists(st.integers(0, 8), min_size=2, max_size=12),
    shift=st.integers(-4, 4),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_shift_order_and_sum(mode, rewards, shift, seed):
    rewards = np.float32([rewards]) / 8
    order = np.random.default_rng(seed).permutation(rewards.shape[1])
    advantages = group_advantages(rewards, mode)
    np.testing.assert_allclose(group_advantages(rewards + shift, mode), advantages, atol=1e-6)
    np.testing.assert_allclose(
        group_advantages(rewards[:, order], mode), advantages[:, order], atol=1e-6
    )
    np.testing.assert_allclose(advantages.sum(), 0, atol=1e-5)


def test_grpo_ignores_scale_and_the_others_follow_it():
    rewards = np.float32([[3, 1, 2, 0]])
    for mode, factor in (("grpo", 1), ("dr_grpo", 4), ("rloo", 4)):
        np.testing.assert_allclose(
            group_advantages(4 * rewards, mode),
            factor * group_advantages(rewards, mode),
            rtol=1e-5,
        )


@pytest.mark.parametrize("mode", MODES)
def test_invalid_completions_enter_no_mean(mode):
    rewards = np.float32([[1, 0, 0, np.nan, 0]])
    valid = np.array([[True, True, True, False, True]])
    advantages = group_advantages(rewards, mode, valid)
    np.testing.assert_array_equal(advantages[:, 3], 0)
    np.testing.assert_allclose(
        advantages[:, [0, 1, 2, 4]], group_advantages(ONE_OF_FOUR, mode), rtol=1e-6
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_group_without_valid_completions_is_zero(mode):
    rewards = np.full((2, 3), np.nan, np.float32)
    np.testing.assert_array_equal(group_advantages(rewards, mode, np.zeros((2, 3), bool)), 0)


def test_has_signal():
    rewards = np.float32([[0.1] * 3, [0.1, 0.1, 0.2], [0, 1, 0]])
    valid = np.array([[True] * 3, [True] * 3, [True, False, True]])
    np.testing.assert_array_equal(has_signal(rewards), [False, True, True])
    np.testing.assert_array_equal(has_signal(rewards, valid), [False, True, False])


def test_refusals():
    with pytest.raises(ValueError, match="'gpro' is unknown; use one of grpo"):
        group_advantages(ONE_OF_FOUR, "gpro")
    with pytest.raises(ValueError, match="group 0, completion 1 is nan"):
        group_advantages(np.float32([[0, np.nan]]), "grpo")
