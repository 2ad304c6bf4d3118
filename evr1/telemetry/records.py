"""What rollouts.jsonl holds: one record for each completion."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class RolloutRecord:
    """A prompt, one completion of it and what it earned.

    Attributes:
        step: RL step that drew it.
        split: "train" or "eval" (held out).
        weight_version: how many updates the weights that drew it have seen.
        prompt: text with one placeholder a medium, not the expanded visual tokens.
        answer: the row's reference answer.
        score: parts of the score, e.g. overall, accuracy, format.
        status: the scorer's verdict on itself, e.g. "ok" or why it could not score.
        extracted: what the scorer read as the final answer.
        advantage: what the loss multiplied; None for held-out rollouts.
        length: completion tokens, the end token included.
        finished: false where the length limit cut the completion.
        media: paths of the row's images and videos, as in the row.
        origin: policy, offline (from the data) or replay (an earlier completion of the policy).
        think_open: the prompt left a think block open, so that the completion starts inside it.
        earlier_versions: of the weights that drew its beginning, each with the tokens up to which;
            weight_version is that of the rest.
    """

    step: int
    split: str
    weight_version: int
    problem_id: str
    problem_type: str
    prompt: str
    completion: str
    answer: Any
    score: Mapping[str, float]
    status: str
    extracted: str
    advantage: float | None
    length: int
    finished: bool
    media: Sequence[str]
    origin: str = "policy"
    think_open: bool = False
    earlier_versions: Sequence[tuple[int, int]] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as the object of its line, fields in their order; the last two where they say
        something."""
        fields = dataclasses.asdict(self)
        silent = [k for k in ("think_open", "earlier_versions") if not fields[k]]
        return {k: v for k, v in fields.items() if k not in silent}
