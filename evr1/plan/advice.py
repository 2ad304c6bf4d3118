"""What to change in a config whose programs do not fit. `plan.py` prints it."""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from evr1.models import lora
from evr1.parallel.sharding import batch_shards
from evr1.plan.memory import Compiled
from evr1.plan.phases import GIB, Work, moment_bytes


def advice(work: Work, compiled: Sequence[Compiled]) -> list[str]:
    """Returns a line for each program that does not fit, with what the changes would save."""
    lines = []
    for c in compiled:
        if c.fits:
            continue
        over = c.total - c.limit
        changes = _of_sampler(work, c) if c.name in SAMPLER else _of_learner(work, c)
        lines.append(f"{c.name} is {over / GIB:.2f} GiB over: {'; '.join(changes)}")
    return lines


SAMPLER = ("init_slots", "prefill", "decode", "encode")


def layer_inputs(work: Work) -> int:
    """Returns the bytes a device that the inputs of all layers take, of text and vision."""
    model = lora.plain(work.programs.model)
    c, load = model.config, work.load
    groups = math.ceil(load.micro_groups / batch_shards(work.programs.mesh))
    rollout = work.settings.rollout.n * load.shapes.completion_tokens
    tokens = load.shapes.prompt_tokens[-1] + rollout
    values = c.layers * tokens * c.width
    if not work.programs.has_frozen_tower:
        patches = load.shapes.vision_rows[-1] * load.shapes.row_patches
        values += c.vision.depth * patches * c.vision.width
    return groups * values * jnp.dtype(model.dtype).itemsize // context_ways(work)


def context_ways(work: Work) -> int:
    """Returns how many devices share the tokens of a group."""
    assert work.programs.mesh is not None
    return work.programs.mesh.shape["context"]


def _of_learner(work: Work, c: Compiled) -> list[str]:
    """Returns the changes in the order in which they cost little."""
    optim, remat = work.settings.optim, work.settings.train.remat
    is_gradient = c.name in ("gradient", "critic_gradient")
    changes = []
    shards, load = batch_shards(work.programs.mesh), work.load
    if load.micro_groups > shards and c.name not in ("optimizer", "critic_optimizer"):
        rollout = work.settings.rollout.n * load.shapes.completion_tokens
        tokens = shards * (load.shapes.prompt_tokens[-1] + rollout)
        changes.append(f"train.microbatch_tokens={tokens} takes a group a device at a time")
    if is_gradient and remat in ("none", "dots", "attention"):
        changes.append("train.remat=full keeps nothing of a layer but its input")
    if is_gradient and remat != "offload":
        saved = layer_inputs(work) / GIB
        changes.append(
            f"train.remat=offload keeps the layers' inputs, {saved:.2f} GiB, on the host"
        )
    moments = moment_bytes(work)
    if not optim.offload:
        changes.append(f"optim.offload=True keeps the moments, {moments / GIB:.2f} GiB, there")
    if optim.moments_dtype == "float32":
        changes.append(f"optim.moments_dtype=bfloat16 saves {moments / 2 / GIB:.2f} GiB of them")
    if is_gradient:
        changes.append("mesh.context and mesh.tensor cut what is left")
    return changes


def _of_sampler(work: Work, c: Compiled) -> list[str]:
    slots, copies = work.load.slots, batch_shards(work.programs.actor_mesh)
    fewer = slots // 2 // copies * copies
    changes = []
    if fewer:
        changes.append(f"rollout.slots={fewer} halves the caches")
    changes.append("rollout.tensor cuts weights and caches over more devices of a host")
    if not work.settings.optim.offload:
        moments = moment_bytes(work) / GIB
        changes.append(f"optim.offload=True takes {moments:.2f} GiB of moments away meanwhile")
    return changes
