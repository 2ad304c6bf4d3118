"""Dynamic sampling: what is drawn, kept, left over and resumed. Requests 0, 1, 2, ... in order."""

import dataclasses
import json

import numpy as np
import pytest
from collect_rig import N, Scripted, collect, make_collector, requests, row, settings

from evr1.rewards import Score, Status
from evr1.rollout.outcomes import outcomes_of, reward_metrics

DYNAMIC = {"dynamic__enabled": True}


def odd(i):
    """Odd requests have a group with spread; even ones are all wrong."""
    return 2 if i % 2 else 0


def test_without_dynamic_sampling_a_batch_is_what_was_drawn():
    collector = make_collector(settings(), odd)
    assert requests(collect(collector)[0]) == [0, 1, 2, 3]
    assert requests(collect(collector)[0]) == [4, 5, 6, 7]


def test_groups_without_signal_are_passed_over_and_the_batch_is_full():
    """Half of them have signal: 4 drawn give 2, 2 are missing, a draw of 4 gives the other 2."""
    collector = make_collector(settings(**DYNAMIC), odd)
    groups, metrics = collect(collector)
    assert requests(groups) == [1, 3, 5, 7]
    assert metrics["dynamic/rounds"] == 2
    assert metrics["dynamic/drawn"] == 8
    assert metrics["dynamic/kept_share"] == 0.5
    assert metrics["dynamic/all_wrong_share"] == 0.5
    assert metrics["dynamic/accuracy_drawn"] == 0.25
    assert metrics["dynamic/left_over"] == 0


def test_groups_left_over_come_first_in_the_next_batch_and_keep_their_weight_version():
    """3 of 4 have signal: two draws give 6 groups, of which 2 are left over."""
    collector = make_collector(settings(**DYNAMIC), lambda i: 0 if i % 4 == 0 else 1)
    groups, metrics = collect(collector, version=5)
    assert requests(groups) == [1, 2, 3, 5]
    assert metrics["dynamic/left_over"] == 2
    groups, metrics = collect(collector, version=6)
    assert requests(groups) == [6, 7, 9, 10]
    assert [g.version for g in groups] == [5, 5, 6, 6]
    assert metrics["dynamic/carried"] == 2
    assert metrics["dynamic/drawn"] == 4


def test_no_drawn_group_with_signal_is_ever_lost_or_used_twice():
    signal = np.random.default_rng(0).integers(0, N + 1, 500)
    collector = make_collector(
        settings(dynamic__draw_prompts=3, **DYNAMIC), lambda i: int(signal[i])
    )
    used = [i for _ in range(20) for i in requests(collect(collector)[0])]
    mixed = [i for i in range(500) if 0 < signal[i] < N]
    assert used == mixed[: len(used)]
    assert len(used) == 80


def test_fewer_are_drawn_at_a_time_where_few_are_missing():
    c = settings(dynamic__draw_prompts=1, **DYNAMIC)
    collector = make_collector(c, lambda i: 1 if i else 0)
    groups, metrics = collect(collector)
    assert requests(groups) == [1, 2, 3, 4]
    assert metrics["dynamic/drawn"] == 5
    assert metrics["dynamic/left_over"] == 0


def test_after_the_last_round_groups_without_signal_fill_the_batch():
    c = settings(dynamic__max_rounds=2, **DYNAMIC)
    groups, metrics = collect(make_collector(c, lambda i: int(i == 5)))
    assert requests(groups) == [5, 0, 1, 2]
    assert metrics["dynamic/filled_up"] == 3
    assert metrics["dynamic/rounds"] == 2


def test_the_spread_must_be_over_the_least():
    """Rewards are 0 and 1: a spread of 1."""
    for least, expected in ((0.5, [1, 3, 5, 7]), (1.0, [0, 1, 2, 3])):
        c = settings(dynamic__min_spread=least, dynamic__max_rounds=2, **DYNAMIC)
        assert requests(collect(make_collector(c, odd))[0]) == expected


