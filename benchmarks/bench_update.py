"""The update in the group layout: `python benchmarks/bench_update.py [--preset cpu] [--json OUT]`.

A video prompt and its n completions go through the network as one group (vision once, prompt once)
or, as usual, as n separate sequences. Same random model, same tokens, same budget of tokens per
forward and backward pass, same gradient; the two take turns in one run. `memory` is what the
compiler sets aside for the largest microbatch, without parameters and gradients. `of matmul` is the
group update's share of the rate of a plain product, measured before; what is padded or computed
again does not count as work.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import optax

from benchmarks import common
from evr1.batch.assemble import group_batch
from evr1.batch.collate import Collator
from evr1.batch.cut import microbatches
from evr1.batch.shapes import ShapeTable
from evr1.data.positions import mrope_positions
from evr1.data.records import Example, Geometry, Row
from evr1.learner.update import make_update
from evr1.models import FAMILIES, Model
from evr1.rl.losses import LossConfig
from evr1.telemetry import flops
from evr1.types import GroupBatch, Rollouts

GEOMETRY = Geometry(patch_size=16, temporal_patch_size=2, merge_size=2)
VIDEO_ID, TABLE_SIDE = 3, 8


@dataclasses.dataclass(frozen=True)
class Size:
    """A Qwen3-VL: sizes of its text model and of its vision tower."""

    vocab: int
    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    vision_layers: int
    vision_width: int
    dtype: str
    remat: str


@dataclasses.dataclass(frozen=True)
class Shape:
    """One line of the table: G groups of a clip, some text, and n completions of at most R."""

    groups: int
    n: int
    frames: int
    side: int  # pixels
    completion_tokens: int
    text_tokens: int = 32

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches (t, h, w)."""
        patches = self.side // GEOMETRY.patch_size
        return self.frames // GEOMETRY.temporal_patch_size, patches, patches

    @property
    def prompt_tokens(self) -> int:
        """Returns how many visual and text tokens a prompt has."""
        return int(np.prod(self.grid)) // GEOMETRY.merge_size**2 + self.text_tokens


TINY = Size(642, 3, 128, 320, 4, 2, 3, 96, "float32", remat="none")  # as configs/demo.py
SMALL = Size(2048, 3, 192, 512, 6, 2, 3, 96, "float32", remat="full")
LARGE = Size(151936, 28, 1024, 3072, 16, 8, 12, 768, "bfloat16", remat="full")  # as Qwen3-0.6B
PRESETS: dict[str, tuple[Size, tuple[Shape, ...]]] = {
    "demo": (TINY, (Shape(32, 8, 8, 96, 28, 112),)),
    "cpu": (SMALL, (Shape(1, 8, 16, 128, 32), Shape(1, 8, 32, 160, 32), Shape(1, 8, 32, 224, 32))),
    "gpu": (
        LARGE,
        (Shape(2, 8, 32, 448, 512), Shape(1, 8, 64, 512, 512), Shape(1, 8, 128, 512, 704)),
    ),
}


