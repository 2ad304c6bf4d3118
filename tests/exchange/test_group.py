"""A group as JSON, and what of it counts."""

import json

import numpy as np
import pytest
from collect_rig import example, row

from evr1.exchange import group as group_lib
from evr1.exchange.group import OFFLINE, POLICY, REPLAY, Group
from evr1.rewards import Score, Status
from evr1.types import Rollouts

N, R = 4, 5
SCORES = (
    Score(0.9 * 0.1 + 0.1, 0.1, 1.0, Status.OK, "B", "why", (("length_penalty", -0.3),)),
    Score(0.0, 0.0, 0.0, Status.UNPARSED),
    Score(0.0, 0.0, 0.0, Status.TIMEOUT, detail="over 2 s: 猫 \x00 \ud800"),
    Score(0.0, 0.0, 0.0, Status.ERROR, detail="no"),
)
GREEDY = Score(0.46, 0.4, 1.0, Status.OK, "C", terms=(("temporal_bonus", 0.3),))


def decode(rollouts):
    return [
        " ".join(map(str, tokens[:length]))
        for tokens, length in zip(rollouts.completions, rollouts.lengths, strict=True)
    ]


def make_group(greedy):
    rng = np.random.default_rng(0)
    lengths = np.array([5, 1, 3, 0], np.int32)
    logprobs = rng.normal(size=(N, R)).astype(np.float32)
    logprobs[0, :2] = -0.0, np.float32(1e-45)  # bits that digits lose
    rollouts = Rollouts(
        rng.integers(0, 1 << 30, (N, R)).astype(np.int32), logprobs, lengths, lengths < R
    )
    texts = tuple(decode(rollouts))
    origins = (POLICY, POLICY, OFFLINE, REPLAY)
    return Group(example(row(7)), rollouts, texts, SCORES, origins, 11, greedy)


@pytest.mark.parametrize("greedy", [None, GREEDY])
def test_a_group_comes_back_from_json_to_the_bit(greedy):
    """The example is read again from its row, and the texts are decoded again."""
    group = make_group(greedy)
    saved = json.loads(json.dumps(group_lib.to_json(group)))
    assert saved["row"] == "rows.jsonl:8"
    assert not set(group.texts) & set(map(str, saved.values()))
    back = group_lib.from_json(saved, group.example, decode)
    for x, y in zip(back.rollouts, group.rollouts, strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()
    rest = back._replace(rollouts=group.rollouts)
    assert rest == group
    assert [type(s.status) for s in back.scores] == [Status] * N
    assert type(back.origins) is type(back.texts) is type(back.scores) is tuple


def test_what_a_group_earned_by_hand():
    group = make_group(GREEDY)
    np.testing.assert_allclose(group.rewards, [0.19, 0, 0, 0], rtol=1e-6)
    assert group.valid.tolist() == [True, True, False, False]
    assert group.is_offline.tolist() == [False, False, True, True]
    assert group.mean_accuracy() == pytest.approx(0.05)
    assert group.baseline == 0.46
    assert np.isnan(group._replace(greedy=None).baseline)
    assert np.isnan(group._replace(greedy=SCORES[2]).baseline)
    assert np.isnan(group._replace(scores=SCORES[2:] * 2).mean_accuracy())
