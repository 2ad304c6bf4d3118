"""Checkpoints: bit-identical, atomic under kill -9, damage noticed, mismatches named."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from checkpoint_rig import make_mesh, make_state
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from repo import ROOT

from evr1.learner.checkpoint import Checkpoints, checksum

EXTRA = {"data": {"epoch": 1, "index": [3, 4]}, "seed": 7, "x": 0.1}


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def host(state):
    return jax.tree.map(lambda x: np.array(x), state)


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def log():
    return []


def test_restores_bit_identical_to_the_same_shardings(tmp_path, log):
    state = make_state(3)
    # bits that arithmetic would lose: -0, the smallest denormal, a NaN with a payload
    odd = np.array([0x80000000, 0x00000001, 0x7FC12345], np.uint32).view(np.float32)
    state.params["text"]["bias"] = jax.device_put(odd, state.params["text"]["bias"].sharding)
    c = Checkpoints(tmp_path / "c", log=log.append)
    assert c.latest_step() is None
    assert c.restore(abstract(state)) is None
    c.save(5, state, EXTRA)
    c.wait()
    restored = c.restore(abstract(state))
    c.close()
    assert restored.step == 5
    assert restored.extra == EXTRA
    assert_identical(restored.state, state)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(state), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert log == []


def test_restores_to_other_shardings(tmp_path):
    state = make_state(1)
    c = Checkpoints(tmp_path / "c")
    c.save(1, state, {})
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    one = jax.tree.map(
        lambda x: x.update(sharding=jax.sharding.SingleDeviceSharding(jax.devices()[3])), one
    )
    c.wait()
    assert_identical(c.restore(one).state, host(state))
    c.close()


def test_state_may_be_donated_right_after_save(tmp_path):
    state = make_state(2)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    c = Checkpoints(tmp_path / "c", keep=4)
    kept = {}
    for step in range(1, 5):
        kept[step] = host(state)
        c.save(step, state, {"step": step})
        state = update(state)
    c.wait()
    for step, want in kept.items():
        got = c.restore(abstract(state), step=step)
        assert got.extra == {"step": step}
        assert_identical(got.state, want)
    c.close()


def test_keeps_the_newest(tmp_path):
    state = make_state()
    c = Checkpoints(tmp_path / "c", keep=2)
    for step in (2, 4, 6, 8):
        c.save(step, state, {})
    c.close()
    assert Checkpoints(tmp_path / "c", keep=2).steps() == [6, 8]
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path / "d", keep=0)


def test_the_best_on_held_out_rows_stays_and_is_known_after_a_restart(tmp_path):
    state, c = make_state(), Checkpoints(tmp_path / "c", keep=1)
    accuracies = {1: 0.3, 2: 0.6, 3: 0.6, 4: 0.5}
    best = []
    for step, value in accuracies.items():
        best.append(c.is_best(step, value))
        c.save(step, state, {"at": step})
    c.close()
    assert best == [True, True, False, False]
    c = Checkpoints(tmp_path / "c", keep=1)
    assert c.steps() == [2, 4]
    restored = c.restore(abstract(state))
    assert (restored.step, restored.extra, c.best) == (4, {"at": 4}, (2, 0.6))
    c.save(5, state, {})
    c.close()
    assert Checkpoints(tmp_path / "c").steps() == [2, 5]


def test_another_model_is_named_tensor_by_tensor(tmp_path):
    c = Checkpoints(tmp_path / "c")
    c.save(1, make_state(width=16), {10: (1, 2), 9: None})
    c.wait()
    assert c.restore(abstract(make_state(width=16))).extra == {"10": [1, 2], "9": None}
    with pytest.raises(ValueError, match="another model") as error:
        c.restore(abstract(make_state(width=32)))
    assert "params/text/wq is float32[8,16], this run has float32[8,32]" in str(error.value), (
        error.value
    )
    smaller = abstract(make_state(width=16))
    del smaller.params["text"]["bias"]
    with pytest.raises(ValueError, match=r"text/bias is float32\[3\], this run has no such tensor"):
        c.restore(smaller)
    with pytest.raises(ValueError, match=r"no step 9; it has \[1\]"):
        c.restore(smaller, step=9)
    assert c.steps() == [1]
    c.close()


def files_of(step_dir: Path) -> list[Path]:
    return sorted(p for p in step_dir.rglob("*") if p.is_file())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.write_text("[1]")  # JSON, and not what is expected


# Orbax drops the coroutines that were reading the other arrays
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [flip, truncate, os.remove, replace])
def test_a_damaged_checkpoint_is_never_taken_for_a_good_one(tmp_path, log, damage):
    """Every file of the newest checkpoint in turn: it gives its own state or the one before."""
    first, second = make_state(1, width=512), make_state(2, width=512)
    c = Checkpoints(tmp_path / "whole", keep=3)
    c.save(1, first, {"n": 1})
    c.save(2, second, {"n": 2})
    c.close()
    template = abstract(first)
    fell_back = 0
    paths = files_of(tmp_path / "whole" / "2")
    # Orbax merges the per-process files into one database and reads only that
    for i, path in enumerate(p for p in paths if "ocdbt.process_0" not in p.parts):
        copy = tmp_path / f"{i}"
        shutil.copytree(tmp_path / "whole", copy)
        if damage is replace and path.name == "_CHECKPOINT_METADATA":
            continue  # Orbax reads it before anything of ours, and says so in a line
        damage(copy / path.relative_to(tmp_path / "whole"))
        log.clear()
        c = Checkpoints(copy, log=log.append)
        restored = c.restore(template)
        assert_identical(restored.state, {1: first, 2: second}[restored.step])
        assert restored.extra == {"n": restored.step}
        if restored.step == 1:
            fell_back += 1
            assert len(log) == 1
            assert "damaged checkpoint ignored" in log[0]
            assert "\n" not in log[0]
            assert c.steps() == [1]
            if fell_back == 1:
                c.save(2, second, {"n": 2})  # the step can be written again
                c.wait()
                assert c.steps() == [1, 2]
        c.close()
        shutil.rmtree(copy)
    assert fell_back >= 3
    gc.collect()  # their warnings belong to this test


def test_a_save_that_fails_is_one_line(tmp_path, monkeypatch):
    c = Checkpoints(tmp_path / "c")

    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error\nwriting: No space left on device [28]")

    with monkeypatch.context() as patch:
        patch.setattr(c._manager, "wait_until_finished", full)
        with pytest.raises(ValueError, match="could not be written .no space left on device") as e:
            c.wait()
    assert "\n" not in str(e.value)
    c.close()


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path, log):
    state = make_state()
    c = Checkpoints(tmp_path / "c", log=log.append)
    c.save(1, state, {})
    c.wait()
    (tmp_path / "c" / "1" / "extra" / "metadata").unlink()
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        c.restore(abstract(state))
    assert c.steps() == [1]
    c.close()


def test_checksum_by_hand_and_any_flipped_bit():
    # bits of 1.0 = 0x3f800000, of 2.0 = 0x40000000: 1 * 0x3f800000 + 3 * 0x40000000 = 0xff800000
    assert int(checksum(np.array([1.0, 2.0], np.float32))) == 0xFF800000
    assert int(checksum(np.array([2.0, 1.0], np.float32))) != 0xFF800000
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    whole = int(checksum(x))
    for i in range(15):
        for bit in (0, 13, 31):
            y = x.copy()
            y.reshape(-1).view(np.uint32)[i] ^= np.uint32(1 << bit)
            assert int(checksum(y)) != whole


def test_checksum_does_not_depend_on_the_sharding():
    x = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    mesh = make_mesh()
    sums = {
        int(checksum(jax.device_put(x, NamedSharding(mesh, spec))))
        for spec in (P(), P("data"), P("data", "fsdp"), P(None, ("data", "fsdp")))
    }
    assert sums == {int(checksum(x))}


CHILD = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests/rigs"]
from checkpoint_rig import make_state
from evr1.learner.checkpoint import Checkpoints
c = Checkpoints(sys.argv[1], keep=2)
step = c.latest_step() or 0
while True:
    step += 1
    c.save(step, make_state(step, width=4096), {"step": step})
    print(step, flush=True)
"""


def test_kill_9_while_saving_leaves_whole_checkpoints(tmp_path, log):
    """Three runs of a child that saves without pause, each killed at another moment."""
    template = abstract(make_state(0, width=4096))
    reached = 0
    for after in (0.0, 0.013, 0.029):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "c"), str(ROOT)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for _ in range(3):
            started = int(child.stdout.readline())
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        c = Checkpoints(tmp_path / "c", keep=2, log=log.append)
        restored = c.restore(template)
        c.close()
        # the save that was being written may be lost, and no other
        assert restored.step >= started - 1 > reached
        assert restored.extra == {"step": restored.step}
        assert_identical(restored.state, make_state(restored.step, width=4096))
        reached = restored.step
    assert all("unfinished checkpoint" in line for line in log)
    assert log
