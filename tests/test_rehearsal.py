"""All programs of a run are compiled before its first step, whatever shapes its batches have."""

import json
import subprocess
import sys

import pytest
from repo import ROOT
from runs_rig import environment, small

from evr1.data.demo.files import make_demo

TEXT = {
    "problem": "What is 2 plus 3?",
    "answer": "<answer>5</answer>",
    "problem_type": "numerical",
    "data_type": "text",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips whole and cut short, images, and questions without media, long and short."""
    out = tmp_path_factory.mktemp("data")
    make_demo(out, seed=0, train=24, heldout=6)
    path = out / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for i, row in enumerate(rows):
        if i % 4 == 0:
            rows[i] = {**TEXT, "problem": TEXT["problem"] * (1 + i // 8), "problem_id": f"text{i}"}
        elif i % 4 == 1 and row.get("videos"):
            row |= {"video_start": 0.0, "video_end": 1.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def run(data, workdir, **fields):
    """Trains for an epoch in shapes that are derived; returns metrics by step, and the console."""
    derived = {"shapes.prompt_tokens": (), "shapes.vision_rows": (), "shapes.row_patches": 0}
    chosen = {
        "num_steps": 3,
        "data__shards": "",
        "data__preprocess": False,
        "data__max_prompt_tokens": 160,
        "eval__every_steps": 0,
        "checkpoint__every_steps": 0,
        "checkpoint__export": False,
        "log__report": False,
        "train__microbatch_tokens": 2 * (160 + 8 * 24),
        **fields,
    }
    given = small(data, workdir, **chosen) | derived
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evr1.main",
            "--config=configs/demo.py",
            *(f"--config.{name}={value}" for name, value in given.items()),
        ],
        env=environment() | {"JAX_COMPILATION_CACHE_DIR": str(data / "jax")},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    by_step: dict[int, dict] = {}
    for line in map(json.loads, lines):
        by_step.setdefault(line["step"], line)  # then comes the evaluation behind a step
    return by_step, done.stdout


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return (workdir, *run(data, workdir))


def test_no_step_after_the_first_compiles_anything(trained):
    workdir, metrics, printed = trained
    counts = [metrics[step]["compile/count"] for step in (1, 2, 3)]
    assert counts == [counts[0]] * 3
    assert "not foreseen" not in printed
    assert "compiling ..." not in printed
    made = json.loads((workdir / "programs.json").read_text())
    assert f"compiled {len(made['programs'])} programs in " in printed
    assert printed.count("shapes: prompts of ") == 1
    assert len(made["prompts"]) > 1  # else nothing is mixed
    assert len(made["microbatches"]) > 1
    names = [each["name"] for each in made["programs"]]
    assert names.count("accumulate") == len(made["microbatches"])
    assert names.count("read_prompts") == len(made["prompts"])  # of rollouts and evaluation alike


def test_phases_add_up_to_the_step(trained):
    _, metrics, _ = trained
    for step in (1, 2, 3):
        phases = {k: v for k, v in metrics[step].items() if k.startswith("time/")}
        whole = phases.pop("time/step_s")
        assert sum(phases.values()) == pytest.approx(whole, rel=0.03)


def test_what_comes_before_the_first_step_is_timed_apart(trained):
    _, metrics, _ = trained
    for name in ("start/setup_s", "start/compile_s", "start/checks_s"):
        assert metrics[0][name] > 0
        assert name not in metrics[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm__kl_coef": 0.1, "algorithm__updates_per_rollout": 2},
        {"algorithm__advantage": "gae"},
        {"algorithm__advantage": "remax", "algorithm__entropy_share": 0.5},
        {"optim__freeze": ("vision/.*",), "algorithm__temporal_bonus": 0.3},
        {"lora__rank": 4, "rollout__overdraw": 0.5, "algorithm__old_logprobs": "sampler"},
        {"train__microbatch_tokens": 8 * (160 + 8 * 24), "algorithm__kl_coef": 0.1},
    ],
    ids=["kl", "critic", "greedy", "frozen", "carried", "one part"],
)
def test_whatever_the_algorithm(data, tmp_path, fields):
    metrics, printed = run(data, tmp_path / "run", canaries=False, **fields)
    counts = [metrics[step]["compile/count"] for step in (1, 2, 3)]
    assert counts == [counts[0]] * 3
    assert "not foreseen" not in printed
