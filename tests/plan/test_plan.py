"""tools/plan.py: the arithmetic by hand, and a small config through the TPU compiler."""

import dataclasses
import json
import math
import subprocess
import sys

import jax
import numpy as np
import pytest
from repo import ROOT
from rows_rig import make_example

from configs import qwen_video
from evr1.batch.assemble import group_batch
from evr1.batch.collate import Collator
from evr1.config import resolve
from evr1.config.learner import learner_settings
from evr1.data.records import Geometry
from evr1.learner.programs import list_programs, make_programs
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_shards
from evr1.plan import advice, memory, phases, plan
from evr1.telemetry import flops
from evr1.types import Rollouts

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
    return plan


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
    c.algorithm.old_logprobs = "recompute"
    return c


def settings(config):
    return resolve(config, has_paths=False)


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def work(tool, config, hf_config):
    """The work of a step on 2 x 4 devices, at 100 prompt and 20 completion tokens in the mean."""
    model = tool.find_model(settings(config), hf_config)
    learner = learner_settings(settings(config))
    programs = make_programs(learner, model, make_mesh(data=2, fsdp=4, tensor=1))
    copies = batch_shards(programs.actor_mesh)
    shapes = tool.largest_shapes(settings(config), model)
    load, _ = tool.largest_load(settings(config), shapes, shards=8, copies=copies, slots=8)
    return phases.Work(learner, programs, load, prompt=100, completion=20)


def arguments(tool, config, hf_config, name):
    """The load, and the arguments of a program without their places."""
    made = work(tool, config, hf_config)
    listed = {p.name: p for p in list_programs(made.settings, made.programs, made.load)}
    bare = jax.tree.map(shape, listed[name].arguments[1:])
    return made.load, (listed[name].arguments[0], *bare)


def shape(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


@pytest.mark.parametrize(
    ("name", "values"),  # of the safetensors index of each; Qwen3.5's is not known here
    [
        ("", 8_767_123_696),
        ("qwen3-vl-2b", 2_127_532_032),
        ("qwen3-vl-4b", 4_437_815_808),
        ("qwen3-vl-30b-a3b", 31_070_754_032),
        ("qwen3.5-9b", 9_409_813_744),
    ],
)
def test_published_models_have_their_parameters(tool, name, values):
    model = tool.find_model(settings(qwen_video.get_config()), name)
    assert count(model.abstract_params()) == values


def test_shapes_of_the_reference_run(tool):
    config = qwen_video.get_config()
    config.train.microbatch_tokens = 64 * 60_000
    model = tool.find_model(settings(config), "")
    shapes = tool.largest_shapes(settings(config), model)
    load, problems = tool.largest_load(settings(config), shapes, shards=64, copies=16, slots=128)
    assert problems == []
    # 128 frames make 64 temporal patches; 262144 pixels of 16 x 16 are 1024 patches
    assert (load.shapes.vision_rows, load.shapes.row_patches) == ((64,), 1024)
    assert (load.shapes.prompt_tokens, load.shapes.completion_tokens) == ((20096,), 4096)
    assert (load.micro_groups, load.slots, load.prefill_groups) == (64, 128, 16)
    assert load.held == config.rollout.prompts


def test_what_would_stop_the_run_is_told(tool, hf_config):
    config = small_config()
    config.rollout.slots, config.train.microbatch_tokens = 6, 1000
    model = tool.find_model(settings(config), hf_config)
    shapes = tool.largest_shapes(settings(config), model)
    load, problems = tool.largest_load(settings(config), shapes, shards=8, copies=8, slots=8)
    assert (load.slots, load.micro_groups) == (8, 8)
    assert "train.microbatch_tokens=1000" in problems[0]
    assert "rollout.slots=6 does not divide over 8 copies" in problems[1]


def test_abstract_prompts_are_those_of_the_collation(tool, hf_config):
    load, (_, _, planned, questions) = arguments(tool, small_config(), hf_config, "prefill")
    assert questions is None
    frame = make_example([(1, 2, 2)])
    frame = dataclasses.replace(frame, patches=np.zeros((4, 3 * 2 * 16 * 16), np.uint8))
    collate = Collator(load.shapes, Geometry(16, 2, 2), pos_grid=8, pad_id=0)
    real = collate([frame], groups=load.prefill_groups)
    assert jax.tree.map(shape, real) == planned


def test_the_abstract_batch_is_that_of_the_rollouts(tool, hf_config):
    load, (_, _, planned) = arguments(tool, small_config(), hf_config, "gradient")
    g, n, r = load.micro_groups, 2, load.shapes.completion_tokens
    lengths = np.ones((g, n), int)
    logprobs = np.zeros((g, n, r), np.float32)
    rollouts = Rollouts(logprobs.astype(np.int32), logprobs, lengths, lengths > 0)
    prompts = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), planned.prompts)
    real = group_batch(
        prompts, rollouts, lengths.astype(np.float32), aggregation="token_mean", max_tokens=r
    )
    assert jax.tree.map(shape, real) == planned


