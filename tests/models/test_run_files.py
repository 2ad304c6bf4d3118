"""A run's checkpoint as a model: which one a path names, and what is read of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from repo import DEMO_MODEL

from configs import demo
from evr1.cli import conversion
from evr1.formats import run_files
from evr1.learner.checkpoint import Checkpoints
from evr1.models import load_model, lora
from evr1.models.io import hf, identity, runs
from evr1.models.tree import flatten


def write_config(run, **lora_fields):
    config = demo.get_config()
    config.lora.update(lora_fields)
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    return config


def save(run, state, step, *, accuracy=None, keep=2):
    checkpoints = Checkpoints(run / "checkpoints", keep=keep)
    if accuracy is not None:
        checkpoints.is_best(step, accuracy)
    checkpoints.save(step, state, {})
    checkpoints.close()


@pytest.fixture(scope="module")
def model():
    return load_model(DEMO_MODEL)


@pytest.fixture(scope="module")
def moved(model):
    """The demo's model, each parameter moved a little."""
    return jax.tree.map(lambda x: x + 0.25, hf.load_params(DEMO_MODEL, model))


@pytest.fixture(scope="module")
def run(moved, tmp_path_factory):
    """A run with the checkpoints of steps 2, the best, and 4."""
    root = tmp_path_factory.mktemp("runs") / "one"
    write_config(root)
    start = jax.tree.map(jnp.zeros_like, moved)
    checkpoints = Checkpoints(root / "checkpoints", keep=1)
    checkpoints.is_best(2, 0.5)
    for step, params in ((2, moved), (4, start)):
        checkpoints.save(step, {"params": params, "opt_state": (jnp.ones(3),)}, {})
    checkpoints.close()
    return root


def test_the_names_of_checkpoints(run):
    there = run / "checkpoints"
    assert run_files.steps(run) == [2, 4]
    assert run_files.find(there / "2").directory == there / "2"
    assert run_files.find(there / "best").step == 2
    assert run_files.find(run).step == 4
    assert run_files.find(DEMO_MODEL) is None
    assert run_files.start_dir(run) == run_files.start_dir(there / "2") == DEMO_MODEL
    with pytest.raises(ValueError, match=r"one: no checkpoint 3; it has steps 2, 4$"):
        run_files.find(there / "3")


def test_a_run_without_the_checkpoint_asked_for_says_why(tmp_path):
    write_config(tmp_path)
    with pytest.raises(ValueError, match=r": no checkpoint; it has no checkpoint yet$"):
        run_files.find(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.is_best(0, 0.5)
    checkpoints.save(1, {"params": jnp.ones(2)}, {})
    checkpoints.close()
    with pytest.raises(ValueError, match=r"no checkpoint best; it has steps 1; what it started"):
        run_files.find(tmp_path / "checkpoints" / "best")


def test_the_policy_alone_is_read_in_the_dtype_that_is_asked_for(run, model, moved, caplog):
    read = runs.load_params(run / "checkpoints" / "best", load_model(run), dtype="bfloat16")
    for name, x in flatten(moved).items():
        np.testing.assert_array_equal(flatten(read)[name], x.astype("bfloat16"), err_msg=name)
    assert [record.getMessage() for record in caplog.records] == []  # Orbax has nothing to warn of


def test_another_checkpoint_is_another_model(run):
    ids = {identity.of_model(p) for p in (run, run / "checkpoints" / "2", DEMO_MODEL)}
    assert len(ids) == 3
    assert identity.of_model(run / "checkpoints" / "4") == identity.of_model(run)


def test_a_run_is_no_place_for_an_export(run, model, moved):
    with pytest.raises(ValueError, match="exists and is no HF directory"):
        hf.save_params(moved, model, run, source_dir=DEMO_MODEL)


def test_trained_adapters_are_added_to_what_the_run_started_from(model, tmp_path):
    write_config(tmp_path, rank=2)
    adapted = lora.adapt(model, rank=2, alpha=32.0, targets=demo.get_config().lora.targets)
    params = adapted.attach(hf.load_params(DEMO_MODEL, model), jax.random.key(0))
    params["lora"] = jax.tree.map(lambda x: x + 0.1, params["lora"])
    save(tmp_path, {"params": {"lora": params["lora"]}}, 1)
    read = flatten(runs.load_params(tmp_path, model))
    for name, x in flatten(lora.merged(adapted, params)).items():
        np.testing.assert_allclose(read[name], x, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(("step", "n"), [("best", 2), ("4", 4), ("", 4)])
def test_a_checkpoint_becomes_a_hf_directory(run, model, moved, tmp_path, step, n):
    done = conversion.run_to_hf(run, step, tmp_path / "hf", "float32", 2**30)
    assert done == f"{tmp_path / 'hf'}: step {n} of {run}, in float32"
    read = flatten(hf.load_params(tmp_path / "hf", model))
    expected = flatten(moved if n == 2 else jax.tree.map(jnp.zeros_like, moved))
    for name, x in expected.items():
        np.testing.assert_array_equal(read[name], x, err_msg=name)
    assert (tmp_path / "hf" / "tokenizer.json").is_file()


def test_what_is_no_run_has_no_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="no config.json of a run; give the workdir of a training"):
        conversion.run_to_hf(DEMO_MODEL, "best", tmp_path / "hf", None, 2**30)
