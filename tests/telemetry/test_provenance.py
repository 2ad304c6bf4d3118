"""config.json: what a run was made of."""

import json
import subprocess

import pytest

import evr1
from evr1.telemetry.provenance import git_commit, write_config

BARE = {"rewards": {"extra": ""}}


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


def test_a_garbled_config_record_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{gar")
    with pytest.raises(ValueError, match=r"config.json: no JSON object; remove it"):
        write_config(tmp_path / "config.json", BARE, resumed=True)


def test_the_version_is_the_one_of_the_code(tmp_path):
    write_config(tmp_path / "config.json", BARE, resumed=False)
    run = json.loads((tmp_path / "config.json").read_text())["run"]
    assert run["versions"]["evr1"] == evr1.__version__


def test_another_spelling_of_a_path_is_no_change(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    path = tmp_path / "runs" / "config.json"
    monkeypatch.chdir(tmp_path)
    relative = BARE | {
        "workdir": "runs",
        "data": {"sources": [["a.jsonl", 1.0]]},
        "dtype": "bfloat16",
    }
    write_config(path, relative, resumed=False)
    monkeypatch.chdir(tmp_path / "runs")
    sources = [[str(tmp_path / "a.jsonl"), 1.0]]
    absolute = BARE | {
        "workdir": f"{tmp_path}/runs/",
        "data": {"sources": sources},
        "dtype": "bfloat16",
    }
    assert write_config(path, absolute, resumed=True) == []
    [line] = write_config(path, absolute | {"workdir": "elsewhere"}, resumed=True)
    assert "workdir was" in line


def test_scorers_that_were_edited_between_two_starts_are_told(tmp_path):
    """The path in the config stays the same, and the reward means something else."""
    file, path = tmp_path / "mine.py", tmp_path / "config.json"
    file.write_text("TERMS = {}")
    config = {"rewards": {"extra": f"{file}:SCORERS"}}
    assert write_config(path, config, resumed=False) == []
    assert write_config(path, config, resumed=True) == []
    file.write_text("TERMS = {'loud': abs}")
    [line] = write_config(path, config, resumed=True)
    assert line.startswith(f"changed since the run began: what {file}:SCORERS (rewards.extra) ")
    assert write_config(path, config, resumed=True) == []  # told once
