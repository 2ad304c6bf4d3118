"""Published sizes, built without arrays: parameter counts, and every tensor of transformers."""

import collections
import math

import families
import jax
import pytest
from hf import load_torch

from evr1.models import FAMILIES
from evr1.models.io import hf
from evr1.models.tree import flatten

torch = load_torch()
pytestmark = pytest.mark.parity

OLD_TOWER = {"depth": 32, "num_heads": 16, "patch_size": 14}
QWEN2_TOWER = OLD_TOWER | {"embed_dim": 1280, "mlp_ratio": 4}
QWEN25_TOWER = OLD_TOWER | {"hidden_size": 1280, "intermediate_size": 3420, "window_size": 112}
SMALL_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
SMALL_TOWER |= {"deepstack_visual_indexes": [5, 11, 17]}
LARGE_TOWER = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304}
LARGE_TOWER |= {"deepstack_visual_indexes": [8, 16, 24]}


def _text(width, mlp, layers, heads, kv_heads, vocab=151936):
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


def _old(family, text, tower, *, tied):
    turn = {"type": "mrope", "mrope_section": [16, 24, 24]}
    return {
        "model_type": family,
        "tie_word_embeddings": tied,
        "vision_config": tower,
        "rope_scaling": turn,
        **text,
    }


def _new(family, text, tower, *, tied):
    turn = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    return {
        "model_type": family,
        "tie_word_embeddings": tied,
        "vision_config": tower,
        "text_config": text | {"head_dim": 128, "rope_scaling": turn},
    }


EXPERTS = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
# The total of each repository's safetensors index; of Qwen3.5 transformers describes one size each.
PUBLISHED = {
    "Qwen2-VL-2B": (
        _old(
            "qwen2_vl",
            _text(1536, 8960, 28, 12, 2),
            QWEN2_TOWER | {"hidden_size": 1536},
            tied=True,
        ),
        2_208_985_600,
    ),
    "Qwen2-VL-7B": (
        _old(
            "qwen2_vl",
            _text(3584, 18944, 28, 28, 4, 152064),
            QWEN2_TOWER | {"hidden_size": 3584},
            tied=False,
        ),
        8_291_375_616,
    ),
    "Qwen2.5-VL-3B": (
        _old(
            "qwen2_5_vl",
            _text(2048, 11008, 36, 16, 2),
            QWEN25_TOWER | {"out_hidden_size": 2048},
            tied=True,
        ),
        3_754_622_976,
    ),
    "Qwen2.5-VL-7B": (
        _old(
            "qwen2_5_vl",
            _text(3584, 18944, 28, 28, 4, 152064),
            QWEN25_TOWER | {"out_hidden_size": 3584},
            tied=False,
        ),
        8_292_166_656,
    ),
    "Qwen3-VL-2B": (
        _new(
            "qwen3_vl",
            _text(2048, 6144, 28, 16, 8),
            SMALL_TOWER | {"out_hidden_size": 2048},
            tied=True,
        ),
        2_127_532_032,
    ),
    "Qwen3-VL-4B": (
        _new(
            "qwen3_vl",
            _text(2560, 9728, 36, 32, 8),
            SMALL_TOWER | {"out_hidden_size": 2560},
            tied=True,
        ),
        4_437_815_808,
    ),
    "Qwen3-VL-8B": (
        _new(
            "qwen3_vl",
            _text(4096, 12288, 36, 32, 8),
            LARGE_TOWER | {"out_hidden_size": 4096},
            tied=False,
        ),
        8_767_123_696,
    ),
    "Qwen3-VL-30B-A3B": (
        _new(
            "qwen3_vl_moe",
            _text(2048, 6144, 48, 32, 4) | EXPERTS,
            LARGE_TOWER | {"out_hidden_size": 2048},
            tied=False,
        ),
        31_070_754_032,
    ),
    "Qwen3.5-9B": (
        {
            "model_type": "qwen3_5",
            "text_config": {},
            "vision_config": {"out_hidden_size": 4096},
        },
        None,
    ),
    "Qwen3.5-35B-A3B": (
        {
            "model_type": "qwen3_5_moe",
            "text_config": {},
            "vision_config": {"out_hidden_size": 2048},
        },
        None,
    ),
}
CLASSES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5",
    "qwen3_5_moe": "Qwen3_5Moe",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    import transformers

    raw, published = PUBLISHED[name]
    model = FAMILIES[raw["model_type"]](raw, dtype="bfloat16", remat="full")
    shapes = {k: v.shape for k, v in flatten(model.abstract_params()).items()}
    count = sum(math.prod(shape) for shape in shapes.values())
    family = CLASSES[raw["model_type"]]
    with torch.device("meta"):
        config = getattr(transformers, family + "Config")(**raw)
        whole = getattr(transformers, family + "ForConditionalGeneration")(config)
    theirs = {k: p.numel() for k, p in whole.named_parameters()}
    print(name, f"{count:,}")
    assert count == sum(theirs.values())
    assert published in (None, count)

    covered = {}
    for w in model.weights():
        one = math.prod(shapes[w.path][w.stacks :])
        for hf_name in hf.hf_names(w, shapes[w.path]):
            covered[hf_name] = one
    assert sum(covered.values()) == count
    fused = collections.Counter()
    for hf_name, size in covered.items():
        fused[families.in_memory(hf_name, raw["model_type"])] += size
    assert fused == theirs
    assert jax.tree.leaves(model.abstract_params())[0].dtype == "float32"