@pytest.mark.parametrize("draw_prompts", [0, 1, 3])
def test_a_collector_goes_on_exactly_from_its_state(draw_prompts):
    """The state passes through JSON, as in a checkpoint; groups are left over at the cut."""

    def make():
        c = settings(dynamic__draw_prompts=draw_prompts, **DYNAMIC)
        return make_collector(c, lambda i: 0 if i % 4 == 0 else 1)

    whole, first = make(), make()
    collect(whole), collect(first)
    saved, position = json.loads(json.dumps(first.get_state())), first._dataset.train.at
    second = make()
    second.set_state(saved)
    second._dataset.train.at = position
    for version in (1, 2, 3):
        expected, metrics = collect(whole, version)
        got, other = collect(second, version)
        assert metrics == other
        for a, b in zip(expected, got, strict=True):
            assert a.example.row == b.example.row
            assert (a.scores, a.origins, a.version) == (b.scores, b.origins, b.version)
            for x, y in zip(a.rollouts, b.rollouts, strict=True):
                assert np.array_equal(x, y)
                assert x.dtype == y.dtype


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ({"rollout__n": 3}, "rollout.n=3 rollout.max_completion_tokens=6, but .* with 4 and 6; go"),
        ({"rollout__max_completion_tokens": 8}, "max_completion_tokens=8, but .* with 4 and 6; go"),
        (
            {"rollout__max_completion_tokens": 2, "replay__enabled": True},
            "max_completion_tokens=2, but the .* replay buffer has a completion of 3 tokens; raise",
        ),
    ],
)
def test_what_a_checkpoint_holds_in_another_shape_is_refused(field, says):
    c = settings(dynamic__draw_prompts=3, replay__enabled=True, **DYNAMIC)
    collector = make_collector(c, lambda i: 1)  # 2 of the 6 that are drawn are left over
    collect(collector)
    saved = json.loads(json.dumps(collector.get_state()))
    if not field.get("replay__enabled"):
        saved["replay"] = {}
    other = make_collector(settings(**(DYNAMIC | field)), odd)
    with pytest.raises(ValueError, match=says) as e:
        other.set_state(saved)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("right", "shuffled_right", "rewards", "baseline"),
    [
        (4, 0, [1.3] * 3, 1.3),
        (2, 2, [1.3, 1.3, 0], 0),
        (2, 4, [1, 1, 0], 0),
        (4, 4, [1.3] * 3, 1.3),
    ],
)
def test_the_greedy_completion_earns_the_bonus_of_its_group(
    monkeypatch, right, shuffled_right, rewards, baseline
):
    """3 completions and a greedy one, of which the first `right` are correct; bonus .3.

    Of all 4 correct the three would else have advantages of .3, for being what the greedy one is.
    """
    monkeypatch.setattr("evr1.rollout.temporal.shuffled", lambda example, geometry, seed: example)
    c = settings(
        algorithm__temporal_bonus=0.3,
        algorithm__temporal_rollouts=N,
        algorithm__advantage="remax",
        rollout__n=3,
    )
    videos = [dataclasses.replace(row(i), videos=("a.mp4",)) for i in range(4)]
    collector = make_collector(c, lambda i: right, videos, Scripted(lambda i: shuffled_right))
    groups, metrics = collect(collector)
    np.testing.assert_allclose(groups[0].rewards, rewards)
    assert groups[0].baseline == pytest.approx(baseline)
    assert metrics["temporal/bonus_share"] == (max(rewards) > 1)
    assert metrics["temporal/accuracy_shuffled"] == shuffled_right / N


@pytest.mark.parametrize(("baseline", "moves"), [(0.46, False), (0.1, True), (float("nan"), False)])
def test_rewards_equal_to_the_greedy_one_are_no_signal(baseline, moves):
    """.46 in float32 is 3e-9 off .46: of such a group no advantage is anything but 0."""
    collector = make_collector(settings(algorithm__advantage="remax", **DYNAMIC), odd)
    group = collect(make_collector(settings(), odd))[0][0]
    scores = tuple(s._replace(overall=0.46) for s in group.scores)
    status = Status.ERROR if np.isnan(baseline) else Status.OK
    greedy = Score(baseline, 0.0, 1.0, status)
    assert collector._has_signal(group._replace(scores=scores, greedy=greedy)) == moves


