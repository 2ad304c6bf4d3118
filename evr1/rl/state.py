"""The state that an algorithm carries from step to step on the host; every checkpoint holds it."""

from typing import Any, NamedTuple

from evr1.rl.outcomes import Moments


class AlgorithmState(NamedTuple):
    """The state as plain numbers."""

    kl_coef: float  # coefficient of the KL term or penalty
    moments: Moments = {}  # see `evr1.rl.outcomes.update_moments`
    entropy_coef: float = 0.0  # of the adaptive entropy bonus
    entropy: float = 0.0  # of the last step, in nats a token; 0: there was none

    def to_json(self) -> dict[str, Any]:
        """Returns the state for JSON, every bit of its numbers kept."""
        return self._asdict() | {"moments": {k: list(v) for k, v in self.moments.items()}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "AlgorithmState":
        """Returns the state that `to_json` gave; fields that are not there are as at the start."""
        moments: Moments = {k: (v[0], v[1]) for k, v in saved["moments"].items()}
        return cls(**{**saved, "moments": moments})
