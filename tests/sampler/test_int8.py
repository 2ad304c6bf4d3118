"""Prompts' keys and values in int8, in a sampler."""

import dataclasses

import jax
import numpy as np
import sampler_rig as rig

from evr1.sampler import Sampling, engine, room


def test_tokens_are_nearly_as_likely():
    """A slot is used more than once, the prompts are of several lengths."""
    examples = [rig.example([5 + 9 * seed, ("image", (1, 4, 4)), 3], seed) for seed in range(4)]
    sampling = Sampling(max_tokens=12, end_ids=(3,), seed=5)
    rough = dataclasses.replace(rig.model(), cache_dtype="int8")
    got, exact = (
        rig.sampler(slots=2, model=model).generate(rig.params(), examples, range(4), sampling)
        for model in (rough, rig.model())
    )
    same = np.cumprod(got.completions == exact.completions, axis=-1).astype(bool)
    same &= np.arange(12) < np.minimum(got.lengths, exact.lengths)[..., None]
    gap = np.abs(got.logprobs - exact.logprobs)[same]
    assert same.sum() > 24
    assert 1e-4 < gap.mean() < 0.05
    firsts = np.abs(got.logprobs - exact.logprobs)[..., 0]
    assert firsts.max() < 1e-5  # the prefill draws them, from exact keys


def test_a_prompt_takes_half_of_bfloat16():
    sizes = (1, 2, 48, 32)
    models = [rig.model("bfloat16"), dataclasses.replace(rig.model("bfloat16"), cache_dtype="int8")]
    whole, half = (jax.eval_shape(lambda m=m: m.init_cache(*sizes)).prefix for m in models)
    size = rig.model().config.head_dim
    held = [sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(y)) for y in (whole, half)]
    assert held[1] / held[0] == (size + 4) / (2 * size)  # and a float32 a token
    spared = room.cache_bytes(models[0], None, *sizes[1:]) - room.cache_bytes(
        models[1], None, *sizes[1:]
    )
    assert spared == held[0] - held[1]


def test_a_slot_is_cleared():
    model = dataclasses.replace(rig.model(), cache_dtype="int8")
    state = engine.init_slots(model, 2, 1, 8, 8, None)
    full = jax.tree.map(lambda x: x + np.ones((), x.dtype), state.cache.prefix)
    state = state._replace(cache=state.cache._replace(prefix=full))
    cleared = engine.clear_slots(state, np.array([1]), mesh=None).cache.prefix
    for x in jax.tree.leaves(cleared):
        assert x[:, 0].all()
        assert not x[:, 1].any()
