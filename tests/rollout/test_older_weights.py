"""Groups that are drawn in several rollouts, and batches that are drawn ahead."""

import json

import numpy as np
import pytest
from collect_rig import Patient, collect, make_collector, requests, settings

OVERDRAWN = {"rollout__overdraw": 0.5, "rollout__slots": 3, "algorithm__correction": "token_tis"}
AHEAD = {"rollout__staleness": 1, "algorithm__correction": "token_tis"}
LONG = {0: 6, 3: 5, 7: 6}  # turns of some requests; the others take 3


def right(i):
    return i % 3


def patient(**fields):
    """A collector of 4 prompts, 3 slots; with `overdraw` 6 are drawn for."""
    actor = Patient(right, lambda i: LONG.get(i, 3))
    return make_collector(settings(**fields), right, actor=actor)


def test_a_rollout_ends_when_enough_groups_are_done():
    """Requests 0, 1, 2 have slots until turns 6, 3, 3, then 3 and 4 until 8 and 6, 5 from 6 on.

    Four are done at 6: 0, 1, 2, 4. Request 3 had 3 turns, 5 none. In the next rollout 3 goes on
    for 2 turns, 5 to 9 take 3, 3, 6, 3, 3: done at 2, 3, 3, 5, so 7, which had 4 of 6, is carried.
    """
    collector = patient(**OVERDRAWN)
    groups, metrics = collect(collector, 0)
    assert requests(groups) == [0, 1, 2, 4]
    assert metrics["rollout/carried"] == 1
    assert metrics["rollout/idle_slot_share"] == 0
    assert metrics["staleness/mean"] == 0
    groups, metrics = collect(collector, 1)
    assert requests(groups) == [3, 5, 6, 8]
    assert [g.version for g in groups] == [1] * 4
    assert groups[0].earlier == ((0, (3, 3, 3, 3)),)
    assert groups[0].rollouts.lengths.tolist() == [5, 3, 3, 3]
    assert groups[0].rollouts.logprobs[0].tolist() == [-1, -1, -1, -2, -2, 0]
    assert all(not g.earlier for g in groups[1:])
    assert metrics["staleness/mean"] == pytest.approx(12 / (14 + 3 * 12))
    assert metrics["staleness/max"] == 1


def test_what_is_carried_is_scored_as_a_whole():
    collector, whole = patient(**OVERDRAWN), patient()
    groups = [g for version in range(3) for g in collect(collector, version)[0]]
    drawn = [g for _ in range(4) for g in collect(whole)[0]]
    expected = dict(zip(requests(drawn), drawn, strict=True))
    for request, group in zip(requests(groups), groups, strict=True):
        assert group.texts == expected[request].texts
        assert group.scores == expected[request].scores
        assert group.request == request


def test_no_group_is_lost_or_trained_on_twice():
    rng = np.random.default_rng(0)
    turns = rng.integers(3, 7, 500).tolist()
    actor = Patient(right, turns.__getitem__)
    collector = make_collector(settings(**OVERDRAWN), right, actor=actor)
    used = [i for step in range(30) for i in requests(collect(collector, step)[0])]
    assert len(used) == len(set(used)) == 120
    assert set(range(110)) < set(used)  # none waits for long


def test_one_step_off_draws_a_batch_before_it_trains_on_the_last_one():
    collector = patient(**AHEAD)
    batches = [collect(collector, version) for version in range(4)]
    assert [requests(groups)[0] for groups, _ in batches] == [0, 4, 8, 12]
    assert [groups[0].version for groups, _ in batches] == [0, 0, 1, 2]
    assert [m["staleness/mean"] for _, m in batches] == [0, 1, 1, 1]
    assert collector._sampler.actor.requests == list(range(20))


def test_scores_are_waited_for_when_the_batch_is_needed(monkeypatch):
    """The next batch is drawn before anything asks for the scores of this one."""
    collector = patient(**AHEAD)
    log = []
    scorer = collector._sampler.scorer
    submit, generate = scorer.judged.submit, collector._sampler.actor.generate

    class Late:
        def __init__(self, scores):
            self.scores = scores

        def result(self):
            log.append("scores")
            return self.scores.result()

    def drawing(*args, **options):
        log.append("drawn")
        return generate(*args, **options)

    monkeypatch.setattr(scorer.judged, "submit", lambda *a: Late(submit(*a)), raising=False)
    monkeypatch.setattr(collector._sampler.actor, "generate", drawing)
    collect(collector)
    assert log == ["drawn", "drawn", *["scores"] * 4]
    collect(collector)
    assert log[6:] == ["drawn", *["scores"] * 4]


CASES = {
    "overdrawn": OVERDRAWN,
    "ahead": AHEAD,
    "both": OVERDRAWN | {"rollout__staleness": 2},
    "replay": OVERDRAWN | AHEAD | {"replay__enabled": True, "replay__min_accuracy": 0.5},
    "remax": OVERDRAWN | {"algorithm__advantage": "remax"},
    "dynamic sampling ahead": AHEAD | {"dynamic__enabled": True},
}


@pytest.mark.parametrize("case", CASES)
def test_a_collector_goes_on_exactly_from_its_state(case):
    """The state passes through JSON between any two batches."""
    whole, parts = patient(**CASES[case]), patient(**CASES[case])
    for version in range(6):
        saved = json.loads(json.dumps(parts.get_state()))
        position = parts._dataset.train.at
        parts = patient(**CASES[case])
        parts.set_state(saved)
        parts._dataset.train.at = position
        expected, metrics = collect(whole, version)
        got, other = collect(parts, version)
        assert metrics == other
        assert len(got) == len(expected) == 4
        for a, b in zip(expected, got, strict=True):
            assert a[2:] == b[2:]
            assert a.example.row == b.example.row
            for x, y in zip(a.rollouts, b.rollouts, strict=True):
                np.testing.assert_array_equal(x, y)
                assert x.dtype == y.dtype


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rollout__overdraw": 0.1}, r"rollout.overdraw is 0.1 with .*choose a correction"),
        ({"rollout__staleness": 1}, r"rollout.staleness is 1 with .*choose a correction"),
        (OVERDRAWN | {"dynamic__enabled": True}, "rollout.overdraw is 0.5 with dynamic.enabled"),
        (OVERDRAWN | {"algorithm__temporal_bonus": 0.3}, "0.5 with algorithm.temporal_bonus=0.3"),
        ({"rollout__overdraw": 1.5}, "rollout.overdraw is 1.5; need 0 to 1"),
        ({"rollout__staleness": 5}, r"rollout.staleness is 5; need 0 \(off\) to 4"),
    ],
)
def test_what_is_not_sound_is_refused_in_one_line(fields, says):
    with pytest.raises(ValueError, match=says) as error:
        settings(**fields)
    assert "\n" not in str(error.value)
