"""Where the patches of a prompt stand: units packed first-fit into vision rows.

A unit is one temporal patch of a video, or one image.
"""

import numpy as np

from evr1.data import positions


def units(grid_thw: np.ndarray) -> np.ndarray:
    """Returns int[U], the patches of every unit of media with these grids, int[media, 3]."""
    return positions.units(grid_thw).prod(axis=1)


def count(grid_thw: np.ndarray, row_patches: int) -> int:
    """Returns how many vision rows a prompt's media fill."""
    return place_units(units(grid_thw), row_patches)[2]


def place_units(sizes: np.ndarray, row_patches: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Places units first-fit into rows of `row_patches` patches.

    Units of 4, 4, 6, 2 patches in rows of 8 go to rows 0 0 1 1 at offsets 0 4 0 6.

    Args:
        sizes: int[U], patches of each unit, in order of appearance.
        row_patches: the room of a row.

    Returns:
        int64[U] row and int64[U] offset of each unit, and the number of rows used.

    Raises:
        ValueError: a unit is larger than a row.
    """
    if len(sizes) and sizes.max() > row_patches:
        raise ValueError(
            f"a frame of {sizes.max()} patches exceeds shapes.row_patches={row_patches}; "
            "raise it or lower the pixel budget"
        )
    row = np.zeros(len(sizes), np.int64)
    offset = np.zeros(len(sizes), np.int64)
    used: list[int] = []
    for i, size in enumerate(sizes.tolist()):
        r = next((r for r, u in enumerate(used) if u + size <= row_patches), len(used))
        if r == len(used):
            used.append(0)
        row[i], offset[i] = r, used[r]
        used[r] += size
    return row, offset, len(used)
