"""Compiles a config's update and sampler for TPUs that are not there, and says what they need.

    python tools/plan.py --config=configs/qwen_video.py --topology=v5p:4x4x4

The programs are those of the run, lowered from shapes and shardings alone: bytes are the TPU
compiler's own. Operations and seconds are arithmetic from shapes and data sheets, at peak rates,
because the compiler counts the body of a loop once: orders of magnitude, nothing is measured.
Needs libtpu: pip install 'evr1[tpu-compiler]'. Exit status: 0 it fits, 2 it does not, 1 bad input.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
os.environ["JAX_PLATFORMS"] = "cpu"  # compile for the TPU, run nothing on it
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # several plans at a time
os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # no search for a cloud machine's metadata
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"  # nor for its neighbours
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-1"  # of this machine; the topology is a flag

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.stages import Wrapped
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from evr1 import features, flops, optim, step
from evr1.config import Config, fill_algorithm
from evr1.models import FAMILIES, Model
from evr1.parallel import mesh as mesh_lib
from evr1.parallel import sharding
from evr1.rl import batches
from evr1.run import adapted, has_frozen_tower, held_features, loss_config
from evr1.sampler import driver, engine
from evr1.sampler.sampling import Sampling, make_draws
from evr1.types import GroupBatch, Prompts, VisionInput

ROOT = pathlib.Path(__file__).resolve().parents[1]
GIB = 2**30
PROGRAMS = ("encode", "prefill", "decode", "logprobs", "gradient", "optimizer")
# What would make the device wait for the host in the middle of a program.
HOST_CALL = re.compile(r"callback|infeed|outfeed|host_transfer", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm")


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip, from its data sheet."""

    kind: str
    flops: float  # a second, dense bf16
    hbm: float  # bytes
    hbm_rate: float  # bytes a second
    ici_rate: float  # bytes a second


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The largest shapes that a run of the config has.

    Attributes:
        prompt: P.
        completion: R.
        vision_rows: F, for a clip of the most frames.
        row_patches: S, the largest frame of a clip.
        micro_groups: groups of a microbatch, all devices together.
        slots: groups that decode at the same time.
        prefill_groups: prompts of a prefill.
    """

    prompt: int
    completion: int
    vision_rows: int
    row_patches: int
    micro_groups: int
    slots: int
    prefill_groups: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A jitted function with its abstract arguments, and what else the device holds meanwhile."""

    name: str
    lower: Callable[[], Any]
    beside: int  # bytes a device


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


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of an RL step, all devices together, by arithmetic.

    Attributes:
        flops: operations.
        hbm: bytes that every device reads and writes, weights and caches only.
        ici: bytes that every device receives from others.
    """

    name: str
    flops: float
    hbm: float
    ici: float

    def seconds(self, chip: Chip, devices: int) -> dict[str, float]:
        """The time that each of the three would take alone at peak."""
        return {
            "compute": self.flops / (chip.flops * devices),
            "hbm": self.hbm / chip.hbm_rate,
            "ici": self.ici / chip.ici_rate,
        }


def find_chip(kind: str) -> Chip:
    """The data sheet of a device kind.

    Raises:
        ValueError: it is not in tpu/chips.json.
    """
    sheets = json.loads((ROOT / "tpu" / "chips.json").read_text())
    peak = flops.peak_flops(kind)
    if kind not in sheets or peak is None:
        known = ", ".join(k for k in sheets if k != "source")
        raise ValueError(f"no data sheet for {kind!r}; tpu/chips.json has {known}")
    sheet = sheets[kind]
    rates = (1e9 * sheet["hbm_gb_per_s"], 1e9 * sheet["ici_gb_per_s"])
    return Chip(kind, peak, sheet["hbm_gib"] * GIB, *rates)


def find_devices(topology: str) -> list[Any]:
    """The devices of a named TPU slice, without any being there.

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


def find_model(config: Config, name: str) -> Model:
    """The model to plan for; attention through the TPU kernel, which a CPU host would not choose.

    Raises:
        ValueError: no such file, or a family that is not supported.
    """
    default = str(pathlib.Path(config.model) / "config.json") if config.model else "qwen3-vl-8b"
    name = name or default
    built_in = ROOT / "tpu" / f"{name.replace('-', '_').lower()}.json"
    path = built_in if built_in.is_file() else pathlib.Path(name)
    if not path.is_file():
        raise ValueError(f"--hf_config={name}: no such file and no such name in tpu/")
    sizes = json.loads(path.read_text())
    if sizes.get("model_type") not in FAMILIES:
        raise ValueError(f"{path}: model_type {sizes.get('model_type')!r} is not supported")
    build = FAMILIES[sizes["model_type"]]
    model = build(sizes, dtype=config.train.dtype, remat=config.train.remat)
    return dataclasses.replace(model, implementation="splash")


