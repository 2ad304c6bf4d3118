"""T-GRPO: a bonus for answers that need the frames in their order (host side, NumPy)."""

import numpy as np
from jaxtyping import Bool, Float

from evr1.rl.outcomes import counts

PASS_AT = 0.5  # accuracy of a correct completion


def temporal_bonus(
    accuracy: Float[np.ndarray, "g n"],
    valid: Bool[np.ndarray, "g n"],
    shuffled_accuracy: Float[np.ndarray, "g m"],
    shuffled_valid: Bool[np.ndarray, "g m"],
    has_video: Bool[np.ndarray, " g"],
    *,
    bonus: float = 0.3,
    margin: float = 1.0,
    pass_at: float = PASS_AT,
) -> Float[np.ndarray, "g n"]:
    """Returns the float32 bonus of each completion for an answer that needs the frames in order.

    It is `bonus` for the correct completions of a prompt with a video whose share of correct
    answers p is at least `margin` times p~, that with shuffled frames; else 0.

        accuracy (1, 1, 0, 0), shuffled (1, 0): p = p~ = .5: bonus (.3, .3, 0, 0)
        accuracy (1, 0, 0, 0), shuffled (1, 0): p = .25 < .5: none

    Where p = p~ = 0 nothing is correct, so nothing is given. Nor where no shuffled completion is
    valid: there is nothing to compare with.

    Args:
        accuracy: of the completions drawn on the frames in their order.
        valid: those of them that count: their scorer worked.
        shuffled_accuracy: of M completions drawn on shuffled frames.
        shuffled_valid: those of them that count.
        has_video: prompts with a video; the others get nothing.
        bonus: added to the reward of a correct completion.
        margin: 1 in the paper, .8 in its code.
        pass_at: a completion of at least this accuracy is correct.

    Source: Video-R1, 2503.21776.
    """
    is_right = valid & (accuracy >= pass_at)
    is_right_shuffled = shuffled_valid & (shuffled_accuracy >= pass_at)
    p = is_right.sum(axis=1, keepdims=True) / counts(valid)
    shuffled_p = is_right_shuffled.sum(axis=1, keepdims=True) / counts(shuffled_valid)
    comparable = has_video[:, None] & shuffled_valid.any(axis=1, keepdims=True)
    is_given = is_right & comparable & (p >= margin * shuffled_p)
    return np.where(is_given, bonus, 0).astype(np.float32)