def test_phases_add_up_to_the_passes(tool, hf_config):
    made = work(tool, small_config(), hf_config)
    by_name = {p.name: p for p in phases.phases(made)}
    model = made.programs.model
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
    # one wave of 8 slots, 20 steps: each chip reads its copy of the bfloat16 weights
    values = count(model.abstract_params())
    assert by_name["decode"].ici == 0
    cache = 2 * 2 * 1 * 128 * 2 * 8 * (100 + 2 * 20 / 2) / 8
    assert by_name["decode"].hbm == pytest.approx(20 * (2 * values + cache))


def test_a_frozen_tower_is_passed_through_once(tool, hf_config):
    """The same operations as with a trained one, less the tower in all passes but one."""
    config = small_config()
    trained = phases.phases(work(tool, config, hf_config))
    config.optim.freeze = ("vision/.*",)
    made = work(tool, config, hf_config)
    once = phases.phases(made)
    assert [p.name for p in once] == ["publish", "encode", *(p.name for p in trained[1:])]
    tower = once[1].flops
    assert tower == flops.vision_flops(made.programs.model, np.full(16, 64.0))
    passes = {"prefill": 1, "decode": 0, "logprobs": 1, "update": 4}
    for before, after in zip(trained[1:], once[2:], strict=True):
        assert after.flops == pytest.approx(before.flops - passes[after.name] * tower)
    config.lora.rank = 4  # no gradient of the matrices: one product in four less
    adapted = phases.phases(work(tool, config, hf_config))
    assert adapted[-1].flops == pytest.approx(0.75 * once[-1].flops)
    assert adapted[-1].hbm < once[-1].hbm


def unnamed(phase):
    return dataclasses.replace(phase, name="", runs=())


def test_phases_of_a_critic_and_a_reference(tool, hf_config):
    """An own trunk is passed through and updated as the policy is; on a shared one there is no
    gradient, so its update is one more pass."""
    config = small_config()
    plain = {p.name: p for p in phases.phases(work(tool, config, hf_config))}
    config.algorithm.advantage, config.algorithm.kl_coef = "gae", 0.1
    own = {p.name: p for p in phases.phases(work(tool, config, hf_config))}
    assert list(own) == [*list(plain)[:-1], "reference", "values", "critic", "update"]
    forward = unnamed(plain["logprobs"])
    assert unnamed(own["reference"]) == unnamed(own["values"]) == forward
    assert unnamed(own["critic"]) == unnamed(plain["update"])
    assert [name for name, _, _ in own["critic"].runs] == ["critic_gradient", "critic_optimizer"]
    config.critic.trunk = "shared"
    shared = {p.name: p for p in phases.phases(work(tool, config, hf_config))}
    assert unnamed(shared["critic"]) == forward
    assert {n: p for n, p in shared.items() if n != "critic"} == {
        n: p for n, p in own.items() if n != "critic"
    }


def test_seconds_at_peak(tool):
    chip = tool.find_chip("TPU v5")
    assert (chip.flops, chip.hbm / 2**30) == (459e12, 95.74)
    seconds = phases.Phase("x", flops=459e12 * 8, hbm=2765e9 * 3, ici=600e9).seconds(chip, 4)
    assert seconds == pytest.approx({"compute": 2.0, "hbm": 3.0, "ici": 1.0})


def test_bad_input_is_one_line(tool, hf_config):
    config = small_config()
    every = ", ".join(tool.PROGRAMS)
    with pytest.raises(ValueError, match=rf"--programs=embed: there is {every}"):
        tool.plan(config, topology="v5e:2x2", names=["embed"])
    with pytest.raises(ValueError, match=r"no data sheet for 'TPU v99'"):
        tool.find_chip("TPU v99")
    with pytest.raises(
        ValueError, match=r"--hf_config=gpt: no such file and no model of that name"
    ):
        tool.find_model(settings(config), "gpt")


