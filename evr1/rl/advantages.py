"""Advantages of the N completions of each prompt, from what they earned (host side, NumPy).

A new estimator is a function of `Outcomes` and a line in `ESTIMATORS`. In the examples of the
docstrings the rewards of a group are (1, 0, 0, 0) and EPSILON is left out.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from evr1.rl.outcomes import Outcomes, centered, check_finite, counts, deviation, has_signal

EPSILON = 1e-6  # keeps the division finite when rewards are nearly equal
WHITEN_EPSILON = 1e-8  # added to a variance
MIN_DEVIATION = 1e-3  # of a task's running deviation
MAX_EMA_ADVANTAGE = 5.0  # a group beyond it takes its own deviation

Advantages = Float[np.ndarray, "g n"] | Float[np.ndarray, "g n r"]


def group_advantages(outcomes: Outcomes, estimator: str) -> Advantages:
    """Returns float32 advantages: one for each completion [G, N], or for each token [G, N, R].

    >>> rewards, valid = np.float32([[1, 0, 0, 0]]), np.ones((1, 4), bool)
    >>> group_advantages(Outcomes(rewards, valid, np.ones((1, 4), int)), "dr_grpo")
    array([[ 0.75, -0.25, -0.25, -0.25]], dtype=float32)

    In all estimators but `reinforce_plus_plus` and `remax`, a group of equal rewards (in `gdpo`:
    equal in each part), or with fewer than two valid completions, gives exactly 0.

    Args:
        outcomes: of the whole rollout batch.
        estimator: a key of `ESTIMATORS`.

    Raises:
        ValueError: unknown estimator; a valid reward or a penalty that is not finite; `remax`
            without baselines, or with an infinite one.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(
            f"algorithm.advantage={estimator!r} is unknown; use one of {', '.join(ESTIMATORS)}"
        )
    check_finite(outcomes)
    values = ESTIMATORS[estimator](outcomes)
    valid = outcomes.valid if values.ndim == 2 else outcomes.valid[..., None]
    return np.where(valid, values, 0).astype(np.float32)


def grpo(o: Outcomes) -> Advantages:
    """Returns (R - mean) / (std + EPSILON), std with ddof 1: (1.5, -.5, -.5, -.5).

    Source: 2402.03300 §4.1; ddof and EPSILON as in EasyR1 and verl.
    """
    above = centered(o.returns, o.valid)
    return above / (deviation(above, o.valid) + EPSILON)


def dr_grpo(o: Outcomes) -> Advantages:
    """Returns R - mean, not divided by the deviation: (.75, -.25, -.25, -.25).

    Source: 2503.20783 §3.
    """
    return centered(o.returns, o.valid)


def grpo_passk(o: Outcomes) -> Advantages:
    """Returns (best - second) / (std + EPSILON) for the best completion, 0 for the others.

    In the example: (2, 0, 0, 0).

    Two that share the first place get 0.

    With `Outcomes.passk` = k < n, the mean of what a completion adds to the best of k, over all
    sets of k completions that it is in. In the example k = 2 gives the same; (1, 1, 0, 0) gives
    2/3 / .57735 to each of the first two, as two of the three others are worse.

    Source: 2503.19595, as EasyR1 has it, with k = the group; k < n: 2505.15201, where the best of
    the others is the baseline.
    """
    if o.passk and o.passk < o.valid.shape[1]:
        above = centered(o.returns, o.valid)
        return _added_to_best(o) / (deviation(above, o.valid) + EPSILON)
    values = np.where(o.valid, o.returns, -np.inf)
    order = np.sort(values, axis=1)
    is_best = values == order[:, -1:]
    above = centered(o.returns, o.valid)
    lead = np.zeros((len(values), 1))
    if values.shape[1] > 1:
        has_spread = has_signal(o.returns, o.valid)
        lead[has_spread, 0] = order[has_spread, -1] - order[has_spread, -2]
    return np.where(is_best, lead, 0) / (deviation(above, o.valid) + EPSILON)


def rloo(o: Outcomes) -> Advantages:
    """Returns R - mean of the others = n / (n - 1) * (R - mean): (1, -1/3, -1/3, -1/3).

    Source: 2402.14740 eq. 8.
    """
    n = counts(o.valid)
    return centered(o.returns, o.valid) * n / np.maximum(n - 1, 1)


