"""What an algorithm carries from one step to the next on the host; every checkpoint holds it."""

from typing import Any, NamedTuple

from evr1.rl.outcomes import Moments


class AlgorithmState(NamedTuple):
    """All of it is plain numbers."""

    kl_coef: float  # coefficient of the KL term or penalty
    moments: Moments = {}  # see `evr1.rl.outcomes.update_moments`

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it, every bit of its numbers kept."""
        return {"kl_coef": self.kl_coef, "moments": {k: list(v) for k, v in self.moments.items()}}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "AlgorithmState":
        """What `to_json` gave."""
        return cls(saved["kl_coef"], {k: (v[0], v[1]) for k, v in saved["moments"].items()})
