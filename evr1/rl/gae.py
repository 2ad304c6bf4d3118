"""Generalised advantage estimation: advantages and returns from a critic's values (host side)."""

import numpy as np
from jaxtyping import Bool, Float

from evr1.rl.advantages import whiten
from evr1.rl.outcomes import Outcomes, check_finite


def gae(
    outcomes: Outcomes,
    values: Float[np.ndarray, "g n r"],
    *,
    discount: float = 1.0,
    decay: float = 1.0,
    is_whitened: bool = True,
) -> tuple[Float[np.ndarray, "g n r"], Float[np.ndarray, "g n r"]]:
    """Returns (advantages, returns), float32; 0 off the mask and for invalid completions.

    delta[t] = reward[t] + discount * value[t + 1] - value[t], A[t] = delta[t] + discount * decay *
    A[t + 1], return = A + value. The reward stands on the last token, whose next value is 0; KL
    penalties come off every token. Reward 1, values (.5, .25, .75), discount 1: with decay 1
    A = (.5, .75, .25), reward to go less value; with decay 0 A = (-.25, .5, .25), one token ahead
    each.

    Args:
        outcomes: of the rollout batch.
        values: of the state before each token.
        discount: factor on rewards a token later.
        decay: lambda: 1 looks ahead to the end of the completion, 0 to the next token.
        is_whitened: mean 0 and deviation 1 over all tokens of the batch.

    Raises:
        ValueError: a valid reward, a penalty, or the value of a valid completion's token is not
            finite.

    Source: 1506.02438 eq. 16.
    """
    g, n, r = values.shape
    mask = token_mask(outcomes, r)
    check_finite(outcomes)
    wild = mask & ~np.isfinite(values)
    if wild.any():
        i = tuple(int(x) for x in np.argwhere(wild)[0])
        raise ValueError(
            f"the critic's value of group {i[0]}, completion {i[1]}, token {i[2]} is {values[i]}, "
            "not finite; lower critic.learning_rate"
        )
    rewards = np.zeros((g, n, r))
    if outcomes.penalties is not None:
        rewards -= np.where(mask, outcomes.penalties, 0)
    last = np.arange(r) == outcomes.lengths[..., None] - 1
    rewards += np.where(last & mask, np.where(outcomes.valid, outcomes.rewards, 0)[..., None], 0)
    v = np.where(mask, values, 0).astype(np.float64)
    advantages = np.zeros((g, n, r + 1))
    for t in reversed(range(r)):
        following = v[..., t + 1] if t + 1 < r else 0.0
        delta = rewards[..., t] + discount * following - v[..., t]
        carried = delta + discount * decay * advantages[..., t + 1]
        advantages[..., t] = np.where(mask[..., t], carried, 0)
    advantages = advantages[..., :r]
    returns = np.where(mask, advantages + v, 0).astype(np.float32)
    if is_whitened:
        advantages = whiten(advantages, mask)
    return advantages.astype(np.float32), returns


def token_mask(outcomes: Outcomes, width: int) -> Bool[np.ndarray, "g n r"]:
    """Returns the tokens of valid completions."""
    return (np.arange(width) < outcomes.lengths[..., None]) & outcomes.valid[..., None]


def explained_variance(
    returns: Float[np.ndarray, "g n r"],
    values: Float[np.ndarray, "g n r"],
    mask: Bool[np.ndarray, "g n r"],
) -> float:
    """Returns 1 - Var(returns - values) / Var(returns) over the mask.

    1 is a perfect critic, 0 one that knows the mean alone; 0 too where the returns do not vary.
    """
    target, guess = returns[mask].astype(np.float64), values[mask].astype(np.float64)
    spread = target.var() if target.size else 0.0
    return float(1 - (target - guess).var() / spread) if spread > 0 else 0.0