def test_a_scorer_that_breaks_too_often_stops_the_run_and_names_the_row():
    collector = make_collector(settings(), odd)
    actor = collector._sampler.actor
    generate = actor.generate

    def broken(params, examples, ids, sampling, *, n, on_finish):
        def finish(g, group):
            group.completions[:2, 1] = 3 if g == 1 else 1
            on_finish(g, group)

        return generate(params, examples, ids, sampling, n=n, on_finish=finish)

    actor.generate = broken
    with pytest.raises(ValueError, match=r"2 of 16 rewards failed.*rows.jsonl:2 \(number\): broke"):
        collect(collector)


def test_the_bonus_goes_to_right_answers_that_needed_the_order(monkeypatch):
    """Ordered frames: 2 of 4 right. Shuffled: none right for request 0, all right for request 1."""
    monkeypatch.setattr("evr1.rollout.temporal.shuffled", lambda one, geometry, seed: one)
    c = settings(prompts=3, algorithm__temporal_bonus=0.3, algorithm__temporal_rollouts=N)
    rows = [row(0, videos=("a.mp4",)), row(1, videos=("b.mp4",)), row(2)]
    shuffled = Scripted(lambda i: 0 if i == 0 else N)
    collector = make_collector(c, lambda i: 2, rows, shuffled)
    groups, metrics = collect(collector)
    np.testing.assert_allclose(groups[0].rewards, [1.3, 1.3, 0, 0], rtol=1e-6)
    assert groups[1].rewards.tolist() == [1, 1, 0, 0]
    assert groups[2].rewards.tolist() == [1, 1, 0, 0]
    assert shuffled.requests == [0, 1]  # text has no frames
    assert metrics["temporal/accuracy_ordered"] == 0.5
    assert metrics["temporal/accuracy_shuffled"] == 0.5
    assert metrics["temporal/bonus_share"] == 0.5
    outcomes = outcomes_of(groups, collector._sampler.scorer.weights)
    earned = reward_metrics(groups, outcomes)
    part = outcomes.parts["temporal_bonus"]
    assert part.weight == 0.3
    assert part.scores.tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4]
    assert earned["reward/term/temporal_bonus"] == pytest.approx(1 / 6)
    assert earned["reward/accuracy"] == 0.5


def test_the_greedy_row_is_the_baseline_and_nothing_else():
    """The last of four completions is greedy; requests have 3, 0 and 4 right ones in front."""
    c = settings(prompts=3, algorithm__advantage="remax", rollout__n=3)
    groups, earned = collect(make_collector(c, [3, 0, 4].__getitem__))
    assert [g.baseline for g in groups] == [0, 0, 1]
    assert [g.rewards.tolist() for g in groups] == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    outcomes = outcomes_of(groups, {"accuracy": 0.9, "format": 0.1})
    assert outcomes.baselines.tolist() == [0, 0, 1]
    assert earned["group/no_signal_share"] == pytest.approx(2 / 3)
    assert earned["reward/accuracy"] == pytest.approx(2 / 3)


def test_metrics_are_of_what_the_policy_drew_and_tell_what_rows_show():
    """A right trajectory in the last slot of both groups; one row has a video."""
    rows = [row(0, videos=("a.mp4",), offline_output="w1"), row(1, offline_output="w1")]
    c = settings(prompts=2, mix__enabled=True)
    groups, earned = collect(make_collector(c, [1, 0].__getitem__, rows))
    outcomes = outcomes_of(groups, {"accuracy": 0.9, "format": 0.1})
    assert earned["reward/accuracy"] == pytest.approx(1 / 6)
    assert earned["reward/accuracy/modality/video"] == pytest.approx(1 / 3)
    assert earned["reward/accuracy/modality/text"] == 0
    assert earned["rollout/share/video"] == earned["rollout/share/text"] == 0.5
    assert earned["group/no_signal_share"] == 0
    assert outcomes.is_offline.tolist() == [[False] * 3 + [True]] * 2
