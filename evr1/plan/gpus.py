"""What programs take by arithmetic, on GPUs and with --estimate. `plan.py` prints it.

Arguments are exact, from shapes and shardings. Temporaries are a model of what lives at the peak,
see `temporaries`; `tests/plan/test_gpus.py` holds it against the TPU compiler.
"""

import contextlib
import json
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

from evr1.learner.loss import LOGITS_BYTES
from evr1.learner.programs import Program, bytes_of
from evr1.models import lora
from evr1.parallel.sharding import batch_shards
from evr1.plan.advice import context_ways, layer_inputs
from evr1.plan.memory import Compiled, arrays
from evr1.plan.phases import GIB, Chip, Work
from evr1.sampler import room
from evr1.telemetry import flops

GPUS = pathlib.Path(__file__).resolve().parents[1] / "assets" / "plan" / "gpus.json"
# Of a card's memory, what XLA gets with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95.
SHARE = 0.95
SOURCE = "by arithmetic; arguments are exact, temporaries estimated, nothing was compiled"


def find_gpus(topology: str) -> tuple[list[Any], Chip]:
    """Returns stand-ins for the cards of one machine, and their data sheet.

    Args:
        topology: gpu:8xH100-80GB.

    Raises:
        ValueError: no such card, or JAX has started with fewer devices.
    """
    sheets = json.loads(GPUS.read_text())
    names = [name for name in sheets if name != "source"]
    found = re.fullmatch(r"gpu:(\d+)x([\w-]+)", topology)
    chosen = [name for name in names if found and name.split("-")[0] == found[2].split("-")[0]]
    if found and found[2] in names:
        chosen = [found[2]]
    if found is None or len(chosen) != 1 or not chosen[0].startswith(found[2]):
        raise ValueError(
            f"--topology={topology}: write gpu:COUNTxCARD, say gpu:8xH100-80GB; cards are "
            f"{', '.join(names)}"
        )
    count, sheet = int(found[1]), sheets[chosen[0]]
    with contextlib.suppress(RuntimeError):  # devices are there already
        jax.config.update("jax_num_cpu_devices", max(count, 1))
    devices = jax.devices("cpu")
    if not 1 <= count <= len(devices):
        raise ValueError(f"--topology={topology}: there are {len(devices)} simulated devices")
    peak = flops.peak_flops(sheet["kind"])
    assert peak is not None, sheet["kind"]
    rates = (1e9 * sheet["memory_gb_per_s"], 1e9 * sheet["nvlink_gb_per_s"])
    return devices[:count], Chip(chosen[0], peak, SHARE * sheet["memory_gib"] * GIB, *rates)


def estimate(program: Program, work: Work, chip: Chip) -> Compiled:
    """Returns a program's bytes on a card, by arithmetic."""
    given = bytes_of(arrays(program.arguments))
    on_host = [x for x in arrays(program.arguments) if x.sharding.memory_kind == "pinned_host"]
    host = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in on_host)
    used, moved = temporaries(program, work)
    total = given + used + program.beside
    parts = (given, 0, used, program.beside, total, int(chip.hbm), host + moved)
    return Compiled(program.name, *parts, False, {}, {}, 0.0, 0.0, is_compiled=False)


def temporaries(program: Program, work: Work) -> tuple[int, int]:
    """Returns the bytes of a program's temporaries on a device, and of those on its host.

    What lives at the peak of a pass over layers of width D, feed-forward F (of all experts that a
    token is routed to), queries A and keys K, a token:
    - forward: see `room.forward_bytes`;
    - backward: both halves, F and the gradients of F twice, and 4 D in float32;
    - the inputs of all layers, in a gradient, and what else `train.remat` keeps.
    Beside these: the weights of two layers whole, in a gradient that of one in float32, two blocks
    of logits forward and four backward, a prompt's keys and values in a prefill.
    """
    model, load, settings = lora.plain(work.programs.model), work.load, work.settings
    c, size = model.config, jnp.dtype(model.dtype).itemsize
    copies, shards = batch_shards(work.programs.actor_mesh), batch_shards(work.programs.mesh)
    forward, backward, whole = _token_bytes(work)
    if program.name.endswith("optimizer"):
        return moments_in(program), 0
    if program.name == "decode":
        return room.decode_bytes(model, load.slots * settings.rollout.n) // copies, 0
    layer = _layer_weights(work)
    if program.name in ("prefill", "encode"):
        tokens = load.prefill_groups * load.shapes.prompt_tokens[-1]
        read = room.prefill_bytes(model, program.mesh.shape["tensor"], tokens) // copies
        return int(read + 2 * layer * size), 0
    groups = load.micro_groups / shards
    rollout = settings.rollout.n * load.shapes.completion_tokens
    tokens = groups * (load.shapes.prompt_tokens[-1] + rollout) / context_ways(work)
    logits = groups * min(LOGITS_BYTES, 4 * c.vocab_size * rollout)
    if program.name not in ("gradient", "critic_gradient"):
        return int(tokens * forward + 2 * layer * size + 2 * logits), 0
    remat, inputs = settings.train.remat, layer_inputs(work)
    # No kernel here keeps attention. "none" keeps float32 parts too: libtpu has 2.4 times as much.
    kept = {"none": 2.4 * whole, "dots": whole - 2 * c.width * size}
    used = tokens * (backward + c.layers * kept.get(remat, 0))
    used += layer * (2 * size + 4) + 4 * logits
    return (int(used), inputs) if remat == "offload" else (int(used + inputs), 0)


def moments_in(program: Program) -> int:
    """Returns the bytes of an optimizer's moments that come from the host for the update."""
    moved = [x for x in arrays(program.arguments) if x.sharding.memory_kind == "pinned_host"]
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in moved)


def _token_bytes(work: Work) -> tuple[float, float, float]:
    """Returns bytes a token: live in a layer forward, and backward, and all that a layer makes."""
    model = lora.plain(work.programs.model)
    c, size = model.config, jnp.dtype(model.dtype).itemsize
    feed = c.mlp_width
    if c.experts:
        feed = c.experts.mlp_width * c.experts.per_token + c.experts.shared_width
    heads = 2 * (c.heads + 2 * c.kv_heads) * c.head_dim
    whole = (2 * c.width + heads + 3 * feed) * size
    return room.forward_bytes(model), whole + 2 * feed * size + 4 * 4 * c.width, whole


def _layer_weights(work: Work) -> float:
    """Returns the values of a text layer's weights on a device, gathered over fsdp."""
    model, mesh = lora.plain(work.programs.model), work.programs.mesh
    assert mesh is not None
    text = model.abstract_params()["text"]
    layers = text.get("layers") or text["blocks"]
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(layers))
    return count / model.config.layers / mesh.shape["tensor"]