OUT_OF_HBM = (
    "Ran out of memory in memory space hbm. Used 134.20G of 95.74G hbm. Exceeded hbm by 3G."
)


def test_slots_that_do_not_fit_are_a_row(tool, monkeypatch, hf_config):
    """The learner's programs are there all the same."""
    made = work(tool, small_config(), hf_config)

    def listed(learner, programs, load):
        if load.slots > 1:
            raise jax.errors.JaxRuntimeError(OUT_OF_HBM)
        return list_programs(learner, programs, load)

    monkeypatch.setattr(tool, "list_programs", listed)
    monkeypatch.setattr(tool, "batch_shards", lambda _: 1)
    found, (row,) = tool.listed_programs(made.settings, made.programs, made.load)
    assert (row.name, row.fits) == ("init_slots", False)
    assert row.total == pytest.approx(134.20 * 2**30)
    assert [p.name for p in found] == ["logprobs", "gradient", "optimizer"]


def test_a_mesh_that_splits_a_torus_is_one_line(tool, monkeypatch):
    def refuse(**_):
        raise NotImplementedError("Failed to find assignment for logical_axis_index 1")

    monkeypatch.setattr(tool, "make_mesh", refuse)
    config = small_config()
    config.mesh.fsdp, config.mesh.tensor = 2, 4
    message = "mesh.fsdp=2, mesh.tensor=4, .* splits a side of the torus of v6e:2x4; make"
    with pytest.raises(ValueError, match=message):
        tool.find_mesh(settings(config), "v6e:2x4", [])


def compiled(name, *, total=1.0, limit=2.0, **more):
    """A program of this many GiB; it has collectives where `more` says so."""
    sizes = dict.fromkeys(("arguments", "outputs", "temporaries", "beside", "host"), 0)
    sizes |= {"collectives": {}, "in_loop": {}, "weights": 0.0, "host_calls": False}
    total, limit = int(total * 2**30), int(limit * 2**30)
    values = sizes | {"total": total, "limit": limit, "compile_s": 0.0} | more
    return memory.Compiled(name=name, **values)


def test_phases_move_what_their_programs_say(tool):
    """Two windows of 16 tokens, 3 bytes each and 5 a token; a program is missing: arithmetic."""
    phase = phases.Phase("decode", 1.0, 1.0, 7.0, runs=(("decode", 2, 32),))
    in_loop = {"all-reduce": (1, 5.0)}
    program = compiled("decode", collectives={"all-gather": (2, 3.0)}, in_loop=in_loop)
    found = tool.measured(phase, [program])
    assert (found.ici, found.is_compiled) == (2 * 3 + 32 * 5, True)
    other = compiled("decode", total=3.0, in_loop=in_loop)  # does not fit
    assert tool.measured(phase, [other]) == phase == tool.measured(phase, [])


def test_decoding_that_gathers_weights_is_told(tool):
    gathers = compiled("decode", weights=2.0 * 2**30)
    (line,) = tool.gathers([gathers], 4 * 2**30)
    assert "a device receives 2.00 GiB of them a token, of 4.00 that it reads" in line
    assert tool.gathers([dataclasses.replace(gathers, weights=0.1 * 2**30)], 4 * 2**30) == []
    assert tool.gathers([dataclasses.replace(gathers, name="gradient")], 4 * 2**30) == []


def test_what_to_change_where_a_program_does_not_fit(tool, hf_config):
    made = work(tool, small_config(), hf_config)
    # a group of 128 + 2 x 32 tokens through 2 layers, of 2 x 64 patches through 2 blocks; bfloat16
    assert advice.layer_inputs(made) == 2 * 2 * 128 * (128 + 2 * 32 + 2 * 64)
    assert advice.advice(made, [compiled("gradient", total=2.0)]) == []
    (line,) = advice.advice(made, [compiled("gradient", total=3.5)])
    names = ("1.50 GiB over", "train.remat=offload", "optim.offload=True", "moments_dtype=bfloat16")
    assert all(name in line for name in names)
    config = small_config()
    config.train.remat, config.optim.moments_dtype = "offload", "bfloat16"
    made = work(tool, config, hf_config)
    (line,) = advice.advice(made, [compiled("gradient", total=3.5)])
    assert "remat" not in line
    assert "moments_dtype" not in line
    (line,) = advice.advice(made, [compiled("init_slots", total=3.5)])
    assert "rollout.tensor" in line


