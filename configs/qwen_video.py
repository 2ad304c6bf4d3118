"""The reference run (arXiv 2604.16893 §4.1): Qwen3-VL-8B, 2 fps, 128 frames, n = 8, DAPO clipping.

Give the paths on the command line: --config.model --config.data.train --config.data.eval
--config.data.media_dir --config.data.shards --config.workdir
"""

from evr1.config import base


def get_config():
    """Returns the reference config."""
    c = base.get_config()
    c.num_steps = 200
    c.data.video_fps = 2.0
    c.data.video_max_frames = 128
    c.data.video_max_pixels = 262144
    c.data.image_max_pixels = 1048576
    c.data.max_prompt_tokens = 20000
    c.rollout.prompts = 256
    c.rollout.n = 8
    c.rollout.max_completion_tokens = 4096
    c.train.microbatch_tokens = 64 * (20_096 + 8 * 4096)  # a group a chip, at the longest
    c.rewards.box_scale = "thousand"  # as Qwen3-VL was taught; rows may name their own frame
    c.optim.learning_rate = 1e-6
    c.optim.weight_decay = 0.01
    c.eval.every_steps = 10
    c.checkpoint.every_steps = 20
    return c
