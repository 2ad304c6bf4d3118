"""What a config's programs need on devices that are not there."""

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from evr1.batch.shapes import ShapeTable, groups_per_part
from evr1.config import Settings, resolve
from evr1.config.learner import LearnerSettings, drawn_groups, held_prompts, learner_settings
from evr1.formats import extras
from evr1.learner.programs import Load, Program, Programs, list_programs, make_programs
from evr1.learner.slots import plan_slots
from evr1.models import FAMILIES, Model
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_shards
from evr1.plan.advice import advice
from evr1.plan.collectives import WEIGHT_SHARE
from evr1.plan.gpus import SOURCE, estimate, find_gpus
from evr1.plan.memory import Compiled, compile_program, out_of_memory
from evr1.plan.phases import GIB, Chip, Phase, Work, find_chip, phases, step, weight_bytes

SIZES = pathlib.Path(__file__).resolve().parents[1] / "assets" / "plan"
PROGRAMS = (
    "encode",
    "prefill",
    "decode",
    "values",
    "logprobs",
    "critic_gradient",
    "critic_optimizer",
    "gradient",
    "optimizer",
)


def find_devices(topology: str) -> list[Any]:
    """Returns the devices of a named TPU slice, without any being there.

    Raises:
        ValueError: libtpu is missing, or there is no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(f"libtpu is not installed; {extras.install('tpu-compiler')}")
    try:
        return list(topologies.get_topology_desc(topology, "tpu").devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"--topology={topology}: {' '.join(str(error).split())[:160]}; "
            "write generation:shape, say v5p:4x4x4, v5e:8x8, v6e:8x8"
        ) from error


def find_chips(topology: str) -> tuple[list[Any], Chip]:
    """Returns the devices of a TPU slice, or of a machine with GPUs, and their data sheet.

    Raises:
        ValueError: no such topology, or no data sheet.
    """
    if topology.startswith("gpu"):
        return find_gpus(topology)
    devices = find_devices(topology)
    return devices, find_chip(devices[0].device_kind)


def find_model(settings: Settings, name: str) -> Model:
    """Returns the model to plan for, with the attention kernel of TPUs, whatever the host is.

    Raises:
        ValueError: no such file, or a family that is not supported.
    """
    default = str(pathlib.Path(settings.model) / "config.json") if settings.model else "qwen3-vl-8b"
    name = name or default
    built_in = SIZES / f"{name.replace('-', '_').replace('.', '_').lower()}.json"
    path = built_in if built_in.is_file() else pathlib.Path(name)
    if not path.is_file():
        raise ValueError(f"--hf_config={name}: no such file and no model of that name")
    sizes = json.loads(path.read_text())
    if sizes.get("model_type") not in FAMILIES:
        raise ValueError(f"{path}: model_type {sizes.get('model_type')!r} is not supported")
    build = FAMILIES[sizes["model_type"]]
    model = build(sizes, dtype=settings.train.dtype, remat=settings.train.remat)
    model = dataclasses.replace(model, cache_dtype=settings.rollout.cache_dtype)
    return dataclasses.replace(model, implementation="splash")


def largest_shapes(settings: Settings, model: Model) -> ShapeTable:
    """Returns the largest shapes of the config's run: one bucket of each kind."""
    d, vision = settings.data, model.config.vision
    time_patch, patch = vision.patch_shape[1], vision.patch_shape[-1]
    prompt = max(settings.shapes.prompt_tokens, default=-(-d.max_prompt_tokens // 128) * 128)
    rows = max(settings.shapes.vision_rows, default=-(-d.video_max_frames // time_patch))
    row_patches = settings.shapes.row_patches or d.video_max_pixels // patch**2
    limits = (settings.rollout.max_completion_tokens, settings.eval.max_completion_tokens)
    return ShapeTable((prompt,), (rows,), row_patches, max(limits))


def largest_load(
    settings: Settings, shapes: ShapeTable, shards: int, copies: int, slots: int
) -> tuple[Load, list[str]]:
    """Returns what is on the devices in the config's run, and what in the config would stop it.

    Args:
        settings: of the run.
        shapes: the largest.
        shards: parts of a microbatch.
        copies: of the weights that draw.
        slots: of the rollouts.
    """
    r, problems = settings.rollout, []
    prompt, completion = shapes.prompt_tokens[-1], shapes.completion_tokens
    size = np.array([prompt, completion])
    try:
        micro = groups_per_part(size, r.n, settings.train.microbatch_tokens, r.prompts, shards)
    except ValueError as error:
        micro = shards
        problems.append(f"{error}. Planned with {micro} groups, one a device")
    if r.slots % copies:
        problems.append(
            f"rollout.slots={r.slots} does not divide over {copies} copies of the weights. Planned "
            f"with {slots}"
        )
    load = Load(
        shapes=shapes,
        slots=slots,
        prefill_groups=-(-max(1, slots // 8) // copies) * copies,
        micro_groups=micro,
        held=held_prompts(settings),
    )
    return load, problems


def compile_all(
    programs: Sequence[Program], chip: Chip, line: Callable[[str], None]
) -> list[Compiled]:
    """Compiles one program after the other, and says so."""
    compiled = []
    for program in programs:
        c = compile_program(program, chip)
        compiled.append(c)
        line(f"{c.name}: compiled in {c.compile_s:.0f} s, {c.total / GIB:.2f} GiB a device")
    return compiled


def listed_programs(
    learner: LearnerSettings, programs: Programs, load: Load
) -> tuple[list[Program], list[Compiled]]:
    """Returns the programs of a step, without the sampler's where not even empty slots fit.

    The compiler lays out the slots before a program that takes them can be listed; they are then
    what is returned second.
    """
    try:
        return list_programs(learner, programs, load), []
    except jax.errors.JaxRuntimeError as error:
        parts, limit = out_of_memory("init_slots", error, 0)
    slots = Compiled("init_slots", *parts, 0, sum(parts), limit, 0, False, {}, {}, 0.0, 0.0)
    fewest = batch_shards(programs.actor_mesh)
    rest = list_programs(learner, programs, load._replace(slots=fewest, prefill_groups=fewest))
    return [p for p in rest if p.name not in ("prefill", "decode")], [slots]


def plan(
    config: Any,
    *,
    topology: str,
    hf_config: str = "",
    names: Sequence[str] = PROGRAMS,
    mean_tokens: tuple[int, int] = (0, 0),
    has_compiler: bool = True,
    line: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compiles the programs and returns the plan as plain data.

    Args:
        config: ConfigDict of a run; paths need not be given.
        topology: of the TPU slice, or the GPUs of one machine.
        hf_config: see the flag.
        names: which programs to compile.
        mean_tokens: of prompts and completions, for the estimate of seconds; 0: the longest.
        has_compiler: compile for a TPU; False: by arithmetic, as for GPUs.
        line: prints a line.

    Raises:
        ValueError: bad flags, or a mesh that does not fit the slice.
    """
    unknown = sorted(set(names) - set(PROGRAMS))
    if unknown:
        raise ValueError(f"--programs={unknown[0]}: there is {', '.join(PROGRAMS)}")
    settings = resolve(config, has_paths=False)
    has_compiler = has_compiler and not topology.startswith("gpu")
    devices, chip = find_chips(topology)
    mesh = find_mesh(settings, topology, devices)
    model = find_model(settings, hf_config)
    learner = learner_settings(settings)
    programs = make_programs(learner, model, mesh)
    copies = batch_shards(programs.actor_mesh)
    shapes = largest_shapes(settings, model)
    slots = plan_slots(
        learner,
        programs,
        shapes,
        groups=drawn_groups(settings),
        held=held_prompts(settings),
        free=int(chip.hbm),
    )
    load, problems = largest_load(settings, shapes, batch_shards(mesh), copies, slots.rollout)
    line(f"{topology}: {len(devices)} x {chip.kind}, mesh {dict(mesh.shape)}")
    line(f"to draw: {copies} copies of the weights, each over {mesh.size // copies} devices")
    for text in (slots.line, groups_line(load), f"{load.shapes}"):
        line(text)
    every, failed = listed_programs(learner, programs, load)
    chosen = [p for p in every if p.name in names]
    if not chosen and not failed:
        raise none_of(names, every)
    prompt = min(mean_tokens[0] or load.shapes.prompt_tokens[-1], load.shapes.prompt_tokens[-1])
    completion = min(mean_tokens[1] or load.shapes.completion_tokens, load.shapes.completion_tokens)
    work = Work(learner, programs, load, prompt, completion)
    estimated = [] if has_compiler else [estimate(p, work, chip) for p in chosen]
    compiled = failed + (compile_all(chosen, chip, line) if has_compiler else estimated)
    parts = [measured(p, compiled) for p in phases(work)]
    problems += gathers(compiled, weight_bytes(work))
    return {
        "topology": topology,
        "source": "by the TPU compiler" if has_compiler else SOURCE,
        "devices": len(devices),
        "chip": dataclasses.asdict(chip),
        "mesh": dict(mesh.shape),
        "slots": slots._asdict(),
        "load": load._asdict() | {"shapes": dataclasses.asdict(load.shapes)},
        "problems": problems,
        "mean_prompt_tokens": prompt,
        "mean_completion_tokens": completion,
        "programs": [dataclasses.asdict(c) | {"fits": c.fits} for c in compiled],
        "phases": [
            dataclasses.asdict(p) | {"seconds": p.seconds(chip, len(devices))} for p in parts
        ],
        "step": step(parts, chip, len(devices)),
        "advice": advice(work, compiled),
        "fits": all(c.fits for c in compiled),
    }


def groups_line(load: Load) -> str:
    """Returns how many groups go into a prefill and into a microbatch, in words."""
    return (
        f"{load.prefill_groups} groups a prefill: an eighth of the slots, a multiple of the "
        f"copies; {load.micro_groups} groups a microbatch: what train.microbatch_tokens holds"
    )


def none_of(names: Sequence[str], every: Sequence[Program]) -> ValueError:
    """Returns the error that a config has none of the programs that were asked for."""
    has = ", ".join(p.name for p in every)
    return ValueError(f"--programs={','.join(names)}: this config has none of them; it has {has}")


def find_mesh(settings: Settings, topology: str, devices: Sequence[Any]) -> jax.sharding.Mesh:
    """Returns the config's mesh on the devices of a slice.

    Raises:
        ValueError: it does not fit the slice.
    """
    try:
        return make_mesh(**dataclasses.asdict(settings.mesh), devices=devices)
    except NotImplementedError as error:  # of one host: JAX lays out a mesh along the torus
        asked = ", ".join(f"mesh.{k}={v}" for k, v in dataclasses.asdict(settings.mesh).items())
        raise ValueError(
            f"{asked} splits a side of the torus of {topology}; make each size a product of sides"
        ) from error


def measured(phase: Phase, compiled: Sequence[Compiled]) -> Phase:
    """Returns the phase with the collectives of its programs, where all of them were compiled."""
    by_name = {c.name: c for c in compiled if c.fits and c.is_compiled}
    if not phase.runs or any(name not in by_name for name, _, _ in phase.runs):
        return phase
    ici = 0.0
    for name, runs, turns in phase.runs:
        ici += runs * sum(size for _, size in by_name[name].collectives.values())
        ici += turns * sum(size for _, size in by_name[name].in_loop.values())
    return dataclasses.replace(phase, ici=ici, is_compiled=True)


def gathers(compiled: Sequence[Compiled], weights: float) -> list[str]:
    """Returns a line where a decoded token makes a device receive the weights.

    Args:
        compiled: programs.
        weights: bytes that a device reads for a token.
    """
    return [
        f"decode gathers weights: a device receives {c.weights / GIB:.2f} GiB of them a token, of "
        f"{weights / GIB:.2f} that it reads; cut them within a host (rollout.tensor), not over fsdp"
        for c in compiled
        if c.name == "decode" and c.weights > WEIGHT_SHARE * weights
    ]
