"""What a run says of itself: what stopped it, and what its config changes."""

import json
import types
from pathlib import Path

from configs import base
from evr1 import train
from evr1.config import resolve
from evr1.telemetry.phases import PhaseTimer


def test_only_what_was_changed_is_printed(monkeypatch):
    monkeypatch.setattr(train, "compile_programs", lambda *_: None)

    def told(config):
        """The lines at the start of a new run."""
        lines, settings = [], resolve(config, has_paths=False)
        run = types.SimpleNamespace(
            compiles=types.SimpleNamespace(),
            lines=(),
            settings=settings,
            workdir=Path(config.workdir),
            timer=PhaseTimer(),
            learner=None,
            collector=types.SimpleNamespace(samplers=()),
            heldout=None,
            dataset=None,
        )
        state = types.SimpleNamespace(step=0)
        writer = types.SimpleNamespace(compiling=None, line=lines.append, start=len)
        train._begin(run, state, writer, evaluate=lambda _: None)
        return lines[0].splitlines()

    config = base.get_config()
    config.workdir, config.canaries = "runs/none", False
    before = told(config)[1:]  # nothing of what is derived is among them
    assert before == ["  canaries = False", "  workdir = 'runs/none'"]
    config.workdir = "runs/one"
    config.rollout.prompts = 4
    head, *lines = told(config)
    assert head == "config: all of it is in runs/one/config.json; set otherwise than in base.py:"
    assert set(lines) - set(before) == {"  rollout.prompts = 4", "  workdir = 'runs/one'"}
    assert lines == sorted(lines)


def test_all_of_the_config_is_in_the_workdir(tmp_path):
    config = base.get_config()
    config.workdir = str(tmp_path)
    config.rollout.n = 4
    settings = resolve(config, has_paths=False)
    dataset = types.SimpleNamespace(shown=None)
    run = types.SimpleNamespace(settings=settings, timer=PhaseTimer(), dataset=dataset)
    with train._writer(run, 0):
        written = json.loads((tmp_path / "config.json").read_text())
    assert written.pop("run")["command"]
    assert written == json.loads(json.dumps(settings.to_dict()))
