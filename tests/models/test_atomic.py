"""Directories that take another one's place: a kill at any moment loses neither of both."""

import os
import shutil

import jax
import pytest
from models_oracle import config, write_hf_dir

from evr1.models import load_model, lora
from evr1.models.io import atomic, hf, peft


class Killed(BaseException):
    """Nothing in the project catches it, as nothing catches a kill."""


def _kill_at(monkeypatch, number, name, module):
    """The call of this number, counted from 1, does not happen, nor does anything after it."""
    calls, real = [], getattr(module, name)

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) >= number:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, call)


def _write(out, text):
    with atomic.new_directory(out) as partial:
        (partial / "a").write_text(text)
        (partial / "b").write_text(text)


def _read(path):
    return [(path / name).read_text() for name in "ab"]


def _names(path):
    return {file.name for file in path.iterdir()}


def test_a_directory_takes_the_place_of_another(tmp_path):
    out = tmp_path / "out"
    for text in ("first", "second"):
        _write(out, text)
        assert _read(out) == [text, text]
        assert _names(tmp_path) == {"out"}


# What is whole afterwards: renames are out -> replaced, partial -> out, replaced -> partial.
@pytest.mark.parametrize(
    ("name", "number", "whole"),
    [
        ("rename", 1, {"out": "old"}),
        ("rename", 2, {"out.replaced": "old", "out.partial": "new"}),
        ("rename", 3, {"out": "new", "out.replaced": "old"}),
        ("rmtree", 2, {"out": "new"}),
    ],
)
def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch, name, number, whole):
    out = tmp_path / "out"
    _write(out, "old")
    with monkeypatch.context() as patch:
        _kill_at(patch, number, name, os if name == "rename" else shutil)
        with pytest.raises(Killed):
            _write(out, "new")
    for directory, text in whole.items():
        assert _read(tmp_path / directory) == [text, text]

    shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-twice"))
    atomic.recover(out)  # what a start does before it writes
    assert _read(out) == [whole.get("out", "old")] * 2
    assert _names(tmp_path) <= {"out", "out.partial"}
    _write(out, "later")
    assert _read(out) == ["later", "later"]
    assert _names(tmp_path) == {"out"}


def test_a_kill_while_a_kill_is_mended_loses_nothing(tmp_path, monkeypatch):
    """The old directory is never removed under its own name: half of it could be put back."""
    out = tmp_path / "out"
    _write(out, "old")
    with monkeypatch.context() as patch:
        _kill_at(patch, 3, "rename", os)
        with pytest.raises(Killed):
            _write(out, "new")
        patch.undo()
        _kill_at(patch, 1, "rmtree", shutil)
        with pytest.raises(Killed):
            atomic.recover(out)
    assert _read(out) == ["new", "new"]
    atomic.recover(out)
    assert _read(out) == ["new", "new"]


@pytest.mark.parametrize("kind", ["hf", "peft"])
def test_exports_survive_a_kill(kind, tmp_path, monkeypatch):
    """Killed between the renames, then started again: the old files, then the new ones."""
    source, out = write_hf_dir(tmp_path / "source", config()), tmp_path / "out"
    base = load_model(str(source))
    model = lora.adapt(base, rank=2, alpha=4, targets=("text/layers/attention/q/kernel",))
    params = model.attach(hf.load_params(source, base), jax.random.key(0))

    def save(change):
        moved = jax.tree.map(lambda x: x + change, params)
        if kind == "peft":
            peft.save_adapter(moved, model, out, source="base")
        else:
            hf.save_params(model.merge(moved), base, out, source_dir=source)
        return {file.name: file.read_bytes() for file in out.iterdir()}

    old, new = save(0), save(1)
    assert old != new
    assert save(0) == old
    rename = os.rename

    def no_new_name(here, there):
        if there == out:
            raise Killed
        rename(here, there)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", no_new_name)
        with pytest.raises(Killed):
            save(1)
    assert not out.exists()
    with monkeypatch.context() as patch:
        _kill_at(patch, 1, "mkdir", type(out))  # before anything new is written
        with pytest.raises(Killed):
            save(1)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == old
    assert save(1) == new
    assert _names(tmp_path) == {"source", "out"}
