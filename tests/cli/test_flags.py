"""Flags of the commands in evr1/cli: what --run fills in, and that --help does not wait for jax."""

import json
import subprocess
import sys

import pytest
import tools_rig as rig
from repo import ROOT

from configs import base
from evr1.config import arguments

inference = rig.load("inference")
COMMANDS = ("generate", "score_completions", "filter_by_pass_rate", "convert_checkpoint")
CONFIG = {
    "data.media_dir": "clips",
    "data.template": "mine.jinja",
    "data.thinking": True,
    "data.template_variables": '{"effort": "low"}',
    "data.columns": '{"problem": "q"}',
    "data.problem_type": "math",
    "data.max_bad_rows_share": 0.25,
    "data.shards": "s",
    "data.shard_cache": "/shards",
    "data.shard_cache_gib": 2,
    "data.media_cache": "/cache",
    "data.sanitize": True,
    "data.video_fps": 3,  # a whole number, as an override may be written
    "data.video_max_frames": 7,
    "data.video_min_pixels": 1024,
    "data.video_max_pixels": 2304,
    "data.video_total_pixels": 9999,
    "data.video_budget": "hf_capped",
    "data.image_min_pixels": 512,
    "data.image_max_pixels": 4096,
    "rewards.box_scale": "thousand",
    "rewards.extra": "mine.py",
    "rewards.unknown_type": "ocr",
    "rollout.temperature": 0.7,
    "rollout.max_completion_tokens": 33,
}


def write_config(workdir, changes=()):
    """config.json of a run, with every field of the base config."""
    config = base.get_config().to_dict()
    for field, value in {**CONFIG, **dict(changes)}.items():
        group, name = field.split(".")
        config[group][name] = value
    (workdir / "config.json").write_text(json.dumps(config))
    return str(workdir)


def read_flags(monkeypatch, name, *more):
    """The flags that a command runs with."""
    command, seen = rig.load(name), []
    monkeypatch.setattr(command, "_run", lambda flags: seen.append(flags) or 0)
    assert command.main(["--model", "m", "--rows", "r", "--out", "o", *more]) == 0
    return vars(seen[0])


@pytest.mark.parametrize("name", COMMANDS[:3])
def test_a_run_gives_the_defaults_and_a_flag_wins(monkeypatch, tmp_path, name):
    plain = read_flags(monkeypatch, name)
    assert (plain["fps"], plain["thinking"], plain["box_scale"]) == (2.0, None, "pixels")
    run = write_config(tmp_path)
    known = {flag: CONFIG[field] for flag, field in inference.RUN_FIELDS.items() if flag in plain}
    of_run = read_flags(monkeypatch, name, "--run", run)
    assert {flag: of_run[flag] for flag in known} == known
    assert of_run.keys() == plain.keys()
    assert {k for k, v in of_run.items() if v != plain[k]} == {"run", *known}
    given = ("--fps", "1", "--no-thinking", "--temperature", "1", "--box_scale", "pixels")
    mixed = read_flags(monkeypatch, name, "--run", run, *given)
    expected = {"fps": 1.0, "thinking": False, "temperature": 1.0, "box_scale": "pixels"}
    assert mixed == of_run | expected


@pytest.mark.parametrize("said", [None, True, False])
def test_thinking_has_three_states(monkeypatch, tmp_path, said):
    run = write_config(tmp_path, {"data.thinking": said})
    assert read_flags(monkeypatch, "generate", "--run", run)["thinking"] is said
    for flag, wanted in (("--thinking", True), ("--no-thinking", False)):
        assert read_flags(monkeypatch, "generate", flag)["thinking"] is wanted
        assert read_flags(monkeypatch, "generate", "--run", run, flag)["thinking"] is wanted


@pytest.mark.parametrize("said", [None, {"problem": "q"}, '{"problem": "q"}'])
def test_columns_of_a_run_may_be_an_object_or_json(monkeypatch, tmp_path, said):
    run = write_config(tmp_path, {"data.columns": said})
    found = read_flags(monkeypatch, "generate", "--run", run)["columns"]
    assert found == ("" if said is None else '{"problem": "q"}')


def test_the_fields_are_those_of_the_config():
    for field in inference.RUN_FIELDS.values():
        group, name = field.split(".")
        assert name in base.get_config()[group]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "config.json: no such file; give --run the workdir of a run"),
        ("{gar", "config.json: damaged: "),
        ("[]", "config.json: "),
        ('{"data": 3}', "got None, no "),
    ],
)
def test_a_missing_or_damaged_config_is_one_line(capsys, tmp_path, text, says):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    flags = ["--model", "m", "--rows", "r", "--out", "o", "--run", str(tmp_path)]
    assert rig.load("generate").main(flags) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert error.startswith(f"generate: {tmp_path}/config.json: ")


def test_a_field_of_another_type_is_named(capsys, tmp_path):
    run = write_config(tmp_path, {"data.video_max_frames": "many"})
    flags = ["--model", "m", "--rows", "r", "--out", "o", "--run", run]
    assert rig.load("generate").main(flags) == 1
    assert "data.video_max_frames: got 'many', no int; give" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_jax(name):
    code = (
        f"import sys; from evr1.cli import {name}\n"
        "try:\n    "
        f"{name}.main(['--help'])\n"
        "except SystemExit as end:\n"
        "    sys.exit(end.code or 2 * ('jax' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_a_misspelt_flag_is_told_with_a_near_one(capsys):
    parser = arguments.Parser(prog="tool")
    parser.add_argument("--max_frames", type=int)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--max_frame_s=3"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "tool: error: unrecognized arguments: --max_frame_s=3; did you mean --max_frames?"
    )
