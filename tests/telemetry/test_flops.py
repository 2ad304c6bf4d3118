import numpy as np
import pytest

from evr1.models import FAMILIES
from evr1.telemetry import flops


def test_pairs_by_hand():
    # prompt 4: 8 causal pairs; completions 2 and 1: 2 + .5 own, 8 + 4 to the prompt
    assert flops.pairs(np.array([4.0]), np.array([[2.0, 1.0]])) == 8 + 2.5 + 12


def test_frame_patches_counts_segments_not_padding():
    ids = np.array([[[1, 1, 2, 0], [1, 1, 1, 0]], [[0, 0, 0, 0], [1, 0, 0, 0]]], np.int32)
    assert sorted(flops.frame_patches(ids)) == [1, 1, 2, 3]


def _model(family, text, tower):
    turn = {"mrope_section": [1, 0, 0], "rope_type": "default"}
    tower = {"depth": 3, "num_heads": 1, "patch_size": 2, "in_channels": 3, **tower}
    raw = {"model_type": family, "text_config": text | {"rope_parameters": turn}}
    return FAMILIES[family](raw | {"vision_config": tower}, dtype="float32", remat="none")


TEXT = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
}


def test_text_flops_by_hand():
    tower = {"deepstack_visual_indexes": [], "out_hidden_size": 8}
    # weights of a layer: q 64, k 32, v 32, o 64, mlp 3 * 128
    expected = 2 * (2 * (64 + 32 + 32 + 64 + 384) * 10 + 4 * 8 * 7)
    assert flops.text_flops(_model("qwen3_vl", TEXT, tower), 10, 7) == expected
    # one of two layers has 4 experts, of which a token meets 2: 2 * 3 * 8 * 5, and the router 32
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5}
    sparse = _model("qwen3_vl_moe", TEXT | experts | {"decoder_sparse_step": 2}, tower)
    expected += 2 * (240 + 32 - 384) * 10
    assert flops.text_flops(sparse, 10, 7) == expected
    # One layer has a state of 2 heads of 3 x 5, the other attention. Weights: qkv 8 * 22, gate
    # 8 * 10, beta and decay 16 each, o 80, convolution 22 * 4; attention has gates beside q.
    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 3}
    sizes |= {"linear_value_head_dim": 5, "full_attention_interval": 2}
    delta = _model("qwen3_5", TEXT | sizes, {"out_hidden_size": 8})
    weights = (176 + 80 + 32 + 80) + (2 * 64 + 32 + 32 + 64) + 2 * 384
    assert flops.text_flops(delta, 10, 7) == (2 * weights + 7 * 30) * 10 + 4 * 8 * 7


def test_vision_flops_by_hand():
    """Frames of 16 and 4 patches; a block of Qwen2.5-VL has windows of 2 x 2 unless it is full."""
    tower = {"hidden_size": 4, "intermediate_size": 6, "out_hidden_size": 8, "window_size": 4}
    model = _model("qwen2_5_vl", TEXT, tower | {"fullatt_block_indexes": [1]})
    # a block: qkv and proj 4 * 16, three matrices of 24; patches of 3 * 2 * 2 * 2 values; of four
    # patches: 16 * 16 + 16 * 8
    weights = 3 * (64 + 72) + 24 * 4 + (256 + 128) / 4
    seen = 16**2 + 4**2 + 2 * 20 * 4
    assert flops.vision_flops(model, np.array([16.0, 4.0])) == 2 * weights * 20 + 4 * 4 * seen


@pytest.mark.parametrize(
    ("kind", "peak"), [("NVIDIA H200", 989e12), ("TPU v5 lite", 197e12), ("cpu", None)]
)
def test_peak(kind, peak):
    assert flops.peak_flops(kind) == peak
