"""Answers benchmarks, or held-out rows, with a model.

    evr1 evaluate --config=eval_video --config.workdir=DIR \\
        --config.model=MODEL_DIR --config.tasks='("lvbench",)' --config.data_dir=DATA

DATA holds each benchmark in a folder of its name. DIR gets every answer as it comes, and the scores
at the end; the same command goes on after a stop. --part 2/8 answers the second of eight shares of
the videos, on another machine say; --retry answers once more what has failed.

    evr1 evaluate --config=CONFIG --config.workdir=DIR --config.model=MODEL_DIR \\
        --config.data.eval=rows.jsonl --config.data.media_dir=videos/

With the config of a run its held-out rows are answered, as at its evaluations: its data, rewards
and eval sections count, its slots, window and mesh. DIR gets `evaluation.json` (the metrics eval/*)
and `evaluation.jsonl` (a line a row, as in rollouts.jsonl).
"""

import contextlib
import dataclasses
import functools
import json
import os
from pathlib import Path

import ml_collections
from absl import flags

from evr1 import rewards
from evr1.batch.shapes import plan_shapes
from evr1.config import Settings, checks, command, evals, resolve
from evr1.config.evals import BenchmarkSettings
from evr1.data import left_out
from evr1.data.dataset import (
    budgets,
    chooses_frames,
    heldout_loader,
    open_source,
    planned_sizes,
    read_rows,
    row_sizes,
)
from evr1.data.media import video_budget
from evr1.data.processor import Processor
from evr1.formats import problem_types
from evr1.formats.part import Part
from evr1.parallel import leaving
from evr1.rewards import extra

RECORDS, METRICS = "evaluation.jsonl", "evaluation.json"
# What an interrupt leaves:
KEPT = "answers of benchmarks are kept, the same command goes on"
REDONE = "nothing is written, the same command begins anew"


