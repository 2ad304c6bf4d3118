"""The run's record files: exact under resume, whole lines, readable by their own tools."""

import datetime
import importlib
import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest
from repo import ROOT
from rich.console import Console

from evr1.data.shown import Frame, Shown
from evr1.parallel import hosts
from evr1.telemetry.phases import PhaseTimer
from evr1.telemetry.records import RolloutRecord
from evr1.telemetry.writer import Writer

CONFIG = {
    "seed": 0,
    "optim": {"learning_rate": 1e-6},
    "shapes": {"prompt_tokens": (8, 16)},
    "rewards": {"extra": ""},
}


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
    keys = {"command", "folder", "git_commit", "python", "versions", "rewards_extra"}
    assert set(got["run"]) == keys


def test_a_changed_config_is_named_on_resume(tmp_path):
    run(tmp_path, [1])
    out = Console(file=io.StringIO())
    run(tmp_path, [], console=out, start_step=2)
    assert out.file.getvalue() == ""
    changed = CONFIG | {"optim": {"learning_rate": 1e-5}}
    run(tmp_path, [], console=out, config=changed, start_step=2)
    assert out.file.getvalue() == (
        "config changed since the run began: optim.learning_rate was 1e-06, is 1e-05\n"
    )


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
        "from evr1.telemetry.writer import Writer\n"
        "config = {'rewards': {'extra': ''}}\n"
        "with Writer(sys.argv[1] + '/w', config=config, num_steps=1) as w:\n"
        "    w.metrics(1, {'a/b': 1.0})\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    assert list((tmp_path / "w" / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_is_one_clear_line(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"log\.{name}='p' needs the {name} package"):
        make(tmp_path, **{name: "p"})


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

    fake = types.SimpleNamespace(init=init, Table=lambda columns, data: (columns, data))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run(tmp_path, [1], wandb="p")
    run(tmp_path, [2], wandb="p", start_step=2)
    inits = [c[1] for c in calls if c[0] == "init"]
    assert inits[0]["project"] == "p"
    assert inits[0]["id"] == inits[1]["id"]
    assert inits[1]["resume"] == "allow"
    logged = [c[1] for c in calls if c[0] == "log"]
    told = [values for values in logged if "reward/overall" in values]
    assert told[1] == {"step": 2, "reward/overall": 0.25, "data/clips": 2}
    assert [c[0] for c in calls].count("finish") == 2


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_wandb_has_tables_of_rollouts(tmp_path, monkeypatch):
    """Held-out rows stand apart; the first completions of all prompts come before the others."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    drawn = [rollout(1, problem_id=name, extracted=str(i)) for name in "ab" for i in range(2)]
    drawn += [rollout(1, split="eval", answer=[0, 0, 9, 9], score={"overall": 0.5, "iou": 0.25})]
    with make(tmp_path, wandb="p", tensorboard=False) as w:
        w.rollouts(drawn)
    tables = [json.loads(path.read_text()) for path in tmp_path.rglob("*.table.json")]
    told = {len(t["data"]): t for t in tables}
    assert [(row[0], row[5]) for row in told[4]["data"]] == [
        ("a", "0"),
        ("b", "0"),
        ("a", "1"),
        ("b", "1"),
    ]
    held_out = dict(zip(told[1]["columns"], told[1]["data"][0], strict=True))
    assert held_out["answer"] == "[0, 0, 9, 9]"
    assert (held_out["overall"], held_out["iou"], held_out["length"]) == (0.5, 0.25, 5)


@pytest.mark.filterwarnings("ignore")  # the package's own
def test_trackio_has_metrics_and_tables_of_rollouts_of_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read where it is imported
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    trackio = pytest.importorskip("trackio")
    for step in (1, 2):  # the second writer goes on
        with make(tmp_path / "w", trackio="p", tensorboard=False, start_step=step) as w:
            w.metrics(step, {"reward/overall": step / 4})
            w.rollouts([rollout(step, extracted=text) for text in "ab"])
    [run] = trackio.Api().runs("p")
    logs = importlib.import_module("trackio.sqlite_storage").SQLiteStorage.get_logs(
        "p", run.name, run_id=run.id
    )
    assert run.name.startswith("w-")
    assert run.config["optim"] == {"learning_rate": 1e-6}
    rewards = [(log["step"], log["reward/overall"]) for log in logs if "reward/overall" in log]
    assert rewards == [(1, 0.25), (2, 0.5)]
    tables = [(log["step"], log["rollouts/train"]) for log in logs if "rollouts/train" in log]
    assert [step for step, _ in tables] == [1, 2]
    table = tables[1][1]["_value"]
    assert [(row["problem_id"], row["extracted"], row["overall"]) for row in table] == [
        ("p2", "a", 1.0),
        ("p2", "b", 1.0),
    ]


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


def test_a_timer_made_before_shows_its_phases_and_starts_its_step_with_the_writer(tmp_path):
    ticks = iter([0.0, 1.0, 5.0, 50.0, 60.0, 62.0, 70.0])
    timer, shown = PhaseTimer(lambda: next(ticks)), []
    with timer("encode"):  # from 1 to 5
        pass
    with make(tmp_path, timer=timer) as w:  # at 50
        assert w.timer is timer
        w._display.status = shown.append
        with timer("rollout"):  # from 60 to 62
            pass
        assert timer.pop() == {"time/rollout_s": 2.0, "time/step_s": 20.0}
    assert shown == ["rollout"]


def test_tensorboard_has_distributions_texts_frames_and_hyperparameters(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    shown = Shown([Frame(np.full((12, 16, 3), 7, np.uint8), second) for second in (0.0, 0.5)])
    nasty = {"completion": "<script>\n# 4", "split": "eval", "advantage": None}
    with make(tmp_path, frames=lambda split, name: shown if name == "p2" else None) as w:
        scores = [{"overall": reward} for reward in (0.0, 0.25, 1.0)]
        w.rollouts([rollout(1, score=s, advantage=s["overall"] - 0.5, length=9) for s in scores])
        w.rollouts([rollout(2, **nasty), rollout(2, problem_id="other", **nasty)])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    (image,) = (events.Images(tag)[0] for tag in tags["images"])
    assert tags["images"] == ["frames/held-out/0"]
    assert (image.step, image.width, image.height) == (2, 2 * 16 + 4, 12 + 16)
    reward = (
        events.Tensors("rollouts/train/reward")[0]
        if not tags["histograms"]
        else (events.Histograms("rollouts/train/reward")[0])
    )
    value = reward.histogram_value
    assert (value.min, value.max, value.num, value.sum) == (0.0, 1.0, 3, 1.25)
    assert sum(value.bucket) == 3
    advantage = events.Histograms("rollouts/train/advantage")[0].histogram_value
    assert (advantage.min, advantage.max) == (-0.5, 0.5)
    assert events.Histograms("rollouts/train/length")[0].histogram_value.sum == 27
    assert "rollouts/held-out/advantage" not in tags["histograms"]
    (text,) = events.Tensors("rollouts/held-out")[0].tensor_proto.string_val
    assert b"\n    &lt;script&gt;\n    # 4" in text  # a block of code, and no markup
    assert text.count(b"**p2** (math): overall 1") == text.count(b"**other**") == 1
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    assert found["optim.learning_rate"].number_value == 1e-6
    assert set(found) == {"seed", "optim.learning_rate", "rewards.extra"}


def test_the_console_is_in_a_file_too(tmp_path):
    """Also what was said before the files were open, and each process after the one before."""
    hosts.say("rows are read")
    for step in (1, 2):
        with make(tmp_path, start_step=step) as w:
            w.metrics(step, {"reward/overall": 0.5})
            hosts.say(f"a row was passed over {step}")
            w.line("[not markup]")
    hosts.say("nobody hears this")
    times, texts = zip(
        *(line.split(" ", 1) for line in (tmp_path / "console.log").read_text().splitlines()),
        strict=True,
    )
    assert texts[0] == "rows are read"
    assert [t for t in texts if "row was" in t] == [f"a row was passed over {i}" for i in (1, 2)]
    assert texts.count("[not markup]") == 2
    assert any(t.startswith("step 2/6  reward 0.500") for t in texts)
    assert all(datetime.datetime.fromisoformat(t).tzinfo for t in times)
    with make(tmp_path / "next"):
        pass
    assert (tmp_path / "next" / "console.log").read_text().endswith("nobody hears this\n")
