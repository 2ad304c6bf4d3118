"""Qwen3-VL-8B on prompts of 64k tokens: 17 minutes of video at 2 fps, 2,048 frames.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5p-128         42.8   33.5      6.3     34.9       2.1  95.7       85    287  63%   compiler
    v6e-64          24.9   15.2      5.3     23.3       2.6  31.2      201    303  30%   compiler
"""

from evr1.config import named
from evr1.config.slices import OFFLOAD, on_slice

SIZES = "qwen3-vl-8b"  # in evr1/assets/plan/, for the plan
GROUP = 65_536 + 8 * 4096  # padded tokens of a group: prompt, completions
# Four chips share the tokens of a group.
SLICES = {
    "v5p-128": {"mesh.context": 4, "rollout.slots": 128, "train.microbatch_tokens": 16 * GROUP},
    "v6e-64": {
        **OFFLOAD,
        "mesh.context": 4,
        "rollout.slots": 48,
        "train.microbatch_tokens": 16 * GROUP,
    },
}


def get_config(name=""):
    """Returns the config for a slice."""
    c = on_slice(named.load("qwen_video"), SLICES, name)
    c.data.max_prompt_tokens = 65_536
    c.data.video_max_frames = 2048
    # 52 visual tokens for two frames, beside about 11 of their timestamp: 1,024 times.
    c.data.video_max_pixels = 52 * 32 * 32
    return c
