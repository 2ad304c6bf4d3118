"""Held-out evaluation: greedy answers to the held-out rows, scored like rollouts."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from evr1.data.loader import Loader
from evr1.data.records import Example, Row
from evr1.exchange import Group, Published
from evr1.exchange.group import broken_lines
from evr1.exchange.records import group_records
from evr1.exchange.sharing import own, share
from evr1.formats.problem_types import slug
from evr1.parallel import hosts
from evr1.rewards import Score
from evr1.rollout.sample import make_groups
from evr1.sampler import Sampling
from evr1.sampler.actor import Actor
from evr1.telemetry.records import RolloutRecord
from evr1.types import Count, Rollouts, no_count

PARTS = ("overall", "accuracy", "format")
Scorer = Callable[[Sequence[str], Sequence[Row]], list[Score]]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The held-out evaluation of a run.

    Attributes:
        rows: all held-out rows.
        loader: makes a loader of them, once through.
        actor: draws.
        sampling: greedy.
        slots: prompts that decode at the same time.
        score: scores texts against rows.
        count: takes how many rows this host has answered.
    """

    rows: Sequence[Row]
    loader: Callable[[], Loader]
    actor: Actor
    sampling: Sampling
    slots: int
    score: Scorer
    count: Count = no_count

    def evaluate(
        self, published: Published, step: int
    ) -> tuple[dict[str, float], list[RolloutRecord]]:
        """Returns the metrics eval/* and a record for each held-out row.

        A row whose media fail, or whose scorer fails, counts as wrong: it stays in the denominator.

        Args:
            published: weights to answer with.
            step: of the run, for the records.
        """
        broken, done, records = 0, 0, list[RolloutRecord]()
        answered: list[Row] = []
        with self.loader() as batches:
            for examples in batches:
                places = own(examples)
                mine = [examples[i] for i in places]
                groups = self._answer(published, mine, done) if places else []
                done += len(mine)
                shared = share(examples, groups)
                for line in broken_lines(shared):
                    hosts.say(line)
                broken += sum(not group.rollouts.is_finite.all() for group in shared)
                for group in shared:
                    answered.append(group.example.row)
                    records += group_records(
                        group, None, self.actor.processor, step=step, split="eval"
                    )
        metrics = eval_metrics(records, answered, self.rows)
        return metrics | ({"eval/not_finite": float(broken)} if broken else {}), records

    def _answer(self, published: Published, examples: Sequence[Example], done: int) -> list[Group]:
        total, answered = -(-len(self.rows) // hosts.count()), itertools.count(done + 1)

        def finished(row: int, rollouts: Rollouts) -> None:
            self.count(next(answered), total, "rows")

        rollouts = self.actor.generate(
            published.params,
            examples,
            list(range(len(examples))),
            self.sampling,
            slots=self.slots,
            on_finish=finished,
        )
        texts = self.actor.texts(rollouts)
        scores = self.score(texts, [e.row for e in examples])
        return make_groups(examples, rollouts, texts, scores, version=published.version, n=1)


def eval_metrics(
    records: Sequence[RolloutRecord], answered: Sequence[Row], rows: Sequence[Row]
) -> dict[str, float]:
    """Returns the metrics eval/*, over all rows and by problem type and modality.

    Args:
        records: one for each row that was answered.
        answered: these rows, in the same order.
        rows: all held-out rows; those that were not answered count as wrong.
    """
    total = len(rows)
    metrics = {f"eval/{part}": _mean(records, part, total) for part in PARTS}
    for kind_of in (lambda row: slug(row.problem_type), lambda row: f"modality/{row.data_type}"):
        sizes = collections.Counter(map(kind_of, rows))
        for kind, size in sorted(sizes.items()):
            of_kind = [r for row, r in zip(answered, records, strict=True) if kind_of(row) == kind]
            metrics[f"eval/accuracy/{kind}"] = _mean(of_kind, "accuracy", size)
            metrics[f"eval/rows/{kind}"] = size
    truncated = sum(not r.finished for r in records)
    metrics["eval/length"] = float(np.mean([r.length for r in records] or [0]))
    metrics["eval/truncated_share"] = truncated / max(total, 1)
    metrics["eval/rows"] = total
    metrics["eval/failed_rows"] = total - len(records)
    if records:
        metrics["eval/accuracy_answered"] = _mean(records, "accuracy", len(records))
    return metrics


def _mean(records: Sequence[RolloutRecord], part: str, total: int) -> float:
    return sum(r.score[part] for r in records) / max(total, 1)
