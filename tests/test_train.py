"""The real command on real files, in small: what it writes, exact resume, kill -9, bad input."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from miniatures import write
from repo import DEMO_MODEL, ROOT
from runs_rig import STEPS, environment, interruptible, metrics, rollouts, small
from trace_rig import trace_events

from evr1.data.demo.files import make_demo
from evr1.data.rows import load_rows
from evr1.models import load_model
from evr1.models.io import hf
from evr1.models.tree import flatten
from evr1.rewards.gold import gold_answer
from evr1.telemetry.workdir import sole_run

BARE = {"data__shards": "", "data__preprocess": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Demo clips and rows, few of them, a benchmark, and a compilation cache of all runs."""
    out = tmp_path_factory.mktemp("data")
    make_demo(out, seed=0, train=24, heldout=8)
    write("lvbench", out / "lvbench")
    return out


def command(data, workdir, devices=1, **overrides):
    """The command line and environment of a run."""
    fields = small(data, workdir, **overrides)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    env = environment(devices) | {"JAX_COMPILATION_CACHE_DIR": str(data / "jax")}
    line = [sys.executable, "-m", "evr1.main", "--config=configs/demo.py", *flags]
    return {"args": line, "env": env, "cwd": ROOT, "text": True}


def run(data, workdir, devices=1, **overrides):
    """Runs the command; returns its output. Fails the test where it fails."""
    done = subprocess.run(
        **command(data, workdir, devices, **overrides), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def benchmarks(data):
    """The fields of a run that answers a few questions of a benchmark, and exports all digits."""
    return {
        "eval__benchmarks": (("lvbench", str(data / "lvbench")),),
        "eval__benchmark_limit": 4,
        "eval__benchmark_preset": "smoke",
        "checkpoint__export_dtype": "float32",
    }


def weights(workdir):
    """The exported tensors."""
    model = load_model(str(workdir / "export"))
    params = flatten(hf.load_params(workdir / "export", model))
    return {name: np.asarray(x) for name, x in params.items()}


def answers(workdir):
    """The answers to benchmarks, by step and id, without clocks."""
    lines = {
        (path.parent.name, json.loads(line)["id"]): json.loads(line)
        for path in (workdir / "benchmarks").glob("step_*/samples_*.jsonl")
        for line in path.read_text().splitlines()
    }
    return {place: line | {"seconds": 0} for place, line in lines.items()}


def assert_same_run(a, b):
    """Same metrics, same rollouts, same answers, same weights, bit for bit."""
    assert metrics(a) == metrics(b)
    assert rollouts(a) == rollouts(b)
    assert answers(a) == answers(b)
    for (name, x), (other, y) in zip(weights(a).items(), weights(b).items(), strict=True):
        assert name == other
        assert np.array_equal(x, y), name


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("whole")
    fields = benchmarks(data) | {"data__preprocess": True, "log__profile_steps": 1}
    return workdir, run(data, workdir, **fields)


def test_a_run_leaves_what_it_promises(whole):
    workdir, printed = whole
    assert printed.count("✓") == 7
    assert "✗" not in printed
    by_step = [m["step"] for m in metrics(workdir)]
    assert by_step == [0, 1, 2, 2, 3, 4, 4]
    measured = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[1])
    for name in (
        "reward/overall",
        "reward/accuracy",
        "reward/format",
        "group/no_signal_share",
        "completion/length",
        "completion/truncated_share",
        "sampler/gap",
        "time/rollout_s",
        "time/score_s",
        "time/logprob_s",
        "time/update_s",
        "time/data_wait_s",
        "time/step_s",
        "speed/tokens_per_s",
        "compile/count",
    ):
        assert name in measured
    drawn = rollouts(workdir)
    assert len(drawn) == STEPS * 8 * 4 + 3 * 8
    assert {r["weight_version"] for r in drawn} == set(range(STEPS + 1))
    assert json.loads((workdir / "config.json").read_text())["rollout"]["n"] == 4
    assert "<html" in (workdir / "report.html").read_text()
    assert (workdir / "export" / "generation_config.json").exists()
    assert "held-out accuracy" in printed


def test_a_trace_of_the_second_step_names_its_phases(whole):
    workdir, printed = whole
    events = trace_events(workdir / "profile")
    assert [args["step_num"] for args in events["step"]] == ["2"]
    for name in ("data_wait", "rollout", "prefill", "decode", "read_tokens", "score", "update"):
        assert events[name], name
    programs = {args.get("hlo_module") for arguments in events.values() for args in arguments}
    assert {"jit_read_prompts", "jit_decode_window", "jit_accumulate", "jit_apply"} <= programs
    assert f"trace of step 2: {workdir / 'profile'}" in printed.replace("\n", "")