def use_whole_vectors() -> None:
    """Lets XLA use the whole width of a CPU's vectors, of which AVX-512 has half by default.

    Takes an eighth of the time from a job of benchmarks. To be called before jax is used; without
    effect on other devices, and where XLA_FLAGS says otherwise.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_prefer_vector_width" not in given:
        os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_prefer_vector_width=512"


def evaluate(settings: Settings) -> dict[str, float]:
    """Writes the evaluation of `model` on the rows of `data.eval`; returns its metrics.

    Raises:
        ValueError: bad rows, media, budgets or model, in one line.
    """
    _check_paths(settings)
    from evr1.exchange import Published  # after the checks, which need not wait for jax
    from evr1.telemetry.workdir import replace_file, sole_run

    workdir = Path(settings.workdir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sole_run(workdir))
        heldout = _open(settings, stack)
        params = heldout.actor.load(settings.model, settings.lora.adapter)
        metrics, records = heldout.evaluate(Published(params, 0), 0)
        lines = (json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in records)
        replace_file(workdir / RECORDS, [line.encode() for line in lines])
        replace_file(workdir / METRICS, [json.dumps(metrics, indent=2).encode() + b"\n"])
    return metrics


def _check_paths(settings: Settings) -> None:
    for field, path, is_there, what in (
        ("workdir", settings.workdir, True, "DIR"),
        ("model", settings.model, checks.is_model(settings.model), "DIR"),
        ("data.eval", settings.data.eval, Path(settings.data.eval).is_file(), "FILE"),
    ):
        if not path:
            raise ValueError(f"config.{field} is not given; add --config.{field}={what}")
        if not is_there:
            fix = "check it"
            if (
                field == "data.eval" and settings.data.generate
            ):  # which makes rows for training only
                fix = (
                    "give the rows of a run that made them: --config.data.eval=RUN/data/"
                    "heldout.jsonl --config.data.media_dir=RUN/data"
                )
            raise ValueError(f"config.{field} is {path}: no such {what.lower()}; {fix}")


def _open(settings: Settings, stack: contextlib.ExitStack):
    """Returns the held-out evaluation that the settings describe."""
    import jax

    from evr1.judge import with_judge
    from evr1.models.io import hf
    from evr1.parallel.mesh import make_mesh
    from evr1.rollout.heldout import HeldOut
    from evr1.rollout.scoring import open_pool
    from evr1.sampler import room
    from evr1.sampler.actor import open_actor
    from evr1.sampler.room import GroupShape

    s, d, r = settings, settings.data, settings.rollout
    mesh = make_mesh(**dataclasses.asdict(s.mesh))
    mesh = mesh if mesh.size > 1 else None
    side = str(hf.side_dir(s.model))
    processor = Processor.from_hf(
        side, d.template, d.thinking, s.rewards.box_scale, d.template_variables, d.sanitize
    )
    scorers = extra.all_scorers(s.rewards.extra)
    types = problem_types.Types(scorers, s.rewards.unknown_type)
    check = functools.partial(rewards.check_row, scorers=scorers, box_scale=s.rewards.box_scale)
    alone = dataclasses.replace(d, sources=(), train=d.eval, eval="")
    limits = budgets(d, side)
    sizes = row_sizes(d, limits, processor.geometry, s.rewards.box_scale)
    rows = read_rows(alone, types.canonical, check=check, note=print, sizes=sizes).train
    rows = rows[: s.eval.prompts or None]
    for line in types.lines():
        print(line)
    quarantine = Path(s.workdir) / "quarantine.jsonl"
    if chooses_frames(dataclasses.replace(d, preprocess=False), rows):
        print(video_budget.describe(limits, Path(side), processor.geometry))
    source = open_source(d, limits, processor.geometry, quarantine, stack)
    loader = functools.partial(heldout_loader, d, rows, processor, source)
    with loader(1) as planned:
        for line in left_out.lines(rows, planned.lengths, d.max_prompt_tokens, "held-out"):
            print(line)
        lengths, grids = planned_sizes(rows, planned.lengths, source, d.max_prompt_tokens)
    shapes = plan_shapes(
        s.shapes,
        lengths,
        grids,
        merge_size=processor.geometry.merge_size,
        max_prompt_tokens=d.max_prompt_tokens,
        completion_tokens=s.eval.max_completion_tokens,
    )
    actor = open_actor(
        s.model,
        processor,
        dtype=s.train.dtype,
        mesh=mesh,
        window=r.window_steps,
        shapes=shapes,
    )
    wanted = min((r.slots or min(r.prompts, room.MOST_UNCOUNTED)) * r.n, len(rows))
    slots = room.slots_alone(actor.model, actor.mesh, GroupShape.largest(1, shapes), wanted)
    if actor.mesh is not None:
        stack.enter_context(jax.set_mesh(actor.mesh))
    pool = open_pool(s.rewards, stack, processor.think_open)
    judged = with_judge(s.rewards, pool, s.train.dtype, mesh)
    limit = s.eval.max_completion_tokens
    greedy = actor.sampling(temperature=0.0, max_tokens=limit, seed=s.seed)

    def batches():
        made = loader(slots)
        made.misfit, made.tell = shapes.misfit, print
        return made

    return HeldOut(rows, batches, actor, greedy, slots, judged.score_batch)


def answer_benchmarks(settings: BenchmarkSettings, part: str, retry: bool) -> None:
    """Answers benchmarks, and scores what is answered.

    Args:
        settings: of the job.
        part: "i/N", the i-th of N shares of the videos.
        retry: once more what has failed.

    Raises:
        ValueError: bad input, in one line.
    """
    from evr1.evals import job, rescore  # after the config, whose errors need not wait for jax
    from evr1.telemetry import compile_cache

    share = Part.parse(part)
    compile_cache.enable(settings.compile_cache)
    job.run(settings, share, retry, rescore.wide_console())
    folder = Path(settings.workdir or "")
    # A part may have no samples, and be the first to end.
    if any(path.stat().st_size for path in folder.glob("samples_*.jsonl")):
        rescore.run(folder)


def main(config: ml_collections.ConfigDict, part: str = "1/1", retry: bool = False) -> None:
    """Resolves the config, evaluates, and prints the metrics."""
    command.quiet()
    if "tasks" in config:
        benchmarks = evals.resolve(config)
        with leaving.watching(lambda: leaving.Next(KEPT)):
            answer_benchmarks(benchmarks, part, retry)
        return
    from evr1.telemetry.display import failed_rows

    settings = resolve(config, has_paths=False)
    with leaving.watching(lambda: leaving.Next(REDONE)):
        metrics = evaluate(settings)
    for name, value in metrics.items():
        print(f"{name} {value:g}")
    if note := failed_rows(metrics):
        print(f"held-out rows: {note}")


def run() -> None:
    """Runs the command line; does not return."""
    flags.DEFINE_string("part", "1/1", "Of benchmarks: i/N, the i-th of N shares of the videos.")
    flags.DEFINE_bool("retry", False, "Of benchmarks: answer once more what has failed.")
    use_whole_vectors()
    command.run(
        lambda config: main(config, flags.FLAGS.part, flags.FLAGS.retry),
        lambda: f"interrupted; {KEPT}",
        __doc__,
    )


if __name__ == "__main__":
    run()
