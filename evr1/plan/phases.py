"""What an RL step computes and moves, by arithmetic from shapes and data sheets.

Not a command of its own: `tables.py` prints it. At peak rates, so orders of magnitude; nothing is
measured.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evr1.config.learner import LearnerSettings
from evr1.learner.programs import Load, Programs
from evr1.models import lora
from evr1.telemetry import flops

CHIPS = pathlib.Path(__file__).resolve().parents[1] / "assets" / "plan" / "chips.json"
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip, from its data sheet."""

    kind: str
    flops: float  # a second, dense bf16
    hbm: float  # bytes
    hbm_rate: float  # bytes a second
    ici_rate: float  # bytes a second


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of an RL step, all devices together.

    Attributes:
        flops: operations.
        hbm: bytes that every device reads and writes, weights and caches only.
        ici: bytes that every device receives from others.
        again: of the operations, those that recompute what was not kept.
        runs: programs, how often each runs, and how often its loop without a known end turns.
        is_compiled: `ici` is that of the compiled programs; else weights gathered at every use.
    """

    name: str
    flops: float
    hbm: float
    ici: float
    again: float = 0.0
    runs: tuple[tuple[str, int, int], ...] = ()
    is_compiled: bool = False

    def seconds(self, chip: Chip, devices: int) -> dict[str, float]:
        """Returns the time that each of the three would take alone at peak."""
        return {
            "compute": self.flops / (chip.flops * devices),
            "hbm": self.hbm / chip.hbm_rate,
            "ici": self.ici / chip.ici_rate,
        }


class Work(NamedTuple):
    """What a step is made of.

    Attributes:
        settings: of the learner.
        programs: its jitted functions, with the model.
        load: shapes of the programs; they tell how often each runs.
        prompt: mean tokens.
        completion: mean tokens.
    """

    settings: LearnerSettings
    programs: Programs
    load: Load
    prompt: int
    completion: int


def find_chip(kind: str) -> Chip:
    """Returns the data sheet of a device kind.

    Raises:
        ValueError: it is not in chips.json.
    """
    sheets = json.loads(CHIPS.read_text())
    peak = flops.peak_flops(kind)
    if kind not in sheets or peak is None:
        known = ", ".join(k for k in sheets if k != "source")
        raise ValueError(f"no data sheet for {kind!r}; chips.json has {known}")
    sheet = sheets[kind]
    rates = (1e9 * sheet["hbm_gb_per_s"], 1e9 * sheet["ici_gb_per_s"])
    return Chip(kind, peak, sheet["hbm_gib"] * GIB, *rates)


def phases(work: Work) -> list[Phase]:
    """Returns the phases of an RL step.

    Counted: operations of real tokens (recomputation in the backward pass included), one read of
    the weights a pass, caches, the weights gathered over fsdp and context once a pass of a learner
    and once for drawing, gradients scattered once a microbatch. Not counted: activations.
    """
    settings, load, drawing = work.settings, work.load, work.programs.actor_mesh
    assert drawing is not None
    groups, n = settings.rollout.prompts, settings.rollout.n
    model = lora.plain(work.programs.model)
    passes = _passes(work)
    weights = _weights(work)
    held, gathered = weights.held, weights.gathered
    c, size = model.config, jnp.dtype(model.dtype).itemsize
    key_bytes = 2 * c.attention_layers * c.kv_heads * c.head_dim * size  # of a token, both caches
    cached = load.slots * (work.prompt + n * work.completion / 2)
    cache = key_bytes * cached / drawing.size
    copy = _count(model.abstract_params()) * size / drawing.shape["tensor"]
    decode_steps = math.ceil(groups / load.slots) * work.completion
    prefills = math.ceil(groups / load.prefill_groups)
    micro = math.ceil(groups / load.micro_groups)
    out = [
        Phase("publish", 0.0, held + copy, copy),
        Phase("prefill", passes.prefill, prefills * copy, 0.0, runs=(("prefill", prefills, 0),)),
        Phase(
            "decode",
            passes.decode,
            decode_steps * (copy + cache),
            0.0,
            runs=(("decode", decode_steps // settings.rollout.window_steps, decode_steps),),
        ),
    ]
    if work.programs.has_frozen_tower:
        params = model.abstract_params()
        reads = prefills * _count(params["vision"]) / _count(params)
        runs = (("encode", prefills, 0),)
        out.insert(1, Phase("encode", passes.vision, reads * copy, 0.0, runs=runs))
    one = (passes.forward, micro * held, micro * gathered, 0.0)
    logprobs, values = (("logprobs", micro, 0),), (("values", micro, 0),)
    if settings.algorithm.old_logprobs == "recompute":
        out.append(Phase("logprobs", *one, logprobs))
    if settings.algorithm.kl_coef:
        out.append(Phase("reference", *one, logprobs))
    if settings.has_critic:
        out.append(Phase("values", *one, values))
        update = (("critic_gradient", micro, 0), ("critic_optimizer", 1, 0))
        is_shared = settings.critic.trunk == "shared"  # the trunk has no gradient then
        critic = Phase("critic", *one) if is_shared else _update(work, passes, weights, "critic")
        out.append(dataclasses.replace(critic, runs=update))
    runs = (("gradient", micro, 0), ("optimizer", 1, 0))
    return [*out, dataclasses.replace(_update(work, passes, weights, "update"), runs=runs)]


def step(parts: list[Phase], chip: Chip, devices: int) -> dict[str, float]:
    """Returns the seconds of all phases, the share of decoding, and the MFU of the step.

    The MFU counts no operation that is done again because its result was not kept.
    """
    seconds = {p.name: max(p.seconds(chip, devices).values()) for p in parts}
    total = sum(seconds.values())
    useful = sum(p.flops - p.again for p in parts)
    return {
        "seconds": total,
        "decode_share": seconds["decode"] / total,
        "mfu": useful / (total * chip.flops * devices),
    }


def weight_bytes(work: Work) -> float:
    """Returns the bytes of weights that a device reads for a decoded token."""
    model, drawing = lora.plain(work.programs.model), work.programs.actor_mesh
    assert drawing is not None
    size = jnp.dtype(model.dtype).itemsize
    return _count(model.abstract_params()["text"]) * size / drawing.shape["tensor"]


def moment_bytes(work: Work) -> float:
    """Returns the bytes a device of the optimizer's two moments of each trained value."""
    params = work.programs.model.abstract_params()
    trained, mesh = _count(params.get("lora", params)), work.programs.mesh
    assert mesh is not None
    size = jnp.dtype(work.settings.optim.moments_dtype).itemsize
    return 2 * size * trained / (1 if "lora" in params else _ways(mesh))


