"""Where compiled programs are kept: by the kind of CPU, and whole after a kill."""

import os
import subprocess
import sys

import jax
import pytest
from repo import ROOT

from evr1.telemetry import compile_cache

PROGRAM = """
import sys, jax
from evr1.telemetry import compile_cache
print(compile_cache.enable(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: 2 * x + 1)(jax.numpy.arange(3.0)))
"""


def run(home, directory, **environment):
    """Compiles in a process of its own; returns what it printed, standard error included."""
    kept = {k: v for k, v in os.environ.items() if k != compile_cache.ENV}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory)],
        env={**kept, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(home), **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return done.stdout


def test_entries_that_a_kill_left_torn_are_written_again(tmp_path):
    kept = tmp_path / "kept" / compile_cache.cpu_kind()
    assert f"compiled programs are kept in {kept}" in run(tmp_path, kept.parent)
    entries = sorted(kept.glob("*-cache"))
    whole = [path.read_bytes() for path in entries]
    assert min(map(len, whole)) > 100
    entries[0].write_bytes(whole[0][:90])
    said = run(tmp_path, kept.parent)
    assert "Error reading" not in said
    assert "[1. 3. 5.]" in said
    assert sorted(kept.glob("*-cache")) == entries
    assert len(entries[0].read_bytes()) > 90
    assert entries[1].read_bytes() == whole[1]


def test_cpus_have_a_folder_for_their_kind(tmp_path):
    place = tmp_path / "evr1" / "compiled" / compile_cache.cpu_kind()
    assert f"compiled programs are kept in {place}" in run(tmp_path, "")
    assert list(place.glob("*-cache"))


CPU = """processor : {i}
model name : A CPU
flags : fpu {features}
cpu MHz : {speed}
"""


def kind(tmp_path, *blocks):
    path = tmp_path / "cpuinfo"
    path.write_text("\n".join(CPU.format(**block) for block in blocks))
    return compile_cache.cpu_kind(path)


def test_what_a_cpu_can_do_is_its_kind_and_not_how_fast_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    first = {"i": 0, "features": "avx2 fma", "speed": 2000}
    same = {"i": 1, "features": "fma avx2", "speed": 3100}
    assert kind(tmp_path, first) == kind(tmp_path, same) == kind(tmp_path, first, same)
    assert kind(tmp_path, first | {"features": "avx2 fma avx512f"}) != kind(tmp_path, first)
    before = kind(tmp_path, first)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # loops are cut for the cores
    assert kind(tmp_path, first) != before


def test_on_cpus_of_no_known_kind_nothing_is_kept(tmp_path, monkeypatch):
    assert compile_cache.cpu_kind(tmp_path / "none") == ""
    (tmp_path / "other").write_text("hw.model : A CPU\n")
    assert compile_cache.cpu_kind(tmp_path / "other") == ""
    monkeypatch.delenv(compile_cache.ENV, raising=False)
    monkeypatch.setattr(compile_cache, "cpu_kind", lambda: "")
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("kept"))
    assert compile_cache.enable("") == "compiled programs are not kept (compile_cache)"


def test_accelerators_have_a_directory_by_default(monkeypatch, tmp_path):
    set_to = {}
    monkeypatch.delenv(compile_cache.ENV, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax.config, "update", set_to.__setitem__)
    place = tmp_path / "evr1" / "compiled"
    assert compile_cache.enable("") == f"compiled programs are kept in {place}"
    assert set_to.pop("jax_compilation_cache_dir") == str(place)
    assert compile_cache.enable("off") == "compiled programs are not kept (compile_cache)"
    monkeypatch.setenv(compile_cache.ENV, "/elsewhere")
    assert "kept in /elsewhere (JAX_COMPILATION_CACHE_DIR)" in compile_cache.enable(str(tmp_path))
    assert "jax_compilation_cache_dir" not in set_to


def test_a_directory_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv(compile_cache.ENV, raising=False)
    with pytest.raises(ValueError, match=r"config.compile_cache is .*/file: .*; give a directory"):
        compile_cache.enable(str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "compiled programs are not kept: " in compile_cache.enable("")
