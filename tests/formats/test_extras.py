"""The command that installs an extra, for each way in which evr1 may have come."""

import json

import pytest
from repo import ROOT

from evr1.formats import extras


def test_a_checkout_is_installed_from_where_it_is():
    assert extras.install("wandb") == f"pip install -e '{ROOT}[wandb]'"


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'evr1[gpu]'"),
        ({"url": "file:///my%20code/evr1"}, "pip install '/my code/evr1[gpu]'"),
        ({"url": "file:///w/evr1-0.1.0.whl"}, "pip install '/w/evr1-0.1.0.whl[gpu]'"),
        (
            {"url": "https://x.org/evr1.git", "vcs_info": {"vcs": "git"}},
            "pip install 'evr1[gpu] @ git+https://x.org/evr1.git'",
        ),
    ],
)
def test_an_installation_says_where_it_came_from(monkeypatch, tmp_path, record, command):
    class Known:
        def read_text(self, name):
            assert name == "direct_url.json"
            return record and json.dumps(record)

    monkeypatch.setattr(extras.importlib.metadata, "distribution", lambda name: Known())
    assert extras.install("gpu", tmp_path / "evr1") == command
