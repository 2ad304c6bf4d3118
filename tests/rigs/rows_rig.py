"""Rows, random media and examples, as the data pipeline gives them."""

import numpy as np

from evr1.data import positions
from evr1.data.records import Example, Geometry, Media, MediaSize, Row

GEOMETRY = Geometry(patch_size=2, temporal_patch_size=2, merge_size=2)
CHANNELS = 3 * 2 * 2 * 2


def make_row(problem: str, problem_type: str = "numerical", **fields) -> Row:
    values = {
        "index": 0,
        "problem": problem,
        "answer": "3",
        "problem_type": problem_type,
        "data_type": "text",
        "images": ("a.png",) * problem.count("<image>"),
        "videos": ("a.mp4",) * problem.count("<video>"),
        "options": (),
        "problem_id": "p7",
        "video_start": None,
        "video_end": None,
        "source": "rows.jsonl:3",
        "extra": {},
    }
    return Row(**{**values, **fields})


def make_media(size: list, rng: np.random.Generator) -> Media:
    if len(size) == 2:
        frames = rng.integers(0, 256, (1, *size, 3), np.uint8)
        return Media(frames, np.zeros(0), is_video=False)
    n, h, w, indices, fps = size
    frames = rng.integers(0, 256, (n, h, w, 3), np.uint8)
    return Media(frames, np.array(indices) / fps, is_video=True)


def sizes_of(example, media) -> list[MediaSize]:
    return [
        MediaSize(tuple(map(int, g)), m.timestamps, m.is_video)
        for g, m in zip(example.grid_thw, media, strict=True)
    ]


def make_example(grids, seed: int = 0) -> Example:
    """Two text tokens, then each unit's placeholders and a text token; patch values are random."""
    rng = np.random.default_rng(seed)
    grid = np.array(grids, np.int32).reshape(-1, 3)
    visual = [False, False]
    for h, w in positions.units(grid):
        visual += [True] * (h * w // 4) + [False]
    visual = np.array(visual)
    where, following = positions.mrope_positions(visual, grid, 2)
    patches = rng.integers(0, 256, (grid.prod(axis=1).sum(), CHANNELS), np.uint8)
    tokens = np.where(visual, 99, 1 + np.arange(len(visual)) % 50).astype(np.int32)
    is_image = grid[:, 0] == 1
    return Example(make_row("x"), tokens, visual, where, following, patches, grid, is_image)
