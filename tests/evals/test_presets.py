"""Frame presets: their published numbers, and what a task recommends."""

import dataclasses

import pytest

from evr1.data.media import patches, source
from evr1.data.records import Budgets, Geometry
from evr1.evals import presets
from evr1.evals.presets import PRESETS
from evr1.evals.tasks import TASKS

QWEN3 = Geometry(16, 2, 2)
# name, fps, frames, pixels of a frame, pixels in all, visual tokens that they make
PUBLISHED = [
    ("qwen3vl", 2, 2048, 786432, 234881024, 229376),
    ("qwen3vl-script", 2, 512, 401408, 19267584, 18816),
    ("easyvideor1", 2, 256, 262144, 33554432, 32768),
    ("easyvideor1-cli", 2, 2048, 655360, 164225024, 160376),
    ("train", 2, 128, 262144, 16777216, 16384),
    ("smoke", 1, 32, 65536, 1048576, 1024),
    ("lvbench", 2, 768, 786432, 134217728, 131072),
    ("motionbench", 8, 128, 131072, 8388608, 8192),
    ("video_reason_bench", 2, 128, 200704, 12845056, 12544),
    ("video_math_qa", 2, 256, 401408, 51380224, 50176),
    ("stvg", 2, 128, 401408, 25690112, 25088),
    ("ovo_bench", 1, 64, 262144, 8388608, 8192),
]


@pytest.mark.parametrize(("name", "fps", "frames", "pixels", "total", "tokens"), PUBLISHED)
def test_presets_have_their_published_numbers(name, fps, frames, pixels, total, tokens):
    preset = presets.find(name)
    assert preset.budgets() == Budgets(
        video_fps=fps,
        video_max_frames=frames,
        video_max_pixels=pixels,
        video_total_pixels=total,
    )
    assert preset.max_video_tokens == tokens


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_no_video_gets_more_tokens_than_its_preset_says(preset):
    budgets = preset.budgets()
    source.check_budgets(budgets)
    slack = 1.05  # what the processor allows the least pixels to grow by
    for count in {2, 16, preset.max_frames}:
        height, width = patches.video_size(count, 2160, 3840, budgets, QWEN3)
        t, h, w = patches.grid_of(count, height, width, QWEN3)
        assert t * h * w // 4 <= preset.max_video_tokens * slack


def test_a_high_minimum_exceeds_the_stated_total():
    assert PRESETS["qwen3vl-cookbook"].total_pixels == 20480 * 1024
    assert PRESETS["qwen3vl-cookbook"].max_video_tokens == 65536


def test_sampling_goes_with_the_preset_and_is_greedy_where_nobody_states_it():
    script = dataclasses.astuple(PRESETS["qwen3vl-script"].sampling)
    assert script == (0.7, 0.8, 20, 1.5, 32768, 3407)
    assert dataclasses.astuple(PRESETS["qwen3vl"].sampling)[:5] == (0.6, 0.95, 20, 0.0, 32768)
    assert PRESETS["easyvideor1"].sampling.max_tokens == 4096
    assert PRESETS["easyvideor1-cli"].sampling.max_tokens == 2048
    assert PRESETS["lvbench"].sampling.temperature == 0.0


def test_presets_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["smoke"].fps = 3.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_recommends_a_preset_that_there_is(task):
    assert presets.find(task.source.frames).name == task.source.frames
    # A preset of the name of a task is that task's.
    assert task.name not in PRESETS or task.source.frames == task.name


def test_an_unknown_preset_is_told_in_one_line():
    with pytest.raises(ValueError, match="no frame preset 'qwen3-vl'; did you mean qwen3vl") as e:
        presets.find("qwen3-vl")
    assert "\n" not in str(e.value)
