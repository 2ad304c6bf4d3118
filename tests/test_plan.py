"""tools/plan.py: the arithmetic by hand, and a small config through the TPU compiler."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_batch import make_example

from configs import qwen_video
from evr1 import flops
from evr1.data.batch import collate
from evr1.data.records import Geometry
from evr1.parallel.mesh import make_mesh
from evr1.rl.batches import group_batch
from evr1.types import Rollouts, ShapeTable

ROOT = Path(__file__).parents[1]
TINY = {
    "model_type": "qwen3_vl",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "vocab_size": 512,
        "rope_theta": 5000000,
        "rope_scaling": {"mrope_section": [24, 20, 20], "rope_type": "default"},
    },
    "vision_config": {
        "deepstack_visual_indexes": [0],
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 1,
        "num_position_embeddings": 64,
        "out_hidden_size": 128,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("plan", ROOT / "tools" / "plan.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JAX_PLATFORMS", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
            patch.setenv(name, "")  # what the tool sets goes away again
        sys.modules["plan"] = module
        spec.loader.exec_module(module)
    yield module
    del sys.modules["plan"]


@pytest.fixture
def hf_config(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return str(path)


def small_config():
    c = qwen_video.get_config()
    c.data.max_prompt_tokens = 100  # padded to 128
    c.data.video_max_frames = 4  # 2 vision rows
    c.data.video_max_pixels = 64 * 256  # 64 patches
    c.rollout.update({"prompts": 8, "n": 2, "max_completion_tokens": 32, "slots": 8})
    c.train.microbatch_tokens = 8 * (128 + 2 * 32)
    return c


def test_the_published_8b_has_its_parameters(tool):
    model = tool.find_model(qwen_video.get_config(), "")
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(model.abstract_params()))
    assert count == 8_767_123_696  # of Qwen/Qwen3-VL-8B-Instruct's safetensors index


def test_shapes_of_the_reference_run(tool):
    config = qwen_video.get_config()
    config.rollout.slots, config.train.microbatch_tokens = 128, 64 * 60_000
    shapes, problems = tool.largest_shapes(config, tool.find_model(config, ""), shards=64)
    assert problems == []
    # 128 frames make 64 temporal patches; 262144 pixels of 16 x 16 are 1024 patches
    assert (shapes.vision_rows, shapes.row_patches) == (64, 1024)
    assert (shapes.prompt, shapes.completion) == (20096, 4096)
    assert (shapes.micro_groups, shapes.slots, shapes.prefill_groups) == (64, 128, 64)


def test_what_would_stop_the_run_is_told(tool, hf_config):
    config = small_config()
    config.rollout.slots, config.train.microbatch_tokens = 6, 1000
    shapes, problems = tool.largest_shapes(config, tool.find_model(config, hf_config), shards=8)
    assert (shapes.slots, shapes.micro_groups) == (8, 8)
    assert "train.microbatch_tokens=1000" in problems[0]
    assert "rollout.slots=6 does not divide over 8 devices" in problems[1]


def test_abstract_prompts_are_those_of_the_collation(tool, hf_config):
    config = small_config()
    model = tool.find_model(config, hf_config)
    shapes, _ = tool.largest_shapes(config, model, shards=8)
    table = ShapeTable((shapes.prompt,), (shapes.vision_rows,), shapes.row_patches, 32)
    frame = make_example([(1, 2, 2)])
    frame = dataclasses.replace(frame, patches=np.zeros((4, 3 * 2 * 16 * 16), np.uint8))
    real = collate([frame], table, Geometry(16, 2, 2), pos_grid=8, pad_id=0, groups=3)
    real = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), real)
    planned = tool.abstract_prompts(3, shapes, model)
    assert real == planned


def test_the_abstract_batch_is_that_of_the_rollouts(tool, hf_config):
    config = small_config()
    model = tool.find_model(config, hf_config)
    shapes, _ = tool.largest_shapes(config, model, shards=8)
    g, n, r = shapes.micro_groups, 2, shapes.completion
    lengths = np.ones((g, n), int)
    logprobs = np.zeros((g, n, r), np.float32)
    rollouts = Rollouts(logprobs.astype(np.int32), logprobs, lengths, lengths > 0)
    prompts = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), tool.abstract_prompts(g, shapes, model)
    )
    real = group_batch(
        prompts, rollouts, lengths.astype(np.float32), aggregation="token_mean", max_tokens=r
    )
    real = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), real)
    assert real == tool.abstract_batch(n, shapes, model)


def test_phases_add_up_to_the_passes(tool, hf_config):
    config = small_config()
    model = tool.find_model(config, hf_config)
    mesh = make_mesh(data=2, fsdp=4, tensor=1)
    shapes, _ = tool.largest_shapes(config, model, shards=8)
    by_name = {p.name: p for p in tool.phases(config, model, mesh, shapes, 100, 20)}
    # a forward pass is a prefill of the prompts and a decode of the completions, but for the
    # head: prefill has it once a prompt
    head = 2 * 128 * 512 * 8
    assert by_name["logprobs"].flops == pytest.approx(
        by_name["prefill"].flops - head + by_name["decode"].flops
    )
    assert by_name["update"].flops == 4 * by_name["logprobs"].flops  # recomputed once
    text = 2 * (128 * (2 * 2 * 128 + 2 * 128) + 3 * 128 * 256) * 2 * (8 * 100 + 16 * 20)
    pairs = 8 * (100**2 / 2) + 16 * (20 * 100 + 20**2 / 2)
    vision = flops.vision_flops(model, np.full(16, 64.0))
    assert by_name["logprobs"].flops == pytest.approx(
        text + 4 * 256 * 2 * pairs + vision + 2 * 128 * 512 * 16 * 20
    )
    # one wave of 8 slots, 20 steps, each reading the bfloat16 weights once gathered from 4 chips
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(model.abstract_params()))
    assert by_name["decode"].ici == pytest.approx(20 * 2 * count * 3 / 4)
    cache = 2 * 2 * 1 * 128 * 2 * 8 * (100 + 2 * 20 / 2) / 8
    assert by_name["decode"].hbm == pytest.approx(20 * (2 * count + cache))


def test_a_frozen_tower_is_passed_through_once(tool, hf_config):
    """The same operations as with a trained one, less the tower in all passes but one."""
    config = small_config()
    model = tool.find_model(config, hf_config)
    mesh = make_mesh(data=2, fsdp=4, tensor=1)
    shapes, _ = tool.largest_shapes(config, model, shards=8)
    every = tool.phases(config, model, mesh, shapes, 100, 20)
    config.optim.freeze = ("vision/.*",)
    once = tool.phases(config, model, mesh, shapes, 100, 20)
    assert [p.name for p in once] == ["encode", *(p.name for p in every)]
    tower = once[0].flops
    assert tower == flops.vision_flops(model, np.full(16, 64.0))
    passes = {"prefill": 1, "decode": 0, "logprobs": 1, "update": 4}
    for before, after in zip(every, once[1:], strict=True):
        assert after.flops == pytest.approx(before.flops - passes[after.name] * tower)
    config.lora.rank = 4  # no gradient of the matrices: one product in four less
    adapted = tool.phases(config, model, mesh, shapes, 100, 20)
    assert adapted[-1].flops == pytest.approx(0.75 * once[-1].flops)
    assert adapted[-1].hbm < once[-1].hbm


def test_seconds_at_peak(tool):
    chip = tool.find_chip("TPU v5")
    assert (chip.flops, chip.hbm / 2**30) == (459e12, 95)
    seconds = tool.Phase("x", flops=459e12 * 8, hbm=2765e9 * 3, ici=600e9).seconds(chip, 4)
    assert seconds == pytest.approx({"compute": 2.0, "hbm": 3.0, "ici": 1.0})


def test_bad_input_is_one_line(tool, hf_config):
    config = small_config()
    with pytest.raises(ValueError, match=r"--programs=embed: there is encode, prefill"):
        tool.plan(config, topology="v5e:2x2", names=["embed"])
    with pytest.raises(ValueError, match=r"no data sheet for 'TPU v99'"):
        tool.find_chip("TPU v99")
    with pytest.raises(ValueError, match=r"--hf_config=gpt: no such file and no such name in tpu/"):
        tool.find_model(config, "gpt")


def test_a_host_callback_would_be_seen(tool):
    def plain(x):
        return x + 1

    def calls_back(x):
        jax.debug.callback(print, x)
        return x + 1

    seen = [
        bool(tool.HOST_CALL.search(jax.jit(f).lower(1.0).as_text())) for f in (plain, calls_back)
    ]
    assert seen == [False, True]


def test_out_of_memory_is_read_from_the_message(tool):
    text = "Ran out of memory in memory space hbm. Used 134.20G of 95.74G hbm. Exceeded by 38.46G."
    groups = tool.OUT_OF_MEMORY.search(text).groups()
    assert tool._scaled(*groups[:2]) == int(134.20 * 2**30)
    assert tool._scaled(*groups[2:]) == int(95.74 * 2**30)


def command(hf_config, out, *more):
    c = small_config()
    values = {
        "data.max_prompt_tokens": c.data.max_prompt_tokens,
        "data.video_max_frames": c.data.video_max_frames,
        "data.video_max_pixels": c.data.video_max_pixels,
        "rollout.prompts": c.rollout.prompts,
        "rollout.n": c.rollout.n,
        "rollout.max_completion_tokens": c.rollout.max_completion_tokens,
        "rollout.slots": c.rollout.slots,
        "train.microbatch_tokens": c.train.microbatch_tokens,
    }
    return [
        sys.executable,
        "tools/plan.py",
        "--config=configs/qwen_video.py",
        *(f"--config.{name}={value}" for name, value in values.items()),
        f"--hf_config={hf_config}",
        f"--json={out}",
        *more,
    ]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


def test_compiles_for_a_tpu_slice(tool, hf_config, tmp_path):
    """The real update and sampler, sharded over four chips, on a host that has none."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    # the other two programs are parts of the gradient
    names = ["decode", "gradient", "optimizer"]
    result = run(hf_config, out, "--topology=v5e:2x2", f"--programs={','.join(names)}")
    assert result.returncode == 0, result.stderr[-2000:]
    plan = json.loads(out.read_text())
    assert plan["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    assert plan["chip"]["kind"] == "TPU v5 lite"
    assert [p["name"] for p in plan["programs"]] == names
    assert all(p["fits"] and not p["host_calls"] for p in plan["programs"])
    assert plan["problems"] == []
    by_name = {p["name"]: p for p in plan["programs"]}
    model = tool.find_model(small_config(), hf_config)
    whole = 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(model.abstract_params()))
    # parameters, two moments and gradients, a quarter on each chip; norms and biases are whole
    assert by_name["optimizer"]["arguments"] == pytest.approx(4 * whole / 4, rel=0.1)
    # the state takes over the memory of the old one
    assert by_name["optimizer"]["outputs"] < 0.05 * whole
    assert by_name["gradient"]["beside"] == pytest.approx(2 * whole / 4, rel=0.1)
    assert "✓ none" in result.stdout
    assert "nothing is measured" in result.stdout