def make_model(size: Size) -> Model:
    """Returns a Qwen3-VL of this size."""
    head_dim = size.width // size.heads
    config = {
        "video_token_id": VIDEO_ID,
        "text_config": {
            "vocab_size": size.vocab,
            "hidden_size": size.width,
            "intermediate_size": size.mlp,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": head_dim,
            "rope_scaling": {
                "mrope_section": [head_dim // 2 - 2 * (head_dim // 6)] + [head_dim // 6] * 2
            },
        },
        "vision_config": {
            "depth": size.vision_layers,
            "hidden_size": size.vision_width,
            "intermediate_size": 4 * size.vision_width,
            "num_heads": size.vision_width // 32,
            "patch_size": GEOMETRY.patch_size,
            "temporal_patch_size": GEOMETRY.temporal_patch_size,
            "spatial_merge_size": GEOMETRY.merge_size,
            "out_hidden_size": size.width,
            "num_position_embeddings": TABLE_SIDE**2,
            "deepstack_visual_indexes": [0, size.vision_layers - 1],
        },
    }
    return FAMILIES["qwen3_vl"](config, dtype=size.dtype, remat=size.remat)


def make_batch(shape: Shape, size: Size, seed: int = 0) -> GroupBatch:
    """Returns random clips, text and completions of random length, on device."""
    rng = np.random.default_rng(seed)
    t, h, w = shape.grid
    frame = h * w
    examples = [make_example(rng, shape, size) for _ in range(shape.groups)]
    shapes = ShapeTable((shape.prompt_tokens,), (t,), frame, shape.completion_tokens)
    prompts = Collator(shapes, GEOMETRY, TABLE_SIDE, 0)(examples)
    dims = (shape.groups, shape.n, shape.completion_tokens)
    lengths = rng.integers(shape.completion_tokens // 4, shape.completion_tokens + 1, dims[:2])
    lengths[:, 0] = shape.completion_tokens
    rollouts = Rollouts(
        rng.integers(4, size.vocab, dims, dtype=np.int32),
        np.full(dims, -np.log(size.vocab), np.float32),
        lengths.astype(np.int32),
        lengths < shape.completion_tokens,
    )
    return group_batch(
        prompts,
        rollouts,
        rng.normal(size=dims[:2]).astype(np.float32),
        aggregation="token_mean",
        max_tokens=shape.completion_tokens,
    )


def make_example(rng: np.random.Generator, shape: Shape, size: Size) -> Example:
    """Returns a prompt of a random clip and random text."""
    t, h, w = shape.grid
    grid = np.array([shape.grid], np.int32)
    visual = t * h * w // GEOMETRY.merge_size**2
    is_visual = np.zeros(shape.prompt_tokens, bool)
    before = shape.text_tokens // 2
    is_visual[before : before + visual] = True
    tokens = np.where(is_visual, VIDEO_ID, rng.integers(4, size.vocab, len(is_visual)))
    positions, after = mrope_positions(is_visual, grid, GEOMETRY.merge_size)
    values = 3 * GEOMETRY.temporal_patch_size * GEOMETRY.patch_size**2
    row = Row(
        0, "", "", "numerical", "video", (), ("clip",), (), "0", None, None, "benchmark:0", {}
    )
    patches = rng.integers(0, 256, (t * h * w, values), np.uint8)
    tokens = tokens.astype(np.int32)
    return Example(row, tokens, is_visual, positions, after, patches, grid, np.zeros(1, bool))


def one_row_per_group(batch: GroupBatch) -> GroupBatch:
    """Returns every completion with a copy of its prompt: G * N groups of one."""
    g, n = batch.completions.shape[:2]
    prompts = jax.tree.map(lambda x: np.repeat(x, n, axis=0), batch.prompts)

    def split(x: np.ndarray) -> np.ndarray:
        return np.repeat(x, n) if x.ndim == 1 else x.reshape(g * n, 1, *x.shape[2:])

    return jax.tree.map(split, batch._replace(prompts=None))._replace(prompts=prompts)


def measure(shape: Shape, size: Size, repeats: int, max_tokens: int) -> dict:
    """Returns one line of the table."""
    print(f"{shape.prompt_tokens} prompt tokens, n = {shape.n} ...", file=sys.stderr, flush=True)
    model = make_model(size)
    params = jax.jit(model.init)(jax.random.key(0))
    update = make_update(model, optax.sgd(1.0), LossConfig(on_policy=True))
    accumulate: Any = update.accumulate  # jitted: it can be lowered
    whole = make_batch(shape, size)
    budget = max(max_tokens, shape.prompt_tokens + shape.n * shape.completion_tokens)
    layouts = {"group": whole, "per sample": one_row_per_group(whole)}
    parts = {name: jax.device_put(microbatches(b, budget)) for name, b in layouts.items()}
    zeros = update.zeros(params)
    compiled = {
        name: accumulate.lower(params, zeros, batches[0]).compile()
        for name, batches in parts.items()
    }

    def run(name):
        grads = update.zeros(params)
        for part in parts[name]:
            grads, _ = compiled[name](params, grads, part)
        return jax.block_until_ready(grads)

    rate = common.matmul_rate(size.dtype)
    first, second = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(run(n))]) for n in parts)
    times = common.time_side_by_side({name: lambda n=name: run(n) for name in parts}, repeats)
    memory = {n: c.memory_analysis().temp_size_in_bytes / 2**20 for n, c in compiled.items()}
    return {
        "prompt": shape.prompt_tokens,
        "completion": shape.completion_tokens,
        "G x n": f"{shape.groups} x {shape.n}",
        "group ms": 1000 * statistics.median(times["group"]),
        "per sample ms": 1000 * statistics.median(times["per sample"]),
        "times faster": common.ratio(times["per sample"], times["group"]),
        "group MiB": memory["group"],
        "per sample MiB": memory["per sample"],
        "of matmul": flops.update(model, whole, has_tower=True)
        / statistics.median(times["group"])
        / rate,
        "passes": f"{len(parts['group'])} / {len(parts['per sample'])}",
        "gradient difference": float(np.linalg.norm(first - second) / np.linalg.norm(second)),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--max_tokens", type=int, default=0, help="per pass; 0: one group's, or all in the demo"
    )
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    size, shapes = PRESETS[args.preset]
    max_tokens = args.max_tokens or (10**9 if args.preset == "demo" else 0)
    rows = [measure(shape, size, args.repeats, max_tokens) for shape in shapes]
    common.show("Gradient of a minibatch: group layout against separate sequences", rows, args.json)


if __name__ == "__main__":
    main()
