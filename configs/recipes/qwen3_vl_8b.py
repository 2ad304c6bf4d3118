"""Qwen3-VL-8B at the paper's shape.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5litepod-64    15.0   12.3      6.0     15.8       3.0  15.8      195    346  41%   compiler
    v5p-128         41.1   35.6      7.0     54.9       2.1  95.7       38    103  59%   compiler
    v6e-64          22.3   20.0      5.6     30.0       2.6  31.2       76    108  28%   compiler
    8xH100-80GB     53.2   43.7     18.4     48.5      16.3  75.6      232    472  48% arithmetic
    8xH200-141GB    91.4   73.0     18.4     48.5      16.3 133.4      154    394  57% arithmetic
    1xH100-80GB     69.8   64.0     39.7     62.1      33.3  75.6    4,428  5,918  23% arithmetic
"""

from evr1.config.slices import ADAPTERS, GROUP, OFFLOAD, at_paper_shape

SIZES = "qwen3-vl-8b"  # in evr1/assets/plan/, for the plan
SLICES = {
    "v5litepod-64": {
        **OFFLOAD,
        "mesh.tensor": 2,
        "rollout.tensor": 4,
        "rollout.slots": 64,
        "train.microbatch_tokens": 32 * GROUP,
    },
    "v5p-128": {"rollout.slots": 256, "train.microbatch_tokens": 64 * GROUP},
    "v6e-64": {**OFFLOAD, "rollout.slots": 128, "train.microbatch_tokens": 64 * GROUP},
    "8xH100-80GB": {"rollout.slots": 32, "train.microbatch_tokens": 8 * GROUP},
    "8xH200-141GB": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
    "1xH100-80GB": {**ADAPTERS, "rollout.slots": 2, "train.microbatch_tokens": 1 * GROUP},
}


def get_config(name=""):
    """Returns the config for a slice."""
    return at_paper_shape(SLICES, name)
