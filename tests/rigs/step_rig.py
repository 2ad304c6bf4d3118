"""A small random model with its update, and a ragged batch of groups to train it on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import models_oracle as oracle
import numpy as np
import optax

from evr1.batch.assemble import group_batch
from evr1.learner import update as updating
from evr1.models import FAMILIES
from evr1.rl.losses import LossConfig
from evr1.types import Rollouts

LOSS = LossConfig(has_kl=True, temperature=0.7)
G, N, R = 4, 3, 6
LENGTHS = np.array([[6, 3, 1], [2, 6, 5], [4, 0, 2], [1, 5, 3]])
PARTS = (
    (5, ("video", (2, 4, 4)), 4),
    (3, ("image", (1, 4, 6)), 2, ("video", (3, 4, 4)), 5),
    (9,),
    (2, ("video", (1, 4, 4)), ("video", (2, 2, 4)), 1),
)


@functools.cache
def model(dtype="float32"):
    built = FAMILIES["qwen3_vl"](oracle.CONFIG, dtype=dtype, remat="full")
    return dataclasses.replace(built, config=dataclasses.replace(built.config, init_scale=0.2))


@functools.cache
def params():
    return model().init(jax.random.key(0))


@functools.cache
def optimizer():
    return optax.adam(1e-5)


@functools.cache
def update(loss=LOSS, dtype="float32", freeze=()):
    return updating.make_update(model(dtype), optimizer(), loss, freeze=freeze)


@functools.cache
def logprobs(temperature=LOSS.temperature):
    return updating.make_logprobs(model(), temperature=temperature)


def make_batch(seed=0):
    """A ragged batch, one completion empty, with ratios that are clipped on both sides."""
    rng = np.random.default_rng(seed)
    prompts, completions = oracle.pack([oracle.prompt(rng, parts, (N, R)) for parts in PARTS])
    rollouts = Rollouts(completions, np.zeros((G, N, R), np.float32), LENGTHS, LENGTHS < R)
    advantages = rng.normal(size=(G, N)).astype(np.float32)
    batch = group_batch(prompts, rollouts, advantages, aggregation="sequence_mean", max_tokens=R)
    now = np.asarray(logprobs()(params(), prompts, completions))
    noise = rng.normal(size=(2, G, N, R)).astype(np.float32) * 0.3
    return batch._replace(
        kl_coef=np.full(G, 0.1, np.float32),
        old_logprobs=now + noise[0],
        ref_logprobs=now + noise[1],
        behavior_logprobs=now + 0.5 * noise[0],
    )


@functools.cache
def batch():
    return make_batch()


def group_tokens():
    return batch().prompts.tokens.shape[1] + N * R


def weightless(batch, *groups):
    """The batch with nothing to train on in these groups."""
    on = ~np.isin(np.arange(G), groups)[:, None, None]
    return batch._replace(
        loss_weights=batch.loss_weights * on, completion_mask=batch.completion_mask & on
    )


def copy(tree):
    return jax.tree.map(jnp.copy, tree)


def host(tree):
    return jax.tree.map(np.array, tree)


def gradient(*batches, made=None):
    made = made or update()
    grads = made.zeros(params())
    for part in batches:
        grads, _ = made.accumulate(params(), grads, part)
    return host(grads)


@functools.cache
def whole():
    return gradient(batch())


def distance(got, expected):
    """The largest |difference| / |expected| of any parameter tensor (2-norms)."""
    return max(
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    )


def one_row_per_group(batch):
    """Every completion with a copy of its prompt: G * N groups of one."""
    prompts = jax.tree.map(lambda x: np.repeat(x, N, axis=0), batch.prompts)
    names = ("groups", "kl_coef", "update")
    rest = batch._replace(prompts=None, **dict.fromkeys(names))
    rest = jax.tree.map(lambda x: x.reshape(G * N, 1, *x.shape[2:]).copy(), rest)
    return rest._replace(
        prompts=prompts, **{name: np.repeat(getattr(batch, name), N) for name in names}
    )
