"""A step with a frozen tower: `python benchmarks/bench_frozen.py [--preset cpu] [--json OUT]`.

Its features computed once, or in every pass: rollout, old and reference log-probabilities, and each
epoch of the update. Same random model, clips and draws; the two take turns in one run.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import common
from benchmarks.bench_update import GEOMETRY, TABLE_SIDE, Shape, Size, make_example, make_model
from configs import base
from evr1.batch.collate import Collator
from evr1.batch.features import make_encoder
from evr1.batch.shapes import ShapeTable
from evr1.config import resolve
from evr1.config.learner import LearnerSettings, learner_settings
from evr1.exchange import stack
from evr1.learner.learner import Learner, make_learner
from evr1.learner.loss import loss_config
from evr1.learner.state import LearnerState
from evr1.learner.update import init_state, make_update
from evr1.rl.outcomes import Outcomes
from evr1.rl.state import AlgorithmState
from evr1.rollout.sample import make_groups
from evr1.sampler import Sampler, Sampling
from evr1.telemetry import flops
from evr1.types import GroupBatch

FREEZE = ("vision/.*",)
SMALL = Size(2048, 6, 192, 512, 6, 2, 2, 64, "float32", remat="full")
LARGE = Size(151936, 28, 1024, 3072, 16, 8, 24, 1024, "bfloat16", remat="full")
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


def make_settings(shape: Shape, kind: str, groups: int) -> LearnerSettings:
    """Returns the algorithm of one line of the table, `groups` to a microbatch."""
    epochs, has_logprobs = KINDS[kind]
    c: Any = base.get_config()
    c.rollout.update(prompts=shape.groups, n=shape.n, max_completion_tokens=shape.completion_tokens)
    c.algorithm.epochs_per_rollout = epochs
    c.algorithm.kl_coef = 0.01 * has_logprobs
    c.algorithm.old_logprobs = "recompute" if has_logprobs else "sampler"
    c.optim.freeze = FREEZE
    c.train.microbatch_tokens = groups * (shape.prompt_tokens + shape.n * shape.completion_tokens)
    return learner_settings(resolve(c, has_paths=False))


def still_learner(shape: Shape, size: Size, kind: str, groups: int) -> Learner:
    """Returns a learner whose weights stand still, so that every step does the same."""
    rows, height, width = shape.grid
    shapes = ShapeTable((shape.prompt_tokens,), (rows,), height * width, shape.completion_tokens)
    settings, model = make_settings(shape, kind, groups), make_model(size)
    learner, optimizer = make_learner(settings, model, None, shapes), optax.sgd(0.0)
    update = make_update(model, optimizer, loss_config(settings), freeze=FREEZE)
    programs = dataclasses.replace(learner.programs, optimizer=optimizer, update=update)
    return dataclasses.replace(learner, programs=programs)


class Run:
    """Steps of one learner, with the features of its frozen tower computed once or in every pass.

    Weights, clips and rewards are random, the same in every run.
    """

    def __init__(self, learner: Learner, shape: Shape, size: Size, *, is_once: bool) -> None:
        rng = np.random.default_rng(0)
        self.learner, self.shape = learner, shape
        self.examples = [make_example(rng, shape, size) for _ in range(shape.groups)]
        self.rewards = rng.normal(size=(shape.groups, shape.n)).astype(np.float32)
        shapes, model = learner.cutter.shapes, learner.model
        tokens = shape.prompt_tokens + shape.n * shape.completion_tokens
        groups = learner.cutter.microbatch_tokens // tokens
        self.sampler = Sampler(
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
        self.encoder = None
        if is_once:
            self.encoder = make_encoder(
                model,
                self.sampler.prompts,
                groups=groups,
                held=shape.groups,
                patches=shapes.vision_rows[-1] * shapes.row_patches,
                mesh=None,
            )
        params = jax.jit(model.init)(jax.random.key(0))
        kl_coef = learner.settings.algorithm.kl_coef
        self.state = LearnerState(
            step=0,
            policy=init_state(params, learner.programs.optimizer),
            memory=AlgorithmState(kl_coef),
            reference=jax.tree.map(jnp.copy, params) if kl_coef else None,
        )

    def step(self) -> tuple[GroupBatch, float]:
        """Returns the rollout batch, and the norm of its gradient."""
        learner, shape = self.learner, self.shape
        published = learner.publish(self.state)
        examples = self.encoder(published.params, self.examples) if self.encoder else self.examples
        sampling = Sampling(max_tokens=shape.completion_tokens)
        ids = range(shape.groups)
        rollouts = self.sampler.generate(published.params, examples, ids, sampling)
        texts = [""] * self.rewards.size
        groups = make_groups(examples, rollouts, texts, (), version=0, n=shape.n)
        outcomes = Outcomes(self.rewards, np.ones(self.rewards.shape, bool), rollouts.lengths)
        collate = Collator(learner.cutter.shapes, GEOMETRY, TABLE_SIDE, 0)
        prepared, _ = learner.prepare(self.state, stack(groups, outcomes, collate))
        self.state, metrics = learner.update(self.state, prepared)
        return prepared.batch, metrics["optim/grad_norm"]


def measure(shape: Shape, size: Size, kind: str, repeats: int, groups: int) -> dict:
    """Returns one line of the table."""
    print(f"{shape.prompt_tokens} prompt tokens, {kind} ...", file=sys.stderr, flush=True)
    learner = still_learner(shape, size, kind, groups)
    runs = {
        "once": Run(learner, shape, size, is_once=True),
        "every pass": Run(learner, shape, size, is_once=False),
    }
    (batch, norm), (other, expected) = (r.step() for r in runs.values())
    same = (batch.completions == other.completions).mean()
    times = common.time_side_by_side({name: r.step for name, r in runs.items()}, repeats)
    whole = flops.forward(learner.model, batch)
    return {
        "prompt": shape.prompt_tokens,
        "G x n": f"{shape.groups} x {shape.n}",
        "beside the rollout": kind,
        "tower's share": 1 - flops.forward(learner.model, batch, has_tower=False) / whole,
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
