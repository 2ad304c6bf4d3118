"""What the groups of a rollout batch earned: for the advantages, and as metrics."""

from collections.abc import Mapping, Sequence

import numpy as np

from evr1.exchange import Group
from evr1.formats.problem_types import slug
from evr1.rewards import Status
from evr1.rl.outcomes import Outcomes, Part, has_signal


def outcomes_of(groups: Sequence[Group], weights: Mapping[str, float]) -> Outcomes:
    """Returns what the completions earned.

    A completion whose scorer failed is no zero: it enters no mean and is not trained on.

    Args:
        groups: of one rollout batch.
        weights: of the parts of the reward, by name: accuracy, format, and further terms.
    """
    scores = [s for g in groups for s in g.scores]
    parts = {
        "accuracy": [s.accuracy for s in scores],
        "format": [s.format for s in scores],
    }
    terms = [name for name in weights if name not in parts]
    parts |= {name: [dict(s.terms).get(name, 0.0) for s in scores] for name in terms}
    shape = (len(groups), len(groups[0].scores))
    has_greedy = any(g.greedy is not None for g in groups)
    return Outcomes(
        np.stack([g.rewards for g in groups]),
        np.stack([g.valid for g in groups]),
        np.stack([g.rollouts.lengths for g in groups]),
        {
            name: Part(weights[name], np.array(values, np.float32).reshape(shape))
            for name, values in parts.items()
        },
        [g.example.row.problem_type for g in groups],
        is_offline=np.stack([g.is_offline for g in groups]),
        baselines=np.array([g.baseline for g in groups], np.float32) if has_greedy else None,
    )


def reward_metrics(groups: Sequence[Group], outcomes: Outcomes) -> dict[str, float]:
    """Returns means over what the policy drew and whose scorer worked, in all and by problem type.

    Args:
        groups: of one rollout batch.
        outcomes: theirs.
    """
    drawn = ~np.stack([g.is_offline for g in groups])
    used = drawn & outcomes.valid
    values = {
        "overall": outcomes.rewards,
        "accuracy": outcomes.parts["accuracy"].scores,
        "format": outcomes.parts["format"].scores,
    }
    names = [name for name in outcomes.parts if name not in values]
    values |= {f"term/{name}": outcomes.parts[name].scores for name in names}
    metrics = {f"reward/{k}": float(v[used].mean()) for k, v in values.items() if used.any()}
    kinds = np.array(outcomes.tasks)[:, None]
    for kind in sorted(set(outcomes.tasks)):
        mask = used & (kinds == kind)
        if mask.any():
            metrics[f"reward/accuracy/{slug(kind)}"] = float(values["accuracy"][mask].mean())
    media = np.array([g.example.row.data_type for g in groups])
    for medium in sorted(set(media.tolist())):
        metrics[f"rollout/share/{medium}"] = float((media == medium).mean())
        mask = used & (media == medium)[:, None]
        if mask.any():
            accuracy = values["accuracy"][mask]
            metrics[f"reward/accuracy/modality/{medium}"] = float(accuracy.mean())
    statuses = np.array([[s.status for s in g.scores] for g in groups])[drawn]
    for status in Status:
        if status is not Status.OK:
            metrics[f"reward/{status.value}_share"] = float((statuses == status).mean())
    signal = has_signal(outcomes.rewards, outcomes.valid, outcomes.baselines)
    lengths = outcomes.lengths[drawn]
    finished = np.stack([g.rollouts.finished for g in groups])[drawn]
    metrics["group/no_signal_share"] = 1 - float(signal.mean())
    metrics["completion/length"] = float(lengths.mean())
    metrics["completion/length_max"] = float(lengths.max())
    metrics["completion/truncated_share"] = 1 - float(finished.mean())
    return metrics
