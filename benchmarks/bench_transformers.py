"""A step of RL against loops in transformers: `python benchmarks/bench_transformers.py`.

The same random Qwen3-VL, clips, prompts, n and length of completions, one device: rollout, old
log-probabilities and one clipped update. Two loops stand for what one would write with torch: in
`transformers` every completion has a copy of its prompt and video, as in TRL; in `grouped` they
share them, as PrefixGrouper does. All take turns in one run. On a CPU each has one core and one
thread, and seconds are those of the processor, which other programs do not change.

Before that all three see the same completions: their log-probabilities and gradients are compared.
`of matmul` is the share that evr1's update reaches of the rate of a plain product of its own, which
is measured before; what is padded or computed again does not count as work.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
import torch

from benchmarks import common
from benchmarks.random_model import WIDER, write_model
from benchmarks.torch_loop import Drawn, Grouped, Loop
from evr1.batch.collate import Collator
from evr1.batch.shapes import plan_shapes
from evr1.config import base, resolve
from evr1.config.learner import learner_settings
from evr1.data.processor import Processor
from evr1.data.records import Example, Media, Row
from evr1.exchange import stack
from evr1.learner.learner import Prepared, make_learner
from evr1.models import load_model
from evr1.rl.outcomes import Outcomes
from evr1.rollout.sample import make_groups
from evr1.sampler.actor import Actor
from evr1.telemetry import flops

QUESTION = "<video>What colour has the disc that passes the door first, and how often does it turn?"
TWO_B = {  # Qwen3-VL-2B, but for its vocabulary and patches
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5000000.0,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2048,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """G prompts of a clip, and n completions of R tokens each.

    Attributes:
        rows: sequences of a pass of `transformers`, so that it has room.
    """

    groups: int
    n: int
    frames: int
    size: tuple[int, int]  # height, width
    tokens: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model, and what it is run on."""

    sizes: dict[str, Any]
    shapes: dict[str, Shape]
    dtype: str = "float32"
    device: str = "cpu"
    is_checkpointed: bool = False


PRESETS = {
    "cpu": Preset(
        WIDER,
        {
            "short": Shape(2, 8, 16, (112, 128), 64, rows=8),
            "long": Shape(1, 8, 16, (240, 240), 64, rows=2),
        },
    ),
    "gpu": Preset(TWO_B, {"long": Shape(4, 8, 32, (288, 512), 256, 8)}, "bfloat16", "cuda", True),
}


class Ours:
    """Steps of evr1, with the parts of a training and their defaults."""

    def __init__(self, directory: Path, examples: list[Example], shape: Shape, preset: Preset):
        c: Any = base.get_config()
        c.model = str(directory)
        c.rollout.update(prompts=shape.groups, n=shape.n, max_completion_tokens=shape.tokens)
        c.train.update(dtype=preset.dtype, remat="full" if preset.is_checkpointed else "none")
        settings = resolve(c, has_paths=False)
        processor = Processor.from_hf(str(directory))
        model = load_model(str(directory), dtype=preset.dtype, remat=settings.train.remat)
        shapes = plan_shapes(
            settings.shapes,
            np.array([len(example.tokens) for example in examples]),
            [example.grid_thw for example in examples],
            merge_size=processor.geometry.merge_size,
            max_prompt_tokens=settings.data.max_prompt_tokens,
            completion_tokens=shape.tokens,
        )
        self.learning_rate = settings.optim.learning_rate
        self.examples, self.n = examples, shape.n
        self.learner = make_learner(learner_settings(settings), model, None, shapes)
        self.actor = Actor(
            model,
            processor,
            slots=shape.groups,
            window=settings.rollout.window_steps,
            shapes=shapes,
        )
        drawn = self.actor.sampling(max_tokens=shape.tokens)
        self.sampling = dataclasses.replace(drawn, end_ids=())  # all are of one length
        self.state = self.learner.init()
        self.parts: list[list[Any]] = []  # of the last update
        rng = np.random.default_rng(0)
        self.rewards = rng.integers(0, 2, (shape.groups, shape.n)).astype(np.float32)
        self.rewards[:, 0], self.rewards[:, 1] = 0, 1  # every group has something to learn

    def rollout(self) -> Any:
        """Returns a rollout batch."""
        params = self.learner.publish(self.state).params
        ids = range(self.state.step, self.state.step + len(self.examples))
        drawn = self.actor.generate(params, self.examples, ids, self.sampling, n=self.n)
        texts = [""] * self.rewards.size
        groups = make_groups(self.examples, drawn, texts, (), version=0, n=self.n)
        outcomes = Outcomes(self.rewards, np.ones(self.rewards.shape, bool), drawn.lengths)
        collate: Collator = self.actor.collator(self.learner.cutter.shapes)
        return stack(groups, outcomes, collate)

    def prepare(self, rollouts: Any) -> Prepared:
        """Returns the batch with its log-probabilities."""
        prepared, _ = self.learner.prepare(self.state, rollouts)
        return prepared

    def update(self, prepared: Prepared) -> float:
        """Makes one update; returns the norm of the gradient."""
        self.parts = prepared.parts
        self.state, metrics = self.learner.update(self.state, prepared)
        jax.block_until_ready(self.state.policy.params)
        return metrics["optim/grad_norm"]

    def work(self) -> float:
        """Returns the operations of the last update."""
        parts = (part for minibatch in self.parts for part in minibatch)
        return sum(flops.update(self.learner.model, part, has_tower=True) for part in parts)

    def step(self, clock: Any) -> dict[str, float]:
        """Makes a step; returns the seconds of its phases."""
        marks = [clock()]
        rollouts = self.rollout()
        marks.append(clock())
        prepared = self.prepare(rollouts)
        marks.append(clock())
        self.update(prepared)
        marks.append(clock())
        return {
            "rollout": marks[1] - marks[0],
            "log-probs": marks[2] - marks[1],
            "update": marks[3] - marks[2],
        }


