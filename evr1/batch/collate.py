"""Collation: prompts of different lengths and media become one `Prompts` of bucketed shape."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from evr1.batch import vision_rows
from evr1.batch.shapes import ShapeTable
from evr1.data import positions
from evr1.data.records import Example, Geometry
from evr1.types import Prompts, VisionInput


@dataclasses.dataclass(frozen=True)
class Collator:
    """Makes one record of many prompts.

    Attributes:
        shapes: the buckets.
        geometry: how pixels were cut into patches.
        pos_grid: side of the model's learned position table.
        pad_id: token that fills the padding.
    """

    shapes: ShapeTable
    geometry: Geometry
    pos_grid: int
    pad_id: int

    def __call__(
        self,
        examples: Sequence[Example],
        groups: int | None = None,
        *,
        has_patches: bool = True,
        is_largest: bool = False,
    ) -> Prompts:
        """Returns the prompts as NumPy arrays, padded to the buckets.

        Args:
            examples: the prompts, one per group.
            groups: pads the number of prompts up to this with empty ones of length 1.
            has_patches: False leaves the patches out (C = 0), nearly all of the bytes, until
                `fill_patches`.
            is_largest: pads to the largest buckets.

        Raises:
            ValueError: a prompt exceeds the buckets, or its placeholders and patches disagree; the
                message names the row.
        """
        groups = len(examples) if groups is None else groups
        if groups < len(examples):
            raise ValueError(f"{len(examples)} prompts do not fit groups={groups}")
        shapes, geometry = self.shapes, self.geometry
        rows_of = [_check(e, shapes, geometry) for e in examples]
        longest = max((len(e.tokens) for e in examples), default=1)
        p, f = shapes.largest if is_largest else shapes.pair(longest, max(rows_of, default=0))
        out = empty_prompts(groups, p, (f, shapes.row_patches), self.pad_id)
        for g, e in enumerate(examples):
            n = len(e.tokens)
            out.tokens[g, :n] = e.tokens
            out.positions[g, :, :n] = e.positions
            out.lengths[g] = n
            out.next_positions[g] = e.next_position
            index = _fill_vision(out.vision, g, e, geometry.merge_size, self.pos_grid)
            out.visual_index[g, :n][e.is_visual] = index
        if not has_patches:
            return out
        filled = [*examples, *[None] * (groups - len(examples))]
        return fill_patches(out, filled, examples[0].patches.shape[1])


def empty_prompts(groups: int, tokens: int, rows: tuple[int, int], pad_id: int = 0) -> Prompts:
    """Returns G prompts of padding alone, without patches (C = 0).

    Args:
        groups: G.
        tokens: P.
        rows: F and S.
        pad_id: fills the tokens.
    """
    vision = VisionInput(
        patches=np.zeros((groups, *rows, 0), np.uint8),
        segment_ids=np.zeros((groups, *rows), np.int32),
        positions=np.zeros((groups, *rows, 2), np.int32),
        interp_index=np.zeros((groups, *rows, 4), np.int32),
        interp_weight=np.zeros((groups, *rows, 4), np.float32),
        is_image=np.zeros((groups, *rows), bool),
    )
    return Prompts(
        tokens=np.full((groups, tokens), pad_id, np.int32),
        positions=np.zeros((groups, 3, tokens), np.int32),
        lengths=np.ones(groups, np.int32),
        next_positions=np.ones(groups, np.int32),
        visual_index=np.full((groups, tokens), -1, np.int32),
        vision=vision,
    )


def fill_patches(prompts: Prompts, examples: Sequence[Example | None], values: int) -> Prompts:
    """Returns prompts that were collated without patches, with them.

    Args:
        prompts: host arrays; rows and order of the groups may have been cut and changed since.
        examples: the prompt of each group; None for padding.
        values: of a patch, C.
    """
    groups, rows, row_patches = prompts.vision.segment_ids.shape
    patches = np.zeros((groups, rows, row_patches, values), np.uint8)
    for g, e in enumerate(examples):
        if e is None:
            continue
        for n, row, offset, start in zip(*_places(e.grid_thw, row_patches), strict=True):
            patches[g, row, offset : offset + n] = e.patches[start : start + n]
    return prompts._replace(vision=prompts.vision._replace(patches=patches))


def _places(grid_thw: np.ndarray, row_patches: int) -> tuple[np.ndarray, ...]:
    """Returns patches, row, offset in the row, and first patch of every unit of a prompt."""
    counts = vision_rows.units(grid_thw)
    rows, offsets, _ = vision_rows.place_units(counts, row_patches)
    return counts, rows, offsets, np.cumsum(counts) - counts


def _fill_vision(vision: VisionInput, g: int, e: Example, merge: int, pos_grid: int) -> np.ndarray:
    """Lays the units of prompt g out in its rows; returns where its visual tokens stand."""
    row_patches = vision.patches.shape[2]
    sizes = positions.units(e.grid_thw)
    counts, rows, offsets, _ = _places(e.grid_thw, row_patches)
    segments = np.zeros(vision.patches.shape[1], np.int32)
    index = []
    is_image = np.repeat(e.is_image, e.grid_thw[:, 0])
    for (h, w), n, row, offset, image in zip(sizes, counts, rows, offsets, is_image, strict=True):
        at = (g, row, slice(offset, offset + n))
        segments[row] += 1
        vision.segment_ids[at] = segments[row]
        vision.is_image[at] = image
        vision.positions[at] = positions.patch_positions(int(h), int(w), merge)
        vision.interp_index[at], vision.interp_weight[at] = positions.interpolation(
            int(h), int(w), merge, pos_grid
        )
        index.append((row * row_patches + offset) // merge**2 + np.arange(n // merge**2))
    return np.concatenate(index) if index else np.zeros(0, np.int64)


def _check(e: Example, shapes: ShapeTable, geometry: Geometry) -> int:
    """Returns the vision rows of an example that fits; the error of one that does not names it."""
    where = f"{e.row.source} ({e.row.problem_id})"
    patches = int(vision_rows.units(e.grid_thw).sum())
    placeholders = int(e.is_visual.sum())
    if patches != len(e.patches) or patches != placeholders * geometry.merge_size**2:
        raise ValueError(
            f"{where}: {placeholders} placeholders, but {len(e.patches)} patches in grids of "
            f"{patches} with merge_size={geometry.merge_size}; prompt and media do not match"
        )
    if shapes.row_patches % geometry.merge_size**2:
        raise ValueError(
            f"shapes.row_patches={shapes.row_patches} is not a multiple of merge_size**2="
            f"{geometry.merge_size**2}; round it up"
        )
    try:
        shapes.prompt_bucket(len(e.tokens))
        rows = vision_rows.count(e.grid_thw, shapes.row_patches)
        shapes.vision_bucket(rows)
    except ValueError as err:
        raise ValueError(f"{where}: {err}") from err
    return rows
