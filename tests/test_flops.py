import types

import numpy as np
import pytest

from evr1 import flops


def test_pairs_by_hand():
    # prompt 4: 8 causal pairs; completions 2 and 1: 2 + .5 own, 8 + 4 to the prompt
    assert flops.pairs(np.array([4.0]), np.array([[2.0, 1.0]])) == 8 + 2.5 + 12


def test_frame_patches_counts_segments_not_padding():
    ids = np.array([[[1, 1, 2, 0], [1, 1, 1, 0]], [[0, 0, 0, 0], [1, 0, 0, 0]]], np.int32)
    assert sorted(flops.frame_patches(ids)) == [1, 1, 2, 3]


def test_text_flops_by_hand():
    sizes = types.SimpleNamespace(
        layers=2, width=8, mlp_width=16, heads=4, kv_heads=2, head_dim=2, moe=None
    )
    # weights of a layer: q 64, k 32, v 32, o 64, mlp 3 * 128
    expected = 2 * (2 * (64 + 32 + 32 + 64 + 384) * 10 + 4 * 8 * 7)
    assert flops.text_flops(sizes, 10, 7) == expected


@pytest.mark.parametrize(
    ("kind", "peak"), [("NVIDIA H200", 989e12), ("TPU v5 lite", 197e12), ("cpu", None)]
)
def test_peak(kind, peak):
    assert flops.peak_flops(kind) == peak
