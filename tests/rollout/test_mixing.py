"""Trajectories of the data and of the replay buffer: tokens, slots, triggers, metrics, state."""

import json

import numpy as np
import pytest
from collect_rig import END, N, R, Words, collect, make_collector, requests, row, settings

from evr1.exchange.group import OFFLINE, POLICY, REPLAY
from evr1.rollout import trajectory
from evr1.rollout.replay import Replay

MIX = {"mix__enabled": True}
RIGHT = "w1"


def with_answers(*answers):
    """Rows 0, 1, ... with these offline_output; None: no such field."""
    return [
        row(i) if answer is None else row(i, offline_output=answer)
        for i, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("text", "limit", "tokens", "is_finished"),
    [
        ("w5 w6", 6, [5, 6, END], True),
        ("w5 w6 <end>", 6, [5, 6, END], True),  # its own end is not doubled
        ("w5 <end> w6", 6, [5, END], True),  # nothing follows an end
        ("w5 w6", 3, [5, 6, END], True),
        ("w5 w6 w7", 3, [5, 6, 7], False),  # cut: no end that was not reached
        ("w5 w6 w7 w8", 3, [5, 6, 7], False),
    ],
)
def test_a_trajectory_ends_as_the_policy_would_end_it(text, limit, tokens, is_finished):
    t = trajectory.from_text(text, Words(), limit)
    assert t.tokens.tolist() == tokens
    assert t.is_finished is is_finished
    assert t.logprobs.tolist() == [0] * len(tokens)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"offline_output": None}, []),
        ({"offline_output": ""}, []),
        ({"offline_output": "a"}, ["a"]),
        ({"offline_output": ["a", "b"]}, ["a", "b"]),
        ({"offline_output": "a", "has_offline_trajectory": True}, ["a"]),
        ({"offline_output": "a", "has_offline_trajectory": False}, []),
    ],
)
def test_which_rows_have_trajectories(fields, expected):
    assert trajectory.texts(row(0, **fields)) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"offline_output": " "},
        {"offline_output": 7},
        {"offline_output": ["a", ""]},
        {"offline_output": ["a", None]},
        {"offline_output": {"text": "a"}},
        {"offline_output": "", "has_offline_trajectory": True},
        {"offline_output": [], "has_offline_trajectory": True},
        {"has_offline_trajectory": True},
    ],
)
def test_what_is_no_trajectory_is_refused_with_its_row(fields):
    with pytest.raises(ValueError, match=r"rows.jsonl:1: offline_output: got .*; give a text"):
        trajectory.texts(row(0, **fields))


def test_a_trajectory_over_the_limit_is_refused_unless_it_may_be_cut():
    """Six tokens and the end are 7, one over the limit of 6."""
    fits, long = row(0, offline_output="w1 w2 w3 w4 w5"), row(1, offline_output="w1 " * 6)
    assert trajectory.check([fits], Words(), R, "refuse") == 1
    with pytest.raises(ValueError, match=r"rows.jsonl:2: offline_output: 7 tokens .*_tokens=6"):
        trajectory.check([fits, long], Words(), R, "refuse")
    assert trajectory.check([fits, long, row(2)], Words(), R, "truncate") == 2


def test_a_trajectory_with_the_placeholder_of_a_medium_is_refused():
    with pytest.raises(ValueError, match="holds <video>, which stands for pixels"):
        trajectory.check([row(0, offline_output="<video> w1")], Words(), R, "truncate")


def test_mixing_without_any_trajectory_is_refused():
    with pytest.raises(ValueError, match="no training row has offline_output"):
        make_collector(settings(**MIX), lambda i: 0)


def test_the_trajectory_takes_the_last_slot_and_leaves_the_others():
    """Row 1 has none and stays as it was drawn."""
    rows = with_answers("w1 w9", None, "w2", "w1")
    groups, metrics = collect(make_collector(settings(**MIX), lambda i: 0, rows))
    first = groups[0]
    assert first.origins == (POLICY,) * (N - 1) + (OFFLINE,)
    assert first.rollouts.completions[-1].tolist() == [1, 9, END, 0, 0, 0]
    assert first.rollouts.lengths.tolist() == [3, 3, 3, 3]
    assert first.rollouts.logprobs[-1].tolist() == [0] * R
    assert first.rollouts.completions[:-1, 1].tolist() == [2] * (N - 1)
    assert first.rewards.tolist() == [0, 0, 0, 1]
    assert first.is_offline.tolist() == [False] * (N - 1) + [True]
    assert groups[1].origins == (POLICY,) * N
    assert groups[2].rewards.tolist() == [0, 0, 0, 0]  # a wrong trajectory earns nothing
    assert metrics["mix/candidates"] == 3
    assert metrics["mix/triggered"] == 3
    assert metrics["mix/replaced"] == 3
    assert metrics["mix/truncated"] == 0
    assert metrics["mix/reward_online"] == 0
    assert metrics["mix/reward_offline"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("threshold", "triggered"),
    [(None, [0, 1, 2, 3]), (0.0, []), (0.25, [0]), (0.5, [0, 1]), (1.0, [0, 1, 2])],
)
def test_a_group_is_triggered_strictly_below_the_threshold(threshold, triggered):
    """Accuracies of the groups: 0, 1/4, 2/4, 1."""
    c = settings(mix__accuracy_threshold=threshold, **MIX)
    right = [0, 1, 2, 4]
    groups, metrics = collect(make_collector(c, right.__getitem__, with_answers(*[RIGHT] * 4)))
    assert [i for i, g in enumerate(groups) if OFFLINE in g.origins] == triggered
    assert metrics["mix/candidates"] == 4
    assert metrics["mix/triggered"] == len(triggered)


