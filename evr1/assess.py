"""What the groups of a rollout batch earned: for the advantages, and as metrics."""

from collections.abc import Sequence

import numpy as np

from evr1 import heldout
from evr1.config import Config
from evr1.draw import TEMPORAL
from evr1.groups import Group
from evr1.rewards import Status
from evr1.rl.outcomes import Outcomes, Part, has_signal


def assess(config: Config, groups: Sequence[Group]) -> tuple[Outcomes, dict[str, float]]:
    """What the completions earned, and the metrics of it.

    A completion whose scorer failed is no zero: it enters no mean and is not trained on.
    """
    r, a = config.rewards, config.algorithm
    scores = [s for g in groups for s in g.scores]
    weighted = [*r.terms, *([(TEMPORAL, 1.0)] if a.temporal_bonus else [])]
    parts = {
        "accuracy": (r.accuracy_weight, [s.accuracy for s in scores]),
        "format": (r.format_weight, [s.format for s in scores]),
    }
    parts |= {name: (w, [dict(s.terms).get(name, 0.0) for s in scores]) for name, w in weighted}
    shape = (len(groups), len(groups[0].scores))
    outcomes = Outcomes(
        np.stack([g.rewards for g in groups]),
        np.stack([g.valid for g in groups]),
        np.stack([g.rollouts.lengths for g in groups]),
        {name: Part(w, np.array(x, np.float32).reshape(shape)) for name, (w, x) in parts.items()},
        [g.example.row.problem_type for g in groups],
        is_offline=np.stack([g.is_offline for g in groups]),
        baselines=np.array([g.baseline for g in groups], np.float32)
        if a.advantage == "remax"
        else None,
    )
    return outcomes, _metrics(groups, outcomes)


def _metrics(groups: Sequence[Group], outcomes: Outcomes) -> dict[str, float]:
    """Means over what the policy drew and whose scorer worked, in all and by problem type."""
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
        mine = used & (kinds == kind)
        if mine.any():
            accuracy = values["accuracy"][mine]
            metrics[f"reward/accuracy/{heldout.slug(kind)}"] = float(accuracy.mean())
    media = np.array([g.example.row.data_type for g in groups])
    for medium in sorted(set(media.tolist())):
        metrics[f"rollout/share/{medium}"] = float((media == medium).mean())
        mine = used & (media == medium)[:, None]
        if mine.any():
            accuracy = values["accuracy"][mine]
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