def test_what_to_keep_where_a_gradient_leaves_room(tool, hf_config):
    config = small_config()
    model = work(tool, config, hf_config).programs.model.config
    text, patches, mib = 2 * 2 * (128 + 2 * 32), 2 * 2 * 2 * 64, 2**20
    inputs = text * model.width + patches * model.vision.width
    attention = text * model.heads * model.head_dim + patches * model.vision.width
    dots = text * (
        (model.heads + 2 * model.kv_heads) * model.head_dim + 2 * model.width + 2 * model.mlp_width
    )
    cases = [
        ("full", attention - 1, ""),
        ("full", attention, f"train.remat=attention keeps {attention / 2**30:.2f}"),
        ("full", attention + dots, f"train.remat=dots keeps {(attention + dots) / 2**30:.2f}"),
        ("attention", dots, f"train.remat=dots keeps {dots / 2**30:.2f}"),
        ("offload", inputs, f"train.remat=full keeps {inputs / 2**30:.2f}"),
        ("offload", inputs + attention, "train.remat=attention keeps "),
        ("dots", 100 * mib, ""),
        ("none", 100 * mib, ""),
    ]
    for remat, free, says in cases:
        config.train.remat = remat
        program = dataclasses.replace(compiled("gradient"), limit=2**30 + free)
        lines = advice.advice(work(tool, config, hf_config), [program])
        assert len(lines) == bool(says), (remat, free)
        assert all(says in line for line in lines)
    estimated = dataclasses.replace(program, limit=2**30 + inputs + dots, is_compiled=False)
    config.train.remat = "full"
    (line,) = advice.advice(work(tool, config, hf_config), [estimated])
    assert f"train.remat=dots keeps {dots / 2**30:.2f}" in line  # no kernel keeps attention here


def test_a_step_in_one_line():
    """Decoding takes 3 of 4 seconds; half of what the update computes is done again."""
    chip = phases.Chip("x", flops=10.0, hbm=1.0, hbm_rate=1.0, ici_rate=1.0)
    parts = [
        phases.Phase("decode", 0.0, 3.0, 0.0),
        phases.Phase("update", 10.0, 0.0, 0.0, again=5.0),
    ]
    step = phases.step(parts, chip, devices=1)
    assert step == {"seconds": 4.0, "decode_share": 0.75, "mfu": 5.0 / 40}


@pytest.mark.parametrize(
    ("remat", "products", "reads"),
    [("none", 3, 2), ("dots", 3, 2), ("full", 4, 3), ("offload", 4, 3)],
)
def test_what_is_kept_is_not_computed_again(tool, hf_config, remat, products, reads):
    config = small_config()
    config.train.remat = remat
    by_name = {p.name: p for p in phases.phases(work(tool, config, hf_config))}
    update, forward = by_name["update"], by_name["logprobs"]
    assert update.flops == products * forward.flops
    assert update.again == (products - 3) * forward.flops
    moments = 28 * count(tool.find_model(settings(config), hf_config).abstract_params()) / 4
    assert update.hbm == pytest.approx(reads * forward.hbm + moments)


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
    assert plan["mesh"] == {"data": 1, "fsdp": 4, "context": 1, "tensor": 1}
    assert plan["chip"]["kind"] == "TPU v5 lite"
    assert [p["name"] for p in plan["programs"]] == names
    assert all(p["fits"] and not p["host_calls"] for p in plan["programs"])
    assert plan["problems"] == []
    by_name = {p["name"]: p for p in plan["programs"]}
    whole = 4 * count(tool.find_model(settings(small_config()), hf_config).abstract_params())
    # parameters, two moments and gradients, a quarter on each chip; norms and biases are whole
    assert by_name["optimizer"]["arguments"] == pytest.approx(4 * whole / 4, rel=0.1)
    # the state takes over the memory of the old one
    assert by_name["optimizer"]["outputs"] < 0.05 * whole
    assert by_name["gradient"]["beside"] == pytest.approx(2 * whole / 4, rel=0.1)
    assert by_name["decode"]["weights"] == 0
    received = sum(size for _, size in by_name["gradient"]["collectives"].values())
    assert received > whole / 8  # the bfloat16 weights from three of four chips, more than once
    assert "✓ none" in result.stdout
    assert "nothing is measured" in result.stdout
    assert "8 groups decode at the same time, rollout.slots=8; a group takes" in result.stdout


