"""Standard errors and intervals over videos, by hand and against plain loops."""

import math
import random

import numpy as np
import pytest

from evr1.evals import bootstrap
from evr1.evals.tasks import metrics, ovo_bench, vsi_bench
from evr1.evals.tasks.base import Media, Record, Sample, Verdict
from evr1.evals.tasks.video_mme_v2 import by_group


def record(id, score, video="", group="", doc=None, **tags):
    media = (Media(video or str(id)),)
    return Record(Sample(str(id), doc or {}, media, tags, group), Verdict("A", score))


def drawn(records, aggregate=metrics.overall, draws=1000, seed=0):
    plan = bootstrap.plan(records, draws, seed)
    return bootstrap.draw(records, aggregate, plan), plan


def test_two_videos_by_hand():
    """A: 2 of 2 right, B: 0 of 1. AA is 1, BB is 0 (a quarter each), AB and BA are 2/3."""
    table, plan = drawn([record(0, 1.0, "A"), record(1, 1.0, "A"), record(2, 0.0, "B")])
    values, counts = np.unique(table["accuracy"], return_counts=True)
    np.testing.assert_allclose(values, [0, 2 / 3, 1])
    np.testing.assert_allclose(counts / 1000, [0.25, 0.5, 0.25], atol=0.04)
    metric = bootstrap.metric(2 / 3, table["accuracy"], len(plan.videos))
    assert (metric.low, metric.high) == (0.0, 1.0)
    variance = (0.5 * 4 / 9 + 0.25) - (0.5 * 2 / 3 + 0.25) ** 2
    assert metric.stderr == pytest.approx(math.sqrt(variance), abs=0.02)


def test_questions_on_one_video_are_not_independent():
    """100 right or wrong in videos of ten: as wide as ten coins, not as a hundred."""
    records = [record(i, float(i // 10 % 2), f"v{i // 10}") for i in range(100)]
    table, plan = drawn(records)
    together = bootstrap.metric(0.5, table["accuracy"], len(plan.videos))
    table, plan = drawn([record(i, float(i % 2)) for i in range(100)])
    alone = bootstrap.metric(0.5, table["accuracy"], len(plan.videos))
    assert together.stderr == pytest.approx(0.5 / math.sqrt(10), rel=0.05)
    assert alone.stderr == pytest.approx(0.5 / math.sqrt(100), rel=0.05)
    assert alone.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert alone.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


def test_draws_are_seeded_and_blind_to_order():
    records = [record(i, float(i % 3 == 0), f"v{i // 2}", tag="ab"[i % 2]) for i in range(80)]
    aggregate = metrics.with_tags("tag")
    first, _ = drawn(records, aggregate)
    random.Random(1).shuffle(records)
    again, _ = drawn(records, aggregate)
    other, _ = drawn(records, aggregate, seed=1)
    assert list(first) == list(again) == ["accuracy", "tag/a", "tag/b"]
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])


@pytest.mark.parametrize("n", [0, 1])
def test_one_video_tells_no_interval(n):
    records = [record(i, 1.0, "v") for i in range(n)]
    table, plan = drawn(records)
    metric = bootstrap.metric(1.0, table["accuracy"], len(plan.videos))
    assert metric.value == 1.0
    assert all(map(math.isnan, metric[1:]))


def test_a_label_that_is_not_in_a_draw_is_left_out():
    records = [record(i, float(i < 2), tag="ab"[i == 3]) for i in range(4)]
    table, _ = drawn(records, metrics.with_tags("tag"))
    absent = np.isnan(table["tag/b"])
    assert absent.mean() == pytest.approx(0.75**4, abs=0.04)
    assert set(table["tag/b"][~absent]) == {0.0}
    assert np.isfinite(table["accuracy"]).all()


def plainly(records, aggregate, plan):
    """Returns the draws, record by record."""
    tables = []
    for row in plan.counts:
        picked = []
        for video, count in zip(plan.videos, row, strict=True):
            for again in range(int(count)):
                for r in records:
                    if r.sample.cluster == video:
                        group = r.sample.group and f"{r.sample.group} {again}"
                        sample = Sample(
                            f"{r.sample.id} {again}",
                            r.sample.doc,
                            r.sample.media,
                            r.sample.tags,
                            group,
                        )
                        picked.append(Record(sample, r.verdict))
        tables.append(aggregate(picked))
    return tables


def some(n, make):
    rng = random.Random(n)
    return [make(i, rng, rng.random() < 0.4) for i in range(n)]


OVO = sorted(ovo_bench._CATEGORY_OF)
CASES = {
    "means by tag": (
        metrics.with_tags("tag"),
        lambda i, rng, right: record(i, float(right), f"v{i // 3}", tag=str(rng.randrange(4))),
    ),
    "those that were answered": (
        metrics.of_answered("tag"),
        lambda i, rng, right: record(i, rng.choice([None, 0.0, 1.0]), tag=str(i % 3)),
    ),
    "means of means": (
        ovo_bench.aggregate,
        lambda i, rng, right: record(i, float(right), f"v{i // 2}", task=OVO[min(i % 17, 11)]),
    ),
    "a mean whose types merge": (
        vsi_bench.aggregate,
        lambda i, rng, right: record(
            i,
            rng.random(),
            f"v{i // 4}",
            doc={
                "question_type": rng.choice(sorted(vsi_bench.TASK.source.counts["question_type"]))
            },
            dataset="d",
        ),
    ),
    "groups": (
        by_group,
        lambda i, rng, right: record(
            i,
            float(right),
            f"v{i // 4}",
            group=f"g{i // 4}",
            doc={
                "question_id": f"{i // 4}-{i % 4 + 1}",
                "group_type": ("logic", "relevance")[i // 4 % 2],
                "group_structure": "[1, 2, 3, 4]",
                "level": str(i // 4 % 3),
            },
        ),
    ),
    "no mean at all": (
        lambda records: {"best": max(map(metrics.score, records)), **metrics.overall(records)},
        lambda i, rng, right: record(i, rng.random(), f"v{i // 5}"),
    ),
}


@pytest.mark.parametrize("n", [9, 140, 400])
@pytest.mark.parametrize("name", CASES)
def test_draws_are_those_of_a_plain_loop(name, n):
    aggregate, make = CASES[name]
    records = some(n, make)
    table, plan = drawn(records, aggregate, draws=12)
    for number, expected in enumerate(plainly(records, aggregate, plan)):
        got = {key: values[number] for key, values in table.items()}
        for key in got.keys() | {k for k, v in expected.items() if not math.isnan(v)}:
            truth = expected.get(key, math.nan)
            assert got.get(key) == pytest.approx(truth, rel=1e-7, nan_ok=True) or key not in table


def test_a_group_over_several_videos_is_drawn_as_one():
    records = [record(i, 1.0, f"v{i % 2}", group="g") for i in range(4)] + [record(9, 0.0, "v1")]
    assert bootstrap.plan(records, 5).videos == ["v0", "v1"]
    sizes, _ = drawn(records, lambda listed: {"n": float(len(listed))}, draws=50)
    assert set(sizes["n"]) == {2.0, 5.0, 8.0}


def test_means_and_sums_of_means_are_drawn_at_once():
    aggregate, make = CASES["means of means"]
    calls = []
    drawn(some(400, make), lambda records: calls.append(1) or aggregate(records), draws=1000)
    assert len(calls) < 400 + 100  # one for each sample alone, and the subsets
