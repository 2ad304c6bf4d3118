"""Workdirs of runs that never ran, and the pages of them."""

import json

from pages import Page

from evr1 import report

CONFIG = {
    "model": "models/tiny",
    "num_steps": 4,
    "data": {"train": "rows/train.jsonl"},
    "optim": {"learning_rate": 1e-6},
    "rewards": {"extra": ""},
    "run": {"git_commit": "0123456789abcdef" + "+changes", "rewards_extra": ""},
}


def metric(step, **values):
    return {"step": step} | {name.replace("__", "/"): v for name, v in values.items()}


METRICS = [
    metric(0, eval__accuracy=0.25, eval__accuracy__ocr=0.5, eval__rows=40, eval__rows__ocr=8),
    metric(1, reward__overall=0.2, time__rollout_s=3.0, time__update_s=1.0, time__step_s=4.5),
    metric(2, reward__overall=None, time__rollout_s=2.0, time__update_s=1.0, time__step_s=3.5),
    metric(2, time__eval_s=6.0, time__step_s=6.5),
    metric(2, eval__accuracy=0.75, eval__accuracy__ocr=0.25, eval__rows=40, eval__rows__ocr=8),
]


def rollout(step=1, problem_id="p1", **fields):
    record = {
        "step": step,
        "split": "train",
        "weight_version": step - 1,
        "problem_id": problem_id,
        "problem_type": "ocr",
        "prompt": "<video> Read the digits.",
        "completion": "<answer>7</answer>",
        "answer": "7",
        "score": {"overall": 1.0, "accuracy": 1.0},
        "status": "ok",
        "extracted": "7",
        "advantage": 0.123456,
        "length": 4,
        "finished": True,
        "media": ["clips/a.mp4"],
    }
    return record | fields


def make_run(directory, rollouts=(), metrics=METRICS, config=CONFIG):
    directory.mkdir(parents=True, exist_ok=True)
    for name, records in (("metrics.jsonl", metrics), ("rollouts.jsonl", rollouts)):
        (directory / name).write_text("".join(json.dumps(r) + "\n" for r in records))
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def build(run, *args, **kwargs):
    return Page(report.build(run, *args, **kwargs))
