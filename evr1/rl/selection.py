"""Which tokens of a minibatch the policy learns from, where that needs all of them (host, NumPy).

Quantiles and covariances are of the whole minibatch, under the policy before the update, so that
how it is cut into microbatches changes nothing. All arrays are [G, N, R].
"""

import numpy as np
from jaxtyping import Bool, Float


def top_entropy(
    entropy: Float[np.ndarray, "g n r"], mask: Bool[np.ndarray, "g n r"], share: float
) -> Bool[np.ndarray, "g n r"]:
    """Returns the tokens of highest entropy: those at or above its quantile of 1 - share.

    Entropies (.1, .2, .3, .4, .5), share .2: the quantile is .42, so the last one.

    Source: 2506.01939; the quantile is interpolated, as in TRL.
    """
    if not mask.any():
        return mask
    threshold = np.quantile(entropy[mask].astype(np.float64), 1 - share)
    return mask & (entropy >= threshold)


def covariance(
    logprobs: Float[np.ndarray, "g n r"],
    advantages: Float[np.ndarray, "g n r"],
    mask: Bool[np.ndarray, "g n r"],
) -> Float[np.ndarray, "g n r"]:
    """Returns (logprob - mean) * (A - mean), means over the mask; 0 off it.

    logprobs (-1, -3), A = (1, -1): (1 * 1, -1 * -1) = (1, 1). Likely tokens that are rewarded, and
    unlikely ones that are punished, make the entropy fall.

    Source: 2505.22617.
    """
    if not mask.any():
        return np.zeros(mask.shape)
    logprobs, advantages = (np.where(mask, x, 0).astype(np.float64) for x in (logprobs, advantages))
    above = (x - x[mask].mean() for x in (logprobs, advantages))
    return np.where(mask, np.prod(list(above), axis=0), 0)


def clip_cov(
    values: Float[np.ndarray, "g n r"],
    mask: Bool[np.ndarray, "g n r"],
    share: float,
    bounds: tuple[float, float],
    rng: np.random.Generator,
) -> Bool[np.ndarray, "g n r"]:
    """Returns the tokens that Clip-Cov leaves out of the policy loss.

    They are drawn from those with a covariance between the bounds: share * tokens, rounded down
    but at least 1, or all of them where they are fewer.

    Source: 2505.22617.
    """
    candidates = np.flatnonzero(mask & (values > bounds[0]) & (values < bounds[1]))
    size = min(_count(mask, share), len(candidates))
    return _at(rng.choice(candidates, size, replace=False) if size else candidates, mask)


def kl_cov(
    values: Float[np.ndarray, "g n r"], mask: Bool[np.ndarray, "g n r"], share: float
) -> Bool[np.ndarray, "g n r"]:
    """Returns the tokens that KL-Cov holds to the old policy: those of the highest covariance.

    They are share * tokens, rounded down but at least 1; of equal ones the first.

    Source: 2505.22617.
    """
    tokens = np.flatnonzero(mask)
    order = np.argsort(-values[mask], kind="stable")
    return _at(tokens[order[: _count(mask, share)]], mask)


def _count(mask: np.ndarray, share: float) -> int:
    return max(int(share * mask.sum()), 1)


def _at(places: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns a mask of these places, which are flat indices."""
    result = np.zeros(mask.size, bool)
    result[places] = True
    return result.reshape(mask.shape)
