"""Index arithmetic of visual tokens: M-RoPE, vision rotary positions, the learned position table.

A *unit* is what the language model sees as one block of visual tokens: one temporal patch of a
video, or one image. All of it is NumPy on the host, so no video shape is ever a static argument
of a compiled program.
"""

import functools

import numpy as np


def units(grid_thw: np.ndarray) -> np.ndarray:
    """Returns the patches (h, w) of every unit, int64[U, 2].

    A grid of t temporal patches is t units.

    >>> units(np.array([[2, 4, 6], [1, 2, 2]])).tolist()
    [[4, 6], [4, 6], [2, 2]]
    """
    grid = np.asarray(grid_thw, np.int64).reshape(-1, 3)
    return np.repeat(grid[:, 1:], grid[:, 0], axis=0)


def mrope_positions(
    is_visual: np.ndarray, grid_thw: np.ndarray, merge: int
) -> tuple[np.ndarray, int]:
    """Returns M-RoPE positions (t, h, w) of a prompt, int32[3, P], and the position after it.

    Text counts up by one on the three axes. Inside a unit t stands still while h and w walk over
    its merged grid; what follows continues from the largest position + 1.

    One text token, one unit of 2 x 3 merged tokens (patches 4 x 6, merge 2), one text token:
        t  0  1 1 1 1 1 1  4
        h  0  1 1 1 2 2 2  4
        w  0  1 2 3 1 2 3  4      next position 5

    Args:
        is_visual: bool[P], true on the image and video placeholders.
        grid_thw: int[V, 3], patches of each medium before merging, in order of appearance.
        merge: patches on a side of one visual token.

    Raises:
        ValueError: placeholders and grids disagree in number, or the placeholders of a unit are
            not contiguous.

    Source: transformers 5.24, Qwen3VLModel.get_rope_index.
    """
    size = units(grid_thw) // merge  # merged (h, w)
    positions, at, unit, inside, following = _place(
        is_visual, size.prod(axis=1), size.max(axis=1, initial=0)
    )
    width = size[unit, 1]
    positions[1, at] += inside // width
    positions[2, at] += inside % width
    return positions.astype(np.int32), following


def run_positions(
    is_visual: np.ndarray, grid_thw: np.ndarray, merge: int, paces: np.ndarray
) -> tuple[np.ndarray, int]:
    """Returns what `mrope_positions` does, for families that write a video's frames as one run.

    Every frame starts at the position of the run; t counts on by `pace` a temporal patch, rounded
    down. What follows goes on from the side of one frame, however long the video is.

    One text token, a video of three frames of 1 x 2 merged tokens at a pace of 2.5, one text token:
        t  0  1 1 3 3 6 6  3
        h  0  1 1 1 1 1 1  3
        w  0  1 2 1 2 1 2  3      next position 4

    Args:
        is_visual: bool[P], true on the image and video placeholders.
        grid_thw: int[V, 3], patches of each medium before merging, in order of appearance.
        merge: patches on a side of one visual token.
        paces: float[V], positions from one temporal patch to the next.

    Raises:
        ValueError: see `mrope_positions`.

    Source: transformers 5.24, Qwen2VLModel.get_rope_index, Qwen2_5_VLModel.get_rope_index. In
        `generate` they continue from the largest position of the prompt + 1 instead, which is
        another one where a video outlasts the text behind it; here completions are placed as in
        the forward pass over prompt and completion.
    """
    grid = np.asarray(grid_thw, np.int64).reshape(-1, 3) // [1, merge, merge]
    positions, at, medium, inside, following = _place(
        is_visual, grid.prod(axis=1), grid[:, 1:].max(axis=1, initial=0)
    )
    height, width = grid[medium, 1], grid[medium, 2]
    frame = inside // (height * width)
    # float32 as in HF, whose rounding down a product just below a whole number depends on it.
    seconds = frame.astype(np.float32) * np.asarray(paces, np.float32)[medium]
    positions[0, at] += seconds.astype(np.int64)
    positions[1, at] += inside // width % height
    positions[2, at] += inside % width
    return positions.astype(np.int32), following


