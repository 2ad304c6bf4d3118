"""Addresses in the place of paths are refused: they were made into folders of this machine."""

import re

import pytest

from configs import base, eval_video
from evr1.cli import convert_checkpoint
from evr1.config import arguments, evals, resolve

FIX = "this is read and written on this machine alone: mount the bucket, or copy it"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("workdir", "gs://bucket/run"),
        ("data.shards", "S3://bucket/shards"),
        ("model", "hf://Qwen/Qwen3-VL-2B"),
        ("data.train", "https://host/rows.jsonl"),
        ("data.media_cache", "s3://bucket/media"),
        ("eval.benchmarks", (("mvbench", "abfss://box@host/mvbench"),)),
    ],
)
def test_a_config(field, value):
    c = base.get_config()
    group, _, name = field.rpartition(".")
    section = c[group] if group else c
    section[name] = value
    shown = value if isinstance(value, str) else value[0][1]
    with pytest.raises(ValueError, match=f"^config.{field} is {re.escape(shown)}; {FIX}$"):
        resolve(c, has_paths=False)


def test_the_config_of_benchmarks():
    c = eval_video.get_config()
    c.workdir, c.model = "gs://bucket/run", "model"
    with pytest.raises(ValueError, match=f"^config.workdir is gs://bucket/run; {FIX}$"):
        evals.resolve(c)


def test_a_flag(capsys):
    parser = arguments.Parser(prog="tool")
    parser.add_argument("--out")
    parser.add_argument("--data", nargs="+")
    parser.add_argument("--judge_url")
    assert parser.parse_args(["--judge_url", "http://localhost:8000/v1"]).judge_url
    with pytest.raises(SystemExit):
        parser.parse_args(["--data", "rows.jsonl", "gs://bucket/rows.jsonl"])
    assert capsys.readouterr().err == f"tool: error: --data gs://bucket/rows.jsonl: {FIX}\n"


@pytest.mark.parametrize("flag", ["--to_orbax", "--to_hf", "--from_hf", "--run"])
def test_a_conversion(flag, capsys):
    with pytest.raises(SystemExit):
        convert_checkpoint.main([flag, "gs://bucket/model"])
    assert capsys.readouterr().err.endswith(f"argument {flag}: gs://bucket/model: {FIX}\n")


def test_what_may_lie_in_a_bucket(capsys):
    c = base.get_config()
    c.data.shards = "s3://bucket/shards"
    c.data.train, c.data.media_dir = "s3://bucket/rows.jsonl", "s3://bucket/clips"
    assert resolve(c, has_paths=False).data.shards == "s3://bucket/shards"
    c = eval_video.get_config()
    c.workdir, c.model, c.shards, c.tasks = "run", "model", "gs://bucket/shards", ("lvbench",)
    assert evals.resolve(c).shards == "gs://bucket/shards"
    parser = arguments.Parser(prog="tool")
    parser.add_argument("--shards")
    assert parser.parse_args(["--shards", "s3://bucket/shards"]).shards
    with pytest.raises(SystemExit):
        parser.parse_args(["--shards", "https://host/shards"])
    assert capsys.readouterr().err == f"tool: error: --shards https://host/shards: {FIX}\n"


def test_flags_are_not_abbreviated(capsys):
    parser = arguments.Parser(prog="tool")
    parser.add_argument("--workers")
    with pytest.raises(SystemExit):
        parser.parse_args(["--worker", "1"])
    near = "unrecognized arguments: --worker 1; did you mean --workers?"
    assert capsys.readouterr().err == f"tool: error: {near}\n"
