"""The input of an advantage estimator, and the statistics that estimators share (host side)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Moments = Mapping[str, tuple[float, float]]  # task -> running mean of R and of R**2


class Part(NamedTuple):
    """One part of the reward: its weight, and every completion's score."""

    weight: float
    scores: Float[np.ndarray, "g n"]


class Outcomes(NamedTuple):
    """The rewards of the N completions of each of G prompts, and what else bears on advantages.

    Attributes:
        rewards: weighted sum of the parts.
        valid: completions that count. The others enter no mean and get 0, for instance where the
            scorer itself failed.
        lengths: tokens, the end token included.
        parts: by name.
        tasks: the problem type of each group.
        moments: running moments of each task's rewards, see `update_moments`.
        is_offline: completions that the policy did not just draw; None: it drew all.
        penalties: KL penalty of each token, coefficient included, 0 off the mask; None: no penalty
            is taken from the reward.
        baselines: what the greedy completion of each prompt earned, NaN where its scorer failed;
            None: there was none.
        passk: of `grpo_passk`: completions that the best is taken of; 0: all of the group.
        discount: of `reinforce_plus_plus`: factor on a reward a token later.
    """

    rewards: Float[np.ndarray, "g n"]
    valid: Bool[np.ndarray, "g n"]
    lengths: Int[np.ndarray, "g n"]
    parts: Mapping[str, Part] = {}
    tasks: Sequence[str] = ()
    moments: Moments = {}
    is_offline: Bool[np.ndarray, "g n"] | None = None
    penalties: Float[np.ndarray, "g n r"] | None = None
    baselines: Float[np.ndarray, " g"] | None = None
    passk: int = 0
    discount: float = 1.0

    @property
    def returns(self) -> Float[np.ndarray, "g n"]:
        """Rewards less the penalties of all tokens, float64; 0 where invalid."""
        rewards = np.where(self.valid, self.rewards, 0).astype(np.float64)
        if self.penalties is None:
            return rewards
        return rewards - np.where(self.valid, self.penalties.sum(axis=2, dtype=np.float64), 0)


def check_finite(outcomes: Outcomes) -> None:
    """Raises ValueError if a reward or penalty of a valid completion is not finite."""
    returns = outcomes.returns
    finite = np.isfinite(returns)
    if not finite.all():
        g, n = np.argwhere(~finite)[0]
        raise ValueError(
            f"reward of group {g}, completion {n} is {returns[g, n]}, not finite; "
            "mark the completion invalid"
        )


def counts(valid: Bool[np.ndarray, "g n"]) -> Float[np.ndarray, "g 1"]:
    """Returns the number of valid completions of each group, at least 1."""
    return np.maximum(valid.sum(axis=1, keepdims=True), 1).astype(np.float64)


def has_signal(
    rewards: Float[np.ndarray, "g n"],
    valid: Bool[np.ndarray, "g n"] | None = None,
    baselines: Float[np.ndarray, " g"] | None = None,
) -> Bool[np.ndarray, " g"]:
    """Returns which groups can move the policy, bool[G].

    Their rewards differ from each other or, where `baselines` are given, from their baseline.

    A group whose baseline is NaN moves nothing.
    """
    valid = np.ones(rewards.shape, bool) if valid is None else valid
    if baselines is not None:
        baseline = baselines.astype(rewards.dtype)[:, None]
        return (valid & np.isfinite(baseline) & (rewards != baseline)).any(axis=1)
    highest = np.where(valid, rewards, -np.inf).max(axis=1)
    lowest = np.where(valid, rewards, np.inf).min(axis=1)
    return highest > lowest


def centered(
    values: Float[np.ndarray, "g n"],
    valid: Bool[np.ndarray, "g n"],
    baseline: Float[np.ndarray, "g 1"] | None = None,
) -> Float[np.ndarray, "g n"]:
    """Returns values - baseline in float64, by default the group's mean; 0 where invalid.

    Sums of equal numbers are not exactly n times the number, so a group of equal values is found by
    max == min and gives exactly 0: otherwise rounding noise divided by a near-zero deviation gives
    advantages.
    """
    v = np.where(valid, values, 0).astype(np.float64)
    mean = v.sum(axis=1, keepdims=True) / counts(valid)
    above = v - (mean if baseline is None else baseline)
    return np.where(valid & has_signal(values, valid)[:, None], above, 0)


def deviation(
    centered_values: Float[np.ndarray, "g n"], valid: Bool[np.ndarray, "g n"], ddof: int = 1
) -> Float[np.ndarray, "g 1"]:
    """Returns the standard deviation of each group from its centered values."""
    freedom = np.maximum(counts(valid) - ddof, 1)
    return np.sqrt((centered_values**2).sum(axis=1, keepdims=True) / freedom)


def update_moments(moments: Moments, outcomes: Outcomes, decay: float) -> dict[str, tuple]:
    """Returns the running moments of each task's rewards after this batch.

    m <- decay * m + (1 - decay) * mean of the batch, for each task in it; a task that is seen for
    the first time starts at the batch's own. A task's values are the means of R and R**2.
    """
    result = dict(moments)
    rewards, tasks = outcomes.returns, np.array(outcomes.tasks)
    for task in sorted(set(outcomes.tasks)):
        task_rewards = rewards[tasks == task][outcomes.valid[tasks == task]]
        if not task_rewards.size:
            continue
        new = (float(task_rewards.mean()), float((task_rewards**2).mean()))
        old = result.get(task, new)
        result[task] = (
            decay * old[0] + (1 - decay) * new[0],
            decay * old[1] + (1 - decay) * new[1],
        )
    return result