def test_the_programs_of_adapters_compile(tool, hf_config, tmp_path):
    """The weights of the tower are an argument of one of them alone; moments are small."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    flags = ["--topology=v5e:2x2", "--programs=encode,logprobs,optimizer"]
    result = run(hf_config, out, *flags, "--config.lora.rank=4")
    assert result.returncode == 0, result.stderr[-2000:]
    encode, logprobs, optimizer = json.loads(out.read_text())["programs"]
    assert (encode["name"], logprobs["name"]) == ("encode", "logprobs")
    params = tool.find_model(small_config(), hf_config).abstract_params()
    text, vision = (4 * tool._count(params[part]) / 4 for part in ("text", "vision"))
    assert encode["arguments"] == pytest.approx(vision, rel=0.3)  # and pixels
    assert logprobs["arguments"] == pytest.approx(text, rel=0.3)  # and features
    assert text + vision < optimizer["arguments"] < 1.5 * (text + vision)  # 4 when all is trained
    assert encode["fits"]
    assert logprobs["fits"]


def test_a_topology_that_does_not_exist(hf_config, tmp_path):
    pytest.importorskip("libtpu")
    result = run(hf_config, tmp_path / "out", "--topology=v99:2x2")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("plan: --topology=v99:2x2: ")
    assert "Traceback" not in result.stderr
