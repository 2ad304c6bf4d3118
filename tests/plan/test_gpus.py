"""Plans for GPUs: exact arguments, a stated model of temporaries, held against TPU compilers."""

import dataclasses
import os

import pytest

from configs import qwen_video
from evr1.config import resolve
from evr1.config.learner import learner_settings
from evr1.learner.programs import list_programs, make_programs
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_shards
from evr1.plan import gpus, phases
from evr1.plan import plan as tool


def work(devices=8, hf_config="", **fields):
    """The reference run, a group a device."""
    config = qwen_video.get_config()
    config.rollout.slots = 8
    config.train.microbatch_tokens = devices * (20_096 + 8 * 4096)
    config.update_from_flattened_dict(fields)
    settings = resolve(config, has_paths=False)
    cards, _ = gpus.find_gpus(f"gpu:{devices}xH100")
    mesh = make_mesh(**dataclasses.asdict(settings.mesh), devices=cards)
    model = tool.find_model(settings, hf_config)
    learner = learner_settings(settings)
    programs = make_programs(learner, model, mesh)
    copies = batch_shards(programs.actor_mesh)
    shapes, slots = tool.largest_shapes(settings, model), settings.rollout.slots
    load, _ = tool.largest_load(settings, shapes, batch_shards(mesh), copies, slots)
    return phases.Work(learner, programs, load, 20_096, 4096)


def rows(made):
    _, chip = gpus.find_gpus("gpu:8xH100-80GB")
    listed = list_programs(made.settings, made.programs, made.load)
    return {p.name: gpus.estimate(p, made, chip) for p in listed}


def test_variables_of_the_tpu_compiler_are_not_left_to_other_tests():
    assert "TPU_WORKER_HOSTNAMES" not in os.environ


def test_cards():
    devices, chip = gpus.find_gpus("gpu:8xH100")
    assert (len(devices), chip.kind, chip.flops) == (8, "H100-80GB", 989e12)
    assert chip.hbm == pytest.approx(0.95 * 79.6 * 2**30)
    for wrong in ("gpu:8xA100", "gpu:0xH100", "gpu:8", "gpu:8xTPU", "gpu:8xH100-40GB"):
        with pytest.raises(ValueError, match=f"--topology={wrong}: "):
            gpus.find_gpus(wrong)


def test_the_reference_run_on_eight_h100():
    """Bytes of parameters by hand: 8.77 billion float32 on eight cards, and twice that moments."""
    found = rows(work())
    params = 4 * 8_767_123_696 / 8
    assert found["optimizer"].arguments == pytest.approx(4 * params, rel=0.01)
    assert found["gradient"].beside == pytest.approx(2 * params, rel=0.01)
    assert not any(row.is_compiled for row in found.values())
    offloaded = rows(work(**{"optim.offload": True, "train.remat": "offload"}))
    assert offloaded["gradient"].beside < 100  # counters
    moved = found["gradient"].temporaries - offloaded["gradient"].temporaries
    # 36 inputs of 52,864 x 4,096, 27 of 64 x 1,024 x 1,152, in bfloat16
    assert moved == 2 * (36 * 52_864 * 4096 + 27 * 64 * 1024 * 1152)
    assert offloaded["gradient"].host == moved
    halved = rows(work(**{"optim.moments_dtype": "bfloat16"}))
    assert halved["gradient"].beside == pytest.approx(params, rel=0.01)


@pytest.mark.parametrize(
    ("program", "fields", "compiled"),  # GiB of temporaries, by libtpu 0.0.42 for a group a chip
    [
        ("gradient", {}, 33.70),  # v5e:8x8, more than it has: as little as the compiler can
        ("gradient", {"train.remat": "offload"}, 16.13),  # likewise
        ("gradient", {"train.remat": "dots"}, 177.79),
        ("gradient", {"train.remat": "none"}, 504.37),
        ("logprobs", {}, 5.55),  # v5p:4x4x4
    ],
)
def test_the_estimate_against_compilers(program, fields, compiled):
    made = work(**fields)
    estimate = rows(made)[program].temporaries / 2**30
    assert estimate == pytest.approx(compiled, rel=0.25)


@pytest.mark.parametrize("name", ["qwen3-vl-30b-a3b", "qwen3.5-9b"])
def test_every_family_has_a_plan(name):
    found = rows(work(hf_config=name, **{"algorithm.advantage": "gae", "algorithm.kl_coef": 0.1}))
    assert {"prefill", "decode", "logprobs", "gradient", "critic_gradient", "values"} <= set(found)
    assert all(row.total > 0 for row in found.values())


def test_a_context_axis_shares_the_tokens():
    """Two cards a group: half of the inputs each, and the same bytes of the state."""
    alone = work(**{"train.remat": "offload"})
    shared = work(
        **{"train.remat": "offload", "mesh.context": 2, "train.microbatch_tokens": 4 * 52_864}
    )
    assert (alone.load.micro_groups, shared.load.micro_groups) == (8, 4)
    rows_alone, rows_shared = rows(alone)["gradient"], rows(shared)["gradient"]
    assert rows_shared.host == rows_alone.host / 2
    assert rows_shared.beside == pytest.approx(rows_alone.beside, rel=0.01)
    assert phases.moment_bytes(shared) == phases.moment_bytes(alone)


def test_adapters_on_one_card():
    found = rows(work(devices=1, **{"lora.rank": 16, "rollout.slots": 1}))
    assert "encode" in found
    base = 4 * 8_767_123_696
    assert found["optimizer"].arguments == pytest.approx(base, rel=0.02)
