"""Configs that fit a slice: a file a model, and in it the fields of each slice.

    python -m evr1.main --config=configs/recipes/qwen3_vl_8b.py:v6e-64 --config.model=... ...

What stands after the colon is an accelerator type of Cloud TPU, or GPUs of one machine
(8xH100-80GB); without it the error lists them. Only sizes of the machine differ between the slices
of a recipe, so all of them train the same. Slots are given, though memory would tell how many fit
(`rollout.slots=0`): the 256 groups of a step are drawn in turns, and with fewer slots that are all
in use a token reads less of the cache than with more in a last turn that few groups have.
`tools/plan_recipes.py` plans every recipe.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import qwen_video

GROUP = 20_096 + 8 * 4096  # padded tokens of a group at the paper's shape: prompt, completions
# What is kept of a layer, and the moments, lie in the host's memory between their uses.
OFFLOAD = {"train.remat": "offload", "optim.offload": True}
ADAPTERS = {"lora.rank": 16, "optim.learning_rate": 1e-5}

Slices = Mapping[str, Mapping[str, Any]]  # name -> field of the config -> value


def at_paper_shape(slices: Slices, name: str) -> ml_collections.ConfigDict:
    """Returns the reference config with the fields of a slice.

    Args:
        slices: of a recipe.
        name: one of them.

    Raises:
        ValueError: there is no such slice.
    """
    return on_slice(qwen_video.get_config(), slices, name)


def on_slice(
    config: ml_collections.ConfigDict, slices: Slices, name: str
) -> ml_collections.ConfigDict:
    """Returns a config with the fields of a slice; see `at_paper_shape`."""
    if name not in slices:
        raise ValueError(
            f"no slice {name!r} in this recipe; give one behind the file: :{', :'.join(slices)}"
        )
    config.update_from_flattened_dict(slices[name])
    return config
