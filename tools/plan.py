"""Compiles a config's update and sampler for TPUs that are not there, and says what they need.

    python tools/plan.py --config=configs/qwen_video.py --topology=v5p:4x4x4

The programs are those of the run, lowered from shapes and shardings alone: bytes, and what moves
between devices, are the TPU compiler's own. Operations and seconds are arithmetic from shapes and
data sheets, at peak rates, because the compiler counts the body of a loop once: orders of
magnitude, nothing is measured.
Needs libtpu: pip install 'evr1[tpu-compiler]'. With --estimate, and for GPUs
(--topology=gpu:8xH100-80GB), nothing is compiled: temporaries are estimated, in seconds. Exit
status: 0 it fits, 2 it does not, 1 bad input.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
os.environ["JAX_PLATFORMS"] = "cpu"  # compile for the TPU, run nothing on it
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # several plans at a time
os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # no search for a cloud machine's metadata
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"  # nor for its neighbours
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-1"  # of this machine; the topology is a flag

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies
from plan_advice import advice
from plan_collectives import WEIGHT_SHARE
from plan_gpus import SOURCE, estimate, find_gpus
from plan_memory import Compiled, compile_program, out_of_memory
from plan_phases import GIB, Chip, Phase, Work, find_chip, phases, step, weight_bytes
from plan_tables import show
from rich.console import Console

from evr1.batch.shapes import ShapeTable, groups_per_part
from evr1.config import Settings, command, resolve
from evr1.config.learner import LearnerSettings, drawn_groups, held_prompts, learner_settings
from evr1.learner.programs import Load, Program, Programs, list_programs, make_programs
from evr1.learner.slots import plan_slots
from evr1.models import FAMILIES, Model
from evr1.parallel.mesh import make_mesh
from evr1.parallel.sharding import batch_shards

ROOT = pathlib.Path(__file__).resolve().parents[1]
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
        raise ValueError("libtpu is not installed; pip install 'evr1[tpu-compiler]'")
    try:
        return list(topologies.get_topology_desc(topology, "tpu").devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"--topology={topology}: {' '.join(str(error).split())[:160]}; "
            "write generation:shape, say v5p:4x4x4, v5e:8x8, v6e:8x8"
        ) from error


def find_model(settings: Settings, name: str) -> Model:
    """Returns the model to plan for, with the attention kernel of TPUs, whatever the host is.

    Raises:
        ValueError: no such file, or a family that is not supported.
    """
    default = str(pathlib.Path(settings.model) / "config.json") if settings.model else "qwen3-vl-8b"
    name = name or default
    built_in = ROOT / "tpu" / f"{name.replace('-', '_').replace('.', '_').lower()}.json"
    path = built_in if built_in.is_file() else pathlib.Path(name)
    if not path.is_file():
        raise ValueError(f"--hf_config={name}: no such file and no such name in tpu/")
    sizes = json.loads(path.read_text())
    if sizes.get("model_type") not in FAMILIES:
        raise ValueError(f"{path}: model_type {sizes.get('model_type')!r} is not supported")
    build = FAMILIES[sizes["model_type"]]
    model = build(sizes, dtype=settings.train.dtype, remat=settings.train.remat)
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
    if topology.startswith("gpu"):
        has_compiler = False
        devices, chip = find_gpus(topology)
    else:
        devices = find_devices(topology)
        chip = find_chip(devices[0].device_kind)
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
    line(slots.line)
    line(
        f"{load.prefill_groups} groups a prefill: an eighth of the slots, a multiple of the "
        f"copies; {load.micro_groups} groups a microbatch: what train.microbatch_tokens holds"
    )
    line(f"{load.shapes}")
    every, failed = listed_programs(learner, programs, load)
    chosen = [p for p in every if p.name in names]
    if not chosen and not failed:
        has = ", ".join(p.name for p in every)
        raise ValueError(
            f"--programs={','.join(names)}: this config has none of them; it has {has}"
        )
    prompt = min(mean_tokens[0] or load.shapes.prompt_tokens[-1], load.shapes.prompt_tokens[-1])
    completion = min(mean_tokens[1] or load.shapes.completion_tokens, load.shapes.completion_tokens)
    work = Work(learner, programs, load, prompt, completion)
    if has_compiler:
        compiled = failed + compile_all(chosen, chip, line)
    else:
        compiled = failed + [estimate(p, work, chip) for p in chosen]
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


def define_flags() -> None:
    """Defines the flags of the command line, but for that of the config."""
    flags.DEFINE_string(
        "topology", "v5p:4x4x4", "TPU generation and shape of the slice; or gpu:8xH100-80GB."
    )
    flags.DEFINE_string(
        "hf_config",
        "",
        "HF config.json, or a name in tpu/. Empty: that of the config's model, else qwen3-vl-8b.",
    )
    flags.DEFINE_list("programs", list(PROGRAMS), "Which to compile.")
    flags.DEFINE_bool("estimate", False, "Compile nothing; what temporaries take is estimated.")
    flags.DEFINE_integer(
        "mean_prompt_tokens", 0, "Of the estimate of seconds; 0: the longest prompt."
    )
    flags.DEFINE_integer(
        "mean_completion_tokens", 0, "Of the estimate of seconds; 0: the completion limit."
    )
    flags.DEFINE_string("json", "", "Also write the plan to this file.")


def main(config: Any) -> None:
    """Runs the command; bad input ends in one line and exit status 1."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    f = flags.FLAGS
    try:
        result = plan(
            config,
            topology=f.topology,
            hf_config=f.hf_config,
            names=f.programs,
            mean_tokens=(f.mean_prompt_tokens, f.mean_completion_tokens),
            has_compiler=not f.estimate,
            line=lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"plan: {error}")
    show(result, console)
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["fits"] else 2)


if __name__ == "__main__":
    define_flags()
    command.run(main, "plan: interrupted")
