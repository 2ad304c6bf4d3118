"""Qwen3-VL-30B-A3B at the paper's shape.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5p-64          72.2   64.8     17.0     78.0      14.5  95.7       66    168  57%   compiler
    v6e-64          28.2   26.7      6.5     31.2      10.4  31.2      113    139  17%   compiler
    8xH100-80GB     53.6   48.5     19.8     40.7      57.9  75.6      292    482  37% arithmetic
    8xH200-141GB   104.9   96.9     48.8     83.1      57.9 133.4      151    341  52% arithmetic
"""

from evr1.config.slices import GROUP, OFFLOAD, at_paper_shape

SIZES = "qwen3-vl-30b-a3b"  # in evr1/assets/plan/, for the plan
SLICES = {
    "v5p-64": {"rollout.slots": 256, "train.microbatch_tokens": 32 * GROUP},
    "v6e-64": {**OFFLOAD, "rollout.slots": 128, "train.microbatch_tokens": 64 * GROUP},
    "8xH100-80GB": {**OFFLOAD, "rollout.slots": 32, "train.microbatch_tokens": 8 * GROUP},
    "8xH200-141GB": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
}


def get_config(name=""):
    """Returns the config for a slice."""
    return at_paper_shape(SLICES, name)
