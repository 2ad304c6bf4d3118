"""Updates without a finite gradient: so many are left out and told, then the run stops."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from evr1.data.records import Row
from evr1.exchange import RolloutBatch
from evr1.learner.learner import Prepared
from evr1.parallel import hosts
from evr1.telemetry.lines import LineFile
from evr1.types import GroupBatch

FILE = "skipped_updates.jsonl"
# What a batch shows of a row that the network has no finite numbers for.
_TELLING = ("behavior_logprobs", "old_logprobs", "ref_logprobs", "old_values")


class SkippedUpdates:
    """Counts the updates that a run leaves out; the count is part of a checkpoint.

    Attributes:
        count: of the policy and a critic, since the run began.
    """

    def __init__(self, allowed: int, workdir: Path) -> None:
        """Has counted none yet.

        Args:
            allowed: `train.max_skipped_updates`.
            workdir: of the run; the rows go to skipped_updates.jsonl there.
        """
        self.count = 0
        self._allowed, self._workdir = allowed, workdir

    def check(
        self,
        metrics: dict[str, float],
        prepared: Prepared,
        step: int,
        latest_step: Callable[[], int | None],
    ) -> tuple[dict[str, float], list[str]]:
        """Returns the metrics of a step with the count, and what to tell.

        Where an update was left out, metrics that are no numbers are, too.

        Args:
            metrics: of the step.
            prepared: its batch.
            step: its number.
            latest_step: returns that of the last checkpoint; None: there is none.

        Raises:
            FloatingPointError: more updates were left out than may be; names the rows.
        """
        skipped = int(metrics.get("optim/skipped", 0) + metrics.get("critic/skipped", 0))
        self.count += skipped
        count = {"optim/skipped_updates": float(self.count)} if self.count else {}
        if not skipped:
            return metrics | count, []
        rows, is_certain = suspects(prepared.rollouts, prepared.batch)
        names = [f"{row.source} ({row.problem_id})" for row in rows]
        whose = _listed(names, "one of " * (not is_certain and len(names) > 1))
        if self.count > self._allowed:
            path = self._workdir / f"not_finite_step_{step}.npz"
            _dump(path, prepared)
            self._stop(metrics, f"step {step}", path, latest_step(), whose)
        if hosts.is_primary():
            record = {"step": step, "updates": skipped, "is_certain": is_certain}
            record["rows"] = [row.source for row in rows]
            record["problem_ids"] = [row.problem_id for row in rows]
            file = LineFile(self._workdir / FILE, step)  # a resumed run writes its steps again
            file.append([record])
            file.close()
        line = (
            f"step {step}: {skipped} updates without a finite gradient left out, {self.count} of "
            f"train.max_skipped_updates={self._allowed}: {whose} ({FILE})"
        )
        return {k: x for k, x in metrics.items() if np.isfinite(x)} | count, [line]

    def _stop(
        self, metrics: dict[str, float], what: str, path: Path, saved: int | None, whose: str
    ) -> None:
        last = (
            "there is no checkpoint yet" if saved is None else f"the last checkpoint: step {saved}"
        )
        is_critic = metrics.get("critic/is_finite", 1) != 1
        of, field = (" of the critic", "critic") if is_critic else ("", "optim")
        earlier = f", the {self.count}th such update" if self._allowed else ""
        raise FloatingPointError(
            f"{what}: the gradient{of} is not finite{earlier}; its batch is in {path}, {last}. "
            f"Lower {field}.learning_rate, or look for the row that does it: {whose}. data.skip "
            "passes rows over, train.max_skipped_updates leaves such updates out; the same "
            "command then goes on"
        )


def suspects(rollouts: RolloutBatch, batch: GroupBatch) -> tuple[list[Row], bool]:
    """Returns the rows that have no finite log-probabilities or values, and True; where all have
    some, all rows of the batch, and False."""
    is_bad = np.zeros(len(rollouts.groups), bool)
    for name in _TELLING:
        is_bad |= ~np.isfinite(getattr(batch, name)).all(axis=(1, 2))
    rows = [group.example.row for group in rollouts.groups]
    found = [row for row, bad in zip(rows, is_bad.tolist(), strict=True) if bad]
    return found or rows, bool(found)


def _listed(names: Sequence[str], head: str, most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return head + ", ".join(names[:most]) + more


def _dump(path: Path, prepared: Prepared) -> None:
    """Writes a batch, less its media, and the rows of its groups."""
    if not hosts.is_primary():
        return
    leaves = jax.tree_util.tree_leaves_with_path(prepared.parts)
    arrays: dict[str, Any] = {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}
    rows = [g.example.row.source for g in prepared.rollouts.groups]  # whose media are not in it
    np.savez(path, **arrays, rows=np.array(rows))
