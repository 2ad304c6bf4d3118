"""Compiles a config's update and sampler for TPUs that are not there, and says what they need.

    python tools/plan.py --config=configs/qwen_video.py --topology=v5p:4x4x4

The programs are those of the run, lowered from shapes and shardings alone: bytes are the TPU
compiler's own. Operations and seconds are arithmetic from shapes and data sheets, at peak rates,
because the compiler counts the body of a loop once: orders of magnitude, nothing is measured.
Needs libtpu: pip install 'evr1[tpu-compiler]'. Exit status: 0 it fits, 2 it does not, 1 bad input.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import sys
import time
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
from absl import app, flags
from jax.experimental import topologies
from ml_collections import config_flags
from plan_phases import GIB, Chip, Work, find_chip, phases
from rich.console import Console
from rich.table import Table

from evr1.batch.shapes import ShapeTable, groups_per_part
from evr1.config import Settings, resolve
from evr1.config.learner import held_prompts, learner_settings
from evr1.learner.programs import Load, Program, list_programs, make_programs
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
# What would make the device wait for the host in the middle of a program.
HOST_CALL = re.compile(r"callback|infeed|outfeed|host_transfer", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a program, in bytes a device.

    Attributes:
        arguments: donated ones included.
        outputs: those that do not take over an argument's memory.
        temporaries: of the program, its code included.
        beside: what stays on the device and is no argument.
        total: all of it. Where the program did not fit, only this is known.
        limit: the chip's memory, as far as the compiler hands it out.
        host_calls: whether the program calls back to the host.
    """

    name: str
    arguments: int
    outputs: int
    temporaries: int
    beside: int
    total: int
    limit: int
    host_calls: bool
    compile_s: float

    @property
    def fits(self) -> bool:
        """Whether a device holds it."""
        return self.total <= self.limit


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
    built_in = ROOT / "tpu" / f"{name.replace('-', '_').lower()}.json"
    path = built_in if built_in.is_file() else pathlib.Path(name)
    if not path.is_file():
        raise ValueError(f"--hf_config={name}: no such file and no such name in tpu/")
    sizes = json.loads(path.read_text())
    if sizes.get("model_type") not in FAMILIES:
        raise ValueError(f"{path}: model_type {sizes.get('model_type')!r} is not supported")
    build = FAMILIES[sizes["model_type"]]
    model = build(sizes, dtype=settings.train.dtype, remat=settings.train.remat)
    return dataclasses.replace(model, implementation="splash")


