"""Recipes resolve on every slice and fit its mesh; their plans are run once and make a table."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys

import numpy as np
import plan_recipes as tool
import pytest
from jax.sharding import Mesh
from repo import ROOT

from configs import qwen_video
from evr1.batch.shapes import groups_per_part
from evr1.config import changes, resolve, slices
from evr1.models import FAMILIES
from evr1.parallel import mesh as mesh_lib
from evr1.parallel.sharding import batch_shards

RECIPES = tool.recipes()
# What differs between machines: nothing of what is learnt, but where adapters alone are.
MACHINE = {
    *("mesh.tensor", "mesh.context", "rollout.tensor", "rollout.slots", "train.microbatch_tokens"),
    *("train.remat", "optim.offload"),
}
LONGER = {"data.max_prompt_tokens", "data.video_max_frames", "data.video_max_pixels"}


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device that is not there: all that a mesh of several hosts looks at."""

    id: int
    process_index: int
    platform: str = "tpu"


def chips(recipe):
    if recipe.is_gpu:
        return [Chip(i, 0) for i in range(int(recipe.slice.split("x")[0]))]
    found = tool.find_slice(recipe.slice)
    return [Chip(i, i // found.chips_per_host) for i in range(found.chips)]


def module(recipe):
    return importlib.import_module(f"configs.recipes.{recipe.name}")


def settings(recipe):
    return resolve(module(recipe).get_config(recipe.slice), has_paths=False)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_fits_its_slice(recipe, monkeypatch):
    def on_one_host(sizes, axes, devices, axis_types):  # JAX itself asks devices for their places
        return Mesh(np.array(devices).reshape(sizes), axes, axis_types=axis_types)

    monkeypatch.setattr(mesh_lib.jax, "make_mesh", on_one_host)
    s, devices = settings(recipe), chips(recipe)
    mesh = mesh_lib.make_mesh(**dataclasses.asdict(s.mesh), devices=devices)
    sizes = json.loads(
        (ROOT / "evr1/assets/plan" / f"{re.sub('[-.]', '_', recipe.sizes)}.json").read_text()
    )
    model = FAMILIES[sizes["model_type"]](sizes, dtype="bfloat16", remat=s.train.remat)
    drawing = mesh_lib.actor_mesh(mesh, model.config.kv_heads, s.rollout.tensor)
    assert mesh.size == drawing.size == len(devices)
    assert s.rollout.slots % batch_shards(drawing) == 0
    prompt, completion = -(-s.data.max_prompt_tokens // 128) * 128, s.rollout.max_completion_tokens
    shards, tokens = batch_shards(mesh), s.train.microbatch_tokens
    assert tokens == shards * (prompt + s.rollout.n * completion)  # a group a part
    size = np.array([prompt, completion])
    assert groups_per_part(size, s.rollout.n, tokens, s.rollout.prompts, shards) == shards
    assert s.rollout.prompts % shards == 0  # every microbatch is full
    assert s.rollout.n % s.mesh.context == 0
    assert prompt % (2 * s.mesh.context) == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_learns_what_the_reference_run_does(recipe):
    changed = {line.split(" = ")[0] for line in changes(settings(recipe), qwen_video.get_config())}
    reference = resolve(qwen_video.get_config(), has_paths=False)
    derived = {line.split(" = ")[0] for line in changes(reference, qwen_video.get_config())}
    adapters = set(slices.ADAPTERS) if recipe.slice.startswith("1x") else set()
    longer = LONGER if recipe.name.endswith("_64k") else set()
    assert changed <= MACHINE | derived | adapters | longer
    assert adapters | longer <= changed


def test_a_recipe_without_its_slice_names_them():
    result = subprocess.run(
        [sys.executable, "-m", "evr1.main", "--config=configs/recipes/qwen3_vl_8b.py:v6e-4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "no slice 'v6e-4' in this recipe; give one behind the file: :v5litepod-64, " in line


@pytest.mark.parametrize("name", sorted({r.name for r in RECIPES}))
def test_the_docstring_has_a_line_for_each_slice(name):
    (first, *rest) = [r for r in RECIPES if r.name == name]
    lines = [line.split()[0] for line in module(first).__doc__.splitlines() if line.strip()]
    for recipe in (first, *rest):
        assert recipe.slice in lines


def planned(gib, decode_s, *, is_compiled):
    """A plan of two programs, the second of `gib`."""
    limit, sizes = 32 * 2**30, {"prefill": 2, "gradient": gib}
    programs = [
        {"name": k, "total": v * 2**30, "limit": limit, "fits": v <= 32, "is_compiled": is_compiled}
        for k, v in sizes.items()
    ]
    return {
        "devices": 64,
        "load": {"slots": 16},
        "programs": programs,
        "fits": gib <= 32,
        "phases": [{"name": "decode", "seconds": {"compute": 1.0, "hbm": decode_s}}],
        "step": {"seconds": 100.0, "decode_share": 0.25, "mfu": 0.4},
    }


def test_the_table_has_the_compiled_plan_where_it_is_there(tmp_path):
    which = tool.chosen("qwen3_vl_8b_64k")
    a, b = (r.file for r in which)
    (tmp_path / f"{a}.estimate.json").write_text(json.dumps(planned(30, 1.0, is_compiled=False)))
    (tmp_path / f"{a}.json").write_text(json.dumps(planned(31, 25.0, is_compiled=True)))
    lines = tool.table(tmp_path, which).splitlines()
    name = which[0].name
    cells = "64 | 16 | gradient 31.0 of 32.0 | yes | 25 | 100 | 25% | 40% | compiler"
    assert lines[2] == f"| `{name}` | `v5p-128` | {cells} |"
    assert "| not planned |" in lines[3]
    (tmp_path / f"{b}.estimate.json").write_text(json.dumps(planned(33, 25.0, is_compiled=False)))
    assert "gradient 33.0 of 32.0 | no |" in tool.table(tmp_path, which)
    text = tool.header(tmp_path, which)
    assert (
        "    v5p-128          2.0      -        -     31.0         -  32.0       25    100  40%"
        in text
    )


def test_a_plan_is_run_once(tmp_path, monkeypatch):
    recipe = next(r for r in RECIPES if str(r) == "qwen3_vl_2b:v6e-8")
    assert recipe.command() == [
        "tools/plan.py",
        "--config=configs/recipes/qwen3_vl_2b.py:v6e-8",
        "--topology=v6e:2x4",
        "--hf_config=qwen3-vl-2b",
    ]
    ran = []

    def run(command, *, stdout, **_):
        ran.append(command)
        stdout.write("✗ a line\n")
        path = command[-1].removeprefix("--json=")
        (tmp_path / path).write_text(json.dumps(planned(33, 1.0, is_compiled=True)))

    monkeypatch.setattr(tool.subprocess, "run", run)
    assert not tool.plan(recipe, tmp_path, is_estimate=False)
    assert not tool.plan(recipe, tmp_path, is_estimate=False)
    assert len(ran) == 1
    assert (
        (tmp_path / f"{recipe.file}.txt")
        .read_text()
        .endswith("--hf_config=qwen3-vl-2b\n✗ a line\n")
    )
    tool.plan(recipe, tmp_path, is_estimate=True)
    assert "--estimate" in ran[1]


def test_a_plan_that_is_refused_is_one_line(tmp_path, monkeypatch):
    def refuse(command, *, stdout, **_):
        stdout.write("first\nplan: libtpu is not installed\n")

    monkeypatch.setattr(tool.subprocess, "run", refuse)
    with pytest.raises(ValueError, match=r"^qwen3_vl_2b:v5p-8: plan: libtpu is not installed$"):
        tool.plan(tool.chosen("qwen3_vl_2b:v5p-8")[0], tmp_path, is_estimate=False)


def test_bad_input_is_one_line(capsys, tmp_path):
    assert tool.main([f"--out={tmp_path}", "--only=qwen3_vl_8b:v4"]) == 1
    line = capsys.readouterr().err
    assert "no such recipe; there is qwen3_vl_8b:v5litepod-64, qwen3_vl_8b:v5p-128" in line
    assert line.count("\n") == 1


@pytest.mark.slow
def test_every_recipe_fits_by_arithmetic(tmp_path):
    pytest.importorskip("libtpu")
    assert tool.main([f"--out={tmp_path}", "--estimate"]) == 0