def test_a_run_answers_the_same_questions_of_a_benchmark_at_each_evaluation(whole):
    workdir, printed = whole
    asked = {step: set() for step in ("step_0", "step_2", "step_4")}
    for step, id in answers(workdir):
        asked[step].add(id)
    assert len(asked["step_0"]) == 4
    assert asked["step_0"] == asked["step_2"] == asked["step_4"]
    by_step = {m["step"]: m for m in metrics(workdir) if "eval/lvbench@4" in m}
    assert list(by_step) == [0, 2, 4]
    assert by_step[4]["eval/lvbench@4/failed_share"] == 0
    assert "  lvbench@4  " in printed


def evaluate(data, workdir, **overrides):
    """Runs the command that evaluates without training."""
    call = command(data, workdir, **overrides)
    call["args"] = [word.replace("evr1.main", "evr1.evaluate") for word in call["args"]]
    return subprocess.run(**call, capture_output=True, check=False)


def test_evaluating_the_export_gives_what_the_last_step_was_given(whole, data, tmp_path):
    workdir, _ = whole
    done = evaluate(data, tmp_path, model=workdir / "export")
    assert done.returncode == 0, done.stderr[-3000:]
    last = metrics(workdir)[-1]
    expected = {k: v for k, v in last.items() if k.startswith("eval/") and "@" not in k}
    assert json.loads((tmp_path / "evaluation.json").read_text()) == expected
    assert f"eval/accuracy {expected['eval/accuracy']:g}" in done.stdout
    answers = [r for r in rollouts(workdir) if r["split"] == "eval" and r["step"] == STEPS]
    lines = (tmp_path / "evaluation.jsonl").read_text().splitlines()
    for line, answer in zip(map(json.loads, lines), answers, strict=True):
        assert line == answer | {"step": 0, "weight_version": 0}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data.eval": ""}, "config.data.eval is not given; add --config.data.eval=FILE"),
        ({"data.eval": "none.jsonl"}, "config.data.eval is none.jsonl: no such file"),
        ({"model": "nowhere"}, "config.model is nowhere: no such dir"),
    ],
)
def test_an_evaluation_without_its_parts_is_one_line(data, tmp_path, fields, says):
    done = evaluate(data, tmp_path, **fields)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_policy_moved_and_the_sampler_agrees_with_the_trainer(whole):
    workdir, _ = whole
    model = load_model(str(workdir / "export"))
    start = flatten(hf.load_params(DEMO_MODEL, model))
    assert any((np.asarray(start[k]) != v).any() for k, v in weights(workdir).items())
    gaps = [m["sampler/gap"] for m in metrics(workdir) if "sampler/gap" in m]
    assert gaps
    assert max(gaps) < 1e-4


@pytest.mark.slow
def test_running_again_goes_on_bit_for_bit(data, whole, tmp_path):
    common = benchmarks(data)
    run(data, tmp_path, num_steps=2, **common)
    fewer = subprocess.run(**command(data, tmp_path, num_steps=1), capture_output=True, check=False)
    assert "num_steps=1, but" in fewer.stderr.strip().splitlines()[-1]
    run(data, tmp_path, **common)
    assert_same_run(whole[0], tmp_path)


def begin(data, workdir, until, env=None, **overrides):
    """Starts the command; returns the process once `until` holds of what it has printed."""
    interruptible()
    call = command(data, workdir, **overrides)
    call["env"] |= env or {}
    log = workdir.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen(**call, stdout=out, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not until(log.read_text()):
        assert process.poll() is None, "the run ended before it could be asked to"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "asked"),
    [
        pytest.param(signal.SIGINT, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, "asked to end"),
    ],
)
def test_a_run_that_is_asked_to_end_and_killed_goes_on_bit_for_bit(
    data, whole, tmp_path, number, asked
):
    """After Ctrl-C or SIGTERM no step is lost, after a kill those since the last checkpoint."""
    common, workdir = benchmarks(data), tmp_path / "run"
    saved = lambda: {path.name for path in (workdir / "checkpoints").iterdir()}  # noqa: E731  short
    process = begin(data, workdir, lambda printed: "step 1/" in printed, **common)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 128 + number, said
    assert all(line.startswith(asked) for line in said.splitlines()), said
    assert said.startswith(f"{asked}: step 1 is saved first")
    assert saved()
    process = begin(data, workdir, lambda _: "2" in saved(), **common)
    process.kill()
    process.communicate()
    run(data, workdir, **common)
    assert_same_run(whole[0], workdir)


