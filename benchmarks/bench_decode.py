"""Decoding: `python benchmarks/bench_decode.py [--preset cpu|gpu] [--json OUT]`.

A shared prefix against a copied one: the n completions of a prompt read one copy of its keys and
values, or, as usual, each its own. Same random model, same random prefix cache, same random
numbers, so the same tokens (checked; in bfloat16 rounding may turn some). The two take turns in one
run. `cache` is what the prefixes and completions hold. Prompts fill their bucket, or are spread
over it: G lengths, evenly up to P. `of copying` is the share of the rate at which this device reads
and writes a large array, measured before, at which shared decoding reads weights and live caches:
over 1 where they stay in a CPU's own caches.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from benchmarks.bench_update import LARGE, SMALL, Size, make_model
from evr1.models import Model
from evr1.sampler import DecodeState, Engine, Sampling
from evr1.sampler.sampling import RowIds, row_keys
from evr1.sampler.weights import with_layers_apart
from evr1.types import Params


@dataclasses.dataclass(frozen=True)
class Shape:
    """One line of the table: G prompts in a bucket of P tokens, n completions each, `steps` tokens
    decoded."""

    groups: int
    n: int
    prompt_tokens: int
    steps: int
    window: int = 16
    is_spread: bool = False

    @property
    def lengths(self) -> np.ndarray:
        """int32[G], tokens of the prompts."""
        full = np.full(self.groups, self.prompt_tokens, np.int32)
        return full * np.arange(1, self.groups + 1) // self.groups if self.is_spread else full


PRESETS: dict[str, tuple[Size, tuple[Shape, ...]]] = {
    "cpu": (
        SMALL,
        (*(Shape(4, 8, p, 32) for p in (128, 512, 2048)), Shape(4, 8, 2048, 32, is_spread=True)),
    ),
    "gpu": (
        LARGE,
        (
            *(Shape(8, 8, p, 256) for p in (1024, 4096, 8192, 16384)),
            Shape(8, 8, 16384, 256, is_spread=True),
        ),
    ),
}


def shared_state(engine: Engine, shape: Shape, vocab: int) -> DecodeState:
    """Slots in which every row is about to decode after a random prefix."""
    rng = np.random.default_rng(0)
    state = engine.init_decode_state()
    keys = jax.random.split(jax.random.key(0), 2)
    prefix = [
        jax.random.normal(k, x.shape, x.dtype)
        for k, x in zip(keys, state.cache.prefix, strict=True)
    ]
    lengths = jnp.asarray(shape.lengths, jnp.int32)
    cache = state.cache._replace(prefix=type(state.cache.prefix)(*prefix), prefix_lengths=lengths)
    return state._replace(
        cache=cache,
        tokens=jnp.asarray(rng.integers(0, vocab, (shape.groups, shape.n)), jnp.int32),
        next_positions=jnp.copy(lengths),  # donated beside the other
        keys=row_keys(jnp.uint32(0), RowIds.of_groups(np.arange(shape.groups), shape.n)),
    )


def copied_state(engine: Engine, shared: DecodeState) -> DecodeState:
    """Returns the same rows, each in a slot of its own with a copy of its prefix."""
    groups, n = shared.tokens.shape
    cache = engine.init_decode_state().cache
    prefix = jax.tree.map(lambda x: jnp.repeat(x, n, axis=1), shared.cache.prefix)
    lengths = jnp.repeat(shared.cache.prefix_lengths, n)
    return engine.init_decode_state()._replace(
        cache=cache._replace(prefix=prefix, prefix_lengths=lengths),
        tokens=shared.tokens.reshape(groups * n, 1),
        next_positions=jnp.copy(lengths),  # donated beside the other
        keys=shared.keys.reshape(groups * n, 1, 2),
    )


class Decoder:
    """Decodes the same completions again and again; the cache is reused, so nothing is copied."""

    def __init__(self, engine: Engine, state: DecodeState, params, windows: int):
        self._engine, self._params, self._windows = engine, params, windows
        self._state, self._tokens = state, np.asarray(state.tokens)
        self.cache_bytes = sum(x.nbytes for x in jax.tree.leaves(state.cache))

    def __call__(self) -> np.ndarray:
        """int32[G * N, steps], the tokens."""
        state = self._state._replace(
            tokens=jnp.asarray(self._tokens),
            done=jnp.zeros(self._tokens.shape, bool),
            lengths=jnp.ones(self._tokens.shape, jnp.int32),
            steps=jnp.zeros(self._tokens.shape, jnp.int32),
        )
        results = []
        for i in range(self._windows):
            drawn = 1 + i * self._engine.window
            state, result = self._engine.generate(self._params, state, drawn)
            results.append(result)
        self._state = jax.block_until_ready(state)
        return np.concatenate([r.data[:, slice(*r.tokens_idx)] for r in results], axis=1)


def bytes_read(model: Model, params: Params, shape: Shape) -> float:
    """Returns the bytes that a decode step must read: weights, prompts, and completions so far."""
    c, size = model.config, np.dtype(model.dtype).itemsize
    weights = sum(x.size for x in jax.tree.leaves(params["text"]))
    if not c.tied:
        weights -= params["text"]["embed"].size  # a row a token
    tokens = shape.lengths.sum() + shape.groups * shape.n * shape.steps / 2
    return size * (weights + 2 * c.attention_layers * c.kv_heads * c.head_dim * tokens)


def measure(shape: Shape, size: Size, repeats: int) -> dict:
    """Returns one line of the table."""
    model = dataclasses.replace(make_model(size), remat="none")
    params = jax.jit(model.init)(jax.random.key(0))
    drawn = with_layers_apart(params, model)
    rows = shape.groups * shape.n

    def engine(slots, n):
        return Engine(
            model,
            Sampling(max_tokens=shape.steps + 1, end_ids=()),
            n=n,
            slots=slots,
            prompt_tokens=shape.prompt_tokens,
            completion_tokens=shape.steps + 1,
            window=shape.window,
            stop_early=jax.default_backend() != "gpu",
        )

    one, many = engine(shape.groups, shape.n), engine(rows, 1)
    state = shared_state(one, shape, size.vocab)
    windows = shape.steps // shape.window
    copied = Decoder(many, copied_state(many, state), drawn, windows)
    shared = Decoder(one, state, drawn, windows)
    agree = float((shared() == copied()).mean())
    if size.dtype == "float32" and agree < 1:
        raise AssertionError(f"only {agree:.4f} of the tokens are the same")
    rate = common.copy_rate()
    times = common.time_side_by_side({"shared": shared, "copied": copied}, repeats)
    tokens = rows * shape.steps
    return {
        "prompt": "-".join(map(str, sorted({shape.lengths[0], shape.lengths[-1]}))),
        "G x n": f"{shape.groups} x {shape.n}",
        "steps": shape.steps,
        "shared tokens/s": tokens / statistics.median(times["shared"]),
        "copied tokens/s": tokens / statistics.median(times["copied"]),
        "times faster": common.ratio(times["copied"], times["shared"]),
        "of copying": bytes_read(model, params, shape)
        * shape.steps
        / statistics.median(times["shared"])
        / rate,
        "shared cache MiB": shared.cache_bytes / 2**20,
        "copied cache MiB": copied.cache_bytes / 2**20,
        "same tokens": agree,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    size, shapes = PRESETS[args.preset]
    rows = [measure(shape, size, args.repeats) for shape in shapes]
    common.show("Decoding: shared prefix against a copy a row", rows, args.json)


if __name__ == "__main__":
    main()