def test_a_trajectory_whose_scorer_failed_is_counted_and_is_no_zero():
    groups, metrics = collect(
        make_collector(settings(prompts=1, **MIX), lambda i: 2, with_answers("w3"))
    )
    assert groups[0].valid.tolist() == [True] * (N - 1) + [False]
    assert metrics["mix/failed"] == 1
    assert "mix/reward_offline" not in metrics


def test_several_trajectories_take_turns():
    """Two rows with three each, one a group: request i takes the one of turn i modulo 3."""
    rows = with_answers(["w4", "w5", "w6"], ["w7", "w8", "w9"])
    collector = make_collector(settings(prompts=2, **MIX), lambda i: 0, rows)
    seen = [[int(g.rollouts.completions[-1, 0]) for g in collect(collector)[0]] for _ in range(3)]
    assert seen == [[4, 8], [6, 7], [5, 9]]


def test_several_trajectories_may_share_a_group():
    c = settings(prompts=1, mix__per_group=2, **MIX)
    groups, metrics = collect(make_collector(c, lambda i: 0, with_answers(["w4", "w5", "w6"])))
    assert groups[0].origins == (POLICY, POLICY, OFFLINE, OFFLINE)
    assert groups[0].rollouts.completions[2:, 0].tolist() == [4, 5]
    assert metrics["mix/replaced"] == 2


def test_a_cut_trajectory_is_flagged():
    c = settings(prompts=1, mix__overlong="truncate", **MIX)
    groups, metrics = collect(make_collector(c, lambda i: 0, with_answers("w4 " * 9)))
    assert groups[0].rollouts.lengths[-1] == R
    assert not groups[0].rollouts.finished[-1]
    assert END not in groups[0].rollouts.completions[-1]
    assert metrics["mix/truncated"] == 1


def test_a_trajectory_gives_dynamic_sampling_the_signal_that_a_hard_prompt_lacks():
    rows = with_answers(RIGHT, None, RIGHT, None)
    c = settings(prompts=2, dynamic__enabled=True, **MIX)
    groups, metrics = collect(make_collector(c, lambda i: 0, rows))
    assert requests(groups) == [0, 2]
    assert metrics["mix/candidates"] == 2


def test_replay_brings_back_the_best_of_earlier_and_never_of_the_same_group():
    """Pass 1: row 0 is half right, row 1 all wrong. Pass 2: both all wrong; row 0 has a memory."""
    c = settings(prompts=2, replay__enabled=True, mix__accuracy_threshold=0.5)
    collector = make_collector(c, [2, 0, 0, 0].__getitem__, with_answers(None, None))
    groups, metrics = collect(collector)
    assert [set(g.origins) for g in groups] == [{POLICY}, {POLICY}]
    assert metrics["mix/buffer_prompts"] == 1
    groups, metrics = collect(collector)
    assert groups[0].origins == (POLICY,) * (N - 1) + (REPLAY,)
    assert groups[0].rollouts.completions[-1].tolist() == [20, 1, END, 0, 0, 0]
    assert groups[0].rollouts.logprobs[-1].tolist() == [-0.5] * 3 + [0] * 3  # what drew it
    assert groups[0].rewards.tolist() == [0, 0, 0, 1]
    assert groups[1].origins == (POLICY,) * N
    assert metrics["mix/replayed"] == 1


def group_of(index, right, logprob=-0.5):
    collector = make_collector(settings(prompts=1), lambda i: right, [row(index)])
    (group,), _ = collect(collector)
    group.rollouts.logprobs[:] *= -logprob / 0.5
    return group


def test_the_buffer_keeps_the_likeliest_of_the_best_and_drops_the_prompt_unseen_for_longest():
    buffer = Replay(size=2, per_prompt=1, min_accuracy=1.0)
    for index in (0, 1):
        buffer.add(group_of(index, right=2))
    likelier = group_of(0, right=2, logprob=-0.25)
    likelier.rollouts.completions[:, 0] = 77  # other tokens than before
    buffer.add(likelier)
    assert buffer.get(row(0))[0].tokens.tolist() == [77, 1, END]
    buffer.add(group_of(2, right=1))
    assert [len(buffer.get(row(i))) for i in range(3)] == [1, 0, 1]
    assert len(buffer) == 2


def test_the_buffer_keeps_nothing_wrong_cut_or_from_elsewhere():
    buffer = Replay(size=4, per_prompt=4, min_accuracy=1.0)
    buffer.add(group_of(0, right=0))
    cut = group_of(1, right=1)
    cut.rollouts.finished[:] = False
    buffer.add(cut)
    elsewhere = group_of(2, right=1)
    buffer.add(elsewhere._replace(origins=(OFFLINE,) * N))
    assert len(buffer) == 0
    assert buffer.to_json() == {}


def test_the_buffer_goes_on_from_its_state():
    buffer = Replay(size=4, per_prompt=2, min_accuracy=1.0)
    for index in (3, 1):
        buffer.add(group_of(index, right=2, logprob=-1 / 3))
    other = Replay(size=4, per_prompt=2, min_accuracy=1.0)
    other.set_state(json.loads(json.dumps(buffer.to_json())))
    assert other.to_json() == buffer.to_json()
    for a, b in zip(buffer.get(row(3)), other.get(row(3)), strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.logprobs, b.logprobs)
        assert (a.logprobs.dtype, a.is_finished, a.origin) == (b.logprobs.dtype, True, REPLAY)
