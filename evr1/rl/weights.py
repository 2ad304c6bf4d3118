"""Loss aggregation as an array: the loss of a minibatch is sum(loss_weights * per-token loss).

The weights are made once per optimizer update, on the host, from the whole minibatch.
Micro-batching, sharding and padding then cannot change the gradient, because gradients are added.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float


def loss_weights(
    mask: Bool[np.ndarray, "g n r"], mode: str, max_tokens: float
) -> Float[np.ndarray, "g n r"]:
    """Returns the weight of every completion token of one minibatch; 0 off the mask.

    Two completions of 1 and 3 tokens, limit 4 (a row each):

        token_mean     1/4                 1/4 1/4 1/4
        sequence_mean  1/2                 1/6 1/6 1/6
        fixed_length   1/8                 1/8 1/8 1/8
        sequence_sum   1/8                 1/8 1/8 1/8
        token_sum      1/4                 1/4 1/4 1/4

    Completions without any trained token are not counted: padding rows change nothing.

    Args:
        mask: trained tokens.
        mode: a key of `MODES`.
        max_tokens: what `fixed_length` (by default the completion limit), `sequence_sum` and
            `token_sum` (by default 1) divide by; the others do not look at it.

    Raises:
        ValueError: unknown mode, or a limit or divisor below 1.
    """
    if mode not in MODES:
        raise ValueError(
            f"algorithm.aggregation={mode!r} is unknown; use one of {', '.join(MODES)}"
        )
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens} must be at least 1")
    return MODES[mode](mask, max_tokens).astype(np.float32)


def token_mean(mask: np.ndarray, max_tokens: float) -> np.ndarray:
    """Returns 1 / tokens: every token counts alike. Sums to 1. Source: DAPO, 2503.14476 eq. 8."""
    return mask / np.maximum(mask.sum(), 1)


def sequence_mean(mask: np.ndarray, max_tokens: float) -> np.ndarray:
    """Returns 1 / (completions * its tokens): every completion counts alike. Sums to 1.

    Source: GRPO, 2402.03300 eq. 3.
    """
    return mask / (_completions(mask) * np.maximum(mask.sum(axis=-1, keepdims=True), 1))


def fixed_length(mask: np.ndarray, max_tokens: float) -> np.ndarray:
    """Returns 1 / (completions * limit). Sums to mean length / limit.

    Source: Dr. GRPO, 2503.20783 §3.2.
    """
    return mask / (_completions(mask) * max_tokens)


def sequence_sum(mask: np.ndarray, max_tokens: float) -> np.ndarray:
    """Returns 1 / (completions * divisor): the mean over completions of the sum of their tokens.

    Source: verl's seq-mean-token-sum, where the divisor is 1.
    """
    return mask / (_completions(mask) * max_tokens)


def token_sum(mask: np.ndarray, max_tokens: float) -> np.ndarray:
    """Returns 1 / divisor: a sum over all tokens, whatever the minibatch holds."""
    return mask / max_tokens


MODES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "token_mean": token_mean,
    "sequence_mean": sequence_mean,
    "fixed_length": fixed_length,
    "sequence_sum": sequence_sum,
    "token_sum": token_sum,
}


def _completions(mask: np.ndarray) -> int:
    return max(int(mask.any(axis=-1).sum()), 1)
