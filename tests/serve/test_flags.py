"""What the command line says of a server."""

import json

import pytest

from evr1.serve.flags import parse, settings_of


@pytest.fixture
def run(tmp_path):
    """The workdir of a run, with a folder of a checkpoint."""
    data = {"video_fps": 4.0, "video_max_frames": 8, "video_max_pixels": 2304, "seed": 1}
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
