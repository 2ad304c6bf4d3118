"""Compilations, and speed: the arithmetic of an update counted here by hand."""

import types

import jax
import numpy as np
import pytest

from evr1.models import FAMILIES, lora
from evr1.telemetry import flops, perf
from evr1.telemetry.perf import CompileCounter


def test_a_compilation_is_reported_when_it_begins_and_when_it_ends():
    seen = []
    with CompileCounter() as counter:
        x = jax.numpy.arange(7.0)
        counter.on_change = seen.append
        before, seconds = counter.count, counter.seconds
        jax.jit(lambda x: x * 3 - 1)(x).block_until_ready()
    begun, took = seen
    assert begun is None
    assert took > 0
    assert counter.seconds == pytest.approx(seconds + took)
    assert counter.count == before + 1


def test_a_counter_counts_inside_its_block_alone_also_after_an_error():
    def compile_and_fail():
        jax.jit(lambda x: x * 5 - 1)(x).block_until_ready()
        raise KeyError

    x = jax.numpy.arange(7.0)
    inner = CompileCounter()
    with CompileCounter() as outer:
        with pytest.raises(KeyError), inner:
            compile_and_fail()
        assert inner.count == outer.count == 1
        jax.jit(lambda x: x * 5 - 2)(x).block_until_ready()
    assert inner.count == 1
    assert outer.count == 2
    jax.jit(lambda x: x * 5 - 3)(x).block_until_ready()
    assert outer.count == 2


def tiny_model():
    """One text layer of width 8, one block of the tower of width 4, 10 tokens to choose from."""
    text = {
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 2,
        "vocab_size": 10,
        "rope_parameters": {"mrope_section": [1, 0, 0], "rope_type": "default"},
    }
    vision = {
        "depth": 1,
        "hidden_size": 4,
        "intermediate_size": 6,
        "out_hidden_size": 8,
        "num_heads": 1,
        "patch_size": 2,
        "in_channels": 3,
        "deepstack_visual_indexes": [],
    }
    raw = {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}
    return FAMILIES["qwen3_vl"](raw, dtype="float32", remat="none")


def tiny_batch():
    """A prompt of 6 tokens, with an image of 4 x 4 patches, and completions of 2 and 1 tokens.

    The last token of the completions, the last 4 patches and the second group are padding.
    """
    segments = np.zeros((2, 1, 20), np.int32)
    segments[0, :, :16] = 1
    mask = np.zeros((2, 2, 3), bool)
    mask[0] = [[True, True, False], [True, False, False]]
    vision = types.SimpleNamespace(segment_ids=segments)
    lengths = np.array([6, 1], np.int32)  # that of padding is 1, as the microbatches have it
    return types.SimpleNamespace(
        prompts=types.SimpleNamespace(lengths=lengths, vision=vision),
        groups=np.array([0, -1], np.int32),
        completion_mask=mask,
    )


# Multiply-adds of a forward pass over tiny_batch(), matrix by matrix, as rows x inputs x outputs.
TEXT_PRODUCTS = (
    9 * 8 * 8  # q: 4 heads of 2, for 6 + 2 + 1 tokens
    + 9 * 8 * 4  # k: 2 heads of 2
    + 9 * 8 * 4  # v
    + 9 * 8 * 8  # o
    + 9 * 3 * 8 * 16  # gate, up, down
    # Queries against keys, and weights against values, 4 heads of 2 each. Half of 6 x 6 pairs in
    # the prompt, half of 2 x 2 and of 1 x 1 in the completions, and 3 completion tokens on 6 of it.
    + (18 + 2 + 0.5 + 18) * 2 * 4 * 2
    + 3 * 8 * 10  # the head, at completion tokens only
)
TOWER_PRODUCTS = (
    16 * (3 * 2 * 2 * 2) * 4  # patches of 3 colours, 2 frames, 2 x 2 pixels
    + 16 * 4 * 12  # q, k, v
    + 16 * 4 * 4  # o
    + 16 * 2 * 4 * 6  # in and out of the block's MLP
    + 16 * 16 * 2 * 4  # attention of all patches to all
    + 4 * 16 * 16  # the merger sees 2 x 2 patches at once: 4 rows of 16
    + 4 * 16 * 8
)


@pytest.mark.parametrize(
    ("has_adapters", "has_tower", "parts", "products"),
    [
        (False, True, 1, 3 * (TEXT_PRODUCTS + TOWER_PRODUCTS)),  # 3 products: one forward, two back
        (False, False, 1, 3 * TEXT_PRODUCTS),
        (True, True, 1, 2 * (TEXT_PRODUCTS + TOWER_PRODUCTS)),  # frozen weights have no gradient
        (True, False, 1, 2 * TEXT_PRODUCTS),
        (False, True, 4, 4 * 3 * (TEXT_PRODUCTS + TOWER_PRODUCTS)),
        (False, True, 0, 0),  # no group of the step moves anything
    ],
)
def test_mfu_by_hand(monkeypatch, has_adapters, has_tower, parts, products):
    """Two devices of 1,000 operations a second, busy for 5 s: 10,000 are possible.

    A multiply-add is two operations; one would halve the result. Of n separate sequences the prompt
    would count twice.
    """
    monkeypatch.setitem(flops.PEAK_FLOPS, jax.devices()[0].device_kind, 1000.0)
    model = tiny_model()
    if has_adapters:
        model = lora.adapt(model, rank=2, alpha=2.0, targets=(r"text/layers/.*/kernel",))
    times = {"time/step_s": 9.0, "time/rollout_s": 2.0, "time/update_s": 5.0}
    got = perf.update_mfu(model, [tiny_batch()] * parts, times, 2, has_tower=has_tower)
    assert got == {"speed/update_mfu": pytest.approx(2 * products / 10_000, rel=1e-12)}


def test_no_mfu_where_the_peak_is_not_known():
    times = {"time/update_s": 5.0}
    assert perf.update_mfu(tiny_model(), [tiny_batch()], times, 2, has_tower=True) == {}


def test_speed_by_hand():
    batch = tiny_batch()
    batch.prompts.lengths, batch.completion_mask = np.array([6]), batch.completion_mask[:1]
    assert perf.speed(batch, {"time/step_s": 4.0, "time/rollout_s": 2.0}) == {
        "speed/tokens_per_s": (6 + 3) / 4,
        "speed/completion_tokens_per_s": 3 / 2,
        "speed/tokens_shared_share": 1 - 9 / 15,  # separate sequences: 2 x 6 + 3 tokens
    }
