"""A group: a prompt, its completions, and what they earned; the unit that a step collects."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evr1.batch import features
from evr1.data.records import Example
from evr1.rewards import Score, Status
from evr1.types import Rollouts

POLICY, OFFLINE, REPLAY = "policy", "offline", "replay"  # where a completion comes from


class Group(NamedTuple):
    """One prompt of a rollout batch.

    Attributes:
        example: the prompt.
        rollouts: its N completions; no G axis.
        texts: N of them: the completions decoded.
        scores: N of them.
        origins: N of them: drawn by the policy, from the data (offline), or replayed.
        version: optimizer updates behind the weights that drew it, or the rest of it.
        greedy: score of the greedy completion; None where there is none.
        request: with the seed it decided the random numbers.
        earlier: versions of weights that drew its beginning, in order, each with the lengths that
            its N completions had then.

    A group that is carried over before it is done has no texts and no scores, and its rollouts have
    a row for the greedy completion where there is one.
    """

    example: Example
    rollouts: Rollouts
    texts: tuple[str, ...]
    scores: tuple[Score, ...]
    origins: tuple[str, ...]
    version: int
    greedy: Score | None = None
    request: int = 0
    earlier: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether all its completions are there, with their scores."""
        return bool(self.scores)

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

    @property
    def baseline(self) -> float:
        """Reward of the greedy completion; NaN where there is none or its scorer failed."""
        if self.greedy is None or self.greedy.has_failed:
            return float("nan")
        return self.greedy.overall

    def tokens_by_version(self) -> dict[int, int]:
        """Returns how many tokens of the policy's completions each version of weights drew."""
        counts, before = dict[int, int](), np.zeros(len(self.origins), int)
        for version, lengths in (*self.earlier, (self.version, self.rollouts.lengths)):
            reached = np.array(lengths)
            new = int((reached - before)[~self.is_offline].sum())
            counts[version] = counts.get(version, 0) + new
            before = reached
        return counts

    def mean_accuracy(self) -> float:
        """Returns that of the completions that the policy drew; NaN where no scorer worked."""
        drawn = self.valid & ~self.is_offline
        return float(self.accuracy[drawn].mean()) if drawn.any() else float("nan")


def broken_lines(groups: Sequence[Group]) -> list[str]:
    """Returns a line for each group with logits that were not finite, which names its row."""
    lines = []
    for group in groups:
        bad = ~group.rollouts.is_finite
        if bad.any():
            row, steps = group.example.row, group.rollouts.drawn[bad]
            lines.append(
                f"{row.source} ({row.problem_id}): logits of {bad.sum()} of {bad.size} completions "
                f"are not finite, first after {steps.min()} tokens; nothing was drawn there"
            )
    return lines


def without_features(group: Group) -> Group:
    """Returns the group with its pixels alone."""
    return group._replace(example=features.without_features(group.example))


def pack(arrays: dict[str, np.ndarray]) -> str:
    """Returns arrays as text for JSON, every bit kept; much smaller than their digits."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return base64.b64encode(file.getvalue()).decode()


def unpack(text: str) -> dict[str, np.ndarray]:
    """Returns what `pack` was given."""
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        return dict(arrays)


def to_json(group: Group) -> dict[str, Any]:
    """Returns everything but the example, which is read again from its row, and the texts."""
    return {
        "row": group.example.row.source,
        "rollouts": pack(group.rollouts._asdict()),
        "scores": [score_to_json(s) for s in group.scores],
        "origins": list(group.origins),
        "version": group.version,
        "greedy": None if group.greedy is None else score_to_json(group.greedy),
        "request": group.request,
        "earlier": group.earlier,
    }


def versions_from_json(saved: Sequence[Any]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Returns `Group.earlier` as it was before it was JSON."""
    return tuple((version, tuple(lengths)) for version, lengths in saved)


def from_json(
    saved: dict[str, Any], example: Example, decode: Callable[[Rollouts], Sequence[str]]
) -> Group:
    """Returns what `to_json` was given.

    Args:
        saved: what it returned.
        example: of the row.
        decode: completions as text.
    """
    rollouts = Rollouts(**unpack(saved["rollouts"]))
    return Group(
        example,
        rollouts,
        tuple(decode(rollouts)) if saved["scores"] else (),
        tuple(score_from_json(s) for s in saved["scores"]),
        tuple(saved["origins"]),
        saved["version"],
        None if saved["greedy"] is None else score_from_json(saved["greedy"]),
        saved["request"],
        versions_from_json(saved["earlier"]),
    )


def score_to_json(score: Score) -> list[Any]:
    """Returns a score as plain data."""
    return [*score[:3], str(score.status), *score[4:]]


def score_from_json(saved: Sequence[Any]) -> Score:
    """Returns what `score_to_json` was given."""
    overall, accuracy, form, status, extracted, detail, terms = saved
    named = tuple((name, value) for name, value in terms)
    return Score(overall, accuracy, form, Status(status), extracted, detail, named)