def test_an_estimate_compiles_nothing(hf_config, tmp_path):
    """For a TPU slice too: arguments from shapes, temporaries by arithmetic."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    result = run(hf_config, out, "--topology=v5e:2x2", "--estimate")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "GiB a device, by arithmetic; " in result.stdout
    assert "compiled in" not in result.stdout
    plan = json.loads(out.read_text())
    assert plan["chip"]["kind"] == "TPU v5 lite"
    names = ["prefill", "decode", "logprobs", "gradient", "optimizer"]
    assert [p["name"] for p in plan["programs"]] == names
    assert not any(p["is_compiled"] for p in plan["programs"])
    assert all(p["arguments"] > 0 for p in plan["programs"])


@pytest.mark.slow
def test_the_programs_of_adapters_compile(tool, hf_config, tmp_path):
    """The weights of the tower are an argument of one of them alone; moments are small."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    flags = ["--topology=v5e:2x2", "--programs=encode,logprobs,optimizer"]
    result = run(hf_config, out, *flags, "--config.lora.rank=4")
    assert result.returncode == 0, result.stderr[-2000:]
    encode, logprobs, optimizer = json.loads(out.read_text())["programs"]
    assert (encode["name"], logprobs["name"]) == ("encode", "logprobs")
    params = tool.find_model(settings(small_config()), hf_config).abstract_params()
    text, vision = (4 * count(params[part]) / 4 for part in ("text", "vision"))
    # the tower's published matrices are bfloat16 and whole on each chip, as there is one key head
    # to cut over; and a prompt of 2 rows of 64 patches
    pixels = 2 * 64 * 3 * 2 * 16 * 16
    assert encode["arguments"] == pytest.approx(2 * vision + pixels, rel=0.1)
    assert logprobs["arguments"] == pytest.approx(text, rel=0.3)  # and features
    assert text + vision < optimizer["arguments"] < 1.5 * (text + vision)  # 4 when all is trained
    assert encode["fits"]
    assert logprobs["fits"]


@pytest.mark.slow
def test_the_programs_of_a_critic_compile(tool, hf_config, tmp_path):
    """Beside each lies what it is not given of the 6 trees that policy and critic are."""
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    names = ["values", "critic_gradient", "critic_optimizer"]
    flags = ["--topology=v5e:2x2", f"--programs={','.join(names)}"]
    result = run(hf_config, out, *flags, "--config.algorithm.advantage=gae")
    assert result.returncode == 0, result.stderr[-2000:]
    plan = json.loads(out.read_text())
    assert [p["name"] for p in plan["programs"]] == names
    assert all(p["fits"] and not p["host_calls"] for p in plan["programs"])
    assert [p["name"] for p in plan["phases"]][3:] == ["values", "critic", "update"]
    values, gradient, optimizer = plan["programs"]
    one = count(tool.find_model(settings(small_config()), hf_config).abstract_params())
    assert optimizer["arguments"] == pytest.approx(4 * one, rel=0.1)  # 4 bytes on 4 chips
    assert optimizer["outputs"] < 0.05 * 4 * one
    assert optimizer["beside"] == pytest.approx(3 * one, rel=0.1)
    assert values["beside"] == gradient["beside"] == pytest.approx(5 * one, rel=0.1)
    assert values["arguments"] == pytest.approx(one, rel=0.3)  # and prompts


def test_a_topology_that_does_not_exist(hf_config, tmp_path):
    pytest.importorskip("libtpu")
    result = run(hf_config, tmp_path / "out", "--topology=v99:2x2")
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith("plan: --topology=v99:2x2: ")
    assert "Traceback" not in result.stderr


def test_a_recipe_without_its_slice_is_one_line():
    plan = [sys.executable, "tools/plan.py", "--config=configs/recipes/qwen3_vl_8b.py"]
    result = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "no slice '' in this recipe; give one behind the file: :v5litepod-64, :v5p-128" in line
