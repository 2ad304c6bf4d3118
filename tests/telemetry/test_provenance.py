"""config.json: what a run was made of."""

import subprocess

import pytest

from evr1.telemetry.provenance import git_commit, write_config


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
        write_config(tmp_path / "config.json", {"a": 1}, resumed=True)
