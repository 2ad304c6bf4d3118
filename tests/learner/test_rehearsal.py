"""What stands in for rollouts where a learner's programs are compiled."""

import numpy as np
import pytest

from evr1.learner.rehearsal import blank_outcomes
from evr1.rl.advantages import ESTIMATORS, group_advantages


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_gives_advantages(estimator, n):
    """A group without any is left out, and its programs would be compiled in a later step."""
    outcomes = blank_outcomes(n, 7, "numerical")
    assert np.abs(group_advantages(outcomes, estimator)).max() > 0.1
    penalised = outcomes._replace(penalties=np.zeros((1, n, 7), np.float32))
    assert np.abs(group_advantages(penalised, estimator)).max() > 0.1
