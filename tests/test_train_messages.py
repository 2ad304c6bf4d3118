"""What a run says of itself: what stopped it, what its config changes, what it compiles."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from configs import base
from evr1 import gauges, train


@pytest.mark.parametrize(
    ("saved", "says"),
    [(None, "there is no checkpoint yet"), (20, "the last checkpoint: step 20")],
)
def test_a_gradient_that_is_not_finite_says_which_checkpoint_there_is(tmp_path, saved, says):
    parts = [[{"tokens": np.arange(3)}]]
    train._stop_if_not_finite({"optim/is_finite": 1.0}, [], parts, tmp_path, 23, saved)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FloatingPointError, match=f"step 23: .*{says}. Lower optim.learning_rate"):
        train._stop_if_not_finite({"optim/is_finite": 0.0}, [], parts, tmp_path, 23, saved)
    with np.load(tmp_path / "not_finite_step_23.npz") as file:
        assert [file[name].tolist() for name in file.files] == [[0, 1, 2], []]


def test_only_what_was_changed_is_printed():
    config = base.get_config()
    config.workdir = "runs/one"
    config.rollout.n = 4
    assert train._describe(config).splitlines() == [
        "config: all of it is in runs/one/config.json; not as in base.py:",
        "  rollout.n = 4",
        "  workdir = 'runs/one'",
    ]


def test_a_compilation_is_reported_when_it_begins_and_when_it_ends():
    counter, seen = gauges.CompileCounter(), []
    x = jax.numpy.arange(7.0)
    counter.on_change = seen.append
    before, seconds = counter.count, counter.seconds
    jax.jit(lambda x: x * 3 - 1)(x).block_until_ready()
    begun, took = seen
    assert begun is None
    assert took > 0
    assert counter.seconds == pytest.approx(seconds + took)
    assert counter.count == before + 1


def test_all_of_the_config_is_in_the_workdir(tmp_path):
    config = base.get_config()
    config.workdir = str(tmp_path)
    config.rollout.n = 4
    with train._writer(ml_collections.FrozenConfigDict(config), 0):
        written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("run")["command"]
    assert written == json.loads(json.dumps(config.to_dict()))
