"""What the command line says of a server."""

import json

import pytest
from repo import DEMO_MODEL

from evr1.serve.__main__ import main
from evr1.serve.flags import parse, settings_of


@pytest.fixture
def run(tmp_path):
    """The workdir of a run, with a folder of a checkpoint."""
    data = {"video_fps": 4.0, "video_max_frames": 8, "seed": 1}
    data |= {"video_min_pixels": 1024, "video_max_pixels": 2304}
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "10").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps({"model": "m", "data": data}))
    return workdir


def budgets(*argv):
    return settings_of(parse("", list(argv))).budgets


def test_budgets_are_those_of_a_run(run, tmp_path):
    """Named by --run, or served; what a flag says goes before."""
    for flags in (
        ("--model", str(tmp_path), "--run", str(run)),
        ("--model", str(run)),
        ("--model", str(run / "checkpoints" / "10")),
        ("--follow", str(run)),
    ):
        got = budgets(*flags)
        assert (got.video_fps, got.video_max_frames, got.video_max_pixels) == (4.0, 8, 2304)
    assert budgets("--model", str(run), "--max_frames", "3").video_max_frames == 3


def test_a_model_s_own_config_is_none_of_a_run(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    assert budgets("--model", str(tmp_path)) == budgets("--model", "elsewhere")
    with pytest.raises(ValueError, match="no workdir of a run"):
        parse("", ["--model", "m", "--run", str(tmp_path)])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--port", "70000"), "--port 70000; give one under 65536"),
        (("--port", "-1"), "--port -1; give a number of at least 0"),
        (("--timeout_s", "nan"), "--timeout_s nan; give a number"),
        (("--max_body_mib", "inf"), "--max_body_mib inf; give a number"),
        (("--drain_s", "-1"), "--drain_s -1.0; give a number"),
        (("--fps", "0"), "--fps 0.0; give a number"),
        (("--max_n", "0"), "--max_n 0; give a number of at least 1"),
        (("--min_pixels", "9999", "--max_pixels", "100"), "--min_pixels=9999 is over --max_pixels"),
        (("--name", "a\nb"), "--name 'a\\nb': clients cannot call it that"),
        (("--media_dir", "/no/such"), "--media_dir /no/such: no such folder"),
        (("--host", "256.1.1.1.invalid"), "--host 256.1.1.1.invalid --port 8000: "),
    ],
)
def test_what_cannot_be_is_told_in_a_line(capsys, flags, says):
    assert main(["--model", str(DEMO_MODEL), *flags]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"serve: {says}")
    assert said.count("\n") == 1


def test_a_run_s_budgets_have_their_types(run, tmp_path):
    (run / "config.json").write_text(json.dumps({"data": {"video_fps": 4, "video_budget": "hf"}}))
    got = budgets("--model", str(tmp_path), "--run", str(run))
    assert (got.video_fps, got.video_budget) == (4.0, "hf")
    (run / "config.json").write_text(json.dumps({"data": {"video_fps": "4"}}))
    with pytest.raises(ValueError, match="video_fps: got '4', no float"):
        parse("", ["--model", "m", "--run", str(run)])


def test_hosts_are_names(tmp_path):
    made = settings_of(parse("", ["--model", "m", "--http_hosts", "A.example, b.example,"]))
    assert made.access.http_hosts == ("a.example", "b.example")
