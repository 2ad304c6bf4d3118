"""The records that cross module borders.

Every record is a NamedTuple: a pytree for JAX without importing JAX, so that host-side code can
build it from NumPy arrays. Dimensions: G groups (one prompt each), N completions a group, P prompt
tokens, R completion tokens, F vision rows, S patches a row, C values a patch, T merged visual
tokens of a group (F * S / merge_size**2), D width, K kv heads, A head dim, L layers. Batch is
axis 0 everywhere except in caches, where it follows L.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any  # np.ndarray on the host, jax.Array on the device
Params = Any  # nested dict of arrays


# Takes how far something is: so many are done, of so many, of what.
Count = Callable[[int, int, str], None]


def no_count(done: int, total: int, unit: str) -> None:
    """Tells nobody."""


class VisionInput(NamedTuple):
    """Patches of G prompts, packed into F rows of S patches; attention never leaves a segment.

    A segment is one temporal patch of a video, or one image: no Qwen vision tower attends further
    than that. Patches stand in merge order (merge_size**2 neighbours in a run), so merging is a
    reshape.
    """

    patches: Array  # uint8[G, F, S, C], C = 3 * temporal_patch * patch * patch; 0: not filled in
    segment_ids: Array  # int32[G, F, S], 0 = padding
    positions: Array  # int32[G, F, S, 2], (row, column) in the frame's patch grid
    interp_index: Array  # int32[G, F, S, 4], rows of the learned position table
    interp_weight: Array  # float32[G, F, S, 4], their bilinear weights
    is_image: Array  # bool[G, F, S]: pixels of images and of videos may be normalized differently


class Visual(NamedTuple):
    """What the vision tower gives to the text model. Of a single prompt, there is no G axis."""

    embeds: Array  # [G, T, D]
    deepstack: Array  # [G, K_deepstack, T, D]


class Prompts(NamedTuple):
    """G prompts, each with its images and videos once. Padding is on the right."""

    tokens: Array  # int32[G, P]
    positions: Array  # int32[G, 3, P], M-RoPE (t, h, w)
    lengths: Array  # int32[G]
    next_positions: Array  # int32[G], position of the first completion token (on all three axes)
    visual_index: Array  # int32[G, P], which of the group's T visual tokens stands here; -1 = text
    vision: Any  # VisionInput, or the Visual that the tower made of it


class Questions(NamedTuple):
    """What the N rows of G groups ask behind the prompt that they share.

    Text alone, padded on the right.
    """

    tokens: Array  # int32[G, N, Q]
    lengths: Array  # int32[G, N]; 0: there is no such row


class GroupBatch(NamedTuple):
    """G prompts and the N completions of each: what the update sees.

    `completions[g, n, t]` is a token, `old_logprobs[g, n, t]` its log-probability given everything
    before it. `behavior_logprobs` are those of the sampler, `old_logprobs` those that the ratio
    compares with.
    """

    prompts: Prompts
    groups: Array  # int32[G], which prompt of the rollout batch this is; -1 = padding
    completions: Array  # int32[G, N, R]
    completion_mask: Array  # bool[G, N, R], true up to and including the end token
    behavior_logprobs: Array  # float32[G, N, R]
    old_logprobs: Array  # float32[G, N, R]
    ref_logprobs: Array  # float32[G, N, R]
    advantages: Array  # float32[G, N, R]
    loss_weights: Array  # float32[G, N, R]; the minibatch's loss is sum(loss_weights * token loss)
    is_offline: Array  # bool[G, N], completions that the policy did not sample
    kl_coef: Array  # float32[G], of the KL term; data, because a controller may change it
    old_values: Array  # float32[G, N, R], of the critic before the first update; 0 without one
    returns: Array  # float32[G, N, R], what the critic is to say; 0 without one
    update: Array  # int32[G], number of the optimizer update, for dropout; -1: without dropout
    # None where the algorithm has no use for them.
    entropy: Array | None = None  # float32[G, N, R], of the old policy; on the host alone
    policy_weights: Array | None = None  # float32[G, N, R], factors on the policy loss
    kl_old_coef: Array | None = None  # float32[G, N, R], of the distance to the old policy
    entropy_coef: Array | None = None  # float32[G], of the entropy; a controller changes it


class Rollouts(NamedTuple):
    """N completions for each of G prompts, as the sampler returns them (host arrays).

    Where the logits of a row are not finite its completion ends with a place that holds no token:
    the pad id, counted in the length, with NaN as its log-probability.
    """

    completions: np.ndarray  # int32[G, N, R], padded with the pad id
    logprobs: np.ndarray  # float32[G, N, R], at the sampling temperature
    lengths: np.ndarray  # int32[G, N], the end token included
    finished: np.ndarray  # bool[G, N], false where the length limit cut the completion

    @property
    def is_finite(self) -> np.ndarray:
        """bool[G, N], false where the logits of a completion were not finite in the end."""
        return np.asarray(np.isfinite(self.logprobs).all(axis=-1))

    @property
    def is_open(self) -> np.ndarray:
        """bool[G, N], completions that were carried over before they ended: they go on."""
        is_short = self.lengths < self.completions.shape[-1]
        return is_short & ~self.finished & self.is_finite

    @property
    def drawn(self) -> np.ndarray:
        """int32[G, N], tokens of each completion: its length less the place that holds none."""
        return self.lengths - ~self.is_finite
