"""Qwen3.5-9B at the paper's shape.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5litepod-128    12.6   10.2      6.2     13.8       1.3  15.8       59    103  39% arithmetic
    v5p-32          47.4   40.3     14.9     89.8       8.8  95.7       42    227  76%   compiler
    v6e-64          24.8   20.1      6.8     15.1       2.2  31.2       24     47  46% arithmetic
    8xH100-80GB     54.2   45.5     19.4     48.3      17.5  75.6       70    242  66% arithmetic
    8xH200-141GB    87.7   71.2     19.4     48.3      17.5 133.4       41    213  75% arithmetic
    1xH100-80GB     64.4   61.1     41.8     62.6      35.7  75.6    1,847  2,900  34% arithmetic
"""

from evr1.config.slices import ADAPTERS, GROUP, OFFLOAD, at_paper_shape

SIZES = "qwen3.5-9b"  # in evr1/assets/plan/, for the plan
SLICES = {
    "v5litepod-128": {
        **OFFLOAD,
        "mesh.tensor": 2,
        "rollout.tensor": 4,
        "rollout.slots": 128,
        "train.microbatch_tokens": 64 * GROUP,
    },
    "v5p-32": {"rollout.slots": 128, "train.microbatch_tokens": 16 * GROUP},
    "v6e-64": {**OFFLOAD, "rollout.slots": 256, "train.microbatch_tokens": 64 * GROUP},
    "8xH100-80GB": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
    "8xH200-141GB": {"rollout.slots": 128, "train.microbatch_tokens": 8 * GROUP},
    "1xH100-80GB": {**ADAPTERS, "rollout.slots": 4, "train.microbatch_tokens": 1 * GROUP},
}


def get_config(name=""):
    """Returns the config for a slice."""
    return at_paper_shape(SLICES, name)
