"""What a layer keeps for its backward pass; whatever else the pass needs is computed once more."""

from collections.abc import Callable
from typing import Any

import jax
from jax import checkpoint_policies as policies
from jax.ad_checkpoint import checkpoint_name

INPUT = "layer_input"
ATTENTION = "attention"  # outputs and normalisers of an attention kernel that names them

_HOST = {"offload_src": "device", "offload_dst": "pinned_host"}
_ATTENTION = policies.save_only_these_names(ATTENTION)
# The input of a layer is kept by all of them, as it is what the recomputation starts from.
POLICIES: dict[str, Callable[..., Any] | None] = {
    "dots": policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, _ATTENTION),
    "attention": _ATTENTION,
    "full": None,
    "offload": policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=[INPUT], **_HOST
    ),
}


def in_memory(remat: str) -> str:
    """Returns what a single layer keeps: no memory of the host is worth its input."""
    return "full" if remat == "offload" else remat


def checkpointed(layer: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """Returns the layer, its backward pass changed as `remat` says.

    Args:
        layer: takes its input (arrays in any tree) first. Arrays that it closes over are kept.
        remat: "none", everything is kept; "dots", products with weights and what attention gives;
            "attention", what attention gives; "full", the input alone; "offload", the input alone,
            and in the host's memory.
    """
    if remat == "none":
        return layer

    def named(x, *others):
        return layer(jax.tree.map(lambda y: checkpoint_name(y, INPUT), x), *others)

    return jax.checkpoint(named, policy=POLICIES[remat])
