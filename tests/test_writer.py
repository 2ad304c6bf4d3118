"""The run's record files: exact under resume, whole lines, readable by their own tools."""

import io
import json
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evr1 import writer as writer_module
from evr1.display import Display, _duration
from evr1.writer import PhaseTimer, RolloutRecord, Writer, git_commit

ROOT = Path(__file__).parents[1]
CONFIG = {"seed": 0, "optim": {"learning_rate": 1e-6}, "shapes": {"prompt_tokens": (8, 16)}}


def make(workdir, **options):
    options = {"config": CONFIG, "num_steps": 6, "console": Console(file=io.StringIO())} | options
    return Writer(workdir, **options)


def rollout(step, **fields):
    defaults = {
        "split": "train",
        "weight_version": step - 1,
        "problem_id": f"p{step}",
        "problem_type": "math",
        "prompt": "<video> 2 + 2?",
        "completion": "<answer>4</answer>",
        "answer": "4",
        "score": {"overall": 1.0, "accuracy": 1.0, "format": 1.0},
        "status": "ok",
        "extracted": "4",
        "advantage": 0.5,
        "length": 5,
        "finished": True,
        "media": ("a.mp4",),
        "origin": "policy",
    }
    return RolloutRecord(step=step, **(defaults | fields))


def run(workdir, steps, **options):
    with make(workdir, **options) as w:
        for step in steps:
            w.metrics(step, {"reward/overall": np.float32(step) / 8, "data/clips": step})
            w.rollouts([rollout(step), rollout(step, problem_id="second\u2028line")])


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_metrics_and_rollouts_are_one_object_a_line(tmp_path):
    run(tmp_path, [1, 2])
    assert lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "reward/overall": 0.125, "data/clips": 1},
        {"step": 2, "reward/overall": 0.25, "data/clips": 2},
    ]
    got = lines(tmp_path / "rollouts.jsonl")
    assert [r["problem_id"] for r in got] == ["p1", "second\u2028line", "p2", "second\u2028line"]
    assert got[0] == {
        "step": 1,
        "split": "train",
        "weight_version": 0,
        "problem_id": "p1",
        "problem_type": "math",
        "prompt": "<video> 2 + 2?",
        "completion": "<answer>4</answer>",
        "answer": "4",
        "score": {"overall": 1.0, "accuracy": 1.0, "format": 1.0},
        "status": "ok",
        "extracted": "4",
        "advantage": 0.5,
        "length": 5,
        "finished": True,
        "media": ["a.mp4"],
        "origin": "policy",
    }


@pytest.mark.parametrize("half_line", ["", '{"step": 5, "reward/ov'])
def test_a_resumed_run_leaves_the_files_of_an_uninterrupted_one(tmp_path, half_line):
    run(tmp_path / "whole", range(1, 7))
    run(tmp_path / "cut", range(1, 6))  # killed after step 5; the last checkpoint is of step 3
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (tmp_path / "cut" / name).open("a") as file:
            file.write(half_line)
    run(tmp_path / "cut", range(4, 7), start_step=4)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_lines_are_on_file_before_the_next_call(tmp_path):
    w = make(tmp_path)
    w.metrics(1, {"reward/overall": 0.5})
    w.rollouts([rollout(1)])
    assert len(lines(tmp_path / "metrics.jsonl")) == 1
    assert len(lines(tmp_path / "rollouts.jsonl")) == 1
    w.sync()
    w.close()


def test_a_spoilt_line_in_the_middle_is_named(tmp_path):
    run(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('{"step": 1', '{"stop": 1'))
    with pytest.raises(ValueError, match=r"metrics\.jsonl:1: not a JSON object with a step"):
        make(tmp_path, start_step=2)
    assert len(path.read_text().splitlines()) == 2  # nothing is lost by the refusal


def test_not_a_number_is_null_and_text_survives(tmp_path):
    with make(tmp_path) as w:
        w.metrics(1, {"loss/total": float("nan"), "loss/max": np.float32(np.inf)})
        w.rollouts([rollout(1, completion="é \ud800 \n", advantage=float("nan"))])
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss/total": None, "loss/max": None}]
    got = lines(tmp_path / "rollouts.jsonl")
    assert len(got) == 1
    assert got[0]["completion"] == "é ? \n"  # a lone surrogate has no UTF-8
    assert got[0]["advantage"] is None


@pytest.mark.parametrize("name", ["reward", "Reward/overall", "reward/multiple choice", "/x", "a/"])
def test_metric_names(tmp_path, name):
    with make(tmp_path) as w, pytest.raises(ValueError, match="area/name"):
        w.metrics(1, {name: 1.0})


