"""Copies of examples whose videos have their frames in another order, to compare answers with."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evr1.data.records import Example, Geometry


def shuffled(example: Example, geometry: Geometry, seed: int | Sequence[int]) -> Example:
    """Returns the example with the frames of each video in the order of `frame_order`.

    Only patches of videos change: tokens, time marks, positions, grids and images stay, so nothing
    new is compiled. The frame that an odd video repeats to fill its last temporal patch is moved
    like any other. Without a video the example itself comes back. An image needs no exception: all
    frames of its patch are the same.

    Args:
        example: with its patches.
        geometry: how pixels were cut into them.
        seed: the same one gives the same order.

    Raises:
        ValueError: the patches are not those of the grids; names the row.

    Source: T-GRPO of Video-R1, 2503.21776.
    """
    if not example.row.videos:
        return example
    grid = example.grid_thw.astype(np.int64)
    counts = grid.prod(axis=1)
    if len(example.patches) != counts.sum():
        raise ValueError(
            f"{example.row.source} ({example.row.problem_id}): {len(example.patches)} patches for "
            f"grids {grid.tolist()}; give the example with its patches"
        )
    rng = np.random.default_rng(seed)
    patches = example.patches.copy()
    depth = geometry.temporal_patch_size
    for count, end, t in zip(counts, counts.cumsum(), grid[:, 0].tolist(), strict=True):
        part = slice(end - count, end)
        patches[part] = _reorder(patches[part], t, depth, frame_order(t * depth, rng))
    return dataclasses.replace(example, patches=patches, visual=None)


def frame_order(count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the order of frames, int[count], as one cycle: frame order[i] stands at place i.

    No frame keeps its place; two frames are swapped. The video changes unless all of its frames are
    alike: a pixel that changes nowhere would be the same all along the cycle.

    >>> frame_order(2, np.random.default_rng(0))
    array([1, 0])
    """
    walk = rng.permutation(count)
    order = np.empty(count, np.int64)
    order[walk] = np.roll(walk, 1)
    return order


def _reorder(patches: np.ndarray, t: int, depth: int, order: np.ndarray) -> np.ndarray:
    """Returns the patches [t*h*w, C] of one medium, with frame `order[i]` where frame i was."""
    blocks = patches.reshape(t, -1, 3, depth, patches.shape[1] // (3 * depth))
    frames = np.moveaxis(blocks, 3, 1)
    moved = frames.reshape(t * depth, *frames.shape[2:])[order].reshape(frames.shape)
    return np.moveaxis(moved, 1, 3).reshape(patches.shape)