def make_examples(directory: Path, shape: Shape) -> list[Example]:
    """Returns prompts of random clips at two frames a second."""
    rng = np.random.default_rng(0)
    processor = Processor.from_hf(str(directory))
    examples = []
    for place in range(shape.groups):
        frames = rng.integers(0, 256, (shape.frames, *shape.size, 3), np.uint8)
        clip = Media(frames, np.arange(shape.frames) / 2, True, 2.0)
        name = f"clip{place}"
        row = Row(
            place, QUESTION, "", "open-ended", "video", (), (name,), (), name, None, None, name, {}
        )
        examples.append(processor.encode(row, [clip], raw=True))
    return examples


def compare(ours: Ours, theirs: dict[str, Loop]) -> dict[str, float]:
    """Returns by how much log-probabilities and gradients differ on the same completions."""
    prepared = ours.prepare(ours.rollout())
    batch = prepared.batch
    shape = batch.completions.shape
    tokens = torch.from_numpy(np.asarray(batch.completions, np.int64).reshape(-1, shape[-1]))
    gains = torch.from_numpy(np.array(batch.advantages)[..., 0].reshape(-1))
    expected = np.asarray(prepared.rollouts.rollouts.logprobs).reshape(-1, shape[-1])
    norm = ours.update(prepared)
    differences = {}
    for name, loop in theirs.items():
        moved = tokens.to(loop.device)
        old = loop.old_logprobs(moved)
        differences[f"{name}: log-probs off by"] = float(np.abs(old.cpu().numpy() - expected).max())
        reached = loop.update(Drawn(moved, gains.to(loop.device), old))
        differences[f"{name}: gradient norm off by"] = abs(reached / norm - 1)
    return differences


def measure(
    directory: Path, shape: Shape, preset: Preset, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns the lines of the table, one a variant, and the differences."""
    examples = make_examples(directory, shape)
    print(f"{len(examples[0].tokens)} prompt tokens ...", file=sys.stderr, flush=True)
    ours = Ours(directory, examples, shape, preset)
    fields: dict[str, Any] = {
        "n": shape.n,
        "tokens": shape.tokens,
        "rows": shape.rows,
        "banned": ours.actor.processor.banned_ids,
        "device": preset.device,
        "dtype": preset.dtype,
        "learning_rate": ours.learning_rate,
        "is_checkpointed": preset.is_checkpointed,
    }
    theirs = {
        "transformers": Loop(directory, examples, **fields),
        "grouped": Grouped(directory, examples, **fields),
    }
    differences = compare(ours, theirs)
    clock = time.process_time if preset.device == "cpu" else time.perf_counter
    rate = common.matmul_rate(preset.dtype, clock)
    gains = ours.rewards.reshape(-1) - ours.rewards.mean()
    works = {"evr1": lambda: ours.step(clock)}
    works |= {name: (lambda loop=loop: loop.step(gains, clock)) for name, loop in theirs.items()}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            phases = work()
            if turn:  # the first one compiles and warms up
                taken[name].append(phases | {"step": sum(phases.values())})
    rows = []
    for name, turns in taken.items():
        line: dict[str, Any] = {
            "P": len(examples[0].tokens),
            "G x n": f"{shape.groups} x {shape.n}",
        }
        line["with"] = name
        for phase in turns[0]:
            line[f"{phase} s"] = statistics.median(turn[phase] for turn in turns)
            pairs = zip(turns, taken["evr1"], strict=True)
            times = statistics.median(turn[phase] / max(own[phase], 1e-9) for turn, own in pairs)
            if phase == "step" or own_takes(taken["evr1"], phase):
                line[f"{phase} times"] = times
            else:
                line[f"{phase} times"] = "-"
        line["of matmul"] = "-"
        if name == "evr1":
            line["of matmul"] = ours.work() / line["update s"] / rate
        rows.append(line)
    return rows, differences


def own_takes(turns: list[dict[str, float]], phase: str) -> bool:
    """Returns whether evr1 has this phase at all."""
    return statistics.median(turn[phase] / turn["step"] for turn in turns) > 0.005


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--shapes", nargs="+", help="of short and long; all unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    if preset.device == "cpu":
        common.use_one_core()
        torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "model"
        write_model(directory, preset.sizes, preset.dtype)
        for shape in [preset.shapes[name] for name in args.shapes or preset.shapes]:
            lines, differences = measure(directory, shape, preset, args.repeats)
            rows += lines
            for name, value in differences.items():
                print(f"{name} {value:.1e}", flush=True)
    common.show("a step of RL", rows, args.json)


if __name__ == "__main__":
    main()
