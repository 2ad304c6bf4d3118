"""The embedded default: a tiny Qwen3-VL learns from generated clips on two CPU cores, in minutes.

`make demo` runs it. The clips are written to workdir/data first, from `seed`
(evr1/data/demo/files.py).
"""

from pathlib import Path

import evr1
from evr1.config import base

MODEL = Path(evr1.__file__).parent / "assets" / "demo_model"


def get_config():
    """Returns the demo's config."""
    c = base.get_config()
    c.workdir = "runs/demo"
    c.num_steps = 60
    c.model = str(MODEL)  # made by tools/make_demo_model.py
    c.data.generate = True
    c.data.preprocess = True
    c.data.video_fps = 4.0  # of 3.6 s clips, cut to 8 frames: one every half second, exactly
    c.data.video_max_frames = 8
    c.data.video_min_pixels = 1024
    c.data.video_max_pixels = 2304  # 48 x 48: as the clips are
    c.data.image_min_pixels = 1024
    c.data.image_max_pixels = 2304
    c.data.max_prompt_tokens = 104
    c.data.workers = 2
    c.shapes.prompt_tokens = (104,)
    c.shapes.vision_rows = (4,)  # a row is one temporal patch: 36 patches
    c.shapes.row_patches = 36
    c.rollout.prompts = 32
    c.rollout.n = 8
    c.rollout.max_completion_tokens = 24
    c.rollout.window_steps = 8
    c.optim.learning_rate = 4e-4
    c.optim.schedule = "linear"
    c.optim.weight_decay = 0.0
    c.train.dtype = "float32"
    c.train.microbatch_tokens = 8 * (104 + 8 * 24)  # 8 groups; those without signal are skipped
    c.train.remat = "none"
    c.eval.every_steps = 20
    c.checkpoint.every_steps = 20
    return c