class _Passes(NamedTuple):
    """Operations of passes over all rollouts of a step; `attention`: of a forward pass's pairs."""

    vision: float
    prefill: float
    decode: float
    forward: float
    attention: float


class _Weights(NamedTuple):
    """Bytes of a device's weights once gathered, and how many of them come from others."""

    held: float
    gathered: float


def _passes(work: Work) -> _Passes:
    r, load = work.settings.rollout, work.load
    model = lora.plain(work.programs.model)
    groups, n = r.prompts, r.n
    prompts = np.full(groups, float(work.prompt))
    completions = np.full((groups, n), float(work.completion))
    drawn = groups * n * work.completion
    rows, row_patches = load.shapes.vision_rows[-1], load.shapes.row_patches
    vision = flops.vision_flops(model, np.full(groups * rows, float(row_patches)))
    again = 0.0 if work.programs.has_frozen_tower else vision  # in every pass
    head = 2.0 * model.config.width * model.config.vocab_size
    within = flops.pairs(prompts, np.zeros((groups, n)))
    whole = flops.pairs(prompts, completions)
    tokens = groups * work.prompt
    return _Passes(
        vision,
        again + flops.text_flops(model, tokens, within) + head * groups,
        flops.text_flops(model, drawn, whole - within) + head * drawn,
        again + flops.text_flops(model, tokens + drawn, whole) + head * drawn,
        flops.text_flops(model, 0, whole),
    )


def _weights(work: Work) -> _Weights:
    mesh, model = work.programs.mesh, lora.plain(work.programs.model)
    assert mesh is not None
    held = _count(model.abstract_params()) * jnp.dtype(model.dtype).itemsize / mesh.shape["tensor"]
    ways = mesh.shape["fsdp"] * mesh.shape["context"]
    return _Weights(held, held * (ways - 1) / ways)


def _update(work: Work, passes: _Passes, weights: _Weights, name: str) -> Phase:
    """Returns the gradients and the optimizer of all microbatches."""
    settings, mesh = work.settings, work.programs.mesh
    assert mesh is not None
    model = lora.plain(work.programs.model)
    count = trained = _count(model.abstract_params())
    size = jnp.dtype(model.dtype).itemsize
    micro = math.ceil(settings.rollout.prompts / work.load.micro_groups)
    # What is computed once more: nothing that the layers keep. Weights are read for what is.
    again = {"none": 0.0, "dots": 0.0, "attention": passes.forward - passes.attention}
    recomputed = again.get(settings.train.remat, passes.forward)
    reads = 3 if recomputed else 2
    # A product has two gradients, of its input and of its matrix: adapters need the first.
    products = 3
    if settings.lora.is_on:
        trained, products = _count(work.programs.model.abstract_params()["lora"]), 2
    return Phase(
        name,
        passes.forward * products + recomputed,
        micro * reads * weights.held + 28.0 * trained / _ways(mesh),
        micro * weights.gathered * (reads + 4 / size * trained / count),
        recomputed,
    )


def _ways(mesh: jax.sharding.Mesh) -> int:
    """Returns in how many parts the state of the learner is cut."""
    return mesh.shape["fsdp"] * mesh.shape["context"] * mesh.shape["tensor"]


def _count(tree: Any) -> int:
    """Returns the values of a tree."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
