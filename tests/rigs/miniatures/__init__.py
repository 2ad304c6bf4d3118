"""A small folder of each benchmark as it is downloaded, with clips that play.

python -m tests.rigs.miniatures OUT          # all of them, each in a folder of its name
python -m tests.rigs.miniatures OUT lvbench  # one of them
"""

from pathlib import Path

from . import answers, long_videos, options
from .files import Gold, Mini, change_row, write_rows

__all__ = ["TASKS", "Gold", "Mini", "change_row", "write", "write_all", "write_rows"]

_WRITERS = (
    options.video_mme,
    options.video_mme_v2,
    options.mvbench,
    answers.tempcompass,
    options.motionbench,
    long_videos.lvbench,
    long_videos.longvideobench,
    long_videos.mlvu,
    long_videos.mlvu_test,
    long_videos.mlvu_generation,
    options.video_holmes,
    long_videos.minerva,
    answers.vcr_bench,
    answers.video_reason_bench,
    long_videos.longvideo_reason,
    answers.mmvu,
    answers.video_mmmu,
    answers.video_math_qa,
    answers.vsi_bench,
    answers.charades_sta,
    answers.stvg,
    answers.ovo_bench,
    options.odv_bench,
    options.livesports3k_qa,
)
TASKS = {writer.__name__: writer for writer in _WRITERS}
TASKS["longvideobench_sub"] = long_videos.longvideobench  # the same files


def write(task_name: str, folder: Path) -> Mini:
    """Writes the miniature of a task into a folder, and returns what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    return TASKS[task_name](folder)


def write_all(folder: Path) -> dict[str, Mini]:
    """Writes the miniature of every task into a folder of its name."""
    return {name: write(name, folder / name) for name in TASKS}
