"""The names that `config.algorithm` may hold, and the defaults that follow from them. No jax.

`evr1.rl` holds the functions of the same names.
"""

from typing import NamedTuple

ADVANTAGES = (
    "grpo",
    "dr_grpo",
    "grpo_passk",
    "rloo",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "gdpo",
    "maxrl",
    "opo",
    "ema_grpo",
    "lite_ppo",
    "remax",
    "gae",
)
# One completion a prompt is enough for these.
WITHOUT_GROUPS = ("reinforce_plus_plus", "remax", "gae")
# No KL penalty can be subtracted from the reward: gdpo uses its parts, maxrl needs rewards >= 0.
WITHOUT_PENALTY = ("gdpo", "maxrl")
AGGREGATIONS = ("token_mean", "sequence_mean", "fixed_length", "sequence_sum", "token_sum")
WITHOUT_DIVISOR = ("token_mean", "sequence_mean")
OLD_LOGPROBS = ("auto", "recompute", "sampler", "on_policy")
OFFLINE_LOSSES = ("on_policy", "importance", "luffy", "sft")
KL_ESTIMATORS = ("k1", "k2", "k3", "abs")
KL_GRADIENTS = ("own", "k2", "importance")
KL_PLACEMENTS = ("loss", "reward")
KL_CONTROLLERS = ("fixed", "adaptive")
ENTROPY_CONTROLLERS = ("fixed", "adaptive")
COVARIANCES = ("clip", "kl")
# The corrections whose weights are cut and not dropped, so that they may have a floor.
TRUNCATED = ("token_tis", "sequence_tis")


class Policy(NamedTuple):
    """Defaults of a policy loss; a bound that is None is not used by it."""

    clip_low: float | None
    clip_high: float | None
    clip_dual: float | None
    aggregation: str


POLICIES = {
    "ppo": Policy(0.2, 0.28, 3.0, "token_mean"),
    "gspo": Policy(3e-4, 4e-4, 0.0, "sequence_mean"),
    "gspo_token": Policy(3e-4, 4e-4, 0.0, "sequence_mean"),
    "cispo": Policy(0.0, 4.0, None, "token_mean"),
    "sapo": Policy(None, None, None, "sequence_mean"),
    "reinforce": Policy(None, None, None, "token_mean"),
    "gmpo": Policy(0.4, 0.4, None, "sequence_mean"),
}


class Correction(NamedTuple):
    """Default bounds of a correction; None: not used by it."""

    low: float | None
    high: float | None


CORRECTIONS = {
    "token_tis": Correction(None, 2.0),
    "sequence_tis": Correction(None, 2.0),
    "token_mis": Correction(0.5, 2.0),
    "sequence_mis": Correction(0.5, 2.0),
    "geometric": Correction(0.999, 1.001),
    "veto": Correction(1e-4, None),
}


REJECTIONS = {
    "token": CORRECTIONS["token_mis"],
    "sequence": CORRECTIONS["sequence_mis"],
    "geometric": CORRECTIONS["geometric"],
}


def bounds(correction: str) -> Correction:
    """Returns the default bounds of a correction; an empty name is none."""
    return CORRECTIONS[correction] if correction else Correction(None, None)


def rejection_bounds(rejection: str) -> Correction:
    """Returns the default bounds of a rejection; an empty name is none."""
    return REJECTIONS[rejection] if rejection else Correction(None, None)
