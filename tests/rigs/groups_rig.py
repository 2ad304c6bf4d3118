"""Small group batches of given lengths; the tokens of group g are all g + 1."""

import numpy as np

from evr1.batch.assemble import group_batch
from evr1.batch.shapes import ShapeTable
from evr1.types import Prompts, Rollouts, VisionInput

N, R, P, F, S = 2, 8, 16, 3, 4
SHAPES = ShapeTable((4, 8, 16), (0, 1, 3), row_patches=S, completion_tokens=R)


def make(prompt_lengths, completion_lengths, rows=None, signal=None):
    """One group for each; `completion_lengths` are of its first completion; the other has 1."""
    g = len(prompt_lengths)
    rows = [0] * g if rows is None else rows
    segments = np.zeros((g, F, S), np.int32)
    for i, count in enumerate(rows):
        segments[i, :count, 0] = 1
    ids = np.arange(1, g + 1, dtype=np.int32)[:, None]
    prompts = Prompts(
        tokens=np.where(np.arange(P) < np.array(prompt_lengths)[:, None], ids, 0).astype(np.int32),
        positions=np.zeros((g, 3, P), np.int32),
        lengths=np.array(prompt_lengths, np.int32),
        next_positions=np.array(prompt_lengths, np.int32),
        visual_index=np.full((g, P), -1, np.int32),
        vision=VisionInput(
            np.zeros((g, F, S, 12), np.uint8),
            segments,
            np.zeros((g, F, S, 2), np.int32),
            np.zeros((g, F, S, 4), np.int32),
            np.zeros((g, F, S, 4), np.float32),
            np.zeros((g, F, S), bool),
        ),
    )
    lengths = np.array([[n, min(n, 1)] for n in completion_lengths], np.int32)
    rollouts = Rollouts(
        np.broadcast_to(ids[:, :, None], (g, N, R)).astype(np.int32),
        np.full((g, N, R), -1, np.float32),
        lengths,
        lengths < R,
    )
    advantages = np.ones((g, N), np.float32) * np.array(signal or [1] * g)[:, None]
    return group_batch(
        prompts, rollouts, advantages.astype(np.float32), aggregation="token_mean", max_tokens=R
    )