def largest_load(
    settings: Settings, model: Model, shards: int, copies: int
) -> tuple[Load, list[str]]:
    """Returns the largest shapes of the config's run, and what in the config would stop it.

    Args:
        settings: of the run.
        model: that is trained.
        shards: parts of a microbatch.
        copies: of the weights that draw.
    """
    d, r, vision = settings.data, settings.rollout, model.config.vision
    time_patch, patch = vision.patch_shape[1], vision.patch_shape[-1]
    prompt = max(settings.shapes.prompt_tokens, default=-(-d.max_prompt_tokens // 128) * 128)
    rows = max(settings.shapes.vision_rows, default=-(-d.video_max_frames // time_patch))
    row_patches = settings.shapes.row_patches or d.video_max_pixels // patch**2
    completion = max(r.max_completion_tokens, settings.eval.max_completion_tokens)
    problems = []
    size = np.array([prompt, completion])
    try:
        micro = groups_per_part(size, r.n, settings.train.microbatch_tokens, r.prompts, shards)
    except ValueError as error:
        micro = shards
        problems.append(f"{error}. Planned with {micro} groups, one a device")
    slots = -(-r.slots // copies) * copies
    if slots != r.slots:
        problems.append(
            f"rollout.slots={r.slots} does not divide over {copies} copies of the weights. Planned "
            f"with {slots}"
        )
    load = Load(
        shapes=ShapeTable((prompt,), (rows,), row_patches, completion),
        slots=slots,
        prefill_groups=-(-max(1, slots // 8) // copies) * copies,
        micro_groups=micro,
        held=held_prompts(settings),
    )
    return load, problems


def compile_program(program: Program, chip: Chip) -> Compiled:
    """Compiles and measures; a program that does not fit is a result, not an error.

    Raises:
        jax.errors.JaxRuntimeError: the compiler refuses it for another reason than memory.
    """
    begun = time.perf_counter()
    lowered = program.lower()
    host_calls = bool(HOST_CALL.search(lowered.as_text()))
    try:
        memory = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        used = OUT_OF_MEMORY.search(str(error))
        if used is None:
            raise
        need, limit = _scaled(*used.groups()[:2]), _scaled(*used.groups()[2:])
        total, parts = need + program.beside, (0, 0, 0)
    else:
        assert memory is not None  # every TPU compiler has it
        limit = int(chip.hbm)
        parts = (
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes - memory.alias_size_in_bytes,
            memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        )
        total = sum(parts) + program.beside
    seconds = time.perf_counter() - begun
    return Compiled(program.name, *parts, program.beside, total, limit, host_calls, seconds)


def plan(
    config: Any,
    *,
    topology: str,
    hf_config: str = "",
    names: Sequence[str] = PROGRAMS,
    mean_tokens: tuple[int, int] = (0, 0),
    line: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compiles the programs and returns the plan as plain data.

    Args:
        config: ConfigDict of a run; paths need not be given.
        topology: of the TPU slice.
        hf_config: see the flag.
        names: which programs to compile.
        mean_tokens: of prompts and completions, for the estimate of seconds; 0: the longest.
        line: prints a line.

    Raises:
        ValueError: bad flags, or a mesh that does not fit the slice.
    """
    unknown = sorted(set(names) - set(PROGRAMS))
    if unknown:
        raise ValueError(f"--programs={unknown[0]}: there is {', '.join(PROGRAMS)}")
    devices = find_devices(topology)
    chip = find_chip(devices[0].device_kind)
    settings = resolve(config, has_paths=False)
    mesh = make_mesh(**dataclasses.asdict(settings.mesh), devices=devices)
    model = find_model(settings, hf_config)
    learner = learner_settings(settings)
    programs = make_programs(learner, model, mesh)
    drawing = programs.actor_mesh
    load, problems = largest_load(settings, model, batch_shards(mesh), batch_shards(drawing))
    line(f"{topology}: {len(devices)} x {chip.kind}, mesh {dict(mesh.shape)}")
    copies = batch_shards(drawing)
    line(f"to draw: {copies} copies of the weights, each over {mesh.size // copies} devices")
    line(f"{load}")
    # Outside of the mesh: it makes small arrays, which devices that are not there cannot hold.
    chosen = [p for p in list_programs(learner, programs, load) if p.name in names]
    if not chosen:
        has = ", ".join(p.name for p in list_programs(learner, programs, load))
        raise ValueError(
            f"--programs={','.join(names)}: this config has none of them; it has {has}"
        )
    compiled = []
    for program in chosen:
        compiled.append(compile_program(program, chip))
        total, seconds = compiled[-1].total / GIB, compiled[-1].compile_s
        line(f"{program.name}: compiled in {seconds:.0f} s, {total:.2f} GiB a device")
    prompt = min(mean_tokens[0] or load.shapes.prompt_tokens[-1], load.shapes.prompt_tokens[-1])
    completion = min(mean_tokens[1] or load.shapes.completion_tokens, load.shapes.completion_tokens)
    parts = phases(Work(learner, programs, load, prompt, completion))
    return {
        "topology": topology,
        "devices": len(devices),
        "chip": dataclasses.asdict(chip),
        "mesh": dict(mesh.shape),
        "load": load._asdict() | {"shapes": dataclasses.asdict(load.shapes)},
        "problems": problems,
        "mean_prompt_tokens": prompt,
        "mean_completion_tokens": completion,
        "programs": [dataclasses.asdict(c) | {"fits": c.fits} for c in compiled],
        "phases": [
            dataclasses.asdict(p) | {"seconds": p.seconds(chip, len(devices))} for p in parts
        ],
        "fits": all(c.fits for c in compiled),
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Prints a plan as two tables."""
    console.print("GiB a device, by the TPU compiler")
    memory = Table()
    columns = ("arguments", "outputs", "temporaries", "beside it", "total", "limit", "fits", "host")
    memory.add_column("program")
    for column in columns:
        memory.add_column(column, justify="right")
    for p in result["programs"]:
        known = p["arguments"] > 0
        parts = (p["arguments"], p["outputs"], p["temporaries"])
        memory.add_row(
            p["name"],
            *(f"{x / GIB:.2f}" if known else "?" for x in parts),
            *(f"{p[k] / GIB:.2f}" for k in ("beside", "total", "limit")),
            "✓" if p["fits"] else "✗",
            "✗ calls" if p["host_calls"] else "✓ none",
        )
    console.print(memory)
    console.print("An RL step at the chips' peak rates, by arithmetic; nothing is measured")
    work = Table()
    work.add_column("phase")
    for column in ("PFLOP", "compute s", "HBM s", "ICI s", "bound by", "s"):
        work.add_column(column, justify="right")
    total = 0.0
    for p in result["phases"]:
        seconds = p["seconds"]
        bound = max(seconds, key=seconds.get)
        total += seconds[bound]
        work.add_row(
            p["name"],
            f"{p['flops'] / 1e15:,.1f}",
            *(f"{s:,.2f}" for s in seconds.values()),
            bound,
            f"{seconds[bound]:,.2f}",
        )
    work.add_row("step", *[""] * 5, f"{total:,.2f}")
    console.print(work)
    console.print(
        f"at {result['mean_prompt_tokens']:,} prompt and {result['mean_completion_tokens']:,} "
        "completion tokens in the mean; activations, launches and padding not counted; ICI if the "
        "weights are gathered at every use (the compiler may move activations instead)",
        soft_wrap=True,
    )
    for problem in result["problems"]:
        console.print(f"✗ {problem}", soft_wrap=True, highlight=False, markup=False)


def define_flags() -> None:
    """Defines the flags of the command line."""
    config_flags.DEFINE_config_file(
        "config", None, "Config file; --config.FIELD=VALUE overrides one field.", lock_config=True
    )
    flags.DEFINE_string("topology", "v5p:4x4x4", "TPU generation and shape of the slice.")
    flags.DEFINE_string(
        "hf_config",
        "",
        "HF config.json, or a name in tpu/. Empty: that of the config's model, else qwen3-vl-8b.",
    )
    flags.DEFINE_list("programs", list(PROGRAMS), "Which to compile.")
    flags.DEFINE_integer(
        "mean_prompt_tokens", 0, "Of the estimate of seconds; 0: the longest prompt."
    )
    flags.DEFINE_integer(
        "mean_completion_tokens", 0, "Of the estimate of seconds; 0: the completion limit."
    )
    flags.DEFINE_string("json", "", "Also write the plan to this file.")
    flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Runs the command; bad input ends in one line and exit status 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    f = flags.FLAGS
    try:
        result = plan(
            f.config,
            topology=f.topology,
            hf_config=f.hf_config,
            names=f.programs,
            mean_tokens=(f.mean_prompt_tokens, f.mean_completion_tokens),
            line=lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"plan: {error}")
    show(result, console)
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["fits"] else 2)


def _scaled(number: str, unit: str) -> int:
    return int(float(number) * 2 ** {"K": 10, "M": 20, "G": 30}[unit])


if __name__ == "__main__":
    define_flags()
    app.run(main)
