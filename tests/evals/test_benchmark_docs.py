"""docs/benchmarks.md says of every task and preset what the code says."""

import re

import pytest
from repo import ROOT

from evr1.evals.presets import PRESETS
from evr1.evals.tasks import TASKS

TEXT = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")


def task_row(source):
    chance = "–" if source.chance is None else f"{source.chance:g}"
    judge, licence = source.judge or "–", source.licence or "–"
    return [str(source.n), chance, source.metric, f"`{source.frames}`", judge, licence]


def preset_row(preset):
    drawn, greedy = preset.sampling, "greedy"
    if drawn.temperature:
        greedy = (
            f"T {drawn.temperature:g}, top-p {drawn.top_p:g}, top-k {drawn.top_k}, "
            f"presence {drawn.presence_penalty:g}"
        )
    sizes = (preset.max_pixels, preset.total_pixels, preset.max_video_tokens)
    return [
        f"{preset.fps:g}",
        str(preset.max_frames),
        *(f"{size:,}" for size in sizes),
        f"{greedy}; {drawn.max_tokens} tokens",
    ]


@pytest.mark.parametrize("name", TASKS)
def test_the_table_of_tasks(name):
    assert f"| `{name}` | {' | '.join(task_row(TASKS[name].source))} |" in TEXT


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_of_presets(name):
    assert f"| `{name}` | {' | '.join(preset_row(PRESETS[name]))} |" in TEXT


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_files_and_what_differs(name):
    listed = re.findall(r"`(\w+)`", " ".join(re.findall(r"(?m)^\| (`[^|]*`) \| [^|]*\|$", TEXT)))
    assert name in listed
    headings = ", ".join(re.findall(r"(?m)^\*\*([\w, ]+)\.\*\*", TEXT)).split(", ")
    assert name.removesuffix("_sub") in headings


def test_the_readme_leads_there():
    assert "(docs/benchmarks.md)" in (ROOT / "README.md").read_text("utf-8")
