"""Held-out evaluation: greedy answers to the held-out rows, scored like rollouts."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from evr1.data.records import Example, Row
from evr1.rewards import Score
from evr1.run import Data, Policy
from evr1.types import Params, Rollouts
from evr1.writer import RolloutRecord

PARTS = ("overall", "accuracy", "format")
Scorer = Callable[[Sequence[str], Sequence[Row]], list[Score]]


def evaluate(
    policy: Policy, data: Data, params: Params, score: Scorer, *, step: int, weight_version: int
) -> tuple[dict[str, float], list[RolloutRecord]]:
    """The metrics eval/* and one record for each held-out row.

    A row whose media fail, or whose scorer fails, counts as wrong: it stays in the denominator.
    """
    records: list[RolloutRecord] = []
    answered: list[Row] = []
    truncated = 0
    with data.heldout() as batches:
        for examples in batches:
            rollouts = policy.greedy_sampler.generate(
                params, examples, list(range(len(examples))), policy.greedy
            )
            scores = score(texts(data, rollouts), [e.row for e in examples])
            answered += [e.row for e in examples]
            truncated += int((~rollouts.finished).sum())
            records += rollout_records(
                data,
                examples,
                rollouts,
                scores,
                None,
                step,
                [weight_version] * len(examples),
                "eval",
            )
    total = len(data.heldout_rows)
    metrics = _means("eval", records, total)
    for kind_of in (lambda row: slug(row.problem_type), lambda row: f"modality/{row.data_type}"):
        sizes = collections.Counter(map(kind_of, data.heldout_rows))
        for kind, size in sorted(sizes.items()):
            mine = [r for row, r in zip(answered, records, strict=True) if kind_of(row) == kind]
            metrics[f"eval/accuracy/{kind}"] = _mean(mine, "accuracy", size)
            metrics[f"eval/rows/{kind}"] = size
    metrics["eval/length"] = float(np.mean([r.length for r in records] or [0]))
    metrics["eval/truncated_share"] = truncated / max(total, 1)
    metrics["eval/rows"] = total
    metrics["eval/failed_rows"] = total - len(records)
    return metrics, records


def texts(data: Data, rollouts: Rollouts) -> list[str]:
    """The completions as text, G * N of them in order."""
    tokens = rollouts.completions.reshape(-1, rollouts.completions.shape[-1])
    lengths = rollouts.lengths.reshape(-1)
    return [data.processor.decode(t[:n].tolist()) for t, n in zip(tokens, lengths, strict=True)]


def rollout_records(
    data: Data,
    examples: Sequence[Example],
    rollouts: Rollouts,
    scores: Sequence[Score],
    advantages: np.ndarray | None,
    step: int,
    weight_versions: Sequence[int],
    split: str,
    origins: Sequence[Sequence[str]] | None = None,
) -> list[RolloutRecord]:
    """One record for each completion, in the order of `texts`.

    Args:
        data: for the prompt texts.
        examples: G of them.
        rollouts: of the examples.
        scores: G * N of them.
        advantages: float32[G, N]; None for held-out rollouts.
        step: of the run.
        weight_versions: of each prompt: optimizer updates behind the weights that sampled.
        split: train or eval.
        origins: where every completion of each prompt comes from; None: the policy drew all.
    """

    def records() -> Iterator[RolloutRecord]:
        every_text = iter(texts(data, rollouts))
        every_score = iter(scores)
        for g, example in enumerate(examples):
            row = example.row
            prompt = data.processor.prompt_text(row)
            for n in range(rollouts.lengths.shape[1]):
                score = next(every_score)
                yield RolloutRecord(
                    step=step,
                    split=split,
                    weight_version=weight_versions[g],
                    problem_id=row.problem_id,
                    problem_type=row.problem_type,
                    prompt=prompt,
                    completion=next(every_text),
                    answer=row.answer,
                    score={
                        "overall": score.overall,
                        "accuracy": score.accuracy,
                        "format": score.format,
                        **dict(score.terms),
                    },
                    status=str(score.status),
                    extracted=score.extracted,
                    advantage=None if advantages is None else float(advantages[g, n]),
                    length=int(rollouts.lengths[g, n]),
                    finished=bool(rollouts.finished[g, n]),
                    media=[*row.videos, *row.images],
                    origin="policy" if origins is None else origins[g][n],
                )

    return list(records())


def slug(problem_type: str) -> str:
    """A problem type as part of a metric's name."""
    return problem_type.replace(" ", "-")


def _means(area: str, records: Sequence[RolloutRecord], total: int) -> dict[str, float]:
    return {f"{area}/{part}": _mean(records, part, total) for part in PARTS}


def _mean(records: Sequence[RolloutRecord], part: str, total: int) -> float:
    return sum(r.score[part] for r in records) / max(total, 1)


def table(steps: Sequence[int], metrics: Mapping[str, Sequence[float | None]]) -> str:
    """Held-out accuracy at the first and at the last evaluation, over all and by problem type.

    Args:
        steps: of the metrics, ascending.
        metrics: name -> value at each step, None where it was not measured.
    """
    lines = []
    for name in ["eval/accuracy", *sorted(n for n in metrics if n.startswith("eval/accuracy/"))]:
        measured = [
            (s, v) for s, v in zip(steps, metrics.get(name, []), strict=False) if v is not None
        ]
        if measured:
            (first, before), (last, after) = measured[0], measured[-1]
            label = name.removeprefix("eval/accuracy").strip("/") or f"all, step {first} to {last}"
            lines.append(
                f"  {label:<28} {before:7.1%} → {after:6.1%}  {(after - before) * 100:+6.1f} points"
            )
    return "\n".join(["held-out accuracy", *lines]) if lines else "no held-out rows"
