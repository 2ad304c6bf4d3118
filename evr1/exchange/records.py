"""Rollouts as lines of rollouts.jsonl."""

from collections.abc import Iterator

import numpy as np

from evr1.data.processor import Processor
from evr1.exchange.group import Group
from evr1.exchange.rollout_batch import RolloutBatch
from evr1.telemetry.records import RolloutRecord


def batch_records(
    batch: RolloutBatch, advantages: np.ndarray, processor: Processor, step: int
) -> Iterator[RolloutRecord]:
    """Yields a record for each completion of a rollout batch, in order.

    Args:
        batch: of the step.
        advantages: float32[G, N].
        processor: gives the prompts' texts.
        step: of the run.
    """
    for g, group in enumerate(batch.groups):
        yield from group_records(group, advantages[g], processor, step=step, split="train")


def group_records(
    group: Group,
    advantages: np.ndarray | None,
    processor: Processor,
    *,
    step: int,
    split: str,
) -> Iterator[RolloutRecord]:
    """Yields a record for each completion of a group.

    Args:
        group: scored.
        advantages: float32[N]; None for held-out rollouts.
        processor: gives the prompt's text.
        step: of the run.
        split: train or eval.
    """
    row = group.example.row
    prompt = processor.prompt_text(row)
    for n, (text, score, origin) in enumerate(
        zip(group.texts, group.scores, group.origins, strict=True)
    ):
        yield RolloutRecord(
            step=step,
            split=split,
            weight_version=group.version,
            problem_id=row.problem_id,
            problem_type=row.problem_type,
            prompt=prompt,
            completion=text,
            answer=row.answer,
            score={
                "overall": score.overall,
                "accuracy": score.accuracy,
                "format": score.format,
                **dict(score.terms),
            },
            status=str(score.status),
            extracted=score.extracted,
            advantage=None if advantages is None else float(advantages[n]),
            length=int(group.rollouts.lengths[n]),
            finished=bool(group.rollouts.finished[n]),
            media=[str(medium) for medium in (*row.videos, *row.images)],
            origin=origin,
            think_open=processor.think_open,
            earlier_versions=tuple((version, lengths[n]) for version, lengths in group.earlier),
        )
