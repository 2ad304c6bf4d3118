"""Drawing where devices have a part of the vocabulary each."""

import contextlib
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from evr1.parallel.mesh import make_mesh
from evr1.sampler.sampling import BLOCK, RowIds, Sampling, make_draws, row_keys, sample

ROWS, VOCAB, TENSOR = 256, 4 * 1030, 4  # parts begin within a block of 128, of which there are 33
MODES = {
    "greedy": {"temperature": 0.0, "banned_ids": (5, 1029, 1030)},
    "plain": {"temperature": 1.3},
    "filtered": {"temperature": 0.7, "top_k": 40, "top_p": 0.8, "banned_ids": (5, 3000)},
    "mixed": {"top_p": 0.9, "greedy_rows": 3},
}


@functools.cache
def _mesh():
    return make_mesh(data=2, fsdp=1, tensor=TENSOR)


def _logits() -> np.ndarray:
    """float32[B, V]; half of the rows have two equals on both sides of a cut, the likeliest."""
    logits = 3 * np.random.default_rng(0).normal(size=(ROWS, VOCAB)).astype(np.float32)
    logits[ROWS // 2 :, [1030, 2059]] = 20
    return logits


def _drawn(options, mesh=None, told=True):
    """(tokens, log-probabilities, text of the program)."""
    sampling = Sampling(seed=3, **options)
    draws = make_draws(sampling, VOCAB)
    keys = row_keys(draws.seed, RowIds.of_groups(np.arange(ROWS // 8), 8)).reshape(ROWS, 2)
    places = np.arange(ROWS, dtype=np.int32)
    is_greedy = jnp.asarray(places % 8 >= 8 - sampling.greedy_rows)
    is_greedy = is_greedy if sampling.greedy_rows else None
    logits = jnp.asarray(_logits())
    if mesh is not None:
        logits = jax.device_put(logits, NamedSharding(mesh, P("data", "tensor")))
        rest = keys, places, draws, is_greedy
        keys, places, draws, is_greedy = jax.device_put(rest, NamedSharding(mesh, P()))
    run = jax.jit(functools.partial(sample, mode=sampling.mode))
    with contextlib.nullcontext() if mesh is None or not told else jax.set_mesh(mesh):
        compiled = run.lower(logits, keys, places, draws, is_greedy=is_greedy).compile()
        tokens, logprobs = compiled(logits, keys, places, draws, is_greedy=is_greedy)
    return np.asarray(tokens), np.asarray(logprobs), compiled.as_text()


def _largest_exchange(text: str) -> int:
    """Numbers of the largest array that a collective leaves on a device."""
    kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
    shapes = re.findall(rf"= (\S.*?) (?:{kinds})(?:-start)?\(", text)
    sizes = [s for each in shapes for s in re.findall(r"\b[a-z]+\d+\[([\d,]*)\]", each)]
    return max((math.prod(int(n) for n in s.split(",") if n) for s in sizes), default=0)


@pytest.mark.parametrize("name", MODES)
def test_tokens_are_those_of_one_device_and_no_logits_travel(name):
    tokens, logprobs, _ = _drawn(MODES[name])
    cut, cut_logprobs, text = _drawn(MODES[name], _mesh())
    np.testing.assert_array_equal(cut, tokens)
    np.testing.assert_allclose(cut_logprobs, logprobs, rtol=1e-5, atol=1e-5)
    assert not np.isin(cut, MODES[name].get("banned_ids", ())).any()
    if name == "filtered":
        assert len(set(cut[: ROWS // 2].tolist())) > 50  # they are draws
    rows, blocks = ROWS // 2, VOCAB // BLOCK + 1 + VOCAB // TENSOR // BLOCK + 2
    assert 0 < _largest_exchange(text) <= rows * BLOCK < rows * VOCAB // TENSOR
    assert blocks <= BLOCK
    assert "all-gather" not in text


def test_a_partitioner_that_is_not_told_gathers_them():
    _, _, text = _drawn(MODES["plain"], _mesh(), told=False)
    assert _largest_exchange(text) >= ROWS // 2 * VOCAB // TENSOR
