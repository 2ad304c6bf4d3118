"""A step with a frozen tower: `python benchmarks/bench_frozen.py [--preset cpu] [--json OUT]`.

Its features computed once, or in every pass: rollout, old and reference log-probabilities, and each
epoch of the update. Same random model, clips and draws; the two take turns in one run.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import optax

from benchmarks import common
from benchmarks.bench_update import GEOMETRY, TABLE_SIDE, Shape, Size, make_example, make_model
from evr1 import flops, learn, step
from evr1.data import batch as collation
from evr1.features import make_encoder
from evr1.rl.batches import group_batch, microbatches
from evr1.rl.losses import LossConfig
from evr1.run import Policy
from evr1.sampler import Sampler, Sampling
from evr1.types import GroupBatch, ShapeTable

FREEZE = ("vision/.*",)
SMALL = Size(2048, 6, 192, 512, 6, 2, 2, 64, "float32", remat=True)
LARGE = Size(151936, 28, 1024, 3072, 16, 8, 24, 1024, "bfloat16", remat=True)
CLIP = Shape(4, 4, 16, 128, 16)
PRESETS: dict[str, tuple[tuple[Size, Shape], ...]] = {
    "cpu": (
        (SMALL, CLIP),
        (dataclasses.replace(SMALL, vision_layers=8, vision_width=128), CLIP),
    ),
    "gpu": ((LARGE, Shape(8, 8, 32, 448, 256)), (LARGE, Shape(8, 8, 64, 512, 256))),
}
KINDS = {  # epochs of the update, and whether old and reference log-probabilities are computed
    "1 epoch": (1, False),
    "old, reference, 2 epochs": (2, True),
}


def make_policy(shape: Shape, size: Size, groups: int) -> Policy:
    """A policy that stands still, so that every step does the same."""
    model, optimizer = make_model(size), optax.sgd(0.0)
    rows, height, width = shape.grid
    shapes = ShapeTable((shape.prompt_tokens,), (rows,), height * width, shape.completion_tokens)
    sampler = Sampler(
        model,
        shapes=shapes,
        geometry=GEOMETRY,
        pos_grid=TABLE_SIDE,
        n=shape.n,
        slots=shape.groups,
        window=8,
        pad_id=0,
        prefill_groups=groups,
    )
    sampling = Sampling(max_tokens=shape.completion_tokens)
    patches = rows * height * width
    return Policy(
        model=model,
        mesh=None,
        optimizer=optimizer,
        schedule=optax.constant_schedule(0.0),
        update=step.make_update(model, optimizer, LossConfig(), freeze=FREEZE),
        logprobs=step.make_logprobs(model),
        sampler=sampler,
        sampling=sampling,
        greedy_sampler=sampler,
        greedy=sampling,
        encoder=make_encoder(
            model, sampler.prompts, groups=groups, held=shape.groups, patches=patches, mesh=None
        ),
    )


class Run:
    """Steps of one policy."""

    def __init__(self, policy: Policy, shape: Shape, size: Size, kind: str, groups: int) -> None:
        """Random weights and clips, the same in every run."""
        rng = np.random.default_rng(0)
        self.policy, self.shape, self.groups = policy, shape, groups
        self.epochs, self.has_logprobs = KINDS[kind]
        self.examples = [make_example(rng, shape, size) for _ in range(shape.groups)]
        self.advantages = rng.normal(size=(shape.groups, shape.n)).astype(np.float32)
        params = jax.jit(policy.model.init)(jax.random.key(0))
        self.state = step.init_state(params, policy.optimizer)
        self.prompts = collation.collate(
            self.examples, policy.sampler.shapes, GEOMETRY, TABLE_SIDE, 0, has_patches=False
        )

    def step(self) -> tuple[GroupBatch, float]:
        """The rollout batch, and the norm of its gradient."""
        policy, params = self.policy, self.state.params
        examples = policy.encode(params, self.examples)
        ids = range(len(examples))
        rollouts = policy.sampler.generate(params, examples, ids, policy.sampling)
        limit = self.shape.completion_tokens
        batch = group_batch(
            self.prompts, rollouts, self.advantages, aggregation="token_mean", max_tokens=limit
        )
        budget = self.groups * (self.shape.prompt_tokens + self.shape.n * limit)
        parts = microbatches(batch, budget, shapes=policy.sampler.shapes)
        for part in parts if self.has_logprobs else ():
            placed = policy.place_prompts(part, examples)
            for weights in (params, params):  # the old policy's and the reference's
                jax.block_until_ready(policy.logprobs(weights, *placed))
        self.state, metrics = learn.update(policy, self.state, examples, [parts], self.epochs)
        return batch, metrics["optim/grad_norm"]


def measure(shape: Shape, size: Size, kind: str, repeats: int, groups: int) -> dict:
    """One line of the table."""
    print(f"{shape.prompt_tokens} prompt tokens, {kind} ...", file=sys.stderr, flush=True)
    once = make_policy(shape, size, groups)
    policies = {"once": once, "every pass": dataclasses.replace(once, encoder=None)}
    runs = {name: Run(policy, shape, size, kind, groups) for name, policy in policies.items()}
    (batch, norm), (other, expected) = (r.step() for r in runs.values())
    same = (batch.completions == other.completions).mean()
    times = common.time_side_by_side({name: r.step for name, r in runs.items()}, repeats)
    whole = flops.forward(once.model, batch)
    return {
        "prompt": shape.prompt_tokens,
        "G x n": f"{shape.groups} x {shape.n}",
        "beside the rollout": kind,
        "tower's share": 1 - flops.forward(once.model, batch, has_tower=False) / whole,
        "once ms": 1000 * statistics.median(times["once"]),
        "every pass ms": 1000 * statistics.median(times["every pass"]),
        "times faster": common.ratio(times["every pass"], times["once"]),
        "same tokens": float(same),
        "gradient norm off by": abs(norm / expected - 1),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--groups", type=int, default=2, help="of a prefill and of a microbatch")
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    rows = [
        measure(shape, size, kind, args.repeats, args.groups)
        for size, shape in PRESETS[args.preset]
        for kind in KINDS
    ]
    common.show("Step with a frozen tower: features once, or in every pass", rows, args.json)


if __name__ == "__main__":
    main()
