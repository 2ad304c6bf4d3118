"""What recipes are made of: a config and the fields of each slice that it fits."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from evr1.config import named

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
    return on_slice(named.load("qwen_video"), slices, name)


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
