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
# These look at the parts of the reward, or need rewards of 0 or more: no penalty can be taken off.
WITHOUT_PENALTY = ("gdpo", "maxrl")
AGGREGATIONS = ("token_mean", "sequence_mean", "fixed_length")
OFFLINE_LOSSES = ("on_policy", "importance", "luffy", "sft")
KL_ESTIMATORS = ("k1", "k2", "k3", "abs")
KL_PLACEMENTS = ("loss", "reward")
KL_CONTROLLERS = ("fixed", "adaptive")


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