def _place(
    is_visual: np.ndarray, counts: np.ndarray, sides: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns where the runs of placeholders start, and what follows them.

    Args:
        is_visual: bool[P], true on the placeholders.
        counts: int[U], placeholders of each run.
        sides: int[U], positions that each run takes up.

    Returns:
        int64[3, P] positions with those of a run all at its start; the places of the placeholders,
        the run of each and its place in it; the position that comes next.

    Raises:
        ValueError: the placeholders are others in number, or a run is not contiguous.
    """
    at = np.flatnonzero(is_visual)
    if len(at) != counts.sum():
        raise ValueError(
            f"{len(at)} placeholders for {counts.sum()} visual tokens; "
            "the prompt and its media do not belong together"
        )
    run = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts  # of each run, among the visual tokens
    inside = np.arange(len(at)) - first[run]
    if np.any(at - inside != at[first[run]]):
        raise ValueError(
            "the placeholders of one frame are not contiguous; check the chat template"
        )
    advance = np.ones(len(is_visual), np.int64)
    advance[at] = 0
    advance[at[first]] = sides
    start = np.cumsum(advance) - advance
    start[at] = start[at[first[run]]]
    return np.repeat(start[None], 3, axis=0), at, run, inside, int(advance.sum())


def patch_seconds(timestamps: np.ndarray, temporal_patch: int) -> np.ndarray:
    """Returns the seconds of each temporal patch, float64[t]: the mean of its outer frames' times.

    An odd count repeats the last frame.

    >>> patch_seconds(np.array([0.0, 0.5, 1.0]), 2).tolist()
    [0.25, 1.0]

    Source: transformers 5.24, Qwen3VLProcessor._calculate_timestamps.
    """
    times = np.asarray(timestamps, np.float64)
    times = np.concatenate([times, np.repeat(times[-1:], -len(times) % temporal_patch)])
    return (times[::temporal_patch] + times[temporal_patch - 1 :: temporal_patch]) / 2


@functools.lru_cache(maxsize=256)
def patch_positions(h: int, w: int, merge: int) -> np.ndarray:
    """Returns (row, column) of every patch of an h x w unit, int32[h * w, 2], in merge order.

    The array is read-only.

    Merge order lists the merge x merge neighbours of one visual token before the next token's:
    a 2 x 4 grid with merge 2 runs (0,0) (0,1) (1,0) (1,1) (0,2) (0,3) (1,2) (1,3).
    """
    rows, cols = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    blocks = np.stack([rows, cols], axis=-1).reshape(h // merge, merge, w // merge, merge, 2)
    out = blocks.transpose(0, 2, 1, 3, 4).reshape(-1, 2).astype(np.int32)
    out.setflags(write=False)
    return out


@functools.lru_cache(maxsize=256)
def interpolation(h: int, w: int, merge: int, pos_grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns bilinear taps of an h x w unit into the learned position table, in merge order.

    The table is pos_grid x pos_grid; the corners of the unit stand on the corners of the table. The
    arrays are read-only.

    Returns:
        int32[h * w, 4] rows of the flattened table and float32[h * w, 4] weights; taps are ordered
        (top left, top right, bottom left, bottom right).

    Source: transformers 5.24, vision_utils.get_vision_interpolation_indices_and_weights with
        align_corners.
    """
    row, col = patch_positions(h, w, merge).T
    row_taps, row_weights = _axis_taps(row, h, pos_grid)
    col_taps, col_weights = _axis_taps(col, w, pos_grid)
    index = (row_taps[:, :, None] * pos_grid + col_taps[:, None, :]).reshape(-1, 4)
    weight = (row_weights[:, :, None] * col_weights[:, None, :]).reshape(-1, 4)
    index = index.astype(np.int32)
    for a in (index, weight):
        a.setflags(write=False)
    return index, weight


def _axis_taps(at: np.ndarray, size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two table entries round each position of an axis, and their weights."""
    # float32 throughout: HF works in float32 and the taps at exact grid points depend on it.
    source = at.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    low = np.floor(source)
    taps = np.clip(low.astype(np.int64)[:, None] + np.arange(2), 0, side - 1)
    upper = source - low
    weights = np.stack([1 - np.abs(upper), 1 - np.abs(upper - 1)], axis=1)
    return taps, np.maximum(weights, 0).astype(np.float32)
