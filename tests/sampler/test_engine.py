"""What a decode step asks of a model."""

import types

import jax.numpy as jnp
import sampler_rig as rig

from evr1.sampler import engine
from evr1.sampler.engine import Engine
from evr1.sampler.sampling import Sampling


def test_nobody_reads_the_prompt_of_a_group_that_has_finished():
    shapes = {"n": 2, "slots": 3, "window": 8, "prompt_tokens": 16, "completion_tokens": 8}
    e = Engine(rig.model(), Sampling(max_tokens=8), **shapes)
    state = e.init_decode_state()
    lengths = jnp.array([9, 16, 4])
    state = state._replace(
        cache=state.cache._replace(prefix_lengths=lengths),
        done=jnp.array([[False, True], [True, True], [False, False]]),
    )
    asked = []

    def decode(params, cache, tokens, steps, positions, room):
        asked.append(cache.prefix_lengths.tolist())
        return jnp.zeros((*tokens.shape, 4)), cache

    vocabulary = rig.model().config.vocab_size
    model = types.SimpleNamespace(
        decode=decode, logits=lambda _, hidden: jnp.zeros((*hidden.shape[:2], vocabulary))
    )
    after, *_ = engine._decode_step(model, None, state, e.draws, e.sampling.mode)
    assert asked == [[9, 0, 4]]
    assert after.cache.prefix_lengths.tolist() == lengths.tolist()
