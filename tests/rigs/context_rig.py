"""Loss and gradients of every family's small model on one device and on any mesh."""

import dataclasses
import functools

import families
import jax
import models_oracle as oracle
import numpy as np
import optax

from evr1.batch.assemble import group_batch
from evr1.learner.update import make_update
from evr1.models import FAMILIES
from evr1.models.tree import flatten
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import put_batch
from evr1.rl.diagnostics import means
from evr1.rl.losses import LossConfig
from evr1.types import Rollouts

G, N, R, P = 4, 4, 5, 48
LENGTHS = np.array([[5, 3, 1, 4], [2, 5, 5, 1], [4, 0, 2, 5], [1, 5, 3, 2]])
PARTS = (
    (5, ("video", (2, 4, 4)), 4),
    (3, ("image", (1, 4, 6)), 2, ("video", (3, 4, 4)), 5),
    (9,),
    (2, ("video", (1, 4, 4)), ("video", (2, 2, 4)), 1),
)
EXPERTS = ("qwen3_vl_moe", "qwen3_5_moe")


@functools.cache
def model(family, implementation="auto"):
    """The family's small model; weights are large enough for every part to matter."""
    raw = families.VARIANTS[family][0]
    if "3_5" in family:
        # A gated norm of outputs near 0 magnifies rounding, which a larger epsilon keeps small:
        # with 1e-3 the gradients of copies on two devices differ by 1.4e-5 from those of one.
        sizes = {"num_hidden_layers": 4, "rms_norm_eps": 0.1}
        raw = families.delta_config(**sizes)
        if family in EXPERTS:
            raw = families.delta_moe_config(num_experts=8, **sizes)
    made = FAMILIES[family](raw, dtype="float32", remat="full")
    config = dataclasses.replace(made.config, init_scale=0.15)
    return dataclasses.replace(made, config=config, implementation=implementation)


@functools.cache
def params(family):
    return jax.tree.map(np.asarray, model(family).init(jax.random.key(0)))


@functools.cache
def batch():
    """Groups of different lengths, one completion empty."""
    rng = np.random.default_rng(0)
    prompts = [oracle.prompt(rng, parts, (N, R)) for parts in PARTS]
    packed, completions = oracle.pack(prompts, prompt_tokens=P)
    rollouts = Rollouts(completions, np.zeros((G, N, R), np.float32), LENGTHS, LENGTHS < R)
    advantages = rng.normal(size=(G, N)).astype(np.float32)
    made = group_batch(packed, rollouts, advantages, aggregation="sequence_mean", max_tokens=R)
    old, reference = rng.normal(size=(2, G, N, R)).astype(np.float32) * 0.1 - 4.5
    return made._replace(
        kl_coef=np.full(G, 0.1, np.float32), old_logprobs=old, ref_logprobs=reference
    )


def loss_and_gradient(family, sizes=None, *, part=None, implementation="auto"):
    """(metrics, gradients) on a mesh (data, fsdp, context, tensor); None: one device.

    A microbatch is the batch, or `part`.
    """
    made, mesh = model(family, implementation), None
    if sizes is not None:
        data, fsdp, context, tensor = sizes
        devices = jax.devices()[: data * fsdp * context * tensor]
        mesh = make_mesh(data=data, fsdp=fsdp, context=context, tensor=tensor, devices=devices)
    loss = LossConfig(has_kl=True, temperature=0.7, balance_coef=0.01 * (family in EXPERTS))
    update = make_update(made, optax.sgd(1.0), loss, mesh=mesh)
    held = params(family) if mesh is None else jax.device_put(params(family), made.shardings(mesh))
    shown = put_batch(mesh, part or batch())
    grads, sums = update.accumulate(held, update.zeros(held), shown)
    return means(sums), jax.tree.map(np.asarray, grads)


@functools.cache
def alone(family):
    """The numbers of one device."""
    return loss_and_gradient(family)


def gaps(got, expected):
    """Relative differences: of the loss, of the gradient, of the worst part of it, and its name."""
    (metrics, grads), (metrics_of_one, grads_of_one) = got, expected
    loss = metrics_of_one["policy/loss"]
    flat, flat_of_one = flatten(grads), flatten(grads_of_one)

    def gap(names):
        difference = sum(np.square(flat[k] - flat_of_one[k]).sum(dtype=np.float64) for k in names)
        size = sum(np.square(flat_of_one[k]).sum(dtype=np.float64) for k in names)
        return np.sqrt(difference / size)

    worst = max(flat, key=lambda name: gap([name]))
    return abs(metrics["policy/loss"] / loss - 1), gap(flat), gap([worst]), worst