def reinforce_plus_plus(o: Outcomes) -> Advantages:
    """Returns (return - mean) / std over all tokens of the batch, with no regard to groups.

    The return of a token is the reward less the KL penalties from this token on: [G, N, R]. With a
    discount g it is g**(tokens to the end) * reward, and penalties count likewise.

    Source: 2501.03262; unbiased variance, with WHITEN_EPSILON added, as in EasyR1.
    """
    returns, mask = _returns_to_go(o, o.discount)
    white = whiten(returns, mask & o.valid[..., None])
    return white if o.penalties is not None or o.discount != 1 else white[..., 0]


def reinforce_plus_plus_baseline(o: Outcomes) -> Advantages:
    """Returns (R - mean of the group) / std of that over all completions of the batch.

    The mean over the batch is 0 already. Alone in its batch: (1.5, -.5, -.5, -.5).

    Source: 2501.03262.
    """
    above = centered(o.returns, o.valid)
    return above / _batch_deviation(above, o.valid)


def gdpo(o: Outcomes) -> Advantages:
    """Returns the parts of the reward, each normalised as in `grpo`, summed by weight and rescaled.

    The sum is divided by its deviation over all completions of the batch, where a completion counts
    once, however long. Source: 2601.05242.
    """
    total = np.zeros(o.valid.shape)
    for part in o.parts.values():
        above = centered(part.scores, o.valid)
        total += part.weight * above / (deviation(above, o.valid) + EPSILON)
    return total / _batch_deviation(total, o.valid)


def maxrl(o: Outcomes) -> Advantages:
    """Returns (R - mean) / mean, for rewards of 0 or more; 0 where the mean is 0: (3, -1, -1, -1).

    Source: 2602.02710.
    """
    mean = o.returns.sum(axis=1, keepdims=True) / counts(o.valid)
    return np.where(mean > 0, centered(o.returns, o.valid) / np.where(mean > 0, mean, 1), 0)


def opo(o: Outcomes) -> Advantages:
    """Returns R - sum(L R) / sum(L), L the lengths.

    In the example, where all are equally long: (.75, -.25, -.25, -.25).

    Source: 2505.23585.
    """
    lengths = np.where(o.valid, o.lengths, 0)
    total = np.maximum(lengths.sum(axis=1, keepdims=True), 1)
    return centered(o.returns, o.valid, (lengths * o.returns).sum(axis=1, keepdims=True) / total)


def ema_grpo(o: Outcomes) -> Advantages:
    """Returns (R - mean of the group) / running deviation of the task, from `Outcomes.moments`.

    The deviation is sqrt(E[R**2] - E[R]**2), at least MIN_DEVIATION. A group with an advantage
    beyond MAX_EMA_ADVANTAGE takes its own deviation (ddof 0) instead.

    Source: OneThinker, 2512.03043 and its code.
    """
    m = np.array([o.moments.get(task, (0.0, 0.0)) for task in o.tasks]).reshape(-1, 2)
    running = np.sqrt(np.maximum(m[:, 1:] - m[:, :1] ** 2, 0))
    above = centered(o.returns, o.valid)
    result = above / np.maximum(running, MIN_DEVIATION)
    is_far = np.abs(result).max(axis=1, keepdims=True) > MAX_EMA_ADVANTAGE
    own = np.maximum(deviation(above, o.valid, ddof=0), MIN_DEVIATION)
    return np.where(is_far, above / own, result)


def lite_ppo(o: Outcomes) -> Advantages:
    """Returns (R - mean of the group) / (std of R over the batch + EPSILON), ddof 1.

    Source: 2508.08221.
    """
    rewards = o.returns[o.valid]
    std = rewards.std(ddof=1) if rewards.size > 1 else 0.0
    return centered(o.returns, o.valid) / (std + EPSILON)


def remax(o: Outcomes) -> Advantages:
    """Returns R - R(greedy): where the greedy completion earned 1, (0, -1, -1, -1).

    With KL penalties the return of a token, as in `reinforce_plus_plus`, less R(greedy): [G, N, R];
    the greedy completion pays none. Needs no groups, and a group of equal rewards that is better
    or worse than the greedy completion does move the policy. A group whose baseline is NaN gets 0.

    Source: 2310.10505.
    """
    if o.baselines is None or np.isinf(o.baselines).any():
        problem = "no baselines" if o.baselines is None else "an infinite baseline"
        raise ValueError(f"algorithm.advantage=remax got {problem}; score a greedy completion each")
    baselines = o.baselines.astype(o.rewards.dtype)[:, None]  # equal rewards stay equal numbers
    has_baseline = np.isfinite(baselines)
    baselines = np.where(has_baseline, baselines, 0)
    if o.penalties is None:
        return np.where(has_baseline, o.returns - baselines, 0)
    returns, mask = _returns_to_go(o)
    return np.where(has_baseline[..., None] & mask, returns - baselines[..., None], 0)


