"""What a run says of itself: what stopped it, and what its config changes."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
from collect_rig import row

from configs import base
from evr1 import train
from evr1.config import resolve
from evr1.telemetry.phases import PhaseTimer


@pytest.mark.parametrize(
    ("saved", "says"),
    [(None, "there is no checkpoint yet"), (20, "the last checkpoint: step 20")],
)
def test_a_gradient_that_is_not_finite_says_which_checkpoint_there_is(tmp_path, saved, says):
    run = types.SimpleNamespace(
        workdir=tmp_path, checkpoints=types.SimpleNamespace(latest_step=lambda: saved)
    )
    groups = [types.SimpleNamespace(example=types.SimpleNamespace(row=row(3)))]
    rollouts = types.SimpleNamespace(groups=groups)
    prepared = types.SimpleNamespace(parts=[[{"tokens": np.arange(3)}]], rollouts=rollouts)
    train._stop_if_not_finite(run, {"optim/is_finite": 1.0}, prepared, 23)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FloatingPointError, match=f"step 23: .*{says}. Lower optim.learning_rate"):
        train._stop_if_not_finite(run, {"optim/is_finite": 0.0}, prepared, 23)
    with np.load(tmp_path / "not_finite_step_23.npz") as file:
        assert [file[name].tolist() for name in file.files] == [[0, 1, 2], ["rows.jsonl:4"]]


def test_only_what_was_changed_is_printed():
    def told(config):
        """The lines at the start of a new run."""
        lines, settings = [], resolve(config, has_paths=False)
        run = types.SimpleNamespace(
            compiles=types.SimpleNamespace(),
            lines=(),
            settings=settings,
            workdir=Path(config.workdir),
        )
        state = types.SimpleNamespace(step=0)
        writer = types.SimpleNamespace(compiling=None, line=lines.append)
        train._begin(run, state, writer, evaluate=lambda _: None)
        return lines[0].splitlines()

    config = base.get_config()
    config.workdir, config.canaries = "runs/none", False
    before = told(config)[1:]  # what is derived is among them
    config.workdir = "runs/one"
    config.rollout.prompts = 4
    head, *lines = told(config)
    assert head == "config: all of it is in runs/one/config.json; not as in base.py:"
    assert set(lines) - set(before) == {"  rollout.prompts = 4", "  workdir = 'runs/one'"}
    assert lines == sorted(lines)


def test_all_of_the_config_is_in_the_workdir(tmp_path):
    config = base.get_config()
    config.workdir = str(tmp_path)
    config.rollout.n = 4
    settings = resolve(config, has_paths=False)
    with train._writer(settings, 0, PhaseTimer()):
        written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("run")["command"]
    assert written == json.loads(json.dumps(settings.to_dict()))
