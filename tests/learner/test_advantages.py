"""From what completions earned to advantages, and what the algorithm carries on."""

import numpy as np
import pytest
from learner_rig import settings

from evr1.learner import advantages
from evr1.rl.outcomes import Outcomes
from evr1.rl.state import AlgorithmState


def test_the_coefficient_follows_its_target():
    """8 completions a step, horizon 16: share .5. KL .15 of target .1: 1 + .2 * .5."""
    c = settings(kl_coef=0.1, kl_controller="adaptive", kl_horizon=16.0)
    assert advantages.next_kl_coef(c, AlgorithmState(0.1), 0.15).kl_coef == pytest.approx(0.11)
    c = settings(kl_coef=0.1)
    assert advantages.next_kl_coef(c, AlgorithmState(0.1), 0.15).kl_coef == 0.1


def test_an_imitated_completion_is_no_part_of_the_statistics_and_has_its_own_weight():
    """Group 0: R = (1, 0, offline): mean .5 of the two drawn, so (.5, -.5), and 2 for the third."""
    outcomes = Outcomes(
        np.float32([[1, 0, 0.3], [0, 1, 0]]),
        np.array([[True] * 3, [True, True, False]]),
        np.ones((2, 3), int),
        is_offline=np.array([[False, False, True]] * 2),
    )

    def estimate(treatment):
        c = settings(advantage="dr_grpo", mix={"treatment": treatment, "sft_coef": 2.0})
        return advantages.estimate(c.algorithm, c.mix, outcomes, AlgorithmState(0.0))[0]

    np.testing.assert_allclose(estimate("sft"), [[0.5, -0.5, 2], [-0.5, 0.5, 0]])
    assert estimate("on_policy")[0, 2] == pytest.approx(0.3 - 1.3 / 3)
