"""Qwen3-VL-4B at the paper's shape.

By evr1 plan, GiB a device of each program and of its memory, and a step at peak rates; see
the recipes in docs/pods.md.

    slice        prefill decode logprobs gradient optimizer    of decode s step s  MFU         by
    v5litepod-32    15.0   12.2      5.0     15.8       3.0  15.8      393    569  29%   compiler
    v5p-16          76.8   67.2     12.4     56.4       8.3  95.7      268    641  55%   compiler
    v6e-16          20.1   18.4      6.9     29.6       5.2  31.2      259    353  25%   compiler
    8xH100-80GB     43.6   36.6     10.6     30.7       8.3  75.6      221    394  41% arithmetic
    8xH200-141GB    79.7   65.9     10.6     30.7       8.3 133.4      151    324  50% arithmetic
    1xH100-80GB     59.0   54.3     21.5     36.7      17.0  75.6    2,378  3,450  29% arithmetic
"""

from evr1.config.slices import ADAPTERS, GROUP, OFFLOAD, at_paper_shape

SIZES = "qwen3-vl-4b"  # in evr1/assets/plan/, for the plan
SLICES = {
    "v5litepod-32": {
        **OFFLOAD,
        "mesh.tensor": 2,
        "rollout.slots": 32,
        "train.microbatch_tokens": 16 * GROUP,
    },
    "v5p-16": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
    "v6e-16": {**OFFLOAD, "rollout.slots": 32, "train.microbatch_tokens": 16 * GROUP},
    "8xH100-80GB": {"rollout.slots": 32, "train.microbatch_tokens": 8 * GROUP},
    "8xH200-141GB": {"rollout.slots": 64, "train.microbatch_tokens": 8 * GROUP},
    "1xH100-80GB": {**ADAPTERS, "rollout.slots": 4, "train.microbatch_tokens": 1 * GROUP},
}


def get_config(name=""):
    """Returns the config for a slice."""
    return at_paper_shape(SLICES, name)
