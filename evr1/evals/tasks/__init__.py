"""The benchmarks, one module each: pure functions over rows and responses, without jax."""

import difflib
from pathlib import Path

from evr1.evals.tasks import (
    charades_sta,
    livesports3k_qa,
    longvideo_reason,
    longvideobench,
    lvbench,
    minerva,
    mlvu,
    mlvu_generation,
    mmvu,
    motionbench,
    mvbench,
    odv_bench,
    ovo_bench,
    own,
    stvg,
    tempcompass,
    vcr_bench,
    video_holmes,
    video_math_qa,
    video_mme,
    video_mme_v2,
    video_mmmu,
    video_reason_bench,
    vsi_bench,
)
from evr1.evals.tasks.base import Task
from evr1.evals.tasks.guard import guarded

_MODULES = (
    video_mme,
    video_mme_v2,
    mvbench,
    tempcompass,
    motionbench,
    lvbench,
    longvideobench,
    mlvu,
    video_holmes,
    minerva,
    vcr_bench,
    video_reason_bench,
    longvideo_reason,
    mmvu,
    video_mmmu,
    video_math_qa,
    vsi_bench,
    charades_sta,
    stvg,
    ovo_bench,
    odv_bench,
    livesports3k_qa,
)
# Variants of a benchmark.
_VARIANTS = (longvideobench.WITH_SUBTITLES, mlvu.TEST, mlvu_generation.TASK)
TASKS: dict[str, Task] = {
    task.name: guarded(task, task.name)
    for task in (*(module.TASK for module in _MODULES), *_VARIANTS)
}

TASK_HELP = f"one of {', '.join(TASKS)}, or the path of a .py file of your own"


def find(name: str) -> Task:
    """Returns a task: a built-in one by its name, or one's own by the path of its .py file.

    Args:
        name: e.g. "lvbench" or "path/my_task.py". The file is run, and its TASK is returned.

    Raises:
        ValueError: there is none of this name, or the file holds none; one line.
    """
    if not name.endswith(".py"):
        return built_in(name)
    return own.read(Path(name), TASKS)


def built_in(name: str) -> Task:
    """Returns the built-in task of a name.

    Raises:
        ValueError: there is none of this name; names the nearest one.
    """
    if name in TASKS:
        return TASKS[name]
    is_file = Path(f"{name}.py").is_file()
    close = [f"{name}.py"] if is_file else difflib.get_close_matches(name, TASKS, 1)
    hint = f"did you mean {close[0]}? there is" if close else "there is"
    raise ValueError(f"no task {name!r}; {hint} {', '.join(TASKS)}, or the path of a .py file")
