"""Metrics of held-out rows: what could not be answered stays in the denominator."""

import numpy as np
import pytest
from collect_rig import Checker, Scripted, example, row

from evr1.exchange import Published
from evr1.rollout.heldout import HeldOut
from evr1.sampler.sampling import Sampling


class Batches:
    """A loader of these examples in one batch; rows whose media fail are not among them."""

    def __init__(self, examples):
        self.examples = examples

    def __enter__(self):
        return iter([self.examples])

    def __exit__(self, *_):
        pass


class Cut(Scripted):
    """The rows that `cut` names never end."""

    def __init__(self, right, cut=()):
        super().__init__(right)
        self.cut = cut

    def generate(self, params, examples, ids, sampling, *, n=1, slots=0, on_finish=None):
        del slots, on_finish
        out = super().generate(params, examples, ids, sampling, n=n, on_finish=lambda *_: None)
        out.finished[list(self.cut)] = False
        return out


def evaluate(rows, answered, right, cut=()):
    actor = Cut(lambda i: right[i], cut)
    examples = [example(r) for r in answered]
    heldout = HeldOut(
        rows, lambda: Batches(examples), actor, Sampling(max_tokens=6), 4, Checker().score_batch
    )
    return heldout.evaluate(Published(None, 7), step=3)


def test_rows_that_failed_count_as_wrong():
    """5 rows, 4 answered, 2 of them right: 2 / 5; one with a video failed: 1 of 2 there."""
    rows = [row(0), row(1), row(2), row(3, videos=("a.mp4",)), row(4, videos=("b.mp4",))]
    metrics, records = evaluate(rows, rows[:4], right=[1, 0, 0, 1])
    assert metrics["eval/accuracy"] == pytest.approx(2 / 5)
    assert metrics["eval/rows"] == 5
    assert metrics["eval/failed_rows"] == 1
    assert metrics["eval/accuracy_answered"] == pytest.approx(2 / 4)
    assert metrics["eval/format"] == pytest.approx(4 / 5)
    assert metrics["eval/accuracy/modality/video"] == pytest.approx(1 / 2)
    assert metrics["eval/rows/modality/video"] == 2
    assert metrics["eval/accuracy/modality/text"] == pytest.approx(1 / 3)
    assert [(r.problem_id, r.step, r.weight_version, r.split) for r in records] == [
        (str(i), 3, 7, "eval") for i in range(4)
    ]
    assert all(r.advantage is None for r in records)


def test_the_share_of_truncated_rows_is_of_all_rows():
    """Of 4 rows one failed and two were cut: 2 / 4; each of three answers has 3 tokens."""
    rows = [row(i) for i in range(4)]
    metrics, records = evaluate(rows, rows[:3], right=[1, 1, 1], cut=(0, 2))
    assert metrics["eval/truncated_share"] == pytest.approx(2 / 4)
    assert metrics["eval/length"] == pytest.approx(3)
    assert [r.finished for r in records] == [False, True, False]


def test_nothing_was_answered():
    metrics, records = evaluate([row(0), row(1)], [], right=[])
    assert records == []
    assert metrics["eval/failed_rows"] == 2
    assert metrics["eval/accuracy"] == metrics["eval/length"] == 0
    assert not any(np.isnan(value) for value in metrics.values())
