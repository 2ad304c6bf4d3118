"""Updates without a finite gradient: left out and counted up to a number, then the run stops."""

import json

import numpy as np
import pytest
from learner_rig import SPREAD, learner, rollout_batch, settings, state

from evr1.learner.learner import Prepared
from evr1.learner.not_finite import SkippedUpdates

FINE = {"optim/is_finite": 1.0, "policy/loss": 0.5}
BROKEN = {"optim/is_finite": 0.0, "optim/skipped": 1.0, "policy/loss": float("nan")}


def prepared(bad=()):
    """A batch of the rows 0 to 3; `bad` have no finite log-probabilities."""
    rollouts, start = rollout_batch(SPREAD), state(settings())
    batch = learner(settings()).bare_batch(rollouts)
    logprobs = batch.old_logprobs.copy()
    logprobs[list(bad), 1, 0] = np.nan
    batch = batch._replace(old_logprobs=logprobs)
    return Prepared(rollouts, batch, [[batch]], start.memory, version=0, kl_ref=None)


@pytest.mark.parametrize(
    ("saved", "says"),
    [(None, "there is no checkpoint yet"), (20, "the last checkpoint: step 20")],
)
def test_by_default_the_run_stops_and_says_why(tmp_path, saved, says):
    skipped = SkippedUpdates(0, tmp_path)
    assert skipped.check(FINE, prepared(), 22, lambda: saved) == (FINE, [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        FloatingPointError,
        match=rf"step 23: the gradient is not finite; .*{says}. Lower optim.learning_rate, or .* "
        r"the row that does it: rows.jsonl:2 \(1\). data.skip passes",
    ):
        skipped.check(BROKEN, prepared(bad=[1]), 23, lambda: saved)
    with np.load(tmp_path / "not_finite_step_23.npz") as file:
        assert file["rows"].tolist() == [f"rows.jsonl:{n}" for n in (1, 2, 3, 4)]
        assert np.isnan(file["[0][0].old_logprobs"]).sum() == 1


def test_so_many_are_left_out_and_one_more_stops(tmp_path):
    skipped = SkippedUpdates(3, tmp_path)
    metrics, [line] = skipped.check(BROKEN, prepared(bad=[0, 2]), 4, lambda: None)
    assert metrics == {"optim/is_finite": 0.0, "optim/skipped": 1.0, "optim/skipped_updates": 1.0}
    assert line == (
        "step 4: 1 updates without a finite gradient left out, 1 of train.max_skipped_updates=3: "
        "rows.jsonl:1 (0), rows.jsonl:3 (2) (skipped_updates.jsonl)"
    )
    both = BROKEN | {"critic/skipped": 1.0, "critic/is_finite": 0.5}
    metrics, [line] = skipped.check(both, prepared(), 6, lambda: None)
    assert metrics["optim/skipped_updates"] == 3
    assert "one of rows.jsonl:1 (0), rows.jsonl:2 (1), rows.jsonl:3 (2), rows.j" in line
    assert skipped.check(FINE, prepared(), 7, lambda: None)[0]["optim/skipped_updates"] == 3
    with pytest.raises(FloatingPointError, match="not finite, the 4th such update; its batch is"):
        skipped.check(BROKEN, prepared(), 8, lambda: None)
    lines = (tmp_path / "skipped_updates.jsonl").read_text().splitlines()
    assert [json.loads(text) for text in lines] == [
        {
            "step": 4,
            "updates": 1,
            "is_certain": True,
            "rows": ["rows.jsonl:1", "rows.jsonl:3"],
            "problem_ids": ["0", "2"],
        },
        {
            "step": 6,
            "updates": 2,
            "is_certain": False,
            "rows": ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4"],
            "problem_ids": ["0", "1", "2", "3"],
        },
    ]


def test_a_resumed_run_writes_its_steps_once(tmp_path):
    for _ in range(2):
        SkippedUpdates(9, tmp_path).check(BROKEN, prepared(bad=[1]), 5, lambda: None)
    assert len((tmp_path / "skipped_updates.jsonl").read_text().splitlines()) == 1
