"""Advantages of the N completions of each prompt, from their rewards (host side, NumPy).

A new estimator is a function of `Groups` and a line in `MODES`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

EPSILON = 1e-6  # keeps the division finite when rewards are nearly equal


class Groups(NamedTuple):
    """Rewards of G groups and their statistics over the valid completions, in float64.

    Sums of equal numbers are not exactly n times the number, so a group of equal rewards is found
    by max == min and its `centered` is set to exactly 0: otherwise rounding noise divided by a
    near-zero deviation gives advantages.
    """

    rewards: Float[np.ndarray, "g n"]
    valid: Bool[np.ndarray, "g n"]
    counts: Float[np.ndarray, "g 1"]  # valid completions, at least 1
    centered: Float[np.ndarray, "g n"]  # reward - mean; 0 where invalid or where all are equal


def group_advantages(
    rewards: Float[np.ndarray, "g n"],
    mode: str,
    valid: Bool[np.ndarray, "g n"] | None = None,
) -> Float[np.ndarray, "g n"]:
    """One advantage for each completion; every token of the completion takes it.

    >>> group_advantages(np.float32([[1, 0, 0, 0]]), "dr_grpo")
    array([[ 0.75, -0.25, -0.25, -0.25]], dtype=float32)

    A group of equal rewards, or with fewer than two valid completions, gives exactly 0.

    Args:
        rewards: weighted sum of the scores of each completion.
        mode: a key of `MODES`.
        valid: completions that count (all by default); the others get 0 and enter no mean, for
            instance where the scorer itself failed.

    Raises:
        ValueError: unknown mode, or a valid reward that is not finite.
    """
    if mode not in MODES:
        raise ValueError(f"algorithm.advantage={mode!r} is unknown; use one of {', '.join(MODES)}")
    valid = np.ones(rewards.shape, bool) if valid is None else valid
    if not np.isfinite(rewards[valid]).all():
        g, n = np.argwhere(valid & ~np.isfinite(rewards))[0]
        raise ValueError(
            f"reward of group {g}, completion {n} is {rewards[g, n]}, not finite; "
            "mark the completion invalid"
        )
    return np.where(valid, MODES[mode](_groups(rewards, valid)), 0).astype(np.float32)


def grpo(groups: Groups) -> Float[np.ndarray, "g n"]:
    """(R - mean) / (std + EPSILON), std with ddof 1.

    (1, 0, 0, 0): mean .25, std .5, so (1.5, -.5, -.5, -.5).

    Source: 2402.03300 §4.1; ddof and EPSILON as in EasyR1 and verl.
    """
    freedom = np.maximum(groups.counts - 1, 1)
    std = np.sqrt((groups.centered**2).sum(axis=1, keepdims=True) / freedom)
    return groups.centered / (std + EPSILON)


def dr_grpo(groups: Groups) -> Float[np.ndarray, "g n"]:
    """R - mean, not divided by the deviation. Goes with `fixed_length` weights.

    (1, 0, 0, 0) gives (.75, -.25, -.25, -.25).

    Source: 2503.20783 §3.
    """
    return groups.centered


def rloo(groups: Groups) -> Float[np.ndarray, "g n"]:
    """R - mean of the others = n / (n - 1) * (R - mean).

    (1, 0, 0, 0) gives (1, -1/3, -1/3, -1/3).

    Source: 2402.14740 eq. 8.
    """
    return groups.centered * groups.counts / np.maximum(groups.counts - 1, 1)


MODES: dict[str, Callable[[Groups], np.ndarray]] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}


def has_signal(
    rewards: Float[np.ndarray, "g n"], valid: Bool[np.ndarray, "g n"] | None = None
) -> Bool[np.ndarray, " g"]:
    """Which groups have rewards that differ: the only ones that move the policy."""
    valid = np.ones(rewards.shape, bool) if valid is None else valid
    highest = np.where(valid, rewards, -np.inf).max(axis=1)
    lowest = np.where(valid, rewards, np.inf).min(axis=1)
    return highest > lowest


def _groups(rewards: np.ndarray, valid: np.ndarray) -> Groups:
    r = np.where(valid, rewards, 0).astype(np.float64)
    counts = np.maximum(valid.sum(axis=1, keepdims=True), 1).astype(np.float64)
    centered = np.where(valid, r - r.sum(axis=1, keepdims=True) / counts, 0)
    return Groups(r, valid, counts, np.where(has_signal(rewards, valid)[:, None], centered, 0))
