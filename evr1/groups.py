"""A group: a prompt, its completions, and what they earned. The unit that a step collects."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1 import features
from evr1.data.records import Example
from evr1.rewards import Score, Status
from evr1.types import Rollouts

POLICY, OFFLINE, REPLAY = "policy", "offline", "replay"  # where a completion comes from


class Group(NamedTuple):
    """One prompt of a rollout batch.

    Attributes:
        example: the prompt.
        rollouts: its N completions; no G axis.
        scores: N of them.
        origins: N of them: drawn by the policy, from the data (offline), or replayed.
        version: optimizer updates behind the weights that drew it.
        baseline: reward of the greedy completion; NaN where there is none or its scorer failed.
    """

    example: Example
    rollouts: Rollouts
    scores: tuple[Score, ...]
    origins: tuple[str, ...]
    version: int
    baseline: float = float("nan")

    @property
    def rewards(self) -> np.ndarray:
        """float32[N]."""
        return np.array([s.overall for s in self.scores], np.float32)

    @property
    def accuracy(self) -> np.ndarray:
        """float32[N]."""
        return np.array([s.accuracy for s in self.scores], np.float32)

    @property
    def valid(self) -> np.ndarray:
        """bool[N]: completions whose scorer worked."""
        return np.array([not s.has_failed for s in self.scores])

    @property
    def is_offline(self) -> np.ndarray:
        """bool[N]: completions that the policy did not just draw."""
        return np.array([origin != POLICY for origin in self.origins])

    def mean_accuracy(self) -> float:
        """Of the completions that the policy drew; NaN where no scorer worked."""
        mine = self.valid & ~self.is_offline
        return float(self.accuracy[mine].mean()) if mine.any() else float("nan")


def without_features(group: Group) -> Group:
    """The group with its pixels alone."""
    return group._replace(example=features.without_features(group.example))


def stack(groups: Sequence[Group]) -> Rollouts:
    """The rollouts of all groups, with the G axis."""
    return Rollouts(*(np.stack(part) for part in zip(*(g.rollouts for g in groups), strict=True)))


def pack(arrays: dict[str, np.ndarray]) -> str:
    """Arrays as text for JSON, every bit kept; much smaller than their digits."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> dict[str, np.ndarray]:
    """What `pack` was given."""
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        return dict(arrays)


def to_json(group: Group) -> dict[str, Any]:
    """Everything but the example, which is read again from its row."""
    return {
        "row": group.example.row.source,
        "rollouts": pack(group.rollouts._asdict()),
        "scores": [[*s[:3], str(s.status), *s[4:]] for s in group.scores],
        "origins": list(group.origins),
        "version": group.version,
        "baseline": None if np.isnan(group.baseline) else group.baseline,
    }


def from_json(saved: dict[str, Any], example: Example) -> Group:
    """What `to_json` gave, with its example."""
    scores = []
    for overall, accuracy, form, status, extracted, detail, terms in saved["scores"]:
        added = tuple((name, value) for name, value in terms)
        scores.append(Score(overall, accuracy, form, Status(status), extracted, detail, added))
    return Group(
        example,
        Rollouts(**unpack(saved["rollouts"])),
        tuple(scores),
        tuple(saved["origins"]),
        saved["version"],
        float("nan") if saved["baseline"] is None else saved["baseline"],
    )
