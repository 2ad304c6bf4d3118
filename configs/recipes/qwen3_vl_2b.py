"""Qwen3-VL-2B at the paper's shape.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5litepod-16    12.7   10.6      5.8     15.8       2.9  15.8      404    592  30%   compiler
    v5p-8           61.8   52.8     10.6     42.3       7.9  95.7      409    732  41%   compiler
    v6e-8           29.4   25.2      5.6     20.5       4.8  31.2      356    439  17%   compiler
    8xH100-80GB     59.1   49.3      6.2     19.9       4.0  75.6      166    241  29% arithmetic
    8xH200-141GB   114.6   95.0      6.2     19.9       4.0 133.4      115    190  37% arithmetic
    1xH100-80GB     60.8   57.3     11.5     21.3       8.2  75.6    1,476  1,911  21% arithmetic
"""

from evr1.config.slices import ADAPTERS, GROUP, OFFLOAD, at_paper_shape

SIZES = "qwen3-vl-2b"  # in evr1/assets/plan/, for the plan
SLICES = {
    "v5litepod-16": {**OFFLOAD, "rollout.slots": 24, "train.microbatch_tokens": 16 * GROUP},
    "v5p-8": {"rollout.slots": 32, "train.microbatch_tokens": 4 * GROUP},
    "v6e-8": {**OFFLOAD, "rollout.slots": 32, "train.microbatch_tokens": 8 * GROUP},
    "8xH100-80GB": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
    "8xH200-141GB": {"rollout.slots": 128, "train.microbatch_tokens": 8 * GROUP},
    "1xH100-80GB": {**ADAPTERS, "rollout.slots": 8, "train.microbatch_tokens": 1 * GROUP},
}


def get_config(name=""):
    """Returns the config for a slice."""
    return at_paper_shape(SLICES, name)
