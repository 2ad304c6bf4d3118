"""What names a model: its weights and settings, wherever they lie."""

import shutil

import pytest
from repo import DEMO_MODEL

from evr1.models.io import identity


@pytest.fixture
def model(tmp_path):
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    return tmp_path / "model"


def test_a_copy_has_the_same_name(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    (model / "README.md").write_text("said of it")
    assert identity.of_model(model) == identity.of_model(tmp_path / "copy")
    assert len(identity.of_model(model)) == 32


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_changed_file_changes_it(model, name):
    before = identity.of_model(model)
    held = bytearray((model / name).read_bytes())
    held[len(held) // 2] ^= 1
    (model / name).write_bytes(held)
    assert identity.of_model(model) != before


def test_large_files_are_sampled_from_the_first_byte_to_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_BLOCK_BYTES", 4)
    monkeypatch.setattr(identity, "_BLOCKS", 4)
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "model.safetensors"

    def name(changed=None, size=40):
        held = bytearray(range(size))
        if changed is not None:
            held[changed] ^= 1
        file.write_bytes(held)
        return identity.of_model(tmp_path)

    # Blocks of 4 bytes at 0, 12, 24 and 36.
    assert all(name(at) != name() for at in (0, 3, 12, 27, 36, 39))
    assert name(5) == name()
    assert name(size=41) != name()


def test_no_model_has_no_name(tmp_path):
    assert identity.of_model(tmp_path) == ""
    assert identity.of_model(tmp_path / "none") == ""