def test_config_json_holds_config_commit_and_versions(tmp_path):
    run(tmp_path, [])
    got = json.loads((tmp_path / "config.json").read_text())
    assert got["optim"] == {"learning_rate": 1e-6}
    assert got["shapes"] == {"prompt_tokens": [8, 16]}
    assert got["run"]["versions"]["jax"].startswith("0.")
    assert set(got["run"]) == {"command", "git_commit", "python", "versions"}


def test_a_changed_config_is_told_on_resume(tmp_path):
    run(tmp_path, [1])
    out = Console(file=io.StringIO())
    run(tmp_path, [], console=out, start_step=2)
    assert out.file.getvalue() == ""
    changed = CONFIG | {"optim": {"learning_rate": 1e-5}}
    run(tmp_path, [], console=out, config=changed, start_step=2)
    assert out.file.getvalue() == (
        "config changed since the run began: optim.learning_rate was 1e-06, is 1e-05\n"
    )


def test_git_commit(tmp_path):
    assert git_commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "f").write_text("1")
    for command in (["init", "-q"], ["add", "f"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *command], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "f").write_text("2")
    assert git_commit(tmp_path) == commit + "+changes"
    (tmp_path / "sub").mkdir()
    assert git_commit(tmp_path / "sub") == ""


def test_tensorboard_reads_the_events_and_forgets_the_dropped_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, range(1, 6))
    with make(tmp_path, start_step=4) as w:
        w.metrics(4, {"reward/overall": 9.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    got = [(e.step, e.value) for e in events.Scalars("reward/overall")]
    assert got == [(1, 0.125), (2, 0.25), (3, 0.375), (4, 9.0)]


def test_tensorboard_off(tmp_path):
    run(tmp_path, [1], tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()


def test_an_installed_tensorflow_is_not_imported(tmp_path):
    """TensorBoard imports TensorFlow where there is one; the writer must not come near that."""
    (tmp_path / "tensorflow.py").write_text("raise AssertionError('TensorFlow was imported')")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from evr1.writer import Writer\n"
        "with Writer(sys.argv[1] + '/w', config={}, num_steps=1) as w: w.metrics(1, {'a/b': 1.0})\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    assert list((tmp_path / "w" / "tensorboard").iterdir())


def test_wandb_missing_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"log\.wandb='p' needs the wandb package"):
        make(tmp_path, wandb="p")


def test_wandb_run_goes_on_after_resume(tmp_path, monkeypatch):
    calls = []

    class Run:
        def define_metric(self, *args, **kwargs):
            calls.append(("define", args, kwargs))

        def log(self, values):
            calls.append(("log", values))

        def finish(self):
            calls.append(("finish",))

    def init(**kwargs):
        calls.append(("init", kwargs))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    run(tmp_path, [1], wandb="p")
    run(tmp_path, [2], wandb="p", start_step=2)
    inits = [c[1] for c in calls if c[0] == "init"]
    assert inits[0]["project"] == "p"
    assert inits[0]["id"] == inits[1]["id"]
    assert inits[1]["resume"] == "allow"
    logged = [c[1] for c in calls if c[0] == "log"]
    assert logged[1] == {"step": 2, "reward/overall": 0.25, "data/clips": 2}
    assert [c[0] for c in calls].count("finish") == 2


def test_other_hosts_write_nothing(tmp_path):
    w = make(tmp_path / "w", is_primary=False, wandb="p")
    w.metrics(1, {"a/b": 1.0})
    w.rollouts([rollout(1)])
    w.line("x")
    w.sync()
    with w.timer("rollout"):
        pass
    w.close()
    assert not (tmp_path / "w").exists()


def clock_of(*ticks):
    it = iter(ticks)
    return lambda: next(it)


def test_phase_times_do_not_overlap_and_start_again():
    timer = PhaseTimer(clock=clock_of(0, 1, 2, 4, 5, 7, 8, 9, 10, 20))
    with timer("rollout"):  # 1 to 2
        pass
    with timer("update"), timer("score"):  # from 4; score from 5 to 7; update ends at 8
        pass
    with pytest.raises(KeyError), timer("rollout"):  # 9 to 10
        raise KeyError
    assert timer.pop() == {  # at 20
        "time/rollout_s": 1 + 1,
        "time/update_s": 1 + 1,
        "time/score_s": 2,
        "time/step_s": 20,
    }


def test_pop_inside_a_phase_splits_it():
    timer = PhaseTimer(clock=clock_of(0, 1, 3, 10, 11))
    with timer("update"):
        assert timer.pop() == {"time/update_s": 2, "time/step_s": 3}
    assert timer.pop() == {"time/update_s": 7, "time/step_s": 8}


def test_plain_line_a_step():
    out = io.StringIO()
    display = Display(20, 2, Console(file=out, width=40), clock=clock_of(100.0, 110.0))
    display.status("rollout")
    display.metrics(
        4,
        {
            "reward/overall": 0.5123,
            "speed/tokens_per_s": 12345.0,
            "time/step_s": 4.96,
            "time/score_s": 0.1,
            "time/rollout_s": 3.0,
        },
    )
    display.close()
    # two steps in 10 s, sixteen to go; longer than the console, and still one line
    assert out.getvalue() == (
        "step 4/20  reward 0.512  tokens/s 12,345  5.0 s (rollout 3.0, score 0.1)  1m20s left\n"
    )


def test_the_time_left_is_reckoned_without_what_compiling_took():
    out = io.StringIO()
    clock = clock_of(100.0, 101.0, 110.0)
    display = Display(20, 2, Console(file=out, width=40), clock=clock)
    display.compiling(None)
    display.compiling(6.0)
    display.metrics(4, {"reward/overall": 0.5})
    assert out.getvalue() == "step 4/20  reward 0.500  32s left\n"  # 4 s, not 10, for two steps


def test_the_time_left_forgets_the_evaluation_at_step_0_and_the_first_step():
    """At 200 the evaluation is done, after 60 s of compiling; steps end at 250, 252 and 254.

    Left after step 1: 50 s a step, for 9 more. After steps 2 and 3: 2 s a step, for 8 and 7. With
    the time before step 1 it would be 1m48s and 1m56s.
    """
    out = io.StringIO()
    clock = clock_of(100.0, 110.0, 200.0, 250.0, 252.0, 253.0, 254.0)
    display = Display(10, 0, Console(file=out, width=40), clock=clock)
    display.compiling(None)
    display.compiling(60.0)
    display.metrics(0, {"eval/accuracy": 0.25})
    display.metrics(1, {})
    display.metrics(2, {})
    display.metrics(2, {"eval/accuracy": 0.5})
    display.metrics(3, {})
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[-1] for line in lines] == [
        "held-out 0.250",
        "7m30s left",
        "16s left",
        "16s left",
        "14s left",
    ]


def test_a_long_compilation_is_told_while_it_lasts():
    out, said = io.StringIO(), threading.Event()
    display = Display(20, 0, Console(file=out, width=40), long_s=0.0)
    print_line = display.line
    display.line = lambda text: (print_line(text), said.set())
    display.status("rollout")
    display.compiling(None)
    assert said.wait(60)
    assert out.getvalue() == "compiling for rollout ...\n"


def test_a_short_compilation_is_not_told():
    out = io.StringIO()
    display = Display(20, 0, Console(file=out, width=40), long_s=3600.0)
    display.compiling(None)
    waiting = display._timer
    display.compiling(0.1)
    waiting.join()  # it was called off
    assert out.getvalue() == ""


def test_the_panel_tells_a_long_compilation():
    """It begins at 10 and is looked at at 11 (too short to tell), at 55, and when it is over."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    now = [0.0]
    display = Display(20, 0, console, clock=lambda: now[0])
    display.status("update")
    told = []
    for now[0], event in ((10.0, [None]), (11.0, []), (55.0, []), (56.0, [46.0])):
        for seconds in event:
            display.compiling(seconds)
        told.append(display._doing())
    display.close()
    assert told == ["update", "update", "update  compiling for 45s", "update"]


def test_no_time_is_promised_before_the_first_step_and_after_the_last():
    out = io.StringIO()
    display = Display(20, 0, Console(file=out, width=40), clock=clock_of(100.0, 110.0, 120.0))
    display.metrics(0, {"eval/accuracy": 0.25, "time/step_s": 8.0, "time/eval_s": 7.9})
    display.metrics(20, {"eval/accuracy": 0.5})
    assert out.getvalue().splitlines() == [
        "step 0/20  held-out 0.250  8.0 s (eval 7.9)",
        "step 20/20  held-out 0.500",
    ]


def test_live_panel_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    display = Display(20, 0, console)
    display.status("update [not markup]")
    display.metrics(5, {"reward/overall": 0.25, "time/step_s": 1.0, "time/update_s": 0.9})
    display.line("a message")
    display.close()
    text = out.getvalue()
    assert "step 5/20" in text
    assert "reward 0.250" in text
    assert "update 0.9 s" in text
    assert "a message" in text


def test_durations():
    assert [_duration(s) for s in (0.4, 59, 60, 187, 7500)] == [
        "0s",
        "59s",
        "1m00s",
        "3m07s",
        "2h05m",
    ]


def test_docstring_example():
    import doctest

    assert doctest.testmod(writer_module).failed == 0


def test_a_garbled_config_record_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{gar")
    with pytest.raises(ValueError, match=r"config.json: no JSON object; remove it"):
        writer_module.write_config(tmp_path / "config.json", {"a": 1}, resumed=True)
