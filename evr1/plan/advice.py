"""What to change in a config whose programs do not fit, or leave room. `plan.py` prints it."""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from evr1.models import lora
from evr1.parallel.sharding import batch_shards
from evr1.plan.memory import Compiled
from evr1.plan.phases import GIB, Work, moment_bytes


def advice(work: Work, compiled: Sequence[Compiled]) -> list[str]:
    """Returns a line for each program that does not fit, with what the changes would save, and for
    a gradient that leaves room to keep more."""
    lines = []
    for c in compiled:
        if c.fits:
            lines += _to_keep(work, c) if c.name == "gradient" else []
            continue
        over = c.total - c.limit
        changes = _of_sampler(work, c) if c.name in SAMPLER else _of_learner(work, c)
        lines.append(f"{c.name} is {over / GIB:.2f} GiB over: {'; '.join(changes)}")
    return lines


SAMPLER = ("init_slots", "prefill", "decode", "encode")


def layer_inputs(work: Work) -> int:
    """Returns the bytes a device that the inputs of all layers take, of text and vision."""
    c = lora.plain(work.programs.model).config
    return _of_layers(work, c.width, c.vision.width)


def attention_outputs(work: Work) -> int:
    """Returns the bytes a device of what attention gives in all layers, log-sum-exp left out."""
    c = lora.plain(work.programs.model).config
    return _of_layers(work, c.heads * c.head_dim, c.vision.width)


def products(work: Work) -> int:
    """Returns the bytes a device of what products with weights give in all layers of the text
    model; those of the tower are not kept, as they add a bias in one go."""
    c = lora.plain(work.programs.model).config
    feed = c.mlp_width
    if c.experts:
        feed = c.experts.mlp_width * c.experts.per_token + c.experts.shared_width
    return _of_layers(work, (c.heads + 2 * c.kv_heads) * c.head_dim + 2 * c.width + 2 * feed, 0)


def _of_layers(work: Work, text: int, vision: int) -> int:
    """Returns the bytes a device of so many values a token and layer, and a patch and block."""
    model = lora.plain(work.programs.model)
    c, load = model.config, work.load
    groups = math.ceil(load.micro_groups / batch_shards(work.programs.mesh))
    rollout = work.settings.rollout.n * load.shapes.completion_tokens
    values = c.layers * (load.shapes.prompt_tokens[-1] + rollout) * text
    if not work.programs.has_frozen_tower:
        patches = load.shapes.vision_rows[-1] * load.shapes.row_patches
        values += c.vision.depth * patches * vision
    return groups * values * jnp.dtype(model.dtype).itemsize // context_ways(work)


def context_ways(work: Work) -> int:
    """Returns how many devices share the tokens of a group."""
    assert work.programs.mesh is not None
    return work.programs.mesh.shape["context"]


def _to_keep(work: Work, c: Compiled) -> list[str]:
    """Returns a line on the policy that keeps most of what has room; [] where there is none.

    Only a TPU's attention kernel names what it gives, so elsewhere `attention` keeps nothing.
    """
    free, remat = c.limit - c.total, work.settings.train.remat
    more = {"offload": 0, "full": layer_inputs(work)} if remat == "offload" else {remat: 0}
    inputs = max(more.values())
    if c.is_compiled and remat in ("offload", "full"):
        more["attention"] = inputs + attention_outputs(work)
    if remat in ("offload", "full", "attention"):
        kept = attention_outputs(work) if c.is_compiled and remat != "attention" else 0
        more["dots"] = inputs + kept + products(work)
    best = [name for name, size in more.items() if 0 < size <= free]
    if not best:
        return []
    return [
        f"{c.name} leaves {free / GIB:.2f} GiB: train.remat={best[-1]} keeps "
        f"{more[best[-1]] / GIB:.2f} of them and computes the less again; plan it, then take it"
    ]


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