def test_an_interrupt_amid_a_compilation_ends_the_run_within_seconds(data, tmp_path):
    """An exception there was a crash, or waited for the end of the compilation."""
    cold = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax")}
    process = begin(data, tmp_path / "run", lambda printed: "config:" in printed, cold)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert process.stderr
    first = process.stderr.readline()
    assert time.monotonic() - sent < 5
    assert first == (
        "interrupted: no step waits to be saved; it ends within 3 s, and the same command begins "
        "with step 1\n"
    )
    assert process.communicate()[1] == ""
    assert time.monotonic() - sent < 15  # most of them a busy machine's
    assert process.returncode == 130


@pytest.mark.slow
def test_what_an_algorithm_carries_is_resumed_bit_for_bit(data, tmp_path):
    """Running moments of the tasks and an adaptive KL coefficient, in the reward."""
    fields = {
        **BARE,
        "data__eval": "",
        "canaries": False,
        "checkpoint__export": False,
        "checkpoint__every_steps": 1,
        "log__report": False,
        "algorithm__advantage": "ema_grpo",
        "algorithm__kl_coef": 0.5,
        "algorithm__kl_placement": "reward",
        "algorithm__kl_controller": "adaptive",
        "algorithm__kl_horizon": 64.0,
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(data, whole, num_steps=3, **fields)
    run(data, parts, num_steps=2, **fields)
    run(data, parts, num_steps=3, **fields)
    assert metrics(whole) == metrics(parts)
    assert rollouts(whole) == rollouts(parts)
    coefs = [m["policy/kl_coef"] for m in metrics(whole)]
    assert coefs == pytest.approx([0.5, 0.45, 0.405])  # the KL is far under its target


@pytest.mark.slow
def test_all_that_makes_tokens_count_more_or_less_is_resumed_bit_for_bit(data, tmp_path):
    """Selections drawn by the update, an entropy coefficient that adapts, terms without a state."""
    choices = {
        "advantage": "reinforce_plus_plus",
        "discount": 0.99,
        "aggregation": "token_sum",
        "aggregation_divisor": 500.0,
        "mask_truncated": True,
        "updates_per_rollout": 2,
        "old_logprobs": "recompute",
        "entropy_share": 0.5,
        "covariance": "clip",
        "covariance_low": 0.0,
        "covariance_share": 0.1,
        "entropy_controller": "adaptive",
        "entropy_target": 9.0,
        "kl_coef": 0.01,
        "kl_gradient": "importance",
        "correction": "token_tis",
        "correction_floor": 0.5,
        "correction_normalized": True,
        "rejection": "sequence",
        "veto": 1e-4,
        "off_policy_bound": 0.5,
    }
    fields = {
        **BARE,
        "data__eval": "",
        "checkpoint__export": False,
        "checkpoint__every_steps": 1,
        "log__report": False,
        **{f"algorithm__{name}": value for name, value in choices.items()},
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(data, whole, num_steps=3, **fields)
    run(data, parts, num_steps=2, **fields)
    run(data, parts, num_steps=3, **fields)
    assert metrics(whole) == metrics(parts)
    coefs = [m["policy/entropy_coef"] for m in metrics(whole)]
    assert coefs == pytest.approx([0, 0.005, 0.01])  # the entropy is far under its target
    names = {"policy/selected_share", "policy/off_policy_share", "completion/masked_token_share"}
    assert names <= set(metrics(whole)[-1])


@pytest.mark.slow
def test_groups_left_over_and_replayed_are_resumed_bit_for_bit(data, tmp_path):
    """Dynamic sampling leaves groups over, the second pass over the rows replays some of the first,
    half of the rows have an answer of their own, the reference follows the policy, a critic learns
    alone for a step, and the vision tower is frozen: groups left over are encoded again.
    """
    rows = tmp_path / "rows.jsonl"
    lines = [json.loads(x) for x in (data / "train.jsonl").read_text().splitlines()]
    parsed = load_rows(data / "train.jsonl")
    for i in range(0, len(lines), 2):
        lines[i]["offline_output"] = gold_answer(parsed[i])
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {
        **BARE,
        "data__train": rows,
        "data__eval": "",
        "canaries": False,
        "checkpoint__export": False,
        "checkpoint__every_steps": 1,
        "log__report": False,
        "rollout__prompts": 6,
        "dynamic__enabled": True,
        "dynamic__draw_prompts": 8,
        "mix__enabled": True,
        "mix__accuracy_threshold": 0.5,
        "mix__overlong": "truncate",
        "replay__enabled": True,
        "algorithm__kl_coef": 0.1,
        "algorithm__reference_decay": 0.9,
        "algorithm__advantage": "gae",
        "critic__warmup_steps": 1,
        "critic__learning_rate": 1e-3,
        "algorithm__old_logprobs": "recompute",
        "algorithm__epochs_per_rollout": 2,
        "optim__freeze": "('vision/.*',)",
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert "vision tower frozen: its features are" in run(data, whole, num_steps=4, **fields)
    run(data, parts, num_steps=2, **fields)
    run(data, parts, num_steps=4, **fields)
    assert metrics(whole) == metrics(parts)
    assert rollouts(whole) == rollouts(parts)
    read = metrics(whole)
    assert read[1]["dynamic/left_over"]  # at the cut
    assert "optim/grad_norm" not in read[0]
    assert read[0]["critic/explained_variance"] == 0 < read[-1]["critic/loss"]
    assert sum(m["mix/replaced"] for m in read) > 0
    assert sum(m["mix/replayed"] for m in read) > 0
    assert read[-1]["policy/kl_ref"] > 0
    assert '"time/encode_s"' in (whole / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_what_older_weights_drew_is_resumed_bit_for_bit(data, tmp_path, staleness):
    """All groups have slots, so those of more than a window are cut; the vision tower is frozen:
    what waits is encoded again."""
    fields = {
        **BARE,
        "data__eval": "",
        "canaries": False,
        "checkpoint__export": False,
        "checkpoint__every_steps": 1,
        "log__report": False,
        "rollout__overdraw": 0.5,
        "rollout__slots": 12,
        "rollout__staleness": staleness,
        "algorithm__correction": "token_tis",
        "algorithm__old_logprobs": "recompute",
        "optim__freeze": "('vision/.*',)",
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(data, whole, num_steps=5, **fields)
    for steps in (1, 3, 5):
        run(data, parts, num_steps=steps, **fields)
    assert metrics(whole) == metrics(parts)
    assert rollouts(whole) == rollouts(parts)
    assert sum(m["rollout/carried"] for m in metrics(whole)) > 0
    assert any("earlier_versions" in r for r in rollouts(whole))
    assert metrics(whole)[-1]["staleness/mean"] > 0


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(data, whole, tmp_path):
    mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
    fields = mesh | benchmarks(data)
    run(data, tmp_path, devices=8, num_steps=1, eval__every_steps=0, **fields)
    one, eight = metrics(whole[0]), metrics(tmp_path)
    names = ("eval/accuracy", "reward/overall", "policy/entropy", "optim/grad_norm")
    for name in (*names, "eval/lvbench@4"):
        a = next(m[name] for m in one if name in m)
        b = next(m[name] for m in eight if name in m)
        assert b == pytest.approx(a, rel=1e-3, abs=1e-6), name


def test_a_second_run_in_the_same_workdir_is_refused(data, tmp_path):
    with sole_run(tmp_path):
        done = subprocess.run(**command(data, tmp_path), capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: {tmp_path}: another run is writing there; wait for its end, or choose another "
        "config.workdir"
    )


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"videos": ["clips/none.mp4"]}, "clips/none.mp4"),
        ({"videos": ["broken.mp4"]}, "broken.mp4"),
        ({"problem_type": "riddle"}, "riddle"),
        ({"problem": "<video><video>Two?"}, "rows.jsonl:1"),
        ({"answer": None}, "answer"),
    ],
)
def test_a_bad_row_ends_in_one_line(data, tmp_path, row, says):
    good = json.loads((data / "train.jsonl").read_text().splitlines()[0])
    (data / "broken.mp4").write_bytes(b"\0" * 2000)
    (tmp_path / "rows.jsonl").write_text(json.dumps({**good, **row}) + "\n")
    rows = tmp_path / "rows.jsonl"
    asked = command(data, tmp_path / "run", data__train=rows, **BARE, data__eval="")
    done = subprocess.run(**asked, capture_output=True, check=False)
    assert done.returncode != 0
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert says in error
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"mesh__data": 3, "mesh__fsdp": 1}, "mesh.data=3"),
        ({"data__max_prompt_tokens": 5, "shapes__prompt_tokens": "()"}, "data.max_prompt_tokens"),
        ({"train__microbatch_tokens": 10}, "train.microbatch_tokens=10"),
        ({"shapes__prompt_tokens": "(10,)"}, "raise shapes.prompt_tokens"),
    ],
)
def test_what_does_not_fit_ends_in_one_line(data, tmp_path, overrides, says):
    asked = command(data, tmp_path, **{**BARE, **overrides})
    done = subprocess.run(**asked, capture_output=True, check=False)
    assert done.returncode != 0
    assert says in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