ESTIMATORS: dict[str, Callable[[Outcomes], np.ndarray]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "grpo_passk": grpo_passk,
    "rloo": rloo,
    "reinforce_plus_plus": reinforce_plus_plus,
    "reinforce_plus_plus_baseline": reinforce_plus_plus_baseline,
    "gdpo": gdpo,
    "maxrl": maxrl,
    "opo": opo,
    "ema_grpo": ema_grpo,
    "lite_ppo": lite_ppo,
    "remax": remax,
}


def whiten(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns (values - mean) / sqrt(variance + WHITEN_EPSILON) over the mask.

    The variance has ddof 1. 0 off the mask, and exactly 0 where all are equal.
    """
    chosen = values[mask]
    if chosen.size < 2 or chosen.max() == chosen.min():
        return np.zeros(values.shape)
    scale = 1 / np.sqrt(chosen.var(ddof=1) + WHITEN_EPSILON)
    return np.where(mask, (values - chosen.mean()) * scale, 0)


def _added_to_best(o: Outcomes) -> np.ndarray:
    """Returns what each completion adds to the best of k, on average: see `grpo_passk`.

    By rank, worst first: it adds its lead over the m-th where the best of the k - 1 others is the
    m-th, which is so in C(m - 1, k - 2) of the C(n - 1, k - 1) sets. Where fewer than k completions
    are valid, k is their number.
    """
    result = np.zeros(o.valid.shape)
    for g, valid in enumerate(o.valid):
        places = np.flatnonzero(valid)
        n, rewards = len(places), o.returns[g, places]
        k = min(o.passk, n)
        if k < 2:
            continue
        order = np.argsort(rewards, kind="stable")
        ranked = rewards[order]
        sets = np.array([math.comb(m, k - 2) for m in range(n)]) / math.comb(n - 1, k - 1)
        for rank in range(n):
            leads = ranked[rank] - ranked[:rank]
            result[g, places[order[rank]]] = (sets[:rank] * leads).sum()
    return result


def _returns_to_go(o: Outcomes, discount: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the reward less the penalties from each token on, and the mask: [G, N, R]."""
    if discount != 1:
        return _discounted(o, discount)
    rewards = np.where(o.valid, o.rewards, 0).astype(np.float64)[..., None]
    if o.penalties is None:
        mask = np.arange(max(int(o.lengths.max(initial=0)), 1)) < o.lengths[..., None]
        return np.broadcast_to(rewards, mask.shape), mask
    mask = np.arange(o.penalties.shape[2]) < o.lengths[..., None]
    return rewards - o.penalties[..., ::-1].cumsum(axis=2, dtype=np.float64)[..., ::-1], mask


def _discounted(o: Outcomes, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the discounted returns to go, with the reward on the last token, and the mask."""
    width = max(int(o.lengths.max(initial=0)), 1)
    width = width if o.penalties is None else o.penalties.shape[2]
    mask = np.arange(width) < o.lengths[..., None]
    is_last = np.arange(width) == o.lengths[..., None] - 1
    rewards = np.where(o.valid, o.rewards, 0).astype(np.float64)[..., None] * is_last
    if o.penalties is not None:
        rewards = rewards - np.where(mask, o.penalties, 0)
    returns, following = np.zeros(mask.shape), np.zeros(mask.shape[:2])
    for t in reversed(range(width)):
        following = rewards[..., t] + discount * following
        returns[..., t] = following
    return np.where(mask, returns, 0), mask


def _batch_deviation(centered_values: np.ndarray, valid: np.ndarray) -> float:
    """Returns the deviation (ddof 1) of values that are centered in every group, over the batch."""
    freedom = max(int(valid.sum()) - 1, 1)
    return float(np.sqrt((centered_values**2).sum() / freedom) + EPSILON)
