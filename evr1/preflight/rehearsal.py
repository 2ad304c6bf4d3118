"""All programs of a run are compiled before its first step: no later one waits for a compiler."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from evr1.batch.shapes import ShapeTable
from evr1.data.dataset import Dataset
from evr1.learner import rehearsal as learning
from evr1.learner.learner import Learner
from evr1.learner.state import LearnerState
from evr1.parallel import hosts
from evr1.parallel.ahead import Compiler
from evr1.rollout.heldout import HeldOut
from evr1.rollout.sample import GroupSampler
from evr1.sampler import rehearsal as sampling
from evr1.telemetry.writer import Writer

FILE = "programs.json"


@dataclasses.dataclass(frozen=True)
class Parts:
    """What calls programs.

    Attributes:
        learner: of the run.
        samplers: that draw its rollouts.
        heldout: its evaluation; without rows it calls none.
        dataset: its rows.
        is_checked: the checks before the first step will run.
    """

    learner: Learner
    samplers: Sequence[GroupSampler]
    heldout: HeldOut
    dataset: Dataset
    is_checked: bool


def compile_programs(parts: Parts, state: LearnerState, writer: Writer, workdir: Path) -> None:
    """Compiles what the steps of a run, its held-out evaluation and its checks call, and says which
    shapes they have; both are kept in the workdir.

    All hosts compile the same programs, each for itself; none of them runs meanwhile.

    Args:
        parts: of the run.
        state: that it starts from.
        writer: shows how far it is.
        workdir: of the run.
    """
    learner, heldout = parts.learner, parts.heldout
    shapes, merge_size = learner.cutter.shapes, learner.model.config.vision.merge
    writer.line(describe(shapes, merge_size))
    actor = heldout.actor
    with Compiler(writer.programs, is_in_order=hosts.count() > 1) as compiler:
        params, is_carried = learner.publish(state).params, bool(learner.settings.rollout.overdraw)
        visuals = sampling.blank_visuals(actor, compiler, params)
        row = parts.dataset.rows.train[0]
        learning.rehearse(learner, compiler, state, row, visuals, is_checked=parts.is_checked)
        for each in parts.samplers:
            sampler = each.actor.drawing(each.sampling, each.n, stretch=is_carried)
            sampling.rehearse(
                sampler, compiler, params, each.sampling, visuals, is_carried=is_carried
            )
        if heldout.rows:
            sampler = actor.drawing(heldout.sampling, 1, heldout.slots)
            sampling.rehearse(sampler, compiler, params, heldout.sampling, visuals)
        compiler.wait()
    hosts.barrier()
    if hosts.is_primary():
        write(workdir, shapes, compiler)


def describe(shapes: ShapeTable, merge_size: int) -> str:
    """Returns the shapes of a run in a line for the user."""
    tokens = shapes.row_patches // merge_size**2
    prompts = ", ".join(
        f"{p} tokens {f'with {f} x {tokens} visual ones' if f else 'without media'}"
        for p, f in shapes.pairs
    )
    parts = ", ".join(f"{p} + {r}" for p, r, _ in shapes.parts)
    return f"shapes: prompts of {prompts}; microbatches of {parts} tokens (prompt + completion)"


def write(workdir: Path, shapes: ShapeTable, compiler: Compiler) -> None:
    """Keeps the shapes and programs of a run in its workdir."""
    record = {
        "prompts": [{"tokens": p, "vision_rows": f} for p, f in shapes.pairs],
        "microbatches": [
            {"prompt_tokens": p, "completion_tokens": r, "vision_rows": f}
            for p, r, f in shapes.parts
        ],
        "row_patches": shapes.row_patches,
        "programs": [
            {"name": name, "seconds": round(seconds, 2)} for name, seconds in compiler.programs
        ],
    }
    path = workdir / FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