def largest_shapes(config: Config, model: Model, shards: int) -> tuple[Shapes, list[str]]:
    """The largest shapes of the config's run, and what in the config would stop it."""
    d, r, vision = config.data, config.rollout, model.config.vision
    time_patch, patch = vision.patch_shape[1], vision.patch_shape[-1]
    prompt = max(config.shapes.prompt_tokens, default=-(-d.max_prompt_tokens // 128) * 128)
    rows = max(config.shapes.vision_rows, default=-(-d.video_max_frames // time_patch))
    row_patches = config.shapes.row_patches or d.video_max_pixels // patch**2
    completion = max(r.max_completion_tokens, config.eval.max_completion_tokens)

    problems = []
    size = np.array([prompt, completion, rows])
    try:
        micro = batches.groups_per_part(
            size, r.n, config.train.microbatch_tokens, r.prompts, shards
        )
    except ValueError as error:
        micro = shards
        problems.append(f"{error}. Planned with {micro} groups, one a device")
    slots = -(-r.slots // shards) * shards
    if slots != r.slots:
        problems.append(
            f"rollout.slots={r.slots} does not divide over {shards} devices. Planned with {slots}"
        )
    prefill = -(-max(1, slots // 8) // shards) * shards
    return Shapes(prompt, completion, rows, row_patches, micro, slots, prefill), problems


def abstract_prompts(groups: int, shapes: Shapes, model: Model) -> Prompts:
    """Prompts without data, as `evr1.data.batch.collate` makes them."""
    p, f, s = shapes.prompt, shapes.vision_rows, shapes.row_patches
    of = jax.ShapeDtypeStruct
    return Prompts(
        tokens=of((groups, p), jnp.int32),
        positions=of((groups, 3, p), jnp.int32),
        lengths=of((groups,), jnp.int32),
        next_positions=of((groups,), jnp.int32),
        visual_index=of((groups, p), jnp.int32),
        vision=VisionInput(
            patches=of((groups, f, s, model.config.vision.patch_values), jnp.uint8),
            segment_ids=of((groups, f, s), jnp.int32),
            positions=of((groups, f, s, 2), jnp.int32),
            interp_index=of((groups, f, s, 4), jnp.int32),
            interp_weight=of((groups, f, s, 4), jnp.float32),
            is_image=of((groups, f, s), jnp.bool_),
        ),
    )


def with_features(prompts: Prompts, model: Model) -> Prompts:
    """Prompts without data, after a frozen vision tower."""
    visual = jax.eval_shape(model.encode, model.abstract_params(), prompts.vision)
    return prompts._replace(vision=visual)


def abstract_batch(n: int, shapes: Shapes, model: Model) -> GroupBatch:
    """A microbatch without data."""
    rows = (shapes.micro_groups, n, shapes.completion)
    floats = jax.ShapeDtypeStruct(rows, jnp.float32)
    return GroupBatch(
        prompts=abstract_prompts(shapes.micro_groups, shapes, model),
        groups=jax.ShapeDtypeStruct((shapes.micro_groups,), jnp.int32),
        completions=jax.ShapeDtypeStruct(rows, jnp.int32),
        completion_mask=jax.ShapeDtypeStruct(rows, jnp.bool_),
        behavior_logprobs=floats,
        old_logprobs=floats,
        ref_logprobs=floats,
        advantages=floats,
        old_values=floats,
        returns=floats,
        loss_weights=floats,
        is_offline=jax.ShapeDtypeStruct(rows[:2], jnp.bool_),
        kl_coef=jax.ShapeDtypeStruct(rows[:1], jnp.float32),
        update=jax.ShapeDtypeStruct(rows[:1], jnp.int32),
    )


def programs(
    config: Config, model: Model, mesh: jax.sharding.Mesh, shapes: Shapes
) -> list[Program]:
    """The programs of an RL step: those of `evr1.step` and of `evr1.sampler.engine`, and with a
    frozen vision tower that of `evr1.features`.
    """
    batch = sharding.batch_sharding(mesh)
    everywhere = sharding.replicated(mesh)
    trained, freeze = adapted(config, model)
    params = trained.abstract_params()
    params = _placed(params, sharding.param_shardings(mesh, params))
    # The sampler has no adapters: they are merged into the matrices.
    base = {name: part for name, part in params.items() if name != "lora"}
    compute = jax.eval_shape(functools.partial(driver.compute_params, dtype=model.dtype), base)
    compute = _placed(compute, sharding.param_shardings(mesh, compute))

    o, a, r = config.optim, config.algorithm, config.rollout
    optimizer = optim.make_optimizer(
        optim.make_schedule(o.schedule, o.learning_rate, 100),
        b1=o.b1,
        b2=o.b2,
        eps=o.eps,
        weight_decay=o.weight_decay,
        max_grad_norm=o.max_grad_norm,
        freeze=freeze,
    )
    update = step.make_update(trained, optimizer, loss_config(config), freeze=freeze, mesh=mesh)
    logprobs = step.make_logprobs(trained, temperature=r.temperature, mesh=mesh)
    state = jax.eval_shape(functools.partial(step.init_state, optimizer=optimizer), params)
    state = _placed(state, step.train_state_shardings(params, optimizer, mesh))
    grads = jax.eval_shape(update.zeros, params)
    microbatch = abstract_batch(r.n, shapes, model)

    sampling = Sampling(temperature=r.temperature, max_tokens=r.max_completion_tokens)
    draws = _placed(make_draws(sampling, model.config.vocab_size), everywhere)
    init = engine._init.lower(
        model, shapes.slots, r.n, shapes.prompt, shapes.completion, mesh
    ).compile()
    decode_state = _placed(
        jax.eval_shape(
            lambda: engine._init(model, shapes.slots, r.n, shapes.prompt, shapes.completion, None)
        ),
        init.output_shardings,
    )
    prompts = _placed(abstract_prompts(shapes.prefill_groups, shapes, model), batch)

    reference = params.get("lora", params)  # the base is held once
    resident = _bytes(state) + (_bytes(reference) if a.kl_coef else 0)
    vision, encode = prompts.vision, []
    if has_frozen_tower(trained, freeze):
        prompts = _placed(with_features(prompts, model), batch)
        shown = with_features(microbatch.prompts, model)
        microbatch = microbatch._replace(prompts=shown)
        held = held_features(config) * _bytes(prompts.vision) // shapes.prefill_groups
        resident += held if held <= features.DEVICE_BYTES else 0
        encode = [
            Program(
                "encode",
                lambda: features._encode.lower(model, base, vision),
                resident - _bytes(base),
            )
        ]
    microbatch = _placed(microbatch, batch)
    return [
        *encode,
        Program(
            "prefill",
            lambda: engine._read.lower(model, compute, prompts),
            resident + _bytes(decode_state),
        ),
        Program(
            "decode",
            lambda: engine._generate.lower(
                model,
                compute,
                decode_state,
                draws,
                window=r.window_steps,
                mode=sampling.mode,
                mesh=mesh,
                stop_early=True,
            ),
            resident,
        ),
        Program(
            "logprobs",
            lambda: cast(Wrapped, logprobs).lower(
                params, microbatch.prompts, microbatch.completions
            ),
            resident - _bytes(params),
        ),
        Program(
            "gradient",
            lambda: cast(Wrapped, update.accumulate).lower(params, grads, microbatch),
            resident - _bytes(params),
        ),
        Program(
            "optimizer",
            lambda: cast(Wrapped, update.apply).lower(state, grads),
            resident - _bytes(state),
        ),
    ]


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
        limit = int(chip.hbm)
        parts = (
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes - memory.alias_size_in_bytes,
            memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        )
        total = sum(parts) + program.beside
    seconds = time.perf_counter() - begun
    return Compiled(program.name, *parts, program.beside, total, limit, host_calls, seconds)


def phases(
    config: Config,
    model: Model,
    mesh: jax.sharding.Mesh,
    shapes: Shapes,
    prompt: int,
    completion: int,
) -> list[Phase]:
    """What an RL step has to compute and to move.

    Counted: operations of real tokens (recomputation in the backward pass included), one read of
    the weights a pass, caches, the weights gathered over the fsdp axis once a pass and once a
    decode step, gradients scattered once a microbatch. Not counted: activations.

    Args:
        config: the config.
        model: to plan for.
        mesh: of the slice.
        shapes: of the programs; they tell how often each runs.
        prompt: mean tokens.
        completion: mean tokens.
    """
    c, r = model.config, config.rollout
    groups, n, devices = r.prompts, r.n, mesh.size
    prompts = np.full(groups, float(prompt))
    completions = np.full((groups, n), float(completion))
    drawn = groups * n * completion
    vision = flops.vision_flops(
        model, np.full(groups * shapes.vision_rows, float(shapes.row_patches))
    )
    trained, freeze = adapted(config, model)
    is_frozen = has_frozen_tower(trained, freeze)
    again = 0.0 if is_frozen else vision  # in every pass
    head = 2.0 * c.width * c.vocab_size
    within = flops.pairs(prompts, np.zeros((groups, n)))
    every = flops.pairs(prompts, completions)
    prefill = again + flops.text_flops(model, groups * prompt, within) + head * groups
    decode = flops.text_flops(model, drawn, every - within) + head * drawn
    forward = again + flops.text_flops(model, groups * prompt + drawn, every) + head * drawn

    count = _count(model.abstract_params())
    size = jnp.dtype(model.dtype).itemsize
    held = count * size / mesh.shape["tensor"]  # weights of a device, once gathered
    ways = mesh.shape["fsdp"]
    gathered = held * (ways - 1) / ways
    key_bytes = (
        2 * c.attention_layers * c.kv_heads * c.head_dim * size
    )  # keys and values of a token
    waves = math.ceil(groups / shapes.slots)
    cache = key_bytes * (shapes.slots * (prompt + n * completion / 2)) / devices
    steps = waves * completion
    prefills = math.ceil(groups / shapes.prefill_groups)
    micro = math.ceil(groups / shapes.micro_groups)
    passes = 3 if config.train.remat else 2
    # A product has two gradients, of its input and of its matrix: adapters need the first.
    moving, products = count, passes + 1
    if config.lora.rank:
        moving, products = _count(trained.abstract_params()["lora"]), passes
    recompute = config.algorithm.old_logprobs == "recompute"
    out = [
        Phase("prefill", prefill, prefills * held, prefills * gathered),
        Phase("decode", decode, steps * (held + cache), steps * gathered),
        Phase(
            "update",
            forward * products,
            micro * passes * held + 28.0 * moving / (ways * mesh.shape["tensor"]),
            micro * gathered * (passes + 4 / size * moving / count),
        ),
    ]
    if recompute:
        out.insert(2, Phase("logprobs", forward, micro * held, micro * gathered))
    if is_frozen:
        tower = _count(model.abstract_params()["vision"]) / _count(model.abstract_params())
        reads = prefills * tower
        out.insert(0, Phase("encode", vision, reads * held, reads * gathered))
    return out


def plan(
    config: Config,
    *,
    topology: str,
    hf_config: str = "",
    names: Sequence[str] = PROGRAMS,
    mean_prompt: int = 0,
    mean_completion: int = 0,
    line: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compiles the programs and returns the plan as plain data.

    Raises:
        ValueError: bad flags, or a mesh that does not fit the slice.
    """
    unknown = sorted(set(names) - set(PROGRAMS))
    if unknown:
        raise ValueError(f"--programs={unknown[0]}: there is {', '.join(PROGRAMS)}")
    devices = find_devices(topology)
    chip = find_chip(devices[0].device_kind)
    config = config.copy_and_resolve_references()
    fill_algorithm(config.algorithm)
    model = find_model(config, hf_config)
    mesh = mesh_lib.make_mesh(**config.mesh, devices=devices)
    shards = engine.batch_shards(mesh)
    shapes, problems = largest_shapes(config, model, shards)
    line(f"{topology}: {len(devices)} x {chip.kind}, mesh {dict(mesh.shape)}")
    line(f"{shapes}")
    compiled = []
    todo = [p for p in programs(config, model, mesh, shapes) if p.name in names]
    with _mesh_context(mesh):
        for program in todo:
            compiled.append(compile_program(program, chip))
            total, seconds = compiled[-1].total / GIB, compiled[-1].compile_s
            line(f"{program.name}: compiled in {seconds:.0f} s, {total:.2f} GiB a device")
    prompt = min(mean_prompt or shapes.prompt, shapes.prompt)
    completion = min(mean_completion or shapes.completion, shapes.completion)
    parts = phases(config, model, mesh, shapes, prompt, completion)
    return {
        "topology": topology,
        "devices": len(devices),
        "chip": dataclasses.asdict(chip),
        "mesh": dict(mesh.shape),
        "shapes": dataclasses.asdict(shapes),
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
    """The command line."""
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
    """Bad input ends in one line and exit status 1."""
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
            mean_prompt=f.mean_prompt_tokens,
            mean_completion=f.mean_completion_tokens,
            line=lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False),
        )
    except (ValueError, OSError) as error:
        sys.exit(f"plan: {error}")
    show(result, console)
    if f.json:
        pathlib.Path(f.json).write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if result["fits"] else 2)


def _placed(tree: Any, places: Any) -> Any:
    """The tree as ShapeDtypeStructs with shardings: a tree of them, or one for all leaves."""
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places
    )


def _count(tree: Any) -> int:
    """Values of a tree."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    """Bytes of a placed tree on one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def _scaled(number: str, unit: str) -> int:
    return int(float(number) * 2 ** {"K": 10, "M": 20, "G": 30}[unit])


@contextlib.contextmanager
def _mesh_context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """As in a run: more than one device is told to the models, one is not."""
    if mesh.size == 1:
        yield
        return
    with jax.set_mesh(mesh):
        yield


if __name__ == "__main__":
    define_flags()
    app.run(main)
